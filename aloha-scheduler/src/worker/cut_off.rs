//! What a worker does that no master answers.

use std::time::Instant;

use tracing::warn;

use super::attempts::Cause;
use super::core::WorkerCore;
use super::registration::Registration;

impl WorkerCore {
    /// Nothing was acknowledged for too long: what may be started elsewhere must be gone by then.
    pub(super) fn on_cut_off(&mut self, kill_at: Instant, now: Instant) {
        let held = self.attempts.held();
        let supervised = held.filter(|(_, held)| held.description.survives_its_worker());
        let supervised: Vec<_> = supervised.map(|(key, _)| key.clone()).collect();
        if !supervised.is_empty() {
            let applications = supervised.len();
            warn!(
                applications,
                "cut off from every master: stopping what it may start elsewhere"
            );
        }
        for key in supervised {
            self.ask_to_end(&key, Cause::CutOff, now);
            let held = self.attempts.get_mut(&key);
            if let Some(ending) = held.and_then(|held| held.ending.as_mut()) {
                ending.insist_at = ending.insist_at.map(|at| at.min(kill_at));
            }
        }
    }

    pub(super) fn is_cut_off(&self, now: Instant) -> bool {
        self.lease.is_some_and(|lease| lease.is_over(now))
    }

    /// The master that has taken us acknowledged what was sent then.
    pub(super) fn renew_lease(&mut self, sent: Instant) {
        if let (Some(lease), Registration::Registered { timeout, .. }) =
            (&mut self.lease, &self.registration)
        {
            lease.renew(sent, *timeout);
        }
    }
}
