//! Messages that were taken and will not be handled: counted, and shown to whoever asks.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

/// How many dead letters wait for one who looks at them.
const SEEN_LATE_MAX: usize = 1024;

/// Messages that were taken and were not handled. If they were asked, their askers were told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The endpoint they were for; where a connection was lost, the address of its other end.
    pub receiver: Arc<str>,
    /// Why they were not handled.
    pub reason: DeadLetterReason,
    /// How many they are.
    pub count: u64,
}

/// Why messages were not handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeadLetterReason {
    /// There is no endpoint of that name here.
    NoEndpoint,
    /// The endpoint stopped before it came to them.
    Stopped,
    /// Newer messages took their place ([`Overflow::DropOldest`](crate::Overflow::DropOldest)).
    Displaced,
    /// They cannot be decoded.
    Undecodable,
    /// They were sent, not asked, and their connection ended before they were written; of a write that failed all
    /// count, though some may have arrived. What was written and not received is not known to this side: see
    /// *Order and loss* in the [crate's documentation](crate#order-and-loss).
    ConnectionLost,
    /// They were published or routed to an endpoint that took no more.
    NotTaken,
}

impl fmt::Display for DeadLetterReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoEndpoint => "no such endpoint",
            Self::Stopped => "the endpoint stopped",
            Self::Displaced => "newer messages took its place",
            Self::Undecodable => "it cannot be decoded",
            Self::ConnectionLost => "the connection was lost",
            Self::NotTaken => "the receiver takes no more",
        })
    }
}

/// Dead letters as they come, from [`RpcEnv::observe_dead_letters`](crate::RpcEnv::observe_dead_letters).
#[derive(Debug)]
pub struct DeadLetters {
    letters: broadcast::Receiver<DeadLetter>,
}

impl DeadLetters {
    /// The next one; none once the environment is shut down. Who looks too late misses the oldest: the
    /// environment's count has them still. Cancel safe.
    pub async fn next(&mut self) -> Option<DeadLetter> {
        loop {
            match self.letters.recv().await {
                Ok(letter) => return Some(letter),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// An environment's count of dead letters, and those who look at them.
#[derive(Debug, Default)]
pub(crate) struct DeadLetterOffice {
    count: AtomicU64,
    /// Whether anybody ever looked.
    observed: AtomicBool,
    observers: Mutex<Observers>,
}

#[derive(Debug, Default)]
enum Observers {
    #[default]
    None,
    Some(broadcast::Sender<DeadLetter>),
    /// The environment is shut down.
    Closed,
}

impl DeadLetterOffice {
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, letter: &DeadLetter) {
        self.count.fetch_add(letter.count, Ordering::Relaxed);
        if self.observed.load(Ordering::Relaxed)
            && let Observers::Some(observers) = &*self.lock()
        {
            // An error says that nobody looks.
            drop(observers.send(letter.clone()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Observers> {
        self.observers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// No more will come.
    pub(crate) fn close(&self) {
        *self.lock() = Observers::Closed;
    }

    pub(crate) fn observe(&self) -> DeadLetters {
        let mut observers = self.lock();
        let letters = match &*observers {
            Observers::Some(sender) => sender.subscribe(),
            Observers::None => {
                let (sender, letters) = broadcast::channel(SEEN_LATE_MAX);
                *observers = Observers::Some(sender);
                letters
            }
            Observers::Closed => broadcast::channel(1).1,
        };
        self.observed.store(true, Ordering::Relaxed);
        DeadLetters { letters }
    }
}
