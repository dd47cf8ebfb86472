use std::collections::BTreeSet;

use super::resource_index::{Preference, ResourceIndex};
use super::table::{Slot, Table};
use super::workers::WorkerSlot;
use crate::constraint::{Attributes, Constraint};
use crate::resources::Resources;

/// What the workers that take applications offer, and what of it is free: altogether, and by kind of worker.
///
/// What has no constraints looks at all workers at once. What has some looks at the kinds that meet them, of which
/// there are few: a cluster has many machines, but not many sorts of machines.
#[derive(Debug, Default)]
pub(crate) struct Capacity {
    free: ResourceIndex,
    kinds: Table<(Resources, Attributes), Kind>,
    /// Rises whenever a kind appears or vanishes, after which a slot of a kind may mean another.
    version: u64,
}

/// Where a kind lies, for as long as the version stays.
pub(crate) type KindSlot = Slot<Kind>;

/// Workers that offer the same and have the same attributes.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) offers: Resources,
    pub(crate) attributes: Attributes,
    free: ResourceIndex,
    workers: usize,
}

impl Kind {
    /// Whether a worker of this kind would hold this, were it empty.
    pub(crate) fn suits(&self, needs: Resources, constraints: &BTreeSet<Constraint>) -> bool {
        needs.fits_in(&self.offers) && self.meets(constraints)
    }

    pub(crate) fn meets(&self, constraints: &BTreeSet<Constraint>) -> bool {
        constraints
            .iter()
            .all(|constraint| constraint.is_met_by(&self.attributes))
    }

    /// What is free on its workers, the roomiest first.
    pub(crate) fn free(&self) -> &ResourceIndex {
        &self.free
    }
}

impl Capacity {
    /// Takes a worker in, of which nothing is listed as free yet.
    pub(crate) fn join(&mut self, offers: Resources, attributes: &Attributes) -> KindSlot {
        let key = (offers, attributes.clone());
        let kind = self.kinds.slot(&key).unwrap_or_else(|| {
            self.version += 1;
            let kind = Kind {
                offers,
                attributes: attributes.clone(),
                free: ResourceIndex::default(),
                workers: 0,
            };
            self.kinds.insert(key, kind)
        });
        self.kinds[kind].workers += 1;
        kind
    }

    /// Lets a worker go, of which nothing is listed as free any more.
    pub(crate) fn leave(&mut self, kind: KindSlot) {
        self.kinds[kind].workers -= 1;
        if self.kinds[kind].workers == 0 {
            self.version += 1;
            let key = (
                self.kinds[kind].offers,
                std::mem::take(&mut self.kinds[kind].attributes),
            );
            self.kinds.remove(&key);
        }
    }

    /// Lists what is free on a worker.
    pub(crate) fn list(&mut self, worker: WorkerSlot, kind: KindSlot, free: Resources) {
        self.free.insert(worker, free);
        self.kinds[kind].free.insert(worker, free);
    }

    /// Takes that back; `free` is what was listed.
    pub(crate) fn unlist(&mut self, worker: WorkerSlot, kind: KindSlot, free: Resources) {
        self.free.remove(worker, free);
        self.kinds[kind].free.remove(worker, free);
    }

    /// What is listed as free.
    pub(crate) fn free(&self) -> &ResourceIndex {
        &self.free
    }

    pub(crate) fn kind(&self, kind: KindSlot) -> &Kind {
        &self.kinds[kind]
    }

    pub(crate) fn kinds(&self) -> impl Iterator<Item = (KindSlot, &Kind)> {
        self.kinds.iter()
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The worker that is preferred among those of these kinds that have room.
    pub(crate) fn best_of(
        &self,
        kinds: &[KindSlot],
        needs: Resources,
        by: Preference,
    ) -> Option<WorkerSlot> {
        let best = kinds
            .iter()
            .filter_map(|kind| self.kinds[*kind].free.best(needs, by));
        let best = match by {
            Preference::Roomiest => best.max(),
            Preference::Tightest => best.min(),
        };
        best.map(|(_, worker)| worker)
    }
}
