//! Who waits for a master that leads, and for how long yet.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Those who wait.
#[derive(Debug, Default)]
pub(super) struct Waiting(watch::Sender<Wait>);

/// A time without a leader, from when the first began to wait until nobody does.
#[derive(Debug, Clone, Copy, Default)]
struct Wait {
    waiting: usize,
    /// When it began, and when the most patient gives up.
    span: Option<(Instant, Instant)>,
}

/// Somebody who waits. Dropped, it does not any more.
#[derive(Debug)]
pub(super) struct Waiter<'a>(&'a Waiting);

impl Waiting {
    pub(super) fn begin(&self, now: Instant, give_up_at: Instant) -> Waiter<'_> {
        self.0.send_modify(|wait| {
            wait.waiting += 1;
            wait.span = Some(match wait.span {
                Some((since, latest)) => (since, latest.max(give_up_at)),
                None => (now, give_up_at),
            });
        });
        Waiter(self)
    }

    /// Tells once of each time that lasts `after` how long it may last yet, where that is as long again.
    pub(super) async fn tell(&self, after: Duration, mut tell: impl FnMut(Duration)) -> Infallible {
        let mut wait = self.0.subscribe();
        let until = |wait: &mut watch::Receiver<Wait>, is_on| {
            let mut wait = wait.clone();
            async move {
                let wanted = |wait: &Wait| wait.span.is_some() == is_on;
                let wait = wait.wait_for(wanted).await;
                wait.expect("the sender is here").span
            }
        };
        loop {
            let (since, _) = until(&mut wait, true).await.expect("waited for");
            let told_at = since + after;
            tokio::select! {
                biased;
                _ = until(&mut wait, false) => continue,
                () = sleep_until(told_at) => {}
            }
            let Some((_, give_up_at)) = wait.borrow().span else {
                continue;
            };
            let left = give_up_at.saturating_duration_since(told_at);
            if left >= after {
                tell(left);
            }
            until(&mut wait, false).await;
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|wait| {
            wait.waiting -= 1;
            if wait.waiting == 0 {
                wait.span = None;
            }
        });
    }
}
