//! Which waiting application goes where: the queue and the workers in, one assignment at a time out.
//!
//! Higher priority first, then who came first. One that fits nowhere lets those behind it pass, but nothing starves:
//! the first that fits nowhere, though some worker would hold it were it empty, has one worker reserved. Nobody behind
//! it is placed there any more, so that room gathers until it fits; nor does anybody behind it take the last place that
//! a limit on its tags allows. (Such a reservation is known as that of EASY
//! backfilling: D. Lifka, "The ANL/IBM SP Scheduling System", 1995; here without estimates of run times.)

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::apps::AppSlot;
use super::capacity::KindSlot;
use super::queue::{GroupSlot, Queue, Shape, Ticket};
use super::resource_index::Preference;
use super::tag_limits::{Applying, TagLimit, TagLimits};
use super::workers::{Worker, WorkerSlot, Workers};
use crate::resources::Resources;

/// How many workers are looked at for a reservation, and how many of them of one kind.
const LOOKED_AT_MAX: usize = 32;
const LOOKED_AT_OF_KIND: usize = 4;
/// A reservation is not reviewed before so many others were placed, by worker.
const PLACED_BEFORE_REVIEW: u64 = 8;

/// One assignment: this application goes to that worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub(crate) app: AppSlot,
    pub(crate) worker: WorkerSlot,
    pub(crate) needs: Resources,
}

/// What placement remembers from one round to the next.
#[derive(Debug)]
pub(crate) struct Placer {
    by: Preference,
    /// Off only to show what it is good for.
    #[cfg(test)]
    pub(crate) reserves: bool,
    /// Whom the reserved worker is kept for.
    holder: Option<(Ticket, GroupSlot)>,
    /// The limits that apply to it: of each, the last place is kept for it as well.
    kept: Applying,
    /// When it is asked whether another worker were better, by the number of attempts ever placed.
    review_at: u64,
    /// The first of each group that may fit now and did not before.
    candidates: BinaryHeap<Reverse<(Ticket, GroupSlot)>>,
    /// The one worker that has more room than before, while there is but one: nobody who waited fits another.
    only: Option<WorkerSlot>,
    /// What was placed last, and is carried out by now.
    last: Option<(Ticket, GroupSlot, WorkerSlot)>,
    /// The queue and the kinds of workers as they were at the end of the last round.
    seen: (u64, u64),
}

impl Placer {
    pub(crate) fn new(by: Preference) -> Self {
        Self {
            by,
            #[cfg(test)]
            reserves: true,
            holder: None,
            kept: Applying::default(),
            review_at: 0,
            candidates: BinaryHeap::new(),
            only: None,
            last: None,
            seen: (0, 0),
        }
    }

    /// Whom a worker is reserved for.
    pub(crate) fn holder(&self) -> Option<Ticket> {
        self.holder.map(|(ticket, _)| ticket)
    }

    /// A limit whose last place is kept for somebody before this one.
    pub(crate) fn kept_limit<'a>(
        &self,
        ticket: Ticket,
        applying: &Applying,
        limits: &'a TagLimits,
    ) -> Option<&'a TagLimit> {
        let is_behind = self.holder().is_some_and(|holder| holder < ticket);
        limits.last_of(applying, &self.kept).filter(|_| is_behind)
    }

    /// Keeps room for this one, and whatever a limit allows no more than one of.
    fn hold_for(&mut self, holder: Option<(Ticket, GroupSlot)>, queue: &mut Queue) {
        if self.holder != holder {
            let limits = holder.map(|(_, group)| queue.shape_of(group).limits.clone());
            let before = std::mem::replace(&mut self.kept, limits.unwrap_or_default());
            self.holder = holder;
            if before != Applying::default() {
                queue.opened(&before);
            }
        }
    }

    /// The next assignment, none at the end of a round. The caller carries it out before it asks for another.
    pub(crate) fn next(
        &mut self,
        queue: &mut Queue,
        limits: &TagLimits,
        workers: &mut Workers,
    ) -> Option<Assignment> {
        if let Some((ticket, group, worker)) = self.last.take() {
            if let Some(head) = queue.head_of(group) {
                self.candidates.push(Reverse((head, group)));
            }
            if self.only.is_none() {
                workers.settle();
            }
            if self.holder() == Some(ticket) {
                self.pass_on(worker, queue, limits, workers);
            }
        }
        loop {
            self.gather(queue, workers);
            let Some(Reverse((ticket, group))) = self.candidates.pop() else {
                self.reserve(queue, limits, workers);
                let is_over = self.candidates.is_empty() && !queue.has_fresh();
                if is_over && !workers.has_roomier() {
                    self.only = None;
                    workers.settle();
                    return None;
                }
                continue;
            };
            if let Some(assignment) = self.try_to_place(ticket, group, queue, limits, workers) {
                self.last = Some((ticket, group, assignment.worker));
                return Some(assignment);
            }
            let is_first = self.holder().is_none_or(|holder| ticket < holder);
            if is_first && lacks_room(ticket, group, queue, limits, workers) {
                self.reserve(queue, limits, workers);
            }
        }
    }

    /// Collects what may fit now and did not before.
    fn gather(&mut self, queue: &mut Queue, workers: &mut Workers) {
        if !queue.has_fresh() && !workers.has_roomier() {
            return;
        }
        let is_first = self.candidates.is_empty() && !queue.has_fresh();
        for group in queue.take_fresh() {
            if let Some(head) = queue.head_of(group) {
                self.candidates.push(Reverse((head, group)));
            }
        }
        let mut room: Option<Resources> = None;
        let mut kept: Option<Resources> = None;
        let roomier = workers.take_roomier();
        self.only = match roomier[..] {
            [only] if is_first && workers.reserved() != Some(only) => Some(only),
            _ => None,
        };
        if self.only.is_none() {
            workers.settle();
        }
        for worker in roomier {
            let free = workers.at(worker).free();
            let most = if workers.reserved() == Some(worker) {
                &mut kept
            } else {
                &mut room
            };
            *most = Some(most.map_or(free, |most| Resources {
                cores: most.cores.max(free.cores),
                memory_mib: most.memory_mib.max(free.memory_mib),
            }));
        }
        let candidate = |group| Some(Reverse((queue.head_of(group)?, group)));
        if let Some(room) = room {
            self.candidates
                .extend(queue.fitting(room).filter_map(candidate));
        }
        if let (Some(kept), Some(holder)) = (kept, self.holder()) {
            let before = |candidate: &Reverse<(Ticket, _)>| candidate.0.0 <= holder;
            let fitting = queue.fitting(kept).filter_map(candidate);
            self.candidates.extend(fitting.filter(before));
        }
    }

    fn try_to_place(
        &self,
        ticket: Ticket,
        group: GroupSlot,
        queue: &mut Queue,
        limits: &TagLimits,
        workers: &Workers,
    ) -> Option<Assignment> {
        let shape = queue.group_of(group, ticket)?.shape();
        let kept = self.kept_limit(ticket, &shape.limits, limits);
        if limits.reached(&shape.limits).or(kept).is_some() {
            return None;
        }
        let needs = shape.needs;
        let worker = match self.only {
            Some(only) => Some(only).filter(|only| {
                let kept = workers.reserved() == Some(*only);
                !kept && fits(shape, workers.at(*only), workers)
            }),
            None => self.listed_for(group, queue, workers),
        };
        let worker = worker.or_else(|| {
            let shape = queue.group_of(group, ticket)?.shape();
            self.reserved_for(ticket, shape, workers)
        })?;
        Some(Assignment {
            app: ticket.app,
            worker,
            needs,
        })
    }

    /// The worker with room for one of this group that is preferred among those that are not reserved.
    fn listed_for(
        &self,
        group: GroupSlot,
        queue: &mut Queue,
        workers: &Workers,
    ) -> Option<WorkerSlot> {
        let shape = queue.shape_of(group);
        let (needs, capacity) = (shape.needs, workers.capacity());
        if shape.constraints.is_empty() {
            let best = capacity.free().best(needs, self.by);
            best.map(|(_, worker)| worker)
        } else {
            capacity.best_of(queue.suitable(group, capacity), needs, self.by)
        }
    }

    /// The reserved worker, if it is not kept for somebody behind this one and has room.
    fn reserved_for(
        &self,
        ticket: Ticket,
        shape: &Arc<Shape>,
        workers: &Workers,
    ) -> Option<WorkerSlot> {
        let slot = workers.reserved()?;
        let may = self.holder().is_some_and(|holder| ticket <= holder);
        (may && fits(shape, workers.at(slot), workers)).then_some(slot)
    }

    /// The holder was placed: what was kept for it is kept for the next, unless that is where it went.
    fn pass_on(
        &mut self,
        placed_on: WorkerSlot,
        queue: &mut Queue,
        limits: &TagLimits,
        workers: &mut Workers,
    ) {
        self.hold_for(None, queue);
        if workers.reserved() == Some(placed_on) {
            workers.reserve(None);
        }
        self.reserve(queue, limits, workers);
    }

    /// Sees to it that the head of the queue, if it fits nowhere, has a worker reserved, and nobody else.
    fn reserve(&mut self, queue: &mut Queue, limits: &TagLimits, workers: &mut Workers) {
        let seen = (queue.revision(), workers.capacity().version());
        let due = workers.placed() >= self.review_at;
        let whole = self.holder.is_some() == workers.reserved().is_some();
        if self.seen == seen && whole && !(due && self.holder.is_some()) {
            return;
        }
        self.seen = seen;
        workers.settle();
        #[cfg(test)]
        if !self.reserves {
            return;
        }
        let Some((ticket, group)) = queue.head(limits, workers.capacity()) else {
            self.hold_for(None, queue);
            workers.reserve(None);
            return;
        };
        let kept = workers
            .reserved()
            .filter(|worker| suits(*worker, group, queue, workers));
        if self.listed_for(group, queue, workers).is_some() {
            // It is about to be placed, and what was kept may go to the next.
            self.hold_for(kept.map(|_| (ticket, group)), queue);
            workers.reserve(kept);
            self.candidates.push(Reverse((ticket, group)));
            return;
        }
        let needs = queue.shape_of(group).needs;
        let kinds = queue.suitable(group, workers.capacity());
        let chosen = match kept {
            Some(kept) if due => Some(best_of_all(kept, kinds, needs, workers)),
            Some(kept) => Some(kept),
            None => best_at_a_glance(kinds, needs, workers),
        };
        if due || chosen != kept {
            let patience = PLACED_BEFORE_REVIEW.saturating_mul(workers.count());
            self.review_at = workers.placed().saturating_add(patience);
        }
        self.hold_for(chosen.map(|_| (ticket, group)), queue);
        workers.reserve(chosen);
        if chosen.is_some_and(|worker| needs.fits_in(&workers.at(worker).free())) {
            self.candidates.push(Reverse((ticket, group)));
        }
    }

    /// Panics if anything waits that could be placed.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn check_invariants(&self, queue: &Queue, limits: &TagLimits, workers: &Workers) {
        assert!(self.candidates.is_empty() && self.last.is_none());
        assert!(!queue.has_fresh() && !workers.has_roomier());
        assert_eq!(self.holder.is_some(), workers.reserved().is_some());
        for (slot, group) in queue.groups() {
            let (shape, head) = (group.shape(), group.head());
            let kept = self.kept_limit(head, &shape.limits, limits);
            if limits.reached(&shape.limits).or(kept).is_some() {
                continue;
            }
            let fits = |(_, worker): &(_, &Worker)| fits(shape, worker, workers);
            for (at, worker) in workers.iter().filter(fits) {
                let kept = workers.reserved() == Some(at)
                    && self.holder().is_some_and(|holder| holder < head);
                assert!(
                    kept,
                    "{head:?} of {slot:?} waits and fits {}",
                    worker.record.id
                );
            }
            let some_suits = workers
                .capacity()
                .kinds()
                .any(|(_, kind)| kind.suits(shape.needs, &shape.constraints));
            assert!(
                !some_suits || self.holder().is_some_and(|holder| holder <= head),
                "{head:?} comes first and nothing is reserved for it"
            );
        }
        match self.holder {
            None => assert_eq!(self.kept, Applying::default()),
            Some((ticket, group)) => {
                let group = queue.group_of(group, ticket);
                let limits = group.map(|group| &group.shape().limits);
                assert_eq!(limits, Some(&self.kept), "the holder waits no more");
            }
        }
    }
}

/// Whether a worker takes applications of this shape and has room for one.
fn fits(shape: &Shape, worker: &Worker, workers: &Workers) -> bool {
    let kind = worker.kind().map(|kind| workers.capacity().kind(kind));
    shape.needs.fits_in(&worker.free()) && kind.is_some_and(|kind| kind.meets(&shape.constraints))
}

/// Whether one that was not placed would be, were there room.
fn lacks_room(
    ticket: Ticket,
    group: GroupSlot,
    queue: &mut Queue,
    limits: &TagLimits,
    workers: &Workers,
) -> bool {
    let held_back = match queue.group_of(group, ticket) {
        Some(group) => limits.reached(&group.shape().limits).is_some(),
        None => true,
    };
    !held_back && !queue.suitable(group, workers.capacity()).is_empty()
}

/// Whether a worker would hold one of this group, were it empty.
fn suits(worker: WorkerSlot, group: GroupSlot, queue: &mut Queue, workers: &Workers) -> bool {
    let kind = workers.at(worker).kind();
    let kinds = queue.suitable(group, workers.capacity());
    kind.is_some_and(|kind| kinds.contains(&kind))
}

/// Of some of the roomiest workers of these kinds, the one that is likely to have room first.
fn best_at_a_glance(kinds: &[KindSlot], needs: Resources, workers: &Workers) -> Option<WorkerSlot> {
    let roomiest = kinds.iter().flat_map(|kind| {
        let free = workers.capacity().kind(*kind).free();
        free.iter().take(LOOKED_AT_OF_KIND)
    });
    let looked_at = roomiest.take(LOOKED_AT_MAX);
    let best =
        looked_at.max_by_key(|(free, worker)| (workers.at(*worker).likely_room(needs), *free));
    best.map(|(_, worker)| worker)
}

/// Of all workers of these kinds, the one that is likely to have room first; `kept` unless another is better.
fn best_of_all(
    kept: WorkerSlot,
    kinds: &[KindSlot],
    needs: Resources,
    workers: &Workers,
) -> WorkerSlot {
    let likely = |worker: WorkerSlot| workers.at(worker).likely_room(needs);
    let all = kinds
        .iter()
        .flat_map(|kind| workers.capacity().kind(*kind).free().iter());
    all.map(|(_, worker)| worker)
        .max_by_key(|worker| likely(*worker))
        .filter(|worker| likely(*worker) > likely(kept))
        .unwrap_or(kept)
}
