//! The applications that wait, in the order in which they are to be placed.
//!
//! They lie in groups of the same shape: if the first of a group cannot be placed then none of it can. So a decision
//! looks at groups and never at everybody, and a submission at none but its own.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use super::apps::AppSlot;
use super::capacity::{Capacity, Kind, KindSlot};
use super::table::{Slot, Table};
use super::tag_limits::{Applying, TagLimits};
use crate::constraint::Constraint;
use crate::resources::Resources;

/// A place in the queue. The smaller one is served first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket {
    pub(crate) priority: Reverse<i32>,
    /// Smaller numbers came first.
    pub(crate) number: u64,
    pub(crate) app: AppSlot,
}

/// All that placement looks at in an application.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Shape {
    pub(crate) needs: Resources,
    pub(crate) constraints: BTreeSet<Constraint>,
    pub(crate) limits: Applying,
}

/// Applications of one shape that wait; there is at least one.
#[derive(Debug)]
pub(crate) struct Group {
    shape: Arc<Shape>,
    waiting: BTreeSet<Ticket>,
    /// The kinds of workers that would hold one of them, were they empty,
    suitable: Vec<KindSlot>,
    /// as of this version of the kinds.
    as_of: Option<u64>,
}

/// Where a group lies, for as long as somebody of it waits.
pub(crate) type GroupSlot = Slot<Group>;

impl Group {
    pub(crate) fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }

    /// The one to be placed first.
    pub(crate) fn head(&self) -> Ticket {
        *self.waiting.first().expect("a group is not empty")
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &Ticket> {
        self.waiting.iter()
    }
}

/// The applications that wait.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    groups: Table<Arc<Shape>, Group>,
    by_needs: BTreeSet<(Resources, GroupSlot)>,
    /// The first of each group.
    heads: BTreeSet<(Ticket, GroupSlot)>,
    /// Groups of which something may have become possible, other than by room on one worker.
    fresh: Vec<GroupSlot>,
    /// Rises with every change.
    revision: u64,
}

impl Queue {
    /// Adds an application at its place.
    pub(crate) fn insert(&mut self, shape: Shape, ticket: Ticket) -> GroupSlot {
        let slot = match self.groups.slot(&shape) {
            Some(slot) => {
                let group = &mut self.groups[slot];
                let head = group.head();
                group.waiting.insert(ticket);
                if ticket < head {
                    self.heads.remove(&(head, slot));
                    self.heads.insert((ticket, slot));
                }
                slot
            }
            None => {
                let shape = Arc::new(shape);
                let group = Group {
                    shape: Arc::clone(&shape),
                    waiting: BTreeSet::from([ticket]),
                    suitable: Vec::new(),
                    as_of: None,
                };
                let needs = shape.needs;
                let slot = self.groups.insert(shape, group);
                self.by_needs.insert((needs, slot));
                self.heads.insert((ticket, slot));
                slot
            }
        };
        self.fresh.push(slot);
        self.revision += 1;
        slot
    }

    /// Takes an application out.
    pub(crate) fn remove(&mut self, slot: GroupSlot, ticket: Ticket) {
        self.revision += 1;
        let group = &mut self.groups[slot];
        let head = group.head();
        group.waiting.remove(&ticket);
        if ticket != head {
            return;
        }
        self.heads.remove(&(head, slot));
        match group.waiting.first() {
            Some(next) => {
                self.heads.insert((*next, slot));
            }
            None => {
                let shape = Arc::clone(&group.shape);
                self.by_needs.remove(&(shape.needs, slot));
                self.groups.remove(&shape);
            }
        }
    }

    /// The group in this slot, if it is still the one whose first has this ticket.
    pub(crate) fn group_of(&self, slot: GroupSlot, head: Ticket) -> Option<&Group> {
        self.groups.at(slot).filter(|group| group.head() == head)
    }

    /// The first of the group in this slot, if anybody of it waits.
    pub(crate) fn head_of(&self, slot: GroupSlot) -> Option<Ticket> {
        self.groups.at(slot).map(Group::head)
    }

    pub(crate) fn shape_of(&self, slot: GroupSlot) -> &Shape {
        &self.groups[slot].shape
    }

    /// Rises with every change.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Groups of which something may have become possible since this was last asked, other than by room on one worker.
    pub(crate) fn take_fresh(&mut self) -> Vec<GroupSlot> {
        let mut fresh = std::mem::take(&mut self.fresh);
        fresh.sort_unstable();
        fresh.dedup();
        fresh
    }

    /// Notes that one of these limits keeps nobody back any more.
    pub(crate) fn opened(&mut self, limits: &Applying) {
        let of_them = |group: &Group| group.shape.limits.shares_any_with(limits);
        let groups = self.groups.iter();
        let opened = groups.filter_map(|(slot, group)| of_them(group).then_some(slot));
        self.fresh.extend(opened);
        self.revision += 1;
    }

    /// The groups that fit in this room.
    pub(crate) fn fitting(&self, room: Resources) -> impl Iterator<Item = GroupSlot> {
        let end = Resources {
            cores: room.cores.saturating_add(1),
            memory_mib: 0,
        };
        let few_cores = self.by_needs.range(..(end, Slot::FIRST));
        few_cores.filter_map(move |(needs, slot)| needs.fits_in(&room).then_some(*slot))
    }

    /// The kinds of workers that would hold a group, were they empty.
    pub(crate) fn suitable(&mut self, slot: GroupSlot, capacity: &Capacity) -> &[KindSlot] {
        let group = &mut self.groups[slot];
        if group.as_of != Some(capacity.version()) {
            let shape = &group.shape;
            let suits = |(slot, kind): (KindSlot, &Kind)| {
                kind.suits(shape.needs, &shape.constraints).then_some(slot)
            };
            group.suitable = capacity.kinds().filter_map(suits).collect();
            group.as_of = Some(capacity.version());
        }
        &group.suitable
    }

    /// The first of all that no limit keeps back and that some worker would hold, were it empty.
    pub(crate) fn head(
        &mut self,
        limits: &TagLimits,
        capacity: &Capacity,
    ) -> Option<(Ticket, GroupSlot)> {
        let mut after = None;
        loop {
            let mut rest = match after {
                None => self.heads.range(..),
                Some(last) => self.heads.range((Bound::Excluded(last), Bound::Unbounded)),
            };
            let (ticket, slot) = *rest
                .find(|(_, slot)| limits.reached(&self.groups[*slot].shape.limits).is_none())?;
            if !self.suitable(slot, capacity).is_empty() {
                return Some((ticket, slot));
            }
            after = Some((ticket, slot));
        }
    }

    /// Every group, in an order that means nothing.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn groups(&self) -> impl Iterator<Item = (GroupSlot, &Group)> {
        self.groups.iter()
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn check_invariants(&self) {
        let heads = self.groups.iter().map(|(slot, group)| (group.head(), slot));
        assert_eq!(self.heads, heads.collect(), "the heads are out of step");
        let needs = self.groups.iter();
        let needs = needs.map(|(slot, group)| (group.shape.needs, slot));
        assert_eq!(self.by_needs, needs.collect(), "the needs are out of step");
    }
}
