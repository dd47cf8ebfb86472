use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tracing::error;

use super::resource_index::ResourceIndex;
use crate::app::Placement;
use crate::constraint::Attributes;
use crate::ids::{AppId, WorkerId};
use crate::resources::Resources;
use crate::runner::CgroupSupport;

/// What is stored of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRecord {
    /// Its id.
    pub id: WorkerId,
    /// The host it is reached at.
    pub host: String,
    /// The port it is reached at.
    pub port: u16,
    /// What it offers.
    pub offers: Resources,
    /// What of the resources of applications it enforces.
    #[serde(default)]
    pub enforces: CgroupSupport,
    /// What it is or has besides.
    #[serde(default)]
    pub attributes: Attributes,
}

impl WorkerRecord {
    /// What a placement tells of its worker.
    pub(crate) fn of_placement(on: &Placement) -> Self {
        let (host, port) = on.address.rsplit_once(':').unwrap_or((&on.address, ""));
        Self {
            id: on.worker.clone(),
            host: host.to_owned(),
            port: port.parse().unwrap_or(0),
            offers: Resources::default(),
            enforces: CgroupSupport::default(),
            attributes: Attributes::new(),
        }
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// Whether a worker can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WorkerState {
    /// It can, and takes applications.
    Alive,
    /// It can, but takes no more applications and goes once those it has ended.
    Leaving,
    /// It cannot for now; its applications may well run on.
    Disconnected,
    /// It is gone, and listed for a while yet.
    Dead,
}

impl WorkerState {
    /// Every state there is.
    pub const ALL: [Self; 4] = [Self::Alive, Self::Leaving, Self::Disconnected, Self::Dead];

    /// Whether `next` may follow: the one place that says so. One that registers becomes ALIVE from any.
    pub fn may_become(self, next: Self) -> bool {
        match self {
            Self::Alive => matches!(next, Self::Leaving | Self::Disconnected | Self::Dead),
            Self::Leaving => matches!(next, Self::Alive | Self::Disconnected | Self::Dead),
            Self::Disconnected => matches!(next, Self::Alive | Self::Dead),
            Self::Dead => next == Self::Alive,
        }
    }
}

impl fmt::Display for WorkerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Alive => "ALIVE",
            Self::Leaving => "LEAVING",
            Self::Disconnected => "DISCONNECTED",
            Self::Dead => "DEAD",
        })
    }
}

/// What a client sees of a worker at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its id.
    pub id: WorkerId,
    /// The host it is reached at.
    pub host: String,
    /// The port it is reached at.
    pub port: u16,
    /// Whether it can be reached.
    pub state: WorkerState,
    /// The cores it has.
    pub cores: u32,
    /// Those in use.
    pub cores_used: u32,
    /// The memory it has.
    pub memory_mib: u64,
    /// What of it is in use.
    pub memory_mib_used: u64,
    /// The applications that occupy it.
    pub apps: Vec<AppId>,
    /// How long ago it was last heard of, in milliseconds.
    pub heard_millis_ago: u64,
    /// What of the resources of applications it enforces.
    pub enforces: CgroupSupport,
    /// What it is or has besides.
    pub attributes: Attributes,
}

/// An attempt: of which application, and which.
pub(crate) type AttemptKey = (AppId, u32);

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) record: WorkerRecord,
    pub(crate) state: WorkerState,
    heard: Instant,
    died: Option<Instant>,
    attempts: BTreeMap<AttemptKey, Resources>,
    used: Resources,
}

impl Worker {
    /// Everything that occupies it: what it was given, and strays that it is still to end.
    pub(crate) fn attempts(&self) -> impl Iterator<Item = &AttemptKey> {
        self.attempts.keys()
    }

    /// What an attempt occupies.
    pub(crate) fn occupied_by(&self, attempt: &AttemptKey) -> Resources {
        self.attempts.get(attempt).copied().unwrap_or_default()
    }

    fn free(&self) -> Resources {
        self.record.offers.minus(self.used)
    }
}

/// The workers, and in step with them who has room and whose time runs out.
#[derive(Debug)]
pub(crate) struct Workers {
    timeout: Duration,
    /// How long a dead worker stays listed.
    listed_dead: Duration,
    workers: BTreeMap<WorkerId, Worker>,
    /// What is free on those that take applications.
    free: ResourceIndex,
    /// What those offer altogether.
    offered: ResourceIndex,
    deadlines: BTreeSet<(Instant, WorkerId)>,
}

impl Workers {
    pub(crate) fn new(timeout: Duration, listed_dead: Duration) -> Self {
        let (workers, deadlines) = (BTreeMap::new(), BTreeSet::new());
        let (free, offered) = (ResourceIndex::default(), ResourceIndex::default());
        Self {
            timeout,
            listed_dead,
            workers,
            free,
            offered,
            deadlines,
        }
    }

    pub(crate) fn get(&self, id: &WorkerId) -> Option<&Worker> {
        self.workers.get(id)
    }

    pub(crate) fn state(&self, id: &WorkerId) -> Option<WorkerState> {
        self.workers.get(id).map(|worker| worker.state)
    }

    /// What is free where something can be placed.
    pub(crate) fn free(&self) -> &ResourceIndex {
        &self.free
    }

    /// What those workers have on which something can be placed.
    pub(crate) fn offered(&self) -> &ResourceIndex {
        &self.offered
    }

    /// Puts a worker in, alive, in the place of what was known of it.
    pub(crate) fn register(
        &mut self,
        record: WorkerRecord,
        attempts: BTreeMap<AttemptKey, Resources>,
        now: Instant,
    ) {
        self.put(record, WorkerState::Alive, attempts, now);
    }

    /// Puts a worker in that was stored: away, and with a full timeout from now on to come back.
    pub(crate) fn restore(
        &mut self,
        record: WorkerRecord,
        attempts: BTreeMap<AttemptKey, Resources>,
        now: Instant,
    ) {
        self.put(record, WorkerState::Disconnected, attempts, now);
    }

    fn put(
        &mut self,
        record: WorkerRecord,
        state: WorkerState,
        attempts: BTreeMap<AttemptKey, Resources>,
        now: Instant,
    ) {
        let id = record.id.clone();
        self.unlink(&id);
        let used = attempts
            .values()
            .copied()
            .fold(Resources::default(), Resources::plus);
        let worker = Worker {
            record,
            state,
            heard: now,
            died: None,
            attempts,
            used,
        };
        self.workers.insert(id.clone(), worker);
        self.link(&id);
    }

    pub(crate) fn heard_from(&mut self, id: &WorkerId, now: Instant) {
        self.change(id, |worker| worker.heard = now);
    }

    /// Moves a worker on, if its state allows it, and returns where it was.
    pub(crate) fn set_state(&mut self, id: &WorkerId, state: WorkerState) -> Option<WorkerState> {
        let from = self.state(id)?;
        if !from.may_become(state) {
            error!(worker = %id, %from, to = %state, "refused an illegal change of state");
            return None;
        }
        self.change(id, |worker| worker.state = state);
        Some(from)
    }

    /// Declares a worker dead, and returns what occupied it.
    pub(crate) fn bury(&mut self, id: &WorkerId, now: Instant) -> Vec<AttemptKey> {
        let mut attempts = BTreeMap::new();
        self.change(id, |worker| {
            worker.state = WorkerState::Dead;
            worker.died = Some(now);
            worker.used = Resources::default();
            attempts = std::mem::take(&mut worker.attempts);
        });
        attempts.into_keys().collect()
    }

    pub(crate) fn forget(&mut self, id: &WorkerId) {
        self.unlink(id);
        self.workers.remove(id);
    }

    /// Counts an attempt. One that is counted already, as a stray, never becomes smaller by it: room does not grow here.
    pub(crate) fn occupy(&mut self, id: &WorkerId, attempt: AttemptKey, needs: Resources) {
        self.change(id, |worker| {
            let counted = worker.attempts.entry(attempt).or_default();
            counted.cores = counted.cores.max(needs.cores);
            counted.memory_mib = counted.memory_mib.max(needs.memory_mib);
            worker.used = worker
                .attempts
                .values()
                .copied()
                .fold(Resources::default(), Resources::plus);
        });
    }

    /// Gives back what an attempt occupied; says whether it did.
    pub(crate) fn release(&mut self, id: &WorkerId, attempt: &AttemptKey) -> bool {
        let mut found = false;
        self.change(id, |worker| {
            found = worker.attempts.remove(attempt).is_some();
            worker.used = worker
                .attempts
                .values()
                .copied()
                .fold(Resources::default(), Resources::plus);
        });
        found
    }

    /// A worker whose time has run out: one that was silent for half of the timeout, one that was away for all of it, or
    /// a dead one that was listed long enough.
    pub(crate) fn due(&self, now: Instant) -> Option<WorkerId> {
        self.deadlines
            .first()
            .filter(|(deadline, _)| *deadline <= now)
            .map(|(_, id)| id.clone())
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    pub(crate) fn statuses(&self, now: Instant) -> Vec<WorkerStatus> {
        let status = |worker: &Worker| {
            let Resources { cores, memory_mib } = worker.record.offers;
            WorkerStatus {
                id: worker.record.id.clone(),
                host: worker.record.host.clone(),
                port: worker.record.port,
                state: worker.state,
                cores,
                cores_used: worker.used.cores.min(cores),
                memory_mib,
                memory_mib_used: worker.used.memory_mib.min(memory_mib),
                apps: worker.attempts.keys().map(|(app, _)| app.clone()).collect(),
                heard_millis_ago: u64::try_from(
                    now.saturating_duration_since(worker.heard).as_millis(),
                )
                .unwrap_or(u64::MAX),
                enforces: worker.record.enforces.clone(),
                attributes: worker.record.attributes.clone(),
            }
        };
        self.workers.values().map(status).collect()
    }

    /// Changes a worker while it is out of the indexes, so that they cannot fall out of step.
    fn change(&mut self, id: &WorkerId, change: impl FnOnce(&mut Worker)) {
        self.unlink(id);
        if let Some(worker) = self.workers.get_mut(id) {
            change(worker);
        }
        self.link(id);
    }

    fn deadline(&self, worker: &Worker) -> Option<Instant> {
        match worker.died {
            Some(died) => died.checked_add(self.listed_dead),
            // One that falls silent is first away and only then dead.
            None if worker.state == WorkerState::Disconnected => {
                worker.heard.checked_add(self.timeout)
            }
            None => worker.heard.checked_add(self.timeout / 2),
        }
    }

    fn unlink(&mut self, id: &WorkerId) {
        let Some(worker) = self.workers.get(id) else {
            return;
        };
        if let Some(deadline) = self.deadline(worker) {
            self.deadlines.remove(&(deadline, id.clone()));
        }
        self.free.remove(id, worker.free());
        self.offered.remove(id, worker.record.offers);
    }

    fn link(&mut self, id: &WorkerId) {
        let Some(worker) = self.workers.get(id) else {
            return;
        };
        if let Some(deadline) = self.deadline(worker) {
            self.deadlines.insert((deadline, id.clone()));
        }
        if worker.state == WorkerState::Alive {
            self.free.insert(id.clone(), worker.free());
            self.offered.insert(id.clone(), worker.record.offers);
        }
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Worker> {
        self.workers.values()
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn check_invariants(&self) {
        let alive = |worker: &&Worker| worker.state == WorkerState::Alive;
        let mut free: Vec<_> = self.free.iter().collect();
        free.sort_unstable();
        let expected: Vec<_> = self
            .iter()
            .filter(alive)
            .map(|w| (&w.record.id, w.free()))
            .collect();
        assert_eq!(free, expected, "the index of free resources is out of step");
        assert_eq!(
            self.offered.iter().count(),
            expected.len(),
            "the index of offers is out of step"
        );
        let deadlines = self
            .iter()
            .filter_map(|w| Some((self.deadline(w)?, w.record.id.clone())))
            .collect();
        assert_eq!(self.deadlines, deadlines, "the deadlines are out of step");
        for worker in self.iter() {
            let used = worker
                .attempts
                .values()
                .copied()
                .fold(Resources::default(), Resources::plus);
            assert_eq!(worker.used, used, "{} is miscounted", worker.record.id);
            assert_eq!(worker.died.is_some(), worker.state == WorkerState::Dead);
            assert!(
                worker.died.is_none() || worker.attempts.is_empty(),
                "{} is dead and busy",
                worker.record.id
            );
        }
    }
}
