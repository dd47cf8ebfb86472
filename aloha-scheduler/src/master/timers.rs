use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::ids::AppId;

/// At most one time for each application.
#[derive(Debug, Default)]
pub(super) struct Timers {
    by_app: BTreeMap<AppId, Instant>,
    by_time: BTreeSet<(Instant, AppId)>,
}

impl Timers {
    /// Sets the time of an application, in the place of one it had.
    pub(super) fn set(&mut self, app: &AppId, at: Instant) {
        self.remove(app);
        self.by_app.insert(app.clone(), at);
        self.by_time.insert((at, app.clone()));
    }

    pub(super) fn remove(&mut self, app: &AppId) {
        if let Some(at) = self.by_app.remove(app) {
            self.by_time.remove(&(at, app.clone()));
        }
    }

    /// Takes out one whose time has come.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<AppId> {
        let (_, app) = self.by_time.first().filter(|(at, _)| *at <= now)?;
        let app = app.clone();
        self.remove(&app);
        Some(app)
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn contains(&self, app: &AppId) -> bool {
        self.by_app.contains_key(app)
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.by_app.len(), self.by_time.len());
        self.by_app.len()
    }
}
