//! A process of a simulation: its tasks stand still and end together, and its wall clock may be wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::now;
use crate::runtime::Runtime;

const RUNS: u8 = 0;
const PAUSED: u8 = 1;
const ENDED: u8 = 2;
/// How often the tasks of a process may run while no time passes.
const POLLS_MAX: u32 = 200_000;

/// A [`Runtime`] over another one, which stands for one process: all its tasks can be paused, as by SIGSTOP, or ended,
/// as by SIGKILL, and its wall clock can be stepped. Clones are the same process.
///
/// What a task of a paused process waits for comes to pass meanwhile; the task hears of all of it at once when the
/// process goes on. The monotonic clock goes on, too.
///
/// Time stands still while tasks run, so a process that wakes itself over and over would be waited for for ever: its task
/// panics instead.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use aloha_transport::Runtime;
/// use aloha_transport::testing::{SimProcess, SimRuntime};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let process = SimProcess::new(Arc::new(SimRuntime::new(7)));
/// let (rings, mut ring) = tokio::sync::mpsc::channel(1);
/// process.spawn(Box::pin(async move {
///     tokio::time::sleep(Duration::from_secs(1)).await;
///     drop(rings.send(()).await);
/// }));
/// process.pause();
/// assert!(tokio::time::timeout(Duration::from_secs(60), ring.recv()).await.is_err());
/// process.resume();
/// assert_eq!(ring.recv().await, Some(()));
/// assert_eq!(process.tasks(), 0);
/// # }
/// ```
#[derive(Clone)]
pub struct SimProcess {
    runtime: Arc<dyn Runtime>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    life: AtomicU8,
    wall_offset_millis: AtomicI64,
    tasks: Mutex<Tasks>,
}

#[derive(Default)]
struct Tasks {
    last_id: u64,
    /// When one of them ran last, and how often any did since without time passing.
    ran: Option<(Instant, u32)>,
    /// In the order in which they were spawned, so that they are woken in that order.
    live: BTreeMap<u64, Option<Waker>>,
}

impl Shared {
    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a task runs; false where the process does nothing but wake itself.
    fn may_run(&self, now: Instant) -> bool {
        let mut tasks = self.tasks();
        let count = match tasks.ran {
            Some((at, count)) if at == now => count + 1,
            _ => 0,
        };
        tasks.ran = Some((now, count));
        count < POLLS_MAX
    }
}

impl SimProcess {
    /// A process that runs, on this runtime.
    #[must_use]
    pub fn new(runtime: Arc<dyn Runtime>) -> Self {
        Self {
            runtime,
            shared: Arc::default(),
        }
    }

    /// Lets none of its tasks run until it is [resumed](Self::resume). One that has ended stays so.
    pub fn pause(&self) {
        self.change(RUNS, PAUSED);
    }

    /// Lets it run on. One that has ended stays so.
    pub fn resume(&self) {
        if self.change(PAUSED, RUNS) {
            self.wake_all();
        }
    }

    /// Ends it for good: each of its tasks is dropped where it stands before it would run next. What it has on a
    /// network is not closed: see [`SimNetwork::crash`](super::SimNetwork::crash), which comes first.
    pub fn end(&self) {
        self.shared.life.store(ENDED, Ordering::Relaxed);
        self.wake_all();
    }

    /// Whether it is paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.shared.life.load(Ordering::Relaxed) == PAUSED
    }

    /// Sets its wall clock so many milliseconds before (negative) or behind that of the runtime below.
    pub fn set_wall_offset(&self, millis: i64) {
        self.shared
            .wall_offset_millis
            .store(millis, Ordering::Relaxed);
    }

    /// How many of its tasks have not ended.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.shared.tasks().live.len()
    }

    fn change(&self, from: u8, to: u8) -> bool {
        let life = &self.shared.life;
        life.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    fn wake_all(&self) {
        let wakers: Vec<_> = self
            .shared
            .tasks()
            .live
            .values()
            .flatten()
            .cloned()
            .collect();
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Runtime for SimProcess {
    fn now(&self) -> Instant {
        self.runtime.now()
    }

    fn wall(&self) -> SystemTime {
        let offset = self.shared.wall_offset_millis.load(Ordering::Relaxed);
        let by = Duration::from_millis(offset.unsigned_abs());
        if offset < 0 {
            self.runtime.wall() - by
        } else {
            self.runtime.wall() + by
        }
    }

    fn random_u64(&self) -> u64 {
        self.runtime.random_u64()
    }

    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        let id = {
            let mut tasks = self.shared.tasks();
            tasks.last_id += 1;
            let id = tasks.last_id;
            tasks.live.insert(id, None);
            id
        };
        self.runtime.spawn(Box::pin(Task {
            shared: Arc::clone(&self.shared),
            id,
            waker: None,
            task: Some(task),
        }));
    }
}

impl fmt::Debug for SimProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimProcess")
            .field("life", &self.shared.life)
            .field("tasks", &self.tasks())
            .finish_non_exhaustive()
    }
}

/// A task that runs while its process does.
struct Task {
    shared: Arc<Shared>,
    id: u64,
    /// As it is known to the process.
    waker: Option<Waker>,
    task: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let is_known = |waker: &Waker| waker.will_wake(cx.waker());
        if !self.waker.as_ref().is_some_and(is_known) {
            let waker = cx.waker().clone();
            let mut tasks = self.shared.tasks();
            tasks.live.insert(self.id, Some(waker.clone()));
            drop(tasks);
            self.waker = Some(waker);
        }
        match self.shared.life.load(Ordering::Relaxed) {
            PAUSED => return Poll::Pending,
            ENDED => self.task = None,
            _ => assert!(
                self.shared.may_run(now()),
                "a simulated process spins: its tasks wake each other while no time passes"
            ),
        }
        let Some(task) = &mut self.task else {
            return Poll::Ready(());
        };
        let polled = task.as_mut().poll(cx);
        if polled.is_ready() {
            self.task = None;
        }
        polled
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.shared.tasks().live.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::super::SimRuntime;
    use super::*;

    fn process() -> SimProcess {
        SimProcess::new(Arc::new(SimRuntime::new(7)))
    }

    #[tokio::test(start_paused = true)]
    async fn timers_that_fell_due_while_it_was_paused_fire_when_it_goes_on() {
        let process = process();
        let (rings, mut rung) = tokio::sync::mpsc::channel(8);
        let start = process.now();
        for seconds in [1, 2, 30] {
            let (rings, clock) = (rings.clone(), process.clone());
            process.spawn(Box::pin(async move {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                let at = clock.now() - start;
                rings.send((seconds, at.as_secs())).await.expect("heard");
            }));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        process.pause();
        assert!(process.is_paused());
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(rung.try_recv().is_err(), "a task ran in a paused process");
        process.resume();
        let heard = [rung.recv().await, rung.recv().await, rung.recv().await];
        assert_eq!(heard, [Some((1, 10)), Some((2, 10)), Some((30, 30))]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_drops_every_task_also_of_a_paused_process_and_those_that_come_later() {
        let process = process();
        let (kept, mut held) = tokio::sync::mpsc::channel::<()>(1);
        for _ in 0..3 {
            let kept = kept.clone();
            process.spawn(Box::pin(async move {
                std::future::pending::<()>().await;
                drop(kept);
            }));
        }
        assert_eq!(process.tasks(), 3);
        process.pause();
        process.end();
        process.resume();
        process.spawn(Box::pin(async move {
            kept.send(()).await.expect("heard");
        }));
        assert_eq!(held.recv().await, None, "nothing runs, nothing is held");
        assert_eq!(process.tasks(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_only_wakes_itself_is_ended() {
        let process = process();
        let (kept, mut held) = tokio::sync::mpsc::channel::<()>(1);
        process.spawn(Box::pin(async move {
            let _kept = kept;
            loop {
                tokio::task::yield_now().await;
            }
        }));
        assert_eq!(held.recv().await, None, "it spins no more");
        assert_eq!(process.tasks(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn its_wall_clock_can_be_stepped_and_that_of_others_stays() {
        let (process, other) = (process(), process());
        let before = process.wall();
        process.set_wall_offset(-3_600_000);
        assert_eq!(process.wall(), before - Duration::from_secs(3600));
        process.set_wall_offset(5);
        assert_eq!(process.wall(), before + Duration::from_millis(5));
        assert_eq!(other.wall(), before);
    }
}
