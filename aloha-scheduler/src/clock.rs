//! The only reader of the clock, and the one timer of each shell.

use std::time::{Instant, SystemTime};

use tokio::sync::watch;

use crate::now::Now;

/// Reads both clocks: tokio's, which a test can pause, and the one on the wall.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the clocks are read"
)]
pub(crate) fn now() -> Now {
    Now {
        instant: tokio::time::Instant::now().into_std(),
        wall: SystemTime::now(),
    }
}

/// Calls back once at a time that may change until then. Dropped, it never does.
#[derive(Debug)]
pub(crate) struct Alarm {
    deadline: watch::Sender<Option<Instant>>,
}

impl Alarm {
    /// An alarm without a time.
    pub(crate) fn new(ring: impl Fn() + Send + 'static) -> Self {
        let (deadline, mut changes) = watch::channel(None::<Instant>);
        tokio::spawn(async move {
            loop {
                let deadline = *changes.borrow_and_update();
                let due = async {
                    match deadline {
                        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                        None => std::future::pending().await,
                    }
                };
                let rung = tokio::select! {
                    biased;
                    changed = changes.changed() => match changed {
                        Ok(()) => false,
                        Err(_) => return,
                    },
                    () = due => true,
                };
                if rung {
                    ring();
                    if changes.changed().await.is_err() {
                        return;
                    }
                }
            }
        });
        Self { deadline }
    }

    /// Sets the time. After it rang, the same time rings again: whoever rings it may be early.
    pub(crate) fn set(&self, deadline: Option<Instant>) {
        self.deadline.send_replace(deadline);
    }
}
