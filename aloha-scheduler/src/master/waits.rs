use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::event::ReplyTo;
use crate::ids::AppId;

/// Callers that wait for an application to end, each with a deadline.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    waits: BTreeMap<ReplyTo, (AppId, Instant)>,
    by_app: BTreeSet<(AppId, ReplyTo)>,
    by_deadline: BTreeSet<(Instant, ReplyTo)>,
}

impl Waits {
    pub(crate) fn insert(&mut self, reply: ReplyTo, app: AppId, deadline: Instant) {
        self.remove(reply);
        self.by_app.insert((app.clone(), reply));
        self.by_deadline.insert((deadline, reply));
        self.waits.insert(reply, (app, deadline));
    }

    pub(crate) fn remove(&mut self, reply: ReplyTo) -> Option<AppId> {
        let (app, deadline) = self.waits.remove(&reply)?;
        self.by_deadline.remove(&(deadline, reply));
        self.by_app.remove(&(app.clone(), reply));
        Some(app)
    }

    /// Takes out everybody who waits for this application, in the order of their tokens.
    pub(crate) fn take_for(&mut self, app: &AppId) -> Vec<ReplyTo> {
        let first = (app.clone(), ReplyTo(0));
        let replies: Vec<_> = self
            .by_app
            .range(first..)
            .take_while(|(of, _)| of == app)
            .map(|(_, reply)| *reply)
            .collect();
        for reply in &replies {
            self.remove(*reply);
        }
        replies
    }

    /// Takes out one whose deadline has come.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<(ReplyTo, AppId)> {
        let (_, reply) = *self
            .by_deadline
            .first()
            .filter(|(deadline, _)| *deadline <= now)?;
        self.remove(reply).map(|app| (reply, app))
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn check_invariants(&self) {
        assert_eq!(self.waits.len(), self.by_app.len());
        assert_eq!(self.waits.len(), self.by_deadline.len());
        for (reply, (app, deadline)) in &self.waits {
            assert!(self.by_app.contains(&(app.clone(), *reply)));
            assert!(self.by_deadline.contains(&(*deadline, *reply)));
        }
    }
}
