//! Bytes that all requests together may hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So many bytes for all.
#[derive(Debug)]
pub(super) struct Budget {
    bytes_max: usize,
    held: Arc<AtomicUsize>,
}

/// What one has of it, until dropped.
#[derive(Debug)]
pub(super) struct Share {
    held: Arc<AtomicUsize>,
    bytes: usize,
    bytes_max: usize,
}

impl Budget {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            held: Arc::default(),
        }
    }

    /// A share that is empty.
    pub(super) fn share(&self) -> Share {
        Share {
            held: Arc::clone(&self.held),
            bytes: 0,
            bytes_max: self.bytes_max,
        }
    }

    /// What is held by all.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

impl Share {
    /// Takes more; whether that is within what all may have. Where it is not, the share is to be dropped.
    #[must_use]
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let before = self.held.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        before.saturating_add(bytes) <= self.bytes_max
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
