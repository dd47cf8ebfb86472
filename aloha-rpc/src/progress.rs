//! How far an endpoint has come with the batch it took: written by its task alone, read by those who find the
//! inbox full. The one part of an inbox without a lock; a model checker goes through it (`tests/loom.rs`).

use crate::sync::{AtomicUsize, Ordering};

/// Messages of the batch at work that are not handled yet, and their bytes.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

impl Progress {
    /// A new batch is taken. Called under the inbox's lock, so that whoever holds the lock next sees no older
    /// batch than this.
    pub(crate) fn begin(&self, messages: usize, bytes: usize) {
        self.messages.store(messages, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// A message of the batch is taken up. Only the endpoint's task calls this: no read-modify-write is needed.
    pub(crate) fn advance(&self, bytes: usize) {
        let messages = self.messages.load(Ordering::Relaxed);
        self.messages
            .store(messages.saturating_sub(1), Ordering::Release);
        if bytes > 0 {
            let left = self.bytes.load(Ordering::Relaxed);
            self.bytes
                .store(left.saturating_sub(bytes), Ordering::Release);
        }
    }

    /// At least what is really left: a value that is out of date is too large, never too small.
    pub(crate) fn messages(&self) -> usize {
        self.messages.load(Ordering::Acquire)
    }

    /// As [`messages`](Self::messages), in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }
}
