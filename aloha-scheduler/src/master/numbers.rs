//! The numbers of applications: each is given once, over restarts and clocks that step back too.

/// How many numbers are reserved in the store at a time.
const BLOCK: u64 = 1_000;

/// The next number, and below which one the store says that numbers may have been given.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    durable: bool,
    next: u64,
    reserved: u64,
}

impl Numbers {
    /// Begins at 0. Without a store nothing is reserved.
    pub(super) fn new(durable: bool) -> Self {
        Self {
            durable,
            next: 0,
            reserved: 0,
        }
    }

    /// Goes on above every number that may have been given: `known` is above those that are seen, and those below
    /// `reserved` were reserved. Where that was lost, a block is left out for numbers that are no longer seen.
    pub(super) fn restore(&mut self, known: u64, reserved: u64) {
        self.next = if known <= reserved {
            reserved
        } else {
            known.saturating_add(BLOCK)
        };
        self.reserved = reserved;
    }

    /// What the store says: numbers below this one may have been given.
    pub(super) fn reserved(&self) -> u64 {
        self.reserved
    }

    /// The next number, and what is to be stored before it is used.
    pub(super) fn take(&mut self) -> (u64, Option<u64>) {
        let number = self.next;
        self.next = self.next.saturating_add(1);
        if !self.durable || self.next <= self.reserved {
            return (number, None);
        }
        self.reserved = number.saturating_add(BLOCK);
        (number, Some(self.reserved))
    }

    /// Leaves out all numbers up to this one.
    pub(super) fn leave_out(&mut self, number: u64) {
        self.next = self.next.max(number.saturating_add(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_reserved_a_block_at_a_time() {
        let mut numbers = Numbers::new(true);
        assert_eq!(numbers.take(), (0, Some(1000)));
        for number in 1..1000 {
            assert_eq!(numbers.take(), (number, None));
        }
        assert_eq!(numbers.take(), (1000, Some(2000)));
        numbers.leave_out(5000);
        assert_eq!(numbers.take(), (5001, Some(6001)));
    }

    #[test]
    fn no_number_that_was_reserved_is_given_again() {
        let mut numbers = Numbers::new(true);
        numbers.restore(3, 1000);
        assert_eq!(numbers.take(), (1000, Some(2000)));
        numbers.restore(1200, 0); // the reservation was lost
        assert_eq!(numbers.take(), (2200, Some(3200)));
        let mut fresh = Numbers::new(true);
        fresh.restore(0, 0);
        assert_eq!(fresh.take(), (0, Some(1000)));
    }

    #[test]
    fn without_a_store_nothing_is_reserved() {
        let mut numbers = Numbers::new(false);
        assert_eq!(numbers.take(), (0, None));
        assert_eq!(numbers.take(), (1, None));
    }
}
