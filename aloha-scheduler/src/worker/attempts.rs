use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::app::AppDescription;
use crate::application::ShutdownReason;
use crate::attempt::{AttemptReport, AttemptState, HeldAttempt, Outcome};
use crate::ids::AppId;
use crate::resources::Resources;

/// An attempt: of which application, and which.
pub(super) type AttemptKey = (AppId, u32);

/// Why an attempt is being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The master said so.
    Request,
    /// The worker is stopping.
    Shutdown,
    /// The worker is cut off from every master, and it may be started elsewhere.
    CutOff,
}

impl From<Cause> for ShutdownReason {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Request => Self::Killed,
            Cause::Shutdown => Self::WorkerStops,
            Cause::CutOff => Self::CutOff,
        }
    }
}

/// An attempt that was asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) cause: Cause,
    /// When to insist, if that was not yet done.
    pub(super) insist_at: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Held back until an earlier attempt of the same application is over, or a master has been heard again.
    Queued,
    /// Its process is being started.
    Starting,
    /// Its process runs.
    Running,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) description: Arc<AppDescription>,
    /// The epoch of the leadership that launched it, 0 where an earlier worker left it.
    pub(super) epoch: u64,
    /// How long it may go on once asked to end.
    pub(super) grace: Duration,
    pub(super) stage: Stage,
    pub(super) ending: Option<Ending>,
}

#[derive(Debug)]
struct Spooled {
    outcome: Outcome,
    sent: Option<Instant>,
}

/// The attempts this worker has: those it holds, and those whose end is still to be acknowledged.
#[derive(Debug)]
pub(super) struct Attempts {
    offers: Resources,
    held: BTreeMap<AttemptKey, Held>,
    spool: BTreeMap<AttemptKey, Spooled>,
    /// The latest attempt known of each application, so that a launch that is late starts nothing twice.
    latest: BTreeMap<AppId, u32>,
    /// Those whose end was acknowledged, oldest first: they may be forgotten.
    settled: VecDeque<AppId>,
    settled_max: usize,
}

impl Attempts {
    pub(super) fn new(offers: Resources, settled_max: usize) -> Self {
        let (held, spool, latest, settled) = Default::default();
        Self {
            offers,
            held,
            spool,
            latest,
            settled,
            settled_max,
        }
    }

    /// Whether an attempt was launched here before, or a later one of its application was.
    pub(super) fn is_known(&self, (app, attempt): &AttemptKey) -> bool {
        self.latest.get(app).is_some_and(|latest| attempt <= latest)
    }

    pub(super) fn get_mut(&mut self, key: &AttemptKey) -> Option<&mut Held> {
        self.held.get_mut(key)
    }

    pub(super) fn held(&self) -> impl Iterator<Item = (&AttemptKey, &Held)> {
        self.held.iter()
    }

    /// The attempts of one application.
    pub(super) fn held_of(&self, app: &AppId) -> Vec<AttemptKey> {
        self.held
            .range((app.clone(), 0)..=(app.clone(), u32::MAX))
            .map(|(key, _)| key.clone())
            .collect()
    }

    pub(super) fn is_spooled(&self, key: &AttemptKey) -> bool {
        self.spool.contains_key(key)
    }

    pub(super) fn insert(&mut self, key: AttemptKey, held: Held) {
        let latest = self.latest.entry(key.0.clone()).or_default();
        *latest = key.1.max(*latest);
        self.held.insert(key, held);
    }

    /// Takes an attempt out of those held.
    pub(super) fn remove(&mut self, key: &AttemptKey) -> Option<Held> {
        self.held.remove(key)
    }

    /// Keeps how an attempt ended until that is acknowledged.
    pub(super) fn spool(&mut self, key: AttemptKey, outcome: Outcome) {
        let latest = self.latest.entry(key.0.clone()).or_default();
        *latest = key.1.max(*latest);
        self.spool.insert(
            key,
            Spooled {
                outcome,
                sent: None,
            },
        );
    }

    /// Takes note that a master knows how an attempt ended; whether that is news.
    pub(super) fn acknowledge(&mut self, key: &AttemptKey) -> bool {
        let is_news = self.spool.remove(key).is_some();
        if is_news {
            self.settle(key.clone());
        }
        is_news
    }

    /// Remembers an attempt whose end a master knows.
    pub(super) fn settle(&mut self, key: AttemptKey) {
        let latest = self.latest.entry(key.0.clone()).or_default();
        *latest = key.1.max(*latest);
        self.settled.push_back(key.0);
        while self.settled.len() > self.settled_max {
            let Some(app) = self.settled.pop_front() else {
                break;
            };
            let again = self.settled.contains(&app)
                || self
                    .spool
                    .keys()
                    .chain(self.held.keys())
                    .any(|(a, _)| *a == app);
            if !again {
                self.latest.remove(&app);
            }
        }
    }

    /// Marks every report as not yet sent, to this master.
    pub(super) fn forget_sent(&mut self) {
        self.spool
            .values_mut()
            .for_each(|spooled| spooled.sent = None);
    }

    /// The reports to send now: those never sent, and those sent before `unless_after` and not acknowledged since.
    pub(super) fn reports_due(
        &mut self,
        unless_after: Option<Instant>,
        now: Instant,
    ) -> Vec<AttemptReport> {
        let mut due = Vec::new();
        for ((app, attempt), spooled) in &mut self.spool {
            if spooled
                .sent
                .is_none_or(|sent| unless_after.is_some_and(|limit| sent <= limit))
            {
                spooled.sent = Some(now);
                let (app, outcome) = (app.clone(), spooled.outcome.clone());
                due.push(AttemptReport::Ended {
                    app,
                    attempt: *attempt,
                    outcome,
                });
            }
        }
        due
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub(super) fn all_acknowledged(&self) -> bool {
        self.spool.is_empty()
    }

    pub(super) fn used(&self) -> Resources {
        self.held
            .values()
            .map(|held| held.description.needs())
            .fold(Resources::default(), Resources::plus)
    }

    pub(super) fn free(&self) -> Resources {
        self.offers.minus(self.used())
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.held
            .values()
            .filter_map(|held| held.ending?.insist_at)
            .min()
    }

    /// What a registration says of them.
    pub(super) fn to_held_attempts(&self) -> Vec<HeldAttempt> {
        let held = self.held.iter().map(|((app, attempt), held)| {
            let state = if held.stage == Stage::Running {
                AttemptState::Running
            } else {
                AttemptState::Starting
            };
            HeldAttempt {
                app: app.clone(),
                attempt: *attempt,
                occupies: held.description.needs(),
                state,
                epoch: held.epoch,
                description: Some(Arc::clone(&held.description)),
            }
        });
        let ended = self.spool.keys().map(|(app, attempt)| HeldAttempt {
            app: app.clone(),
            attempt: *attempt,
            occupies: Resources::default(),
            state: AttemptState::Ended,
            epoch: 0,
            description: None,
        });
        held.chain(ended).collect()
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn check_invariants(&self) {
        // What an earlier worker left may be more than this one offers; what is free is then nothing, and not less.
        assert!(
            self.free().fits_in(&self.offers),
            "more is free than there is"
        );
        assert!(self.settled.len() <= self.settled_max);
        for key in self.held.keys().chain(self.spool.keys()) {
            assert!(
                self.is_known(key),
                "an attempt is held whose number was forgotten"
            );
        }
        assert!(
            self.held.keys().all(|key| !self.spool.contains_key(key)),
            "an attempt is held and over"
        );
        let mut active: Vec<_> = self
            .held
            .iter()
            .filter(|(_, held)| !matches!(held.stage, Stage::Queued))
            .map(|((app, _), _)| app)
            .collect();
        let attempts = active.len();
        active.dedup();
        assert_eq!(
            active.len(),
            attempts,
            "two attempts of one application run"
        );
    }
}
