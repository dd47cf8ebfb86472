//! A new leader calls the workers it knows of: who hears it registers at once, wherever it is registered yet.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::ids::WorkerId;

/// How many are called at a time, and how often: ten thousand within three seconds.
const AT_ONCE: usize = 200;
const STEP: Duration = Duration::from_millis(50);
/// The pause before those are called again who did not come; it doubles with each round, up to the longest.
const PAUSE: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Who is to be called, and when.
#[derive(Debug)]
pub(super) struct Calls {
    waiting: VecDeque<WorkerId>,
    /// When the next are called; never again once nobody is missing.
    next: Option<Instant>,
    pause: Duration,
}

impl Calls {
    /// Begins with these, now.
    pub(super) fn new(awaited: impl Iterator<Item = WorkerId>, now: Instant) -> Self {
        let waiting: VecDeque<_> = awaited.collect();
        Self {
            next: (!waiting.is_empty()).then_some(now),
            waiting,
            pause: PAUSE,
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Those to be called now. `awaited` tells who has not come yet.
    pub(super) fn take_due<I: Iterator<Item = WorkerId>>(
        &mut self,
        now: Instant,
        awaited: impl Fn() -> I,
        is_awaited: impl Fn(&WorkerId) -> bool,
    ) -> Vec<WorkerId> {
        if self.next.is_none_or(|next| next > now) {
            return Vec::new();
        }
        if self.waiting.is_empty() {
            self.waiting.extend(awaited());
        }
        let count = self.waiting.len().min(AT_ONCE);
        let mut due: Vec<_> = self.waiting.drain(..count).collect();
        due.retain(is_awaited);
        self.next = if !self.waiting.is_empty() {
            now.checked_add(STEP)
        } else if awaited().next().is_some() {
            let pause = self.pause;
            self.pause = (pause * 2).min(PAUSE_MAX);
            now.checked_add(pause)
        } else {
            None
        };
        due
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn workers(count: usize) -> BTreeSet<WorkerId> {
        let id = |n| format!("worker-{n}").parse().expect("a good id");
        (0..count).map(id).collect()
    }

    #[expect(clippy::disallowed_methods, reason = "any moment will do")]
    fn beginning() -> Instant {
        Instant::now()
    }

    #[test]
    fn all_are_called_a_few_at_a_time_and_who_does_not_come_again() {
        let mut missing = workers(450);
        let begun = beginning();
        let mut calls = Calls::new(missing.iter().cloned(), begun);
        let mut called = Vec::new();
        let mut take = |calls: &mut Calls, now, missing: &BTreeSet<WorkerId>| {
            let due = calls.take_due(now, || missing.iter().cloned(), |it| missing.contains(it));
            called.extend(due.clone());
            due.len()
        };
        assert_eq!(calls.next_deadline(), Some(begun));
        assert_eq!(take(&mut calls, begun, &missing), 200);
        assert_eq!(take(&mut calls, begun, &missing), 0, "no storm");
        assert_eq!(take(&mut calls, begun + STEP, &missing), 200);
        assert_eq!(take(&mut calls, begun + 2 * STEP, &missing), 50);
        let late = missing.pop_last().expect("there are many");
        missing = BTreeSet::from([late.clone()]);
        let again = calls.next_deadline().expect("one is missing");
        assert_eq!(again, begun + 2 * STEP + PAUSE);
        assert_eq!(take(&mut calls, again, &missing), 1);
        missing.clear();
        let last = calls.next_deadline().expect("it may not have heard");
        assert_eq!(last, again + 2 * PAUSE);
        assert_eq!(take(&mut calls, last, &missing), 0);
        assert_eq!(calls.next_deadline(), None, "all are there");
        let distinct: BTreeSet<_> = called.iter().collect();
        assert_eq!((called.len(), distinct.len()), (451, 450));
    }

    #[test]
    fn who_came_meanwhile_is_not_called() {
        let begun = beginning();
        let all = workers(300);
        let mut calls = Calls::new(all.iter().cloned(), begun);
        let nobody = BTreeSet::<WorkerId>::new();
        let due = calls.take_due(begun, || nobody.iter().cloned(), |it| nobody.contains(it));
        assert_eq!(due, []);
    }
}
