//! What applications of a simulation did, as nobody in the cluster sees it: when each attempt began and ended, and where.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use crate::attempt::Outcome;
use crate::ids::AppId;

/// Every attempt that began. Clones are the same ledger.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    runs: Arc<Mutex<Vec<Run>>>,
    launches: Arc<AtomicU64>,
}

/// An attempt that began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Of which application.
    pub app: AppId,
    /// What that is called.
    pub name: String,
    /// Which attempt.
    pub attempt: u32,
    /// Whether the application may be started elsewhere where its worker is lost.
    pub is_supervised: bool,
    /// On which host.
    pub host: String,
    /// When its runner was asked for it, as a number that rises with each.
    pub launch: u64,
    /// When its process began.
    pub began: Instant,
    /// How many batches the store had by then.
    pub batches: usize,
    /// When it ended, and how.
    pub ended: Option<(Instant, Outcome)>,
}

impl Ledger {
    /// Every attempt that began, in that order.
    #[must_use]
    pub fn runs(&self) -> Vec<Run> {
        self.with(|runs| runs.clone())
    }

    pub(super) fn launch(&self) -> u64 {
        self.launches.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn begin(&self, run: Run) -> usize {
        self.with(|runs| {
            runs.push(run);
            runs.len() - 1
        })
    }

    pub(super) fn end(&self, place: usize, at: Instant, outcome: Outcome) {
        self.with(|runs| runs[place].ended = Some((at, outcome)));
    }

    fn with<R>(&self, act: impl FnOnce(&mut Vec<Run>) -> R) -> R {
        act(&mut self.runs.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
