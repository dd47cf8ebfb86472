use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use super::capacity::KindSlot;
use super::table::{FixedHasher, Slot};
use super::worker_record::{WorkerRecord, WorkerState};
use crate::app::Placement;
use crate::ids::AppId;
use crate::resources::Resources;

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
    pub(super) heard: Instant,
    pub(super) died: Option<Instant>,
    /// Whether it said itself that it takes no more applications and goes.
    pub(super) leaves_by_itself: bool,
    /// Whether it was told to leave, for it is drained and nothing is left.
    pub(super) told_to_leave: bool,
    /// When its time runs out, as it is noted.
    pub(super) deadline: Option<Instant>,
    attempts: HashMap<AttemptKey, Occupant, FixedHasher>,
    /// Those of its attempts together.
    used: Total,
    /// Set while it takes applications.
    pub(super) kind: Option<KindSlot>,
    /// What of it is listed as free.
    pub(super) listed: Option<Resources>,
}

/// What an attempt occupies, and since how many others.
#[derive(Debug, Clone, Copy)]
struct Occupant {
    needs: Resources,
    place: u64,
}

impl Worker {
    /// One that was heard from just now. The places of attempts that `before` knew stay; others are placed last.
    pub(super) fn new(
        record: WorkerRecord,
        state: WorkerState,
        attempts: BTreeMap<AttemptKey, Resources>,
        before: Option<&Self>,
        placed: u64,
        now: Instant,
    ) -> Self {
        let mut occupants = HashMap::default();
        for (key, needs) in attempts {
            let known = before.and_then(|before| before.attempts.get(&key));
            let place = known.map_or(placed, |occupant| occupant.place);
            occupants.insert(key, Occupant { needs, place });
        }
        Self {
            placement: Placement {
                worker: record.id.clone(),
                address: record.address().into(),
            },
            record,
            state,
            heard: now,
            died: None,
            leaves_by_itself: false,
            told_to_leave: false,
            deadline: None,
            used: Total::of(occupants.values()),
            attempts: occupants,
            kind: None,
            listed: None,
        }
    }

    /// Counts an attempt, in this place; one that is counted already never becomes smaller by it.
    pub(super) fn occupy(&mut self, attempt: AttemptKey, needs: Resources, place: u64) {
        let none = Resources::default();
        let counted = self.attempts.entry(attempt);
        let counted = counted.or_insert(Occupant { needs: none, place });
        self.used.subtract(counted.needs);
        counted.needs.cores = counted.needs.cores.max(needs.cores);
        counted.needs.memory_mib = counted.needs.memory_mib.max(needs.memory_mib);
        self.used.add(counted.needs);
    }

    /// Gives back what an attempt occupied; says whether it did.
    pub(super) fn release(&mut self, attempt: &AttemptKey) -> bool {
        let occupant = self.attempts.remove(attempt);
        if let Some(occupant) = occupant {
            self.used.subtract(occupant.needs);
        }
        occupant.is_some()
    }

    /// Gives everything back, and returns what it was, in order.
    pub(super) fn release_all(&mut self) -> Vec<AttemptKey> {
        self.used = Total::default();
        let mut attempts: Vec<_> = self.attempts.drain().map(|(key, _)| key).collect();
        attempts.sort_unstable();
        attempts
    }

    /// What is occupied, as far as it is there.
    pub(super) fn used(&self) -> Resources {
        let (used, offers) = (self.used.resources(), self.record.offers);
        Resources {
            cores: used.cores.min(offers.cores),
            memory_mib: used.memory_mib.min(offers.memory_mib),
        }
    }

    /// Panics if what is used is miscounted.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn check_invariants(&self) {
        let used = Total::of(self.attempts.values());
        assert_eq!(self.used, used, "{} is miscounted", self.record.id);
    }

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
