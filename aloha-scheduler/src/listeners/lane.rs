//! One listener: its queue, its thread and what is counted of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{error, warn};

use super::{AlohaEventListener, ListenerError};
use crate::application::panics::text_of;
use crate::events::AlohaEvent;

/// What became of the events for one listener.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ListenerStatistics {
    /// Its name.
    pub name: String,
    /// Events whose callback returned.
    pub delivered: u64,
    /// Events that found its queue full.
    pub dropped: u64,
    /// Events whose callback panicked.
    pub panicked: u64,
    /// Events that wait in its queue, or are with it now.
    pub waiting: u64,
}

#[derive(Debug)]
pub(super) struct Lane {
    queue: SyncSender<Arc<AlohaEvent>>,
    counts: Arc<Counts>,
    /// How many events the thread is done with. It ends with the thread.
    done: watch::Receiver<u64>,
}

#[derive(Debug)]
struct Counts {
    name: String,
    taken: AtomicU64,
    delivered: AtomicU64,
    panicked: AtomicU64,
    dropped: AtomicU64,
    /// Those dropped since the queue was last empty.
    missed: AtomicU64,
}

impl Lane {
    /// Starts the thread of a listener.
    pub(super) fn start(
        name: String,
        queue_max: usize,
        listener: Box<dyn AlohaEventListener>,
    ) -> Result<Self, ListenerError> {
        // Without a place of its own an event would wait for the thread.
        let (queue, events) = sync_channel(queue_max.max(1));
        let (progress, done) = watch::channel(0);
        let counts = Arc::new(Counts {
            name: name.clone(),
            taken: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            panicked: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            missed: AtomicU64::new(0),
        });
        let counted = Arc::clone(&counts);
        thread::Builder::new()
            .name(format!("listener {name}"))
            .spawn(move || deliver(listener, &events, &counted, &progress))
            .map_err(|cause| ListenerError::Thread { name, cause })?;
        Ok(Self {
            queue,
            counts,
            done,
        })
    }

    /// Puts an event into the queue, or drops it.
    pub(super) fn offer(&self, event: Arc<AlohaEvent>) {
        match self.queue.try_send(event) {
            Ok(()) => {
                self.counts.taken.fetch_add(1, Ordering::Relaxed);
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.counts.dropped.fetch_add(1, Ordering::Relaxed);
                // Once until it has caught up, which takes as many events as the queue has places.
                if self.counts.missed.fetch_add(1, Ordering::Relaxed) == 0 {
                    warn!(
                        listener = self.counts.name,
                        "its queue is full: events are dropped"
                    );
                }
            }
        }
    }

    pub(super) fn statistics(&self) -> ListenerStatistics {
        let counts = &self.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (delivered, panicked) = (read(&counts.delivered), read(&counts.panicked));
        ListenerStatistics {
            name: counts.name.clone(),
            delivered,
            dropped: read(&counts.dropped),
            panicked,
            waiting: read(&counts.taken).saturating_sub(delivered + panicked),
        }
    }

    /// Waits until the listener is done with all that it was offered until now.
    pub(super) async fn drained(&self) {
        let taken = self.counts.taken.load(Ordering::Relaxed);
        // An error says that its thread has ended: nothing more will be done.
        drop(self.done.clone().wait_for(|done| *done >= taken).await);
    }
}

/// The thread of a listener, until its queue is empty and nobody can add to it.
fn deliver(
    mut listener: Box<dyn AlohaEventListener>,
    events: &Receiver<Arc<AlohaEvent>>,
    counts: &Counts,
    done: &watch::Sender<u64>,
) {
    while let Some(event) = next(events, counts) {
        match catch_unwind(AssertUnwindSafe(|| listener.on_event(&event))) {
            Ok(()) => {
                counts.delivered.fetch_add(1, Ordering::Relaxed);
            }
            Err(panic) => {
                counts.panicked.fetch_add(1, Ordering::Relaxed);
                let panic = text_of(&*panic);
                error!(
                    listener = counts.name,
                    panic, "a listener panicked; it goes on with the next event"
                );
            }
        }
        done.send_modify(|done| *done += 1);
    }
}

fn next(events: &Receiver<Arc<AlohaEvent>>, counts: &Counts) -> Option<Arc<AlohaEvent>> {
    match events.try_recv() {
        Ok(event) => Some(event),
        Err(TryRecvError::Disconnected) => None,
        Err(TryRecvError::Empty) => {
            let missed = counts.missed.swap(0, Ordering::Relaxed);
            if missed > 0 {
                warn!(
                    listener = counts.name,
                    missed, "it has caught up, and missed events"
                );
            }
            events.recv().ok()
        }
    }
}
