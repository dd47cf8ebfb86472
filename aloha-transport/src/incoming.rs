//! Requests of the peer that this side has not answered yet.

use std::collections::BTreeMap;
use std::task::{Context, Poll, Waker};

use crate::message::RequestId;

/// One byte of state and an id per slot of the peer's table; pure.
#[derive(Debug)]
pub(crate) struct IncomingRequests {
    slots: Vec<Slot>,
    limit: u32,
    active: u32,
    /// In order, so that they are woken in the same order in every run.
    wakers: BTreeMap<RequestId, Vec<Waker>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Free,
    Active(RequestId),
    Cancelled(RequestId),
}

impl IncomingRequests {
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            slots: Vec::new(),
            limit,
            active: 0,
            wakers: BTreeMap::new(),
        }
    }

    /// How many answers this side owes.
    pub(crate) fn active(&self) -> u32 {
        self.active
    }

    /// Whether an asker still waits for an answer of this side.
    pub(crate) fn is_owing(&self) -> bool {
        let mut slots = self.slots.iter();
        self.active > 0 && slots.any(|slot| matches!(slot, Slot::Active(_)))
    }

    /// Notes a request that arrived; false when the peer may not use this id.
    #[must_use]
    pub(crate) fn register(&mut self, id: RequestId) -> bool {
        let index = id.index() as usize;
        if id.index() >= self.limit {
            return false;
        }
        if index >= self.slots.len() {
            self.slots.resize(index + 1, Slot::Free);
        }
        if self.slots[index] != Slot::Free {
            return false;
        }
        self.slots[index] = Slot::Active(id);
        self.active += 1;
        true
    }

    /// Notes that the asker lost interest. An id that was answered already is ignored.
    pub(crate) fn cancel(&mut self, id: RequestId) -> Vec<Waker> {
        match self.slots.get_mut(id.index() as usize) {
            Some(slot) if *slot == Slot::Active(id) => {
                *slot = Slot::Cancelled(id);
                self.wakers.remove(&id).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }

    /// Notes the answer; false when none is due.
    #[must_use]
    pub(crate) fn finish(&mut self, id: RequestId) -> bool {
        match self.slots.get_mut(id.index() as usize) {
            Some(slot) if *slot == Slot::Active(id) || *slot == Slot::Cancelled(id) => {
                *slot = Slot::Free;
                self.active -= 1;
                if !self.wakers.is_empty() {
                    self.wakers.remove(&id);
                }
                true
            }
            _ => false,
        }
    }

    pub(crate) fn is_cancelled(&self, id: RequestId) -> bool {
        self.slots.get(id.index() as usize) != Some(&Slot::Active(id))
    }

    pub(crate) fn poll_cancelled(&mut self, id: RequestId, cx: &Context<'_>) -> Poll<()> {
        if self.is_cancelled(id) {
            return Poll::Ready(());
        }
        let wakers = self.wakers.entry(id).or_default();
        if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The connection has ended: everything counts as cancelled.
    pub(crate) fn close(&mut self) -> Vec<Waker> {
        self.slots.clear();
        self.active = 0;
        std::mem::take(&mut self.wakers)
            .into_values()
            .flatten()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_in_use_or_over_the_limit_is_refused() {
        let mut table = IncomingRequests::new(4);
        assert!(table.register(RequestId::new(3, 0)));
        assert!(!table.register(RequestId::new(3, 1)));
        assert!(!table.register(RequestId::new(4, 0)));
        assert!(table.finish(RequestId::new(3, 0)));
        assert!(table.register(RequestId::new(3, 1)));
    }

    #[test]
    fn a_request_is_answered_once() {
        let mut table = IncomingRequests::new(4);
        let id = RequestId::new(0, 0);
        assert!(table.register(id));
        assert!(table.finish(id));
        assert!(!table.finish(id));
        assert_eq!(table.active(), 0);
    }

    #[test]
    fn an_answer_that_nobody_wants_any_more_is_not_owed() {
        let mut table = IncomingRequests::new(4);
        let id = RequestId::new(1, 0);
        assert!(!table.is_owing());
        assert!(table.register(id) && table.is_owing());
        table.cancel(id);
        assert!(!table.is_owing());
        assert_eq!(table.active(), 1);
    }

    #[test]
    fn a_cancel_reaches_its_waiter_and_a_late_one_nobody() {
        let mut table = IncomingRequests::new(4);
        let id = RequestId::new(1, 0);
        assert!(table.register(id));
        let cx = Context::from_waker(Waker::noop());
        assert!(table.poll_cancelled(id, &cx).is_pending());
        assert_eq!(table.cancel(id).len(), 1);
        assert!(table.poll_cancelled(id, &cx).is_ready());
        assert!(table.finish(id));
        assert!(table.cancel(id).is_empty());
        assert!(table.register(RequestId::new(1, 1)));
        assert!(!table.is_cancelled(RequestId::new(1, 1)));
    }
}
