//! The timers of one endpoint: messages to itself, due at a time; pure, apart from the one sleep that waits for the first.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Names one timer of one endpoint, for [`EndpointContext::cancel_timer`](crate::EndpointContext::cancel_timer).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerKey(u64);

/// A key is never used again, also not by an endpoint that was made anew.
static NEXT_KEY: AtomicU64 = AtomicU64::new(0);

pub(crate) enum Due<M> {
    Once(M),
    Every(Duration, Box<dyn FnMut() -> M + Send>),
}

pub(crate) struct Timers<M> {
    due: BTreeMap<(Instant, TimerKey), Due<M>>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<M> Default for Timers<M> {
    fn default() -> Self {
        Self {
            due: BTreeMap::new(),
            sleep: None,
        }
    }
}

impl<M> Timers<M> {
    pub(crate) fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    pub(crate) fn set(&mut self, at: Instant, what: Due<M>) -> TimerKey {
        let key = TimerKey(NEXT_KEY.fetch_add(1, Ordering::Relaxed));
        self.set_again(at, key, what);
        key
    }

    /// Sets a timer that was taken out.
    pub(crate) fn set_again(&mut self, at: Instant, key: TimerKey, what: Due<M>) {
        self.due.insert((at, key), what);
    }

    /// Takes a timer out.
    pub(crate) fn cancel(&mut self, key: TimerKey) -> Option<Due<M>> {
        let at = *self.due.keys().find(|(_, known)| *known == key)?;
        self.due.remove(&at)
    }

    /// Takes the first timer out if it is due.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<(TimerKey, Due<M>)> {
        let first = self.due.first_entry()?;
        if first.key().0 > now {
            return None;
        }
        let ((_, key), what) = first.remove_entry();
        Some((key, what))
    }

    /// What they hold, to be dropped with care.
    pub(crate) fn into_messages(self) -> impl Iterator<Item = Due<M>> {
        self.due.into_values()
    }

    /// Ready once the first timer is due.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some((first, _)) = self.due.keys().next() else {
            return Poll::Pending;
        };
        match &mut self.sleep {
            Some(sleep) if sleep.deadline() == *first => {}
            Some(sleep) => sleep.as_mut().reset(*first),
            None => self.sleep = Some(Box::pin(tokio::time::sleep_until(*first))),
        }
        let sleep = self.sleep.as_mut().expect("just set");
        sleep.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn timers_are_due_in_order_and_a_cancelled_one_never() {
        let mut timers = Timers::default();
        let start = now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let late = timers.set(at(2), Due::Once("late"));
        let early = timers.set(at(1), Due::Once("early"));
        let cancelled = timers.set(at(1), Due::Once("cancelled"));
        assert!(timers.cancel(cancelled).is_some());
        assert!(timers.pop(start).is_none());
        assert!(matches!(timers.pop(at(3)), Some((key, Due::Once("early"))) if key == early));
        assert!(matches!(timers.pop(at(3)), Some((key, _)) if key == late));
        assert!(timers.is_empty());
    }
}
