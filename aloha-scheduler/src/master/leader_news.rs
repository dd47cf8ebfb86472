//! Who leads, told to whoever asks, and to whoever waits for it.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aloha_rpc::{EndpointContext, RpcCallContext};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::timeout;

use super::MasterRole;
use crate::election::MasterAddress;
use crate::messages::{LeaderAnswer, MasterMessage};

/// How long anybody waits at the most.
const PATIENCE_MAX: Duration = Duration::from_secs(60);
/// How many may wait; who comes then is told at once that nothing is known.
const WAITING_MAX: usize = 10_000;

/// Tells who leads.
#[derive(Debug)]
pub(super) struct LeaderNews {
    own: MasterAddress,
    role: watch::Receiver<MasterRole>,
    elected: watch::Receiver<Option<MasterAddress>>,
    places: Arc<Semaphore>,
    /// Wakes those who wait in the order in which they came. A `watch` wakes them in any order, and a simulation could
    /// not be had again.
    changed: Arc<Notify>,
    is_passing_on: Arc<AtomicBool>,
}

impl LeaderNews {
    /// News of a master with this address: it leads when its role says so, others when the election does.
    pub(super) fn new(
        own: MasterAddress,
        role: watch::Receiver<MasterRole>,
        elected: watch::Receiver<Option<MasterAddress>>,
    ) -> Self {
        Self {
            own,
            role,
            elected,
            places: Arc::new(Semaphore::new(WAITING_MAX)),
            changed: Arc::default(),
            is_passing_on: Arc::default(),
        }
    }

    /// Answers at once where a leader is known `besides` that one, else as soon as one is, or the patience is over.
    pub(super) fn tell(
        &self,
        besides: Option<String>,
        patience: Duration,
        call: RpcCallContext<LeaderAnswer>,
        ctx: &EndpointContext<MasterMessage>,
    ) {
        if let Some(known) = self.known(besides.as_deref()) {
            return call.reply(known);
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return call.reply(LeaderAnswer::default());
        };
        if !self.is_passing_on.swap(true, Ordering::Relaxed) {
            ctx.spawn(self.waiter().pass_on());
        }
        let waiter = self.waiter();
        ctx.spawn(async move {
            let heard = timeout(patience.min(PATIENCE_MAX), waiter.hear(besides.as_deref()));
            tokio::select! {
                biased;
                () = call.cancelled() => {}
                heard = heard => call.reply(heard.unwrap_or_default()),
            }
            drop(place);
        });
    }

    fn waiter(&self) -> Self {
        Self {
            own: self.own.clone(),
            role: self.role.clone(),
            elected: self.elected.clone(),
            places: Arc::clone(&self.places),
            changed: Arc::clone(&self.changed),
            is_passing_on: Arc::clone(&self.is_passing_on),
        }
    }

    /// Wakes who waits whenever there may be news, for as long as the master lives.
    async fn pass_on(mut self) {
        loop {
            tokio::select! {
                biased;
                // A sender that is gone has no more news.
                Ok(()) = self.role.changed() => {}
                Ok(()) = self.elected.changed() => {}
                else => return,
            }
            self.changed.notify_waiters();
        }
    }

    /// Waits for a leader besides that one.
    async fn hear(&self, besides: Option<&str>) -> LeaderAnswer {
        loop {
            // Enabled before the look, so that no change goes by between that and the wait.
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(known) = self.known(besides) {
                return known;
            }
            changed.await;
        }
    }

    /// The leader, if it is known and not that one. A master that is elected and has not taken over yet is none.
    fn known(&self, besides: Option<&str>) -> Option<LeaderAnswer> {
        let is_wanted = |leader: &MasterAddress| besides != Some(&leader.rpc);
        if let MasterRole::Leading { epoch } = *self.role.borrow() {
            let leader = Some(self.own.clone()).filter(is_wanted)?;
            return Some(LeaderAnswer {
                leader: Some(leader),
                epoch,
            });
        }
        let leader = self.elected.borrow().clone();
        let leader = leader.filter(|leader| leader.rpc != self.own.rpc && is_wanted(leader))?;
        Some(LeaderAnswer {
            leader: Some(leader),
            epoch: 0,
        })
    }
}
