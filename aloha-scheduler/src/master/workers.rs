use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tracing::error;

use super::capacity::Capacity;
use super::table::Table;
pub(crate) use super::worker::{AttemptKey, Worker, WorkerSlot};
pub use super::worker_record::{WorkerRecord, WorkerState, WorkerStatus};
use crate::drain::Drain;
use crate::ids::WorkerId;
use crate::resources::Resources;

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

    /// Puts a worker in, in the place of what was known of it: alive, or leaving where it is drained.
    pub(crate) fn register(
        &mut self,
        record: WorkerRecord,
        attempts: BTreeMap<AttemptKey, Resources>,
        now: Instant,
    ) {
        let state = match record.drain {
            None => WorkerState::Alive,
            Some(_) => WorkerState::Leaving,
        };
        self.put(record, state, attempts, now);
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
        let known = before.map(|slot| &self.workers[slot]);
        let worker = Worker::new(record, state, attempts, known, self.placed, now);
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

    /// Counts no silence of this time: nobody could be heard.
    pub(crate) fn excuse(&mut self, gap: Duration, now: Instant) {
        let ids: Vec<_> = self.iter().map(|(_, it)| it.record.id.clone()).collect();
        for id in ids {
            self.change(&id, |worker| {
                let heard = worker.heard.checked_add(gap);
                worker.heard = heard.map_or(now, |heard| heard.min(now));
            });
        }
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

    /// Notes whether and how a worker is drained. Its state is the caller's to change.
    pub(crate) fn set_drain(&mut self, id: &WorkerId, drain: Option<Drain>) {
        if let Some(slot) = self.workers.slot(id) {
            let worker = &mut self.workers[slot];
            worker.record.drain = drain;
            worker.told_to_leave = false;
        }
    }

    /// Notes that a worker leaves of its own accord.
    pub(crate) fn note_leaves(&mut self, id: &WorkerId) {
        self.change(id, |worker| worker.leaves_by_itself = true);
    }

    /// Notes that a worker was told to leave; says whether it had not been before.
    pub(crate) fn note_told_to_leave(&mut self, id: &WorkerId) -> bool {
        let mut before = true;
        self.change(id, |worker| {
            before = std::mem::replace(&mut worker.told_to_leave, true)
        });
        !before
    }

    /// Declares a worker dead, and returns what occupied it. If it comes back it is not drained.
    pub(crate) fn bury(&mut self, id: &WorkerId, now: Instant) -> Vec<AttemptKey> {
        let mut attempts = Vec::new();
        self.change(id, |worker| {
            worker.state = WorkerState::Dead;
            worker.died = Some(now);
            worker.record.drain = None;
            attempts = worker.release_all();
        });
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
        self.change(id, |worker| worker.occupy(attempt, needs, place));
    }

    /// Gives back what an attempt occupied; says whether it did.
    pub(crate) fn release(&mut self, id: &WorkerId, attempt: &AttemptKey) -> bool {
        let mut found = false;
        self.change(id, |worker| found = worker.release(attempt));
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
            let (offers, used) = (worker.record.offers, worker.used());
            WorkerStatus {
                id: worker.record.id.clone(),
                host: worker.record.host.clone(),
                port: worker.record.port,
                state: worker.state,
                cores: offers.cores,
                cores_used: used.cores,
                memory_mib: offers.memory_mib,
                memory_mib_used: used.memory_mib,
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
            worker.check_invariants();
            assert_eq!(worker.died.is_some(), worker.state == WorkerState::Dead);
            assert!(
                worker.record.drain.is_none()
                    || matches!(
                        worker.state,
                        WorkerState::Leaving | WorkerState::Disconnected
                    ),
                "{id} is drained and {}",
                worker.state
            );
            assert!(
                worker.died.is_none() || worker.is_idle(),
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
