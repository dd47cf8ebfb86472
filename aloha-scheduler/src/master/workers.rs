use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tracing::error;

use super::capacity::{Capacity, KindSlot};
use super::table::{FixedHasher, Slot, Table};
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

/// Where a worker lies in the table.
pub(crate) type WorkerSlot = Slot<Worker>;

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) record: WorkerRecord,
    /// What is said of where something is that is placed here.
    placement: Placement,
    pub(crate) state: WorkerState,
    heard: Instant,
    died: Option<Instant>,
    /// When its time runs out, as it is noted.
    deadline: Option<Instant>,
    attempts: HashMap<AttemptKey, Occupant, FixedHasher>,
    /// Those of its attempts together.
    used: Total,
    /// Set while it takes applications.
    kind: Option<KindSlot>,
    /// What of it is listed as free.
    listed: Option<Resources>,
}

/// What an attempt occupies, and since how many others.
#[derive(Debug, Clone, Copy)]
struct Occupant {
    needs: Resources,
    place: u64,
}

impl Worker {
    /// Everything that occupies it, in order: what it was given, and strays that it is still to end.
    pub(crate) fn attempts(&self) -> impl Iterator<Item = &AttemptKey> {
        let mut keys: Vec<_> = self.attempts.keys().collect();
        keys.sort_unstable();
        keys.into_iter()
    }

    /// Whether an attempt occupies it.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn has(&self, attempt: &AttemptKey) -> bool {
        self.attempts.contains_key(attempt)
    }

    /// Whether nothing occupies it.
    pub(crate) fn is_idle(&self) -> bool {
        self.attempts.is_empty()
    }

    /// What an attempt occupies.
    pub(crate) fn occupied_by(&self, attempt: &AttemptKey) -> Resources {
        self.attempts
            .get(attempt)
            .map_or_else(Resources::default, |occupant| occupant.needs)
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.state == WorkerState::Dead
    }

    /// What nothing occupies.
    pub(crate) fn free(&self) -> Resources {
        self.record.offers.minus(self.used.resources())
    }

    /// What is said of where something is that is placed here.
    pub(crate) fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Its kind, while it takes applications.
    pub(crate) fn kind(&self) -> Option<KindSlot> {
        self.kind
    }

    /// Of those that would have to end before `needs` fit, the latest to go, by the order in which they were placed;
    /// the largest number there is if nothing has to.
    ///
    /// What has run for long will run for longer: the larger the answer, the sooner there is likely to be room.
    pub(crate) fn likely_room(&self, needs: Resources) -> u64 {
        let mut latest: Vec<_> = self.attempts.values().copied().collect();
        latest.sort_unstable_by_key(|occupant| std::cmp::Reverse(occupant.place));
        let (mut used, mut gone) = (self.used.resources(), u64::MAX);
        for occupant in latest {
            if needs.fits_in(&self.record.offers.minus(used)) {
                break;
            }
            used = used.minus(occupant.needs);
            gone = occupant.place;
        }
        gone
    }
}

/// A sum that never overflows, so that what is added can be taken away again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Total {
    cores: u64,
    memory_mib: u128,
}

impl Total {
    fn of<'a>(occupants: impl Iterator<Item = &'a Occupant>) -> Self {
        let mut total = Self::default();
        occupants.for_each(|occupant| total.add(occupant.needs));
        total
    }

    fn add(&mut self, more: Resources) {
        self.cores += u64::from(more.cores);
        self.memory_mib += u128::from(more.memory_mib);
    }

    fn subtract(&mut self, less: Resources) {
        self.cores -= u64::from(less.cores);
        self.memory_mib -= u128::from(less.memory_mib);
    }

    /// The sum, or the largest number there is.
    fn resources(self) -> Resources {
        Resources {
            cores: u32::try_from(self.cores).unwrap_or(u32::MAX),
            memory_mib: u64::try_from(self.memory_mib).unwrap_or(u64::MAX),
        }
    }
}

/// The workers, and in step with them who has room and whose time runs out.
#[derive(Debug)]
pub(crate) struct Workers {
    timeout: Duration,
    /// How long a dead worker stays listed.
    listed_dead: Duration,
    workers: Table<WorkerId, Worker>,
    /// What those that take applications offer and have free, but for the reserved one.
    capacity: Capacity,
    /// The one whose room is kept for the head of the queue.
    reserved: Option<WorkerSlot>,
    /// Those that may have more room than when somebody last asked.
    roomier: Vec<WorkerSlot>,
    /// Those of which something else may be listed as free than is.
    stale: Vec<WorkerSlot>,
    /// How many attempts were ever placed.
    placed: u64,
    deadlines: BTreeSet<(Instant, WorkerSlot)>,
}

impl Workers {
    pub(crate) fn new(timeout: Duration, listed_dead: Duration) -> Self {
        Self {
            timeout,
            listed_dead,
            workers: Table::default(),
            capacity: Capacity::default(),
            reserved: None,
            roomier: Vec::new(),
            stale: Vec::new(),
            placed: 0,
            deadlines: BTreeSet::new(),
        }
    }

    pub(crate) fn get(&self, id: &WorkerId) -> Option<&Worker> {
        self.workers.get(id)
    }

    pub(crate) fn at(&self, slot: WorkerSlot) -> &Worker {
        &self.workers[slot]
    }

    pub(crate) fn state(&self, id: &WorkerId) -> Option<WorkerState> {
        self.get(id).map(|worker| worker.state)
    }

    /// What those that take applications offer and have free, but for what is reserved; of what changed since, as it was
    /// at the last [`settle`](Self::settle).
    pub(crate) fn capacity(&self) -> &Capacity {
        &self.capacity
    }

    /// Every worker, in an order that means nothing.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (WorkerSlot, &Worker)> {
        self.workers.iter()
    }

    /// Those that may have more room than when this was last asked.
    pub(crate) fn take_roomier(&mut self) -> Vec<WorkerSlot> {
        let mut roomier = std::mem::take(&mut self.roomier);
        roomier.retain(|slot| self.workers.at(*slot).is_some_and(|it| it.kind.is_some()));
        roomier
    }

    pub(crate) fn has_roomier(&self) -> bool {
        !self.roomier.is_empty()
    }

    /// How many workers are listed.
    pub(crate) fn count(&self) -> u64 {
        self.workers.len() as u64
    }

    /// How many attempts were ever placed.
    pub(crate) fn placed(&self) -> u64 {
        self.placed
    }

    /// The one whose room is kept for the head of the queue; it takes applications.
    pub(crate) fn reserved(&self) -> Option<WorkerSlot> {
        self.reserved
    }

    /// Keeps the room of this worker, or of none, for the head of the queue.
    pub(crate) fn reserve(&mut self, slot: Option<WorkerSlot>) {
        if self.reserved == slot {
            return;
        }
        if let Some(before) = self.reserved.take() {
            self.list(before);
            self.roomier.push(before);
        }
        self.reserved = slot;
        if let Some(slot) = slot {
            self.list(slot);
        }
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
        let before = self.workers.slot(&id);
        let mut occupants = HashMap::default();
        for (key, needs) in attempts {
            let known = before.and_then(|slot| self.workers[slot].attempts.get(&key));
            let place = known.map_or(self.placed, |occupant| occupant.place);
            occupants.insert(key, Occupant { needs, place });
        }
        let worker = Worker {
            placement: Placement {
                worker: id.clone(),
                address: record.address(),
            },
            record,
            state,
            heard: now,
            died: None,
            deadline: None,
            used: Total::of(occupants.values()),
            attempts: occupants,
            kind: None,
            listed: None,
        };
        let slot = match before {
            Some(slot) => {
                self.unlink(slot);
                self.workers[slot] = worker;
                slot
            }
            None => self.workers.insert(id, worker),
        };
        self.link(slot);
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
        let mut attempts = Vec::new();
        self.change(id, |worker| {
            worker.state = WorkerState::Dead;
            worker.died = Some(now);
            worker.used = Total::default();
            attempts.extend(worker.attempts.drain().map(|(key, _)| key));
        });
        attempts.sort_unstable();
        attempts
    }

    pub(crate) fn forget(&mut self, id: &WorkerId) {
        if let Some(slot) = self.workers.slot(id) {
            self.unlink(slot);
            self.workers.remove(id);
        }
    }

    /// Counts an attempt. One that is counted already, as a stray, never becomes smaller by it: room does not grow here.
    pub(crate) fn occupy(&mut self, id: &WorkerId, attempt: AttemptKey, needs: Resources) {
        self.placed += 1;
        let place = self.placed;
        self.change(id, |worker| {
            let none = Resources::default();
            let counted = worker.attempts.entry(attempt);
            let counted = counted.or_insert(Occupant { needs: none, place });
            worker.used.subtract(counted.needs);
            counted.needs.cores = counted.needs.cores.max(needs.cores);
            counted.needs.memory_mib = counted.needs.memory_mib.max(needs.memory_mib);
            worker.used.add(counted.needs);
        });
    }

    /// Gives back what an attempt occupied; says whether it did.
    pub(crate) fn release(&mut self, id: &WorkerId, attempt: &AttemptKey) -> bool {
        let mut found = false;
        self.change(id, |worker| {
            if let Some(occupant) = worker.attempts.remove(attempt) {
                worker.used.subtract(occupant.needs);
                found = true;
            }
        });
        found
    }

    /// A worker whose time has run out: one that was silent for half of the timeout, one that was away for all of it, or
    /// a dead one that was listed long enough.
    pub(crate) fn due(&self, now: Instant) -> Option<WorkerId> {
        self.deadlines
            .first()
            .filter(|(deadline, _)| *deadline <= now)
            .map(|(_, slot)| self.workers[*slot].record.id.clone())
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// What a client sees of the workers, by id.
    pub(crate) fn statuses(&self, now: Instant) -> Vec<WorkerStatus> {
        let status = |worker: &Worker| {
            let Resources { cores, memory_mib } = worker.record.offers;
            WorkerStatus {
                id: worker.record.id.clone(),
                host: worker.record.host.clone(),
                port: worker.record.port,
                state: worker.state,
                cores,
                cores_used: worker.used.resources().cores.min(cores),
                memory_mib,
                memory_mib_used: worker.used.resources().memory_mib.min(memory_mib),
                apps: worker.attempts().map(|(app, _)| app.clone()).collect(),
                heard_millis_ago: u64::try_from(
                    now.saturating_duration_since(worker.heard).as_millis(),
                )
                .unwrap_or(u64::MAX),
                enforces: worker.record.enforces.clone(),
                attributes: worker.record.attributes.clone(),
            }
        };
        let mut statuses: Vec<_> = self.iter().map(|(_, worker)| status(worker)).collect();
        statuses.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        statuses
    }

    /// Changes a worker, and with it what depends on it. Its record stays as it is.
    fn change(&mut self, id: &WorkerId, change: impl FnOnce(&mut Worker)) {
        let Some(slot) = self.workers.slot(id) else {
            return;
        };
        let worker = &mut self.workers[slot];
        let (heard, state, free) = (worker.heard, worker.state, worker.free());
        change(worker);
        let (takes_more, room) = (worker.state == WorkerState::Alive, worker.free());
        let is_stale = room != free;
        if (heard, state) != (worker.heard, worker.state) {
            self.note_deadline(slot);
        }
        match (self.workers[slot].kind, takes_more) {
            (Some(_), true) if is_stale => {
                self.stale.push(slot);
                if !room.fits_in(&free) {
                    self.roomier.push(slot);
                }
            }
            (Some(_), false) => self.leave(slot),
            (None, true) => self.join(slot),
            (Some(_), true) | (None, false) => {}
        }
    }

    /// Lists what is free as it is now.
    ///
    /// That this is put off spares two changes where room is taken again as soon as it becomes free.
    pub(crate) fn settle(&mut self) {
        while let Some(slot) = self.stale.pop() {
            if self.workers.at(slot).is_some() {
                self.list(slot);
            }
        }
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

    fn unlink(&mut self, slot: WorkerSlot) {
        self.forget_deadline(slot);
        self.leave(slot);
    }

    fn link(&mut self, slot: WorkerSlot) {
        self.note_deadline(slot);
        if self.workers[slot].state == WorkerState::Alive {
            self.join(slot);
        }
    }

    fn forget_deadline(&mut self, slot: WorkerSlot) {
        if let Some(deadline) = self.workers[slot].deadline.take() {
            self.deadlines.remove(&(deadline, slot));
        }
    }

    fn note_deadline(&mut self, slot: WorkerSlot) {
        self.forget_deadline(slot);
        let deadline = self.deadline(&self.workers[slot]);
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, slot));
        }
        self.workers[slot].deadline = deadline;
    }

    /// Has a worker take applications from now on.
    fn join(&mut self, slot: WorkerSlot) {
        let record = &self.workers[slot].record;
        let kind = self.capacity.join(record.offers, &record.attributes);
        self.workers[slot].kind = Some(kind);
        self.list(slot);
        self.roomier.push(slot);
    }

    /// Has it take none from now on.
    fn leave(&mut self, slot: WorkerSlot) {
        let Some(kind) = self.workers[slot].kind else {
            return;
        };
        if let Some(listed) = self.workers[slot].listed.take() {
            self.capacity.unlist(slot, kind, listed);
        }
        self.workers[slot].kind = None;
        self.capacity.leave(kind);
        if self.reserved == Some(slot) {
            self.reserved = None;
        }
    }

    /// Lists what is free on a worker, if it takes applications. What is reserved is not listed.
    fn list(&mut self, slot: WorkerSlot) {
        let worker = &mut self.workers[slot];
        let Some(kind) = worker.kind else { return };
        let free = (self.reserved != Some(slot)).then(|| worker.free());
        if worker.listed == free {
            return;
        }
        if let Some(before) = std::mem::replace(&mut worker.listed, free) {
            self.capacity.unlist(slot, kind, before);
        }
        if let Some(free) = free {
            self.capacity.list(slot, kind, free);
        }
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn check_invariants(&self) {
        let takes_more = |worker: &Worker| worker.state == WorkerState::Alive;
        let mut listed: Vec<_> = self.capacity.free().iter().collect();
        listed.sort_unstable_by_key(|(_, slot)| *slot);
        let expected: Vec<_> = self
            .iter()
            .filter(|(slot, w)| takes_more(w) && self.reserved != Some(*slot))
            .map(|(slot, w)| (w.free(), slot))
            .collect();
        assert_eq!(listed, expected, "what is listed as free is out of step");
        let mut by_kind: Vec<_> = self
            .capacity
            .kinds()
            .flat_map(|(_, kind)| kind.free().iter())
            .collect();
        by_kind.sort_unstable_by_key(|(_, slot)| *slot);
        assert_eq!(by_kind, expected, "what is free by kind is out of step");
        let deadlines = self
            .iter()
            .filter_map(|(slot, w)| Some((self.deadline(w)?, slot)))
            .collect();
        assert_eq!(self.deadlines, deadlines, "the deadlines are out of step");
        if let Some(slot) = self.reserved {
            assert!(
                takes_more(self.at(slot)),
                "a worker is reserved that takes nothing"
            );
        }
        for (_, worker) in self.iter() {
            let id = &worker.record.id;
            let used = Total::of(worker.attempts.values());
            assert_eq!(worker.used, used, "{id} is miscounted");
            assert_eq!(worker.died.is_some(), worker.state == WorkerState::Dead);
            assert!(
                worker.died.is_none() || worker.attempts.is_empty(),
                "{id} is dead and busy"
            );
            let kind = worker.kind.map(|kind| self.capacity.kind(kind));
            assert_eq!(
                kind.is_some(),
                takes_more(worker),
                "{id} is of no kind, or of one"
            );
            assert!(kind.is_none_or(|kind| kind.offers == worker.record.offers
                && kind.attributes == worker.record.attributes));
        }
    }
}
