use std::collections::{BTreeMap, BTreeSet};

use crate::ids::WorkerId;
use crate::resources::Resources;

/// Workers by what they have, so that one that fits is found without looking at all of them.
///
/// Workers with equally many cores share a level, and a level knows its largest memory. A search looks at one worker
/// per level: its cost grows with the different numbers of cores there are (never more than the largest machine has)
/// and with the logarithm of the number of workers.
#[derive(Debug, Default)]
pub(crate) struct ResourceIndex {
    levels: BTreeMap<u32, BTreeSet<(u64, WorkerId)>>,
}

impl ResourceIndex {
    pub(crate) fn insert(&mut self, worker: WorkerId, has: Resources) {
        self.levels
            .entry(has.cores)
            .or_default()
            .insert((has.memory_mib, worker));
    }

    /// Takes a worker out; `has` is what it was put in with.
    pub(crate) fn remove(&mut self, worker: &WorkerId, has: Resources) {
        if let Some(level) = self.levels.get_mut(&has.cores) {
            level.remove(&(has.memory_mib, worker.clone()));
            if level.is_empty() {
                self.levels.remove(&has.cores);
            }
        }
    }

    /// The worker with most cores, then most memory, that has room: work spreads over the cluster.
    pub(crate) fn roomiest(&self, needs: Resources) -> Option<&WorkerId> {
        self.levels
            .range(needs.cores..)
            .rev()
            .filter_map(|(_, level)| level.last())
            .find(|(memory_mib, _)| *memory_mib >= needs.memory_mib)
            .map(|(_, worker)| worker)
    }

    /// The most cores and the most memory any worker has; perhaps no worker has both. `None` without workers.
    pub(crate) fn largest(&self) -> Option<Resources> {
        let (cores, _) = self.levels.last_key_value()?;
        let memory_mib = self
            .levels
            .values()
            .filter_map(|level| level.last())
            .map(|(memory, _)| *memory)
            .max();
        Some(Resources {
            cores: *cores,
            memory_mib: memory_mib.unwrap_or(0),
        })
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&WorkerId, Resources)> {
        self.levels.iter().flat_map(|(cores, level)| {
            let resources = |memory_mib: &u64| Resources {
                cores: *cores,
                memory_mib: *memory_mib,
            };
            level
                .iter()
                .map(move |(memory_mib, worker)| (worker, resources(memory_mib)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(workers: &[(&str, u32, u64)]) -> ResourceIndex {
        let mut index = ResourceIndex::default();
        for (id, cores, memory_mib) in workers {
            index.insert(
                id.parse().unwrap(),
                Resources {
                    cores: *cores,
                    memory_mib: *memory_mib,
                },
            );
        }
        index
    }

    fn roomiest(index: &ResourceIndex, cores: u32, memory_mib: u64) -> Option<&str> {
        index
            .roomiest(Resources { cores, memory_mib })
            .map(WorkerId::as_str)
    }

    #[test]
    fn the_worker_with_most_cores_is_preferred_then_most_memory() {
        let index = index(&[("a", 4, 100), ("b", 8, 100), ("c", 8, 200)]);
        assert_eq!(roomiest(&index, 1, 1), Some("c"));
    }

    #[test]
    fn a_worker_without_enough_memory_is_passed_over() {
        let index = index(&[("a", 4, 1000), ("b", 8, 100)]);
        assert_eq!(roomiest(&index, 2, 500), Some("a"));
        assert_eq!(roomiest(&index, 5, 500), None);
        assert_eq!(
            index.largest(),
            Some(Resources {
                cores: 8,
                memory_mib: 1000
            })
        );
    }

    #[test]
    fn a_worker_taken_out_is_found_no_more() {
        let mut index = index(&[("a", 4, 100)]);
        index.remove(
            &"a".parse().unwrap(),
            Resources {
                cores: 4,
                memory_mib: 100,
            },
        );
        assert_eq!(roomiest(&index, 1, 1), None);
        assert_eq!(index.largest(), None);
    }
}
