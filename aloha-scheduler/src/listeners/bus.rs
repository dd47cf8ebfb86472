use std::sync::Arc;

use tokio::sync::broadcast;

use super::lane::{Lane, ListenerStatistics};
use crate::events::AlohaEvent;

/// Events that a subscriber may fall behind before it misses some.
const EVENTS_BEHIND_MAX: usize = 1024;

/// Takes what happens in a cluster to whoever listens. Cheap to clone; each is a way to the same listeners, whose
/// threads end with the last.
///
/// The default has no listeners, and says everything to those who [subscribe](Self::subscribe) alone.
#[derive(Debug, Clone)]
pub struct EventBus(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    lanes: Vec<Lane>,
    subscribers: broadcast::Sender<AlohaEvent>,
}

impl Default for EventBus {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl EventBus {
    pub(super) fn new(lanes: Vec<Lane>) -> Self {
        let (subscribers, _) = broadcast::channel(EVENTS_BEHIND_MAX);
        Self(Arc::new(Inner { lanes, subscribers }))
    }

    /// Tells everybody. Never waits; costs next to nothing where nobody listens.
    pub fn publish(&self, event: &AlohaEvent) {
        if self.0.subscribers.receiver_count() > 0 {
            // The last of them may just have gone.
            drop(self.0.subscribers.send(event.clone()));
        }
        if self.0.lanes.is_empty() {
            return;
        }
        let event = Arc::new(event.clone());
        for lane in &self.0.lanes {
            lane.offer(Arc::clone(&event));
        }
    }

    /// What is published from now on, for async code. Who falls 1,024 events behind misses some, and is told how many.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<AlohaEvent> {
        self.0.subscribers.subscribe()
    }

    /// What became of the events for each listener, in the order in which they were started.
    #[must_use]
    pub fn statistics(&self) -> Vec<ListenerStatistics> {
        self.0.lanes.iter().map(Lane::statistics).collect()
    }

    /// Waits until every listener is done with what was published until now. One that blocks for ever makes this wait
    /// for ever.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn drained(&self) {
        for lane in &self.0.lanes {
            lane.drained().await;
        }
    }
}
