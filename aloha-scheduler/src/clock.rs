//! The time for the cores, and the one timer of each shell. Both come from the environment's [`Runtime`].

use std::time::Instant;

use aloha_rpc::Runtime;
use tokio::sync::watch;

use crate::now::Now;

/// Both clocks, read once for an event.
pub(crate) fn now(runtime: &dyn Runtime) -> Now {
    Now {
        instant: runtime.now().into_std(),
        wall: runtime.wall(),
    }
}

/// Calls back once at a time that may change until then. Dropped, it never does.
#[derive(Debug)]
pub(crate) struct Alarm {
    deadline: watch::Sender<Option<Instant>>,
}

impl Alarm {
    /// An alarm without a time.
    pub(crate) fn new(runtime: &dyn Runtime, ring: impl Fn() + Send + Sync + 'static) -> Self {
        let (deadline, changes) = watch::channel(None);
        runtime.spawn(Box::pin(keep_time(changes, ring)));
        Self { deadline }
    }

    /// Sets the time. After it rang, the same time rings again: whoever it wakes may find it is early.
    pub(crate) fn set(&self, deadline: Option<Instant>) {
        self.deadline.send_replace(deadline);
    }
}

async fn keep_time(mut changes: watch::Receiver<Option<Instant>>, ring: impl Fn()) {
    loop {
        let deadline = *changes.borrow_and_update();
        let due = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        let changed = tokio::select! {
            biased;
            changed = changes.changed() => changed,
            () = due => {
                ring();
                changes.changed().await
            }
        };
        if changed.is_err() {
            return;
        }
    }
}
