//! Which waiting application goes where: waiting applications and free resources in, one assignment at a time out.
//!
//! First in, first out, but an application that fits nowhere lets those behind it pass: a large one can starve behind
//! a stream of small ones. (Reservations, which prevent that, would be decided here.)

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::Bound;

use super::resource_index::ResourceIndex;
use crate::ids::{AppId, WorkerId};
use crate::resources::Resources;

/// The applications that wait, grouped by what they need.
///
/// If the first of a group fits nowhere then none of it does, so a decision looks at groups and never at everybody.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    groups: BTreeMap<Resources, BTreeMap<u64, AppId>>,
}

impl Waiting {
    /// Adds an application at its place in the queue.
    pub(crate) fn insert(&mut self, needs: Resources, number: u64, app: AppId) {
        self.groups.entry(needs).or_default().insert(number, app);
    }

    pub(crate) fn remove(&mut self, needs: Resources, number: u64) {
        if let Some(group) = self.groups.get_mut(&needs) {
            group.remove(&number);
            if group.is_empty() {
                self.groups.remove(&needs);
            }
        }
    }

    fn after(&self, needs: Resources, number: Bound<u64>) -> Option<(u64, AppId)> {
        let (number, app) = self
            .groups
            .get(&needs)?
            .range((number, Bound::Unbounded))
            .next()?;
        Some((*number, app.clone()))
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Resources, u64, &AppId)> {
        self.groups
            .iter()
            .flat_map(|(needs, group)| group.iter().map(|(number, app)| (*needs, *number, app)))
    }
}

/// What changed since the last round, and so which groups may fit now that did not then.
#[derive(Debug, Default)]
pub(crate) enum Scope {
    /// Nothing that matters.
    #[default]
    Nothing,
    /// Applications with these needs arrived.
    Groups(BTreeSet<Resources>),
    /// Room became free.
    Everything,
}

impl Scope {
    /// Notes that an application with these needs began to wait.
    pub(crate) fn add_group(&mut self, needs: Resources) {
        match self {
            Self::Nothing => *self = Self::Groups(BTreeSet::from([needs])),
            Self::Groups(groups) => {
                groups.insert(needs);
            }
            Self::Everything => {}
        }
    }
}

/// One assignment: this application goes to that worker.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub(crate) app: AppId,
    pub(crate) worker: WorkerId,
    pub(crate) needs: Resources,
}

/// One pass over the heads of the groups, oldest application first.
#[derive(Debug)]
pub(crate) struct Round {
    heads: BinaryHeap<Reverse<(u64, Resources, AppId)>>,
}

impl Round {
    pub(crate) fn new(scope: &Scope, waiting: &Waiting, free: &ResourceIndex) -> Self {
        let room = free.largest().unwrap_or_default();
        let head = |needs: &Resources| {
            let (number, app) = waiting.after(*needs, Bound::Unbounded)?;
            Some(Reverse((number, *needs, app)))
        };
        let fits = |needs: &&Resources| needs.fits_in(&room);
        let heads = match scope {
            Scope::Nothing => BinaryHeap::new(),
            Scope::Groups(groups) => groups.iter().filter(fits).filter_map(head).collect(),
            Scope::Everything => {
                let largest = Resources {
                    cores: room.cores,
                    memory_mib: u64::MAX,
                };
                waiting
                    .groups
                    .range(..=largest)
                    .map(|(needs, _)| needs)
                    .filter(fits)
                    .filter_map(head)
                    .collect()
            }
        };
        Self { heads }
    }

    /// The next assignment; the caller carries it out in `free` before it asks for another.
    pub(crate) fn next(&mut self, waiting: &Waiting, free: &ResourceIndex) -> Option<Assignment> {
        while let Some(Reverse((number, needs, app))) = self.heads.pop() {
            let Some(worker) = free.roomiest(needs) else {
                continue;
            };
            if let Some((number, app)) = waiting.after(needs, Bound::Excluded(number)) {
                self.heads.push(Reverse((number, needs, app)));
            }
            return Some(Assignment {
                app,
                worker: worker.clone(),
                needs,
            });
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn r(cores: u32, memory_mib: u64) -> Resources {
        Resources { cores, memory_mib }
    }

    /// Runs a whole round over everything, and returns what went where.
    fn place(apps: &[Resources], workers: &[Resources]) -> (Vec<(u64, usize)>, Vec<Resources>) {
        let mut free = ResourceIndex::default();
        let mut left = workers.to_vec();
        for (n, has) in workers.iter().enumerate() {
            free.insert(format!("w{n}").parse().unwrap(), *has);
        }
        let mut waiting = Waiting::default();
        for (number, needs) in (0..).zip(apps) {
            waiting.insert(*needs, number, format!("{number}").parse().unwrap());
        }
        let mut round = Round::new(&Scope::Everything, &waiting, &free);
        let mut placed = Vec::new();
        while let Some(Assignment { app, worker, needs }) = round.next(&waiting, &free) {
            let n: usize = worker.as_str()[1..].parse().unwrap();
            assert!(
                needs.fits_in(&left[n]),
                "{needs} promised out of {}",
                left[n]
            );
            free.remove(&worker, left[n]);
            left[n] = left[n].minus(needs);
            free.insert(worker, left[n]);
            let number = app.as_str().parse().unwrap();
            waiting.remove(needs, number);
            placed.push((number, n));
        }
        (placed, left)
    }

    #[test]
    fn three_small_applications_spread_over_three_workers() {
        let (mut placed, left) = place(&[r(1, 1); 3], &[r(10, 4096); 3]);
        placed.sort_by_key(|(_, worker)| *worker);
        assert_eq!(left, [r(9, 4095); 3]);
    }

    #[test]
    fn the_oldest_is_placed_first_across_groups() {
        let (placed, _) = place(&[r(2, 1), r(1, 1), r(2, 1)], &[r(4, 4)]);
        assert_eq!(placed, [(0, 0), (1, 0)]);
    }

    #[test]
    fn one_that_fits_nowhere_lets_the_smaller_ones_pass() {
        let (placed, _) = place(&[r(8, 1), r(1, 1), r(1, 9999), r(1, 1)], &[r(4, 4)]);
        assert_eq!(placed, [(1, 0), (3, 0)]);
    }

    proptest! {
        #[test]
        fn a_round_places_all_that_fit_and_promises_nothing_twice(
            apps in prop::collection::vec((1u32..6, 0u64..6), 0..40),
            workers in prop::collection::vec((0u32..12, 0u64..12), 0..8),
        ) {
            let apps: Vec<_> = apps.into_iter().map(|(c, m)| r(c, m)).collect();
            let workers: Vec<_> = workers.into_iter().map(|(c, m)| r(c, m)).collect();
            let (placed, left) = place(&apps, &workers);
            for (number, needs) in (0..).zip(&apps) {
                let was_placed = placed.iter().any(|(n, _)| *n == number);
                prop_assert!(was_placed || !left.iter().any(|room| needs.fits_in(room)));
            }
        }
    }
}
