use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// A value that tasks wait for. Unlike those of a `watch`, they wake in the order in which they came: a run that is to be
/// had again must not throw dice that are not its own.
#[derive(Default)]
pub(super) struct Board<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T: Clone> Board<T> {
    pub(super) fn new(value: T) -> Self {
        Self {
            value: Mutex::new(value),
            changed: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self) -> T {
        self.lock().clone()
    }

    pub(super) fn modify(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.lock());
        self.changed.notify_waiters();
    }

    pub(super) fn set(&self, value: T) {
        self.modify(|before| *before = value);
    }

    /// Waits until the value is such a one. Cancel safe.
    pub(super) async fn wait_for(&self, is_such: impl Fn(&T) -> bool) -> T {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let value = self.get();
            if is_such(&value) {
                return value;
            }
            changed.await;
        }
    }
}

impl<T: Clone + fmt::Debug> fmt::Debug for Board<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Board").field(&self.get()).finish()
    }
}
