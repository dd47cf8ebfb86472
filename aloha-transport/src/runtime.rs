//! Where time, randomness and tasks come from: the seam under which a simulation can slip.

use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::pin::Pin;
use std::time::SystemTime;

use tokio::runtime::Handle;
use tokio::time::Instant;

/// Time, randomness and tasks, as the layers above see them.
///
/// Sleeping is tokio's everywhere: a paused tokio clock holds it.
pub trait Runtime: fmt::Debug + Send + Sync + 'static {
    /// The time that never jumps: decides what is due.
    fn now(&self) -> Instant;
    /// The time on the wall: names moments for people, decides nothing.
    fn wall(&self) -> SystemTime;
    /// A number nobody can foretell, or the next of a seeded sequence.
    fn random_u64(&self) -> u64;
    /// Runs a future to its end in the background.
    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>);
    /// Runs a future that may block to its end on a thread of its own, named `name`. By default it is
    /// [spawned](Self::spawn) like any other: right for a simulation, where nothing runs beside.
    ///
    /// # Errors
    ///
    /// The system has no thread for it; the future is dropped.
    fn spawn_thread(
        &self,
        name: &str,
        task: Pin<Box<dyn Future<Output = ()> + Send>>,
    ) -> io::Result<()> {
        let _ = name;
        self.spawn(task);
        Ok(())
    }
}

/// The tokio runtime that was current when it was made.
#[derive(Debug, Clone)]
pub struct TokioRuntime {
    handle: Handle,
}

impl TokioRuntime {
    /// The current runtime.
    ///
    /// # Panics
    ///
    /// Called outside a tokio runtime.
    #[must_use]
    pub fn current() -> Self {
        Self {
            handle: Handle::current(),
        }
    }
}

impl Runtime for TokioRuntime {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the clock is read"
    )]
    fn now(&self) -> Instant {
        Instant::now()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the clock is read"
    )]
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn random_u64(&self) -> u64 {
        RandomState::new().hash_one(0_u8)
    }

    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.handle.spawn(task);
    }

    fn spawn_thread(
        &self,
        name: &str,
        task: Pin<Box<dyn Future<Output = ()> + Send>>,
    ) -> io::Result<()> {
        let handle = self.handle.clone();
        // A name that the system cannot show is no reason to fail.
        let name = name.replace('\0', " ");
        let thread = std::thread::Builder::new().name(name);
        drop(thread.spawn(move || handle.block_on(task))?);
        Ok(())
    }
}
