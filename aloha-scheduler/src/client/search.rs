//! Looking for the master that leads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use aloha_rpc::{RpcAddress, RpcEndpointRef, RpcEnv};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::error::{MasterOutcome, TriedMaster};
use super::masters::{PAUSE, PAUSE_MAX};
use crate::jitter;
use crate::messages::{MASTER, MasterMessage};

/// How long a master may take to say whether it leads. Nobody waits for one that is cut off: all are looked at at once.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// Looks at all masters until one leads.
#[derive(Debug)]
pub(super) struct Search {
    candidates: Vec<Arc<Candidate>>,
}

/// A master that may lead.
#[derive(Debug)]
struct Candidate {
    env: RpcEnv,
    address: RpcAddress,
    /// Once a master was found there.
    endpoint: OnceLock<RpcEndpointRef<MasterMessage>>,
    outcome: Mutex<MasterOutcome>,
    /// The highest epoch that any of several was found to lead in: one with a lower one has not noticed yet.
    newest: Option<Arc<AtomicU64>>,
}

impl Search {
    pub(super) fn new(env: &RpcEnv, addresses: &[RpcAddress]) -> Self {
        let newest = (addresses.len() > 1).then(Arc::default);
        let candidate = |address: &RpcAddress| {
            Arc::new(Candidate {
                env: env.clone(),
                address: address.clone(),
                endpoint: OnceLock::new(),
                outcome: Mutex::new(MasterOutcome::Unheard),
                newest: newest.clone(),
            })
        };
        Self {
            candidates: addresses.iter().map(candidate).collect(),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.candidates.len()
    }

    /// The master at this place, if one was found there.
    pub(super) fn master(&self, place: usize) -> Option<&RpcEndpointRef<MasterMessage>> {
        self.candidates.get(place)?.endpoint.get()
    }

    /// What came of each when it was last looked at.
    pub(super) fn tried(&self) -> Vec<TriedMaster> {
        let tried = self.candidates.iter().map(|candidate| TriedMaster {
            address: candidate.address.clone(),
            outcome: candidate.outcome(),
        });
        tried.collect()
    }

    /// Notes what came of the one at this place.
    pub(super) fn note(&self, place: usize, outcome: MasterOutcome) {
        if let Some(candidate) = self.candidates.get(place) {
            candidate.note(outcome);
        }
    }

    /// Looks at all at once, at each again and again with pauses, until one leads; gives its place. Where no cluster is
    /// `expected`, it gives up once nobody there can be one that leads soon.
    ///
    /// Cancel safe: dropped, it stops looking.
    pub(super) async fn run(&self, expected: bool) -> Option<usize> {
        let (heard, mut news) = mpsc::channel(1);
        // Dropped, it ends them.
        let mut looking = JoinSet::new();
        let mut unheard = vec![true; self.candidates.len()];
        for (place, candidate) in self.candidates.iter().enumerate() {
            let (candidate, heard) = (Arc::clone(candidate), heard.clone());
            looking.spawn(async move { candidate.look_until_it_leads(place, heard).await });
        }
        drop(heard);
        while let Some((place, leads)) = news.recv().await {
            if leads {
                return Some(place);
            }
            unheard[place] = false;
            let is_alive = |candidate: &Arc<Candidate>| candidate.outcome().is_alive();
            if !expected && !unheard.contains(&true) && !self.candidates.iter().any(is_alive) {
                return None;
            }
        }
        None
    }
}

impl Candidate {
    fn outcome(&self) -> MasterOutcome {
        let outcome = self.outcome.lock();
        outcome.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, outcome: MasterOutcome) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
    }

    /// Tells after each look whether it leads, until it does.
    async fn look_until_it_leads(&self, place: usize, heard: mpsc::Sender<(usize, bool)>) {
        let mut pause = PAUSE;
        loop {
            let outcome = self.look().await;
            let leads = matches!(outcome, MasterOutcome::Leads);
            self.note(outcome);
            if heard.send((place, leads)).await.is_err() || leads {
                return;
            }
            sleep(jitter::shorten(pause, 0.5, self.env.runtime().random_u64())).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Asks it what only a leader answers.
    async fn look(&self) -> MasterOutcome {
        let endpoint = match self.endpoint.get() {
            Some(endpoint) => endpoint,
            None => match self.env.retrieve_endpoint_ref(&self.address, MASTER).await {
                Ok(endpoint) => self.endpoint.get_or_init(|| endpoint),
                Err(error) => return error.into(),
            },
        };
        let question = |call| MasterMessage::Cluster { call };
        let cluster = match endpoint.ask_for(LOOK_TIMEOUT, question).await {
            Ok(cluster) => cluster,
            Err(error) => return error.into(),
        };
        match &self.newest {
            Some(newest) => {
                let before = newest.fetch_max(cluster.epoch, Ordering::Relaxed);
                if cluster.epoch < before {
                    return MasterOutcome::Outdated { epoch: before };
                }
                MasterOutcome::Leads
            }
            None => MasterOutcome::Leads,
        }
    }
}
