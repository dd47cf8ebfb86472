//! Time and randomness of a simulation.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::time::Instant;
use tracing::trace;

use super::now;
use super::random::SplitMix64;
use crate::runtime::Runtime;

/// 2026-01-01 00:00 UTC, since 1970.
const WALL_AT_START: Duration = Duration::from_secs(1_767_225_600);
/// Keeps the numbers apart from those of a network with the same seed.
const SEED_SALT: u64 = 0x52_75_6e_74_69_6d_65_21;

/// A [`Runtime`] that follows from its seed: tokio's clock, a wall clock that starts at 2026-01-01 UTC, and
/// a sequence of numbers. Clones are the same runtime.
///
/// The seed promises the same numbers in the order of the calls. That the calls come in the same
/// order is up to the program; see [`SimNetwork`](super::SimNetwork) for what that takes.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use aloha_transport::Runtime;
/// use aloha_transport::testing::SimRuntime;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let (runtime, again) = (SimRuntime::new(7), SimRuntime::new(7));
/// assert_eq!(runtime.random_u64(), again.random_u64());
///
/// let start = runtime.wall();
/// tokio::time::sleep(Duration::from_secs(3600)).await; // At once: the clock is paused.
/// assert_eq!(runtime.wall(), start + Duration::from_secs(3600));
/// # }
/// ```
#[derive(Clone)]
pub struct SimRuntime {
    seed: u64,
    handle: Handle,
    start: Instant,
    random: Arc<Mutex<SplitMix64>>,
}

impl SimRuntime {
    /// A runtime whose tasks run on the tokio runtime that is current now, and whose wall clock starts now.
    ///
    /// # Panics
    ///
    /// Called outside a tokio runtime.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            handle: Handle::current(),
            start: now(),
            random: Arc::new(Mutex::new(SplitMix64::new(seed ^ SEED_SALT))),
        }
    }
}

impl Runtime for SimRuntime {
    fn now(&self) -> Instant {
        now()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + WALL_AT_START + now().duration_since(self.start)
    }

    fn random_u64(&self) -> u64 {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let number = random.next();
        trace!(number, "random");
        number
    }

    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.handle.spawn(task);
    }
}

impl fmt::Debug for SimRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimRuntime")
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn numbers_follow_from_the_seed_and_differ_from_those_of_the_network() {
        let numbers = |seed| {
            let runtime = SimRuntime::new(seed);
            [runtime.random_u64(), runtime.clone().random_u64()]
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
        assert_ne!(numbers(7)[0], numbers(7)[1]);
        assert_ne!(numbers(7)[0], SplitMix64::new(7).next());
    }

    #[tokio::test(start_paused = true)]
    async fn the_wall_clock_starts_in_2026_and_goes_with_the_paused_one() {
        let runtime = SimRuntime::new(7);
        let (ran, running) = tokio::sync::oneshot::channel();
        let seen = runtime.clone();
        runtime.spawn(Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(60)).await;
            let moment = (seen.wall(), seen.now());
            ran.send(moment).expect("it is waited for");
        }));
        let started = runtime.now();
        let (wall, now) = running.await.expect("it runs");
        let since_epoch = wall.duration_since(SystemTime::UNIX_EPOCH).expect("later");
        assert_eq!(since_epoch.as_secs(), 1_767_225_660);
        assert_eq!(now - started, Duration::from_secs(60));
    }
}
