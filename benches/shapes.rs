//! The workloads that have the same shape whoever does them: messages told, and asks in turn and at once.
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::{Figures, Job, Workload, resident_bytes};

/// The producers of L2.
pub const PRODUCERS: u64 = 4;
/// The endpoints of L6's ring.
pub const RING: usize = 1000;

/// A way to an endpoint that counts notes and echoes texts.
pub trait Handle: Clone + Send + 'static {
    /// Whether tasks shall stay on the thread of their driver, which then runs in a `LocalSet`.
    const ON_ONE_THREAD: bool = false;

    /// Sends a note, and waits only if there is no place for it.
    fn tell(&mut self, text: String) -> impl Future<Output = ()> + Send;

    /// Sends a text and waits for the same text.
    fn ask(&mut self, text: String) -> impl Future<Output = String> + Send;

    /// How many notes were processed, answered after all that were told before.
    fn count(&mut self) -> impl Future<Output = u64> + Send;
}

/// A new text of 32 bytes.
#[must_use]
pub fn text() -> String {
    "x".repeat(32)
}

/// The usual runtime: two workers.
///
/// # Panics
///
/// If it does not start.
#[must_use]
pub fn runtime() -> Runtime {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all();
    runtime.build().expect("a runtime starts")
}

/// Runs a driver as a task, for the main thread's wake-ups would be measured too.
///
/// # Panics
///
/// If the driver does.
pub fn drive<T: Send + 'static>(
    runtime: &Runtime,
    driver: impl Future<Output = T> + Send + 'static,
) -> T {
    runtime.block_on(async {
        let driver = tokio::spawn(driver);
        driver.await.expect("the driver does not panic")
    })
}

/// Any workload but L5, L5m and L6, which are about more than one endpoint.
///
/// # Panics
///
/// If it is one of those.
pub async fn perform(job: &Job, handle: impl Handle) -> Figures {
    match job.workload {
        Workload::L1 | Workload::R1 => tell(job, handle).await,
        Workload::L2 => tell_from_many(job, handle).await,
        Workload::L3 | Workload::R2 | Workload::R2p => ask(job, handle).await,
        Workload::L4 | Workload::R4 => ask_from_many(job, handle, 1000, 32).await,
        Workload::R3 => ask_from_many(job, handle, 64, 32).await,
        Workload::R5 => ask_from_many(job, handle, 8, 1 << 20).await,
        Workload::L5 | Workload::L5m | Workload::L6 => panic!("{job:?} has no common shape"),
    }
}

async fn tell(job: &Job, mut handle: impl Handle) -> Figures {
    let messages = job.operations;
    let before = handle.count().await;
    let start = job.start();
    for _ in 0..messages {
        handle.tell(text()).await;
    }
    let count = handle.count().await;
    let figures = job.stop(&start, messages);
    assert_eq!(count - before, messages);
    figures
}

async fn tell_from_many<H: Handle>(job: &Job, mut handle: H) -> Figures {
    let each = job.operations / PRODUCERS;
    let start = job.start();
    let mut producers = JoinSet::new();
    for _ in 0..PRODUCERS {
        let mut handle = handle.clone();
        spawn::<H, _>(&mut producers, async move {
            for _ in 0..each {
                handle.tell(text()).await;
            }
        });
    }
    producers.join_all().await;
    let count = handle.count().await;
    let figures = job.stop(&start, each * PRODUCERS);
    assert_eq!(count, each * PRODUCERS);
    figures
}

/// The single times are taken of asks that follow, for reading the clock is not free.
async fn ask(job: &Job, mut handle: impl Handle) -> Figures {
    let start = job.start();
    for _ in 0..job.operations {
        assert_eq!(handle.ask(text()).await.len(), 32);
    }
    let mut figures = job.stop(&start, job.operations);
    let mut times = Vec::new();
    for _ in 0..(job.operations / 10).max(1) {
        let started = Instant::now();
        assert_eq!(handle.ask(text()).await.len(), 32);
        times.push(started.elapsed());
    }
    figures.median = Some(median(times));
    figures
}

/// What half of the times are at most.
///
/// # Panics
///
/// If there are none.
#[must_use]
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

async fn ask_from_many<H: Handle>(job: &Job, handle: H, tasks: u64, bytes: usize) -> Figures {
    let each = (job.operations / tasks).max(1);
    let start = job.start();
    let mut askers = JoinSet::new();
    for _ in 0..tasks {
        let mut handle = handle.clone();
        spawn::<H, _>(&mut askers, async move {
            for _ in 0..each {
                assert_eq!(handle.ask("x".repeat(bytes)).await.len(), bytes);
            }
        });
    }
    askers.join_all().await;
    job.stop(&start, each * tasks)
}

fn spawn<H: Handle, F: Future<Output = ()> + Send + 'static>(tasks: &mut JoinSet<()>, task: F) {
    if H::ON_ONE_THREAD {
        tasks.spawn_local(task);
    } else {
        tasks.spawn(task);
    }
}

/// L5: sets endpoints up, and has all of them stopped.
pub async fn start_and_stop<E, S: Future<Output = E>, T: Future<Output = ()>>(
    job: Job,
    mut set_up: impl FnMut() -> S,
    stop: impl FnOnce(Vec<E>) -> T,
) -> Figures {
    let start = job.start();
    let mut endpoints = Vec::new();
    for _ in 0..job.operations {
        endpoints.push(set_up().await);
    }
    stop(endpoints).await;
    job.stop(&start, job.operations)
}

/// L5m: sets endpoints up and leaves them idle.
pub async fn idle_memory<E, S: Future<Output = E>>(
    job: Job,
    mut set_up: impl FnMut() -> S,
) -> Figures {
    // What is there once and for all shall be there before.
    let mut endpoints = vec![set_up().await];
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = resident_bytes();
    for _ in 0..job.operations {
        endpoints.push(set_up().await);
    }
    // The last of them have still to start and to park.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let grown = resident_bytes().saturating_sub(before);
    drop(endpoints);
    Figures::memory(job.operations, grown)
}
