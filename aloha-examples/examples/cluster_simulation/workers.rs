//! The workers as they really are, whatever the master believes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use aloha_scheduler::runner::CgroupSupport;
use aloha_scheduler::{
    AppDescription, AppId, AttemptState, Attributes, HeldAttempt, Outcome, Resources, WorkerId,
    WorkerRegistration,
};

/// Whether a machine runs, and whether the master can reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// It runs and is connected.
    Up,
    /// It runs, and the network is cut.
    Cut,
    /// It does not run.
    Down,
}

/// A simulated worker.
pub(crate) struct SimulatedWorker {
    pub(crate) id: WorkerId,
    pub(crate) link: Link,
    pub(crate) offers: Resources,
    host: String,
    held: BTreeMap<(AppId, u32), Attempt>,
}

/// An attempt that a worker holds.
struct Attempt {
    description: Arc<AppDescription>,
    /// How it ended, until the master knows.
    outcome: Option<Outcome>,
}

impl SimulatedWorker {
    /// A machine of one of three sizes.
    pub(crate) fn new(number: u64, wall: SystemTime) -> Self {
        let cores = match number % 10 {
            0 => 64,
            1 | 2 => 32,
            _ => 16,
        };
        let host = format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255);
        Self {
            id: WorkerId::mint(wall, &host, 7078),
            link: Link::Up,
            offers: Resources {
                cores,
                memory_mib: u64::from(cores) * 4096,
            },
            host,
            held: BTreeMap::new(),
        }
    }

    /// What it says when it registers.
    pub(crate) fn registration(&self) -> WorkerRegistration {
        let held = |((app, attempt), of): (&(AppId, u32), &Attempt)| HeldAttempt {
            app: app.clone(),
            attempt: *attempt,
            occupies: match of.outcome {
                None => of.description.needs(),
                Some(_) => Resources::default(),
            },
            state: match of.outcome {
                None => AttemptState::Running,
                Some(_) => AttemptState::Ended,
            },
            epoch: 1,
            description: of.outcome.is_none().then(|| Arc::clone(&of.description)),
        };
        WorkerRegistration {
            id: self.id.clone(),
            host: self.host.clone(),
            port: 7078,
            offers: self.offers,
            attempts: self.held.iter().map(held).collect(),
            enforces: CgroupSupport::default(),
            attributes: Attributes::new(),
            epoch: 1,
        }
    }

    /// Takes an attempt on; false if it has it already.
    pub(crate) fn take(&mut self, key: (AppId, u32), description: Arc<AppDescription>) -> bool {
        let is_new = !self.held.contains_key(&key);
        let outcome = None;
        self.held.entry(key).or_insert(Attempt {
            description,
            outcome,
        });
        is_new
    }

    /// Ends an attempt that runs, and returns the cores that it used.
    pub(crate) fn end(&mut self, key: &(AppId, u32), outcome: Outcome) -> Option<u32> {
        let attempt = self.held.get_mut(key)?;
        let ended = attempt
            .outcome
            .is_none()
            .then_some(attempt.description.cores);
        attempt.outcome.get_or_insert(outcome);
        ended
    }

    /// Forgets an attempt whose end the master knows, and returns how it ended; `None` if it was not here.
    pub(crate) fn forget(&mut self, key: &(AppId, u32)) -> Option<Outcome> {
        self.held.remove(key)?.outcome
    }

    /// The ends that the master does not know.
    pub(crate) fn unreported(&self) -> Vec<((AppId, u32), Outcome)> {
        let ended = |(key, attempt): (&(AppId, u32), &Attempt)| {
            Some((key.clone(), attempt.outcome.clone()?))
        };
        self.held.iter().filter_map(ended).collect()
    }

    /// The machine fails, and with it all that it runs; returns the cores that were used.
    pub(crate) fn fail(&mut self) -> u32 {
        self.link = Link::Down;
        let running = std::mem::take(&mut self.held).into_values();
        let running = running.filter(|attempt| attempt.outcome.is_none());
        running.map(|attempt| attempt.description.cores).sum()
    }
}
