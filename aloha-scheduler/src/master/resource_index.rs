use std::collections::BTreeSet;

use super::table::Slot;
use super::workers::WorkerSlot;
use crate::resources::Resources;

/// Which of several workers that have room is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Preference {
    /// The one with most cores, then most memory: work spreads over the cluster.
    Roomiest,
    /// The one with fewest cores, then least memory: what is large stays whole for what is large.
    Tightest,
}

/// Workers by what they have, so that one that fits is found without looking at all of them.
///
/// Workers with equally many cores share a level; over the levels lies a segment tree of the most memory in each. Both
/// a change and a search cost the logarithm of the number of workers, whatever their memory.
#[derive(Debug, Default)]
pub(crate) struct ResourceIndex {
    /// By cores. One that was needed once stays.
    levels: Vec<Level>,
    /// The root at 1, the children of `n` at `2 n` and `2 n + 1`, the leaves last: one more than the most memory below,
    /// 0 where there is no worker.
    tree: Vec<u64>,
}

#[derive(Debug)]
struct Level {
    cores: u32,
    workers: BTreeSet<(u64, WorkerSlot)>,
}

impl Level {
    fn summary(&self) -> u64 {
        self.workers
            .last()
            .map_or(0, |(memory_mib, _)| memory_mib.saturating_add(1))
    }
}

impl ResourceIndex {
    pub(crate) fn insert(&mut self, worker: WorkerSlot, has: Resources) {
        let place = match self.place_of(has.cores) {
            Ok(place) => place,
            Err(place) => {
                let (cores, workers) = (has.cores, BTreeSet::new());
                self.levels.insert(place, Level { cores, workers });
                self.plant();
                place
            }
        };
        self.levels[place].workers.insert((has.memory_mib, worker));
        self.update(place);
    }

    /// Takes a worker out; `has` is what it was put in with.
    pub(crate) fn remove(&mut self, worker: WorkerSlot, has: Resources) {
        if let Ok(place) = self.place_of(has.cores) {
            self.levels[place].workers.remove(&(has.memory_mib, worker));
            self.update(place);
        }
    }

    /// The worker that is preferred among those with room, and what it has.
    pub(crate) fn best(&self, needs: Resources, by: Preference) -> Option<(Resources, WorkerSlot)> {
        let wanted = needs.memory_mib.saturating_add(1);
        let first = self.place_of(needs.cores).unwrap_or_else(|place| place);
        let level = match by {
            Preference::Roomiest => self.last_level(wanted).filter(|place| *place >= first),
            Preference::Tightest => self.first_level(first, wanted),
        };
        let level = &self.levels[level?];
        let (memory_mib, worker) = match by {
            Preference::Roomiest => level.workers.last(),
            Preference::Tightest => level
                .workers
                .range((needs.memory_mib, Slot::FIRST)..)
                .next(),
        }?;
        let (cores, memory_mib) = (level.cores, *memory_mib);
        Some((Resources { cores, memory_mib }, *worker))
    }

    /// The most cores and the most memory any worker has; perhaps no worker has both. `None` without workers.
    pub(crate) fn largest(&self) -> Option<Resources> {
        let level = self.last_level(1)?;
        Some(Resources {
            cores: self.levels[level].cores,
            memory_mib: self.tree[1].saturating_sub(1),
        })
    }

    /// Every worker and what it has, the roomiest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Resources, WorkerSlot)> {
        self.levels.iter().rev().flat_map(|level| {
            let cores = level.cores;
            let of_level = level.workers.iter().rev();
            of_level.map(move |&(memory_mib, worker)| (Resources { cores, memory_mib }, worker))
        })
    }

    fn place_of(&self, cores: u32) -> Result<usize, usize> {
        self.levels
            .binary_search_by_key(&cores, |level| level.cores)
    }

    fn leaves(&self) -> usize {
        self.tree.len() / 2
    }

    /// Builds the tree anew over the levels there are.
    fn plant(&mut self) {
        let leaves = self.levels.len().next_power_of_two();
        self.tree.clear();
        self.tree.resize(2 * leaves, 0);
        for (place, level) in self.levels.iter().enumerate() {
            self.tree[leaves + place] = level.summary();
        }
        for node in (1..leaves).rev() {
            self.tree[node] = self.tree[2 * node].max(self.tree[2 * node + 1]);
        }
    }

    fn update(&mut self, place: usize) {
        let mut node = self.leaves() + place;
        self.tree[node] = self.levels[place].summary();
        while node > 1 {
            node /= 2;
            self.tree[node] = self.tree[2 * node].max(self.tree[2 * node + 1]);
        }
    }

    /// The last level with at least this summary.
    fn last_level(&self, wanted: u64) -> Option<usize> {
        let leaves = self.leaves();
        if self.tree.get(1).is_none_or(|most| *most < wanted) {
            return None;
        }
        let mut node = 1;
        while node < leaves {
            node = 2 * node + usize::from(self.tree[2 * node + 1] >= wanted);
        }
        Some(node - leaves)
    }

    /// The first level from `from` on with at least this summary.
    fn first_level(&self, from: usize, wanted: u64) -> Option<usize> {
        let leaves = self.leaves();
        if from >= self.levels.len() {
            return None;
        }
        let mut node = leaves + from;
        while self.tree[node] < wanted {
            // Up to the next subtree on the right.
            while node % 2 == 1 {
                node /= 2;
            }
            if node == 0 {
                return None;
            }
            node += 1;
        }
        while node < leaves {
            node = 2 * node + usize::from(self.tree[2 * node] < wanted);
        }
        Some(node - leaves)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn r(cores: u32, memory_mib: u64) -> Resources {
        Resources { cores, memory_mib }
    }

    /// Workers `#0`, `#1`, … with these cores and this memory.
    fn index(workers: &[(u32, u64)]) -> ResourceIndex {
        let mut index = ResourceIndex::default();
        for (place, (cores, memory_mib)) in (0..).zip(workers) {
            index.insert(Slot::at(place), r(*cores, *memory_mib));
        }
        index
    }

    fn best(index: &ResourceIndex, needs: Resources, by: Preference) -> Option<WorkerSlot> {
        index.best(needs, by).map(|(_, worker)| worker)
    }

    /// As the policies of Spark's WorkerSelectionSuite: cores first, then memory, then the worker.
    #[test]
    fn the_stated_worker_is_chosen() {
        let cores = [(4, 100), (8, 100), (6, 100)];
        let memory = [(8, 100), (8, 300), (8, 200)];
        let equal = [(8, 100), (8, 100), (8, 100)];
        let mixed = [(4, 1000), (8, 100), (6, 500)];
        let (spread, pack) = (Preference::Roomiest, Preference::Tightest);
        let cases = [
            (&cores, r(1, 1), spread, Some(1)),
            (&cores, r(1, 1), pack, Some(0)),
            (&cores, r(5, 1), pack, Some(2)),
            (&memory, r(1, 1), spread, Some(1)),
            (&memory, r(1, 1), pack, Some(0)),
            (&memory, r(1, 150), pack, Some(2)),
            (&equal, r(1, 1), spread, Some(2)),
            (&equal, r(1, 1), pack, Some(0)),
            (&mixed, r(1, 200), spread, Some(2)),
            (&mixed, r(1, 600), spread, Some(0)),
            (&mixed, r(5, 50), pack, Some(2)),
            (&mixed, r(5, 600), spread, None),
            (&mixed, r(5, 600), pack, None),
            (&mixed, r(9, 1), pack, None),
        ];
        for (workers, needs, by, expected) in cases {
            let found = best(&index(workers), needs, by);
            let expected = expected.map(Slot::at);
            assert_eq!(found, expected, "{needs} among {workers:?}, {by:?}");
        }
    }

    #[test]
    fn the_largest_of_both_may_be_of_two_workers() {
        assert_eq!(index(&[(4, 1000), (8, 100)]).largest(), Some(r(8, 1000)));
        assert_eq!(index(&[]).largest(), None);
    }

    #[test]
    fn a_worker_taken_out_is_found_no_more() {
        let mut index = index(&[(4, 100), (6, 50)]);
        index.remove(Slot::at(0), r(4, 100));
        assert_eq!(best(&index, r(1, 60), Preference::Roomiest), None);
        assert_eq!(index.largest(), Some(r(6, 50)));
        index.remove(Slot::at(1), r(6, 50));
        assert_eq!(index.largest(), None);
    }

    proptest! {
        /// Both searches find what a look at every worker finds.
        #[test]
        fn the_index_finds_what_a_look_at_everybody_finds(
            workers in prop::collection::vec((0u32..40, 0u64..12), 0..40),
            gone in prop::collection::vec(any::<bool>(), 40),
            needs in prop::collection::vec((0u32..42, 0u64..14), 1..20),
        ) {
            let mut index = index(&workers);
            let mut left = Vec::new();
            for ((place, (cores, memory_mib)), gone) in (0..).zip(workers).zip(gone) {
                if gone {
                    index.remove(Slot::at(place), r(cores, memory_mib));
                } else {
                    left.push((r(cores, memory_mib), Slot::at(place)));
                }
            }
            left.sort_unstable();
            for needs in needs.into_iter().map(|(cores, memory_mib)| r(cores, memory_mib)) {
                let mut fitting = left.iter().copied().filter(|(has, _)| needs.fits_in(has));
                prop_assert_eq!(index.best(needs, Preference::Tightest), fitting.next());
                let last = left.iter().copied().rfind(|(has, _)| needs.fits_in(has));
                prop_assert_eq!(index.best(needs, Preference::Roomiest), last);
            }
            let mut all: Vec<_> = index.iter().collect();
            all.reverse();
            prop_assert_eq!(all, left);
        }
    }
}
