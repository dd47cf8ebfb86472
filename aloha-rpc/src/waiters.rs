//! Those who wait for a place in an inbox, in the order they came; pure.
//!
//! A free place is handed to the first, by ticket: nobody who comes later can take it, and who gives up while it is being
//! handed over gives it back.

use std::collections::{BTreeSet, VecDeque};
use std::task::Waker;

#[derive(Debug, Default)]
pub(crate) struct Waiters {
    last: u64,
    waiting: VecDeque<(u64, Waker)>,
    granted: BTreeSet<u64>,
}

/// Names one who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

/// What somebody had who gave up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Left {
    Nothing,
    APlace,
}

impl Waiters {
    pub(crate) fn anybody(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(crate) fn join(&mut self, waker: &Waker) -> Ticket {
        self.last += 1;
        self.waiting.push_back((self.last, waker.clone()));
        Ticket(self.last)
    }

    /// Whether the place is there; else the waker is kept.
    pub(crate) fn claim(&mut self, Ticket(ticket): Ticket, waker: &Waker) -> bool {
        if self.granted.remove(&ticket) {
            return true;
        }
        if let Some((_, known)) = self.waiting.iter_mut().find(|(known, _)| *known == ticket) {
            known.clone_from(waker);
        }
        false
    }

    /// Hands a place to the first.
    pub(crate) fn grant(&mut self) -> Option<Waker> {
        let (ticket, waker) = self.waiting.pop_front()?;
        self.granted.insert(ticket);
        Some(waker)
    }

    pub(crate) fn leave(&mut self, Ticket(ticket): Ticket) -> Left {
        if self.granted.remove(&ticket) {
            return Left::APlace;
        }
        self.waiting.retain(|(known, _)| *known != ticket);
        Left::Nothing
    }

    /// Nobody will get a place any more.
    pub(crate) fn close(&mut self) -> Vec<Waker> {
        self.waiting.drain(..).map(|(_, waker)| waker).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_goes_to_the_first_and_back_if_that_one_gave_up() {
        let mut waiters = Waiters::default();
        let (one, two) = (waiters.join(Waker::noop()), waiters.join(Waker::noop()));
        assert!(waiters.grant().is_some());
        assert!(!waiters.claim(two, Waker::noop()));
        assert_eq!(waiters.leave(one), Left::APlace);
        assert!(waiters.grant().is_some());
        assert!(waiters.claim(two, Waker::noop()));
        assert_eq!(waiters.leave(two), Left::Nothing);
        assert!(waiters.grant().is_none());
    }
}
