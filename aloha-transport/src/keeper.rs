//! One timer for all connections of a context.
//!
//! Each connection names the earliest moment at which something of it is due: a deadline, a look whether the peer is
//! alive, the end of a close. The keeper sleeps until the earliest of all and calls that connection. Where nothing is
//! due there is no timer, and without connections no task.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker, ready};

use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::task::TaskTracker;

use crate::connection::Connection;
use crate::runtime::Runtime;

/// Calls connections when their time has come.
pub(crate) struct Keeper {
    runtime: Arc<dyn Runtime>,
    tasks: TaskTracker,
    schedule: Mutex<Schedule>,
}

/// Who wants to be called when; in an order that is the same in every run.
#[derive(Default)]
struct Schedule {
    last_number: u64,
    kept: BTreeMap<u64, Kept>,
    due: BTreeSet<(Instant, u64)>,
    /// The task, while it waits.
    task: Option<Waker>,
    running: bool,
}

struct Kept {
    connection: Weak<Connection>,
    at: Option<Instant>,
}

impl Keeper {
    pub(crate) fn new(runtime: Arc<dyn Runtime>, tasks: TaskTracker) -> Arc<Self> {
        Arc::new(Self {
            runtime,
            tasks,
            schedule: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a connection, in the order in which they were made.
    pub(crate) fn next_number(&self) -> u64 {
        let mut schedule = self.lock();
        schedule.last_number += 1;
        schedule.last_number
    }

    /// Takes a connection in, which may be called from now on.
    pub(crate) fn keep(self: &Arc<Self>, number: u64, connection: &Arc<Connection>) {
        let mut schedule = self.lock();
        let kept = Kept {
            connection: Arc::downgrade(connection),
            at: None,
        };
        schedule.kept.entry(number).or_insert(kept);
        if std::mem::replace(&mut schedule.running, true) {
            return;
        }
        drop(schedule);
        let keeper = Arc::clone(self);
        let task = async move { keeper.run().await };
        self.runtime.spawn(Box::pin(self.tasks.track_future(task)));
    }

    /// Lets a connection go that has ended.
    pub(crate) fn forget(&self, number: u64) {
        let mut schedule = self.lock();
        if let Some(at) = schedule.kept.remove(&number).and_then(|kept| kept.at) {
            schedule.due.remove(&(at, number));
        }
        // It looks what is left to wait for.
        let task = schedule.task.take();
        drop(schedule);
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Calls a connection at that moment, or earlier where an earlier one was named.
    pub(crate) fn call_at(&self, number: u64, at: Instant) {
        let mut schedule = self.lock();
        let Some(kept) = schedule.kept.get_mut(&number) else {
            return;
        };
        if kept.at.is_some_and(|named| named <= at) {
            return;
        }
        if let Some(later) = kept.at.replace(at) {
            schedule.due.remove(&(later, number));
        }
        schedule.due.insert((at, number));
        let task = if schedule.due.first() == Some(&(at, number)) {
            schedule.task.take()
        } else {
            None
        };
        drop(schedule);
        if let Some(task) = task {
            task.wake();
        }
    }

    /// Calls whoever is due, for as long as there are connections.
    async fn run(&self) {
        let mut sleep = pin!(None::<Sleep>);
        poll_fn(|cx| {
            loop {
                match self.next(cx) {
                    Next::End => return Poll::Ready(()),
                    Next::Nothing => {
                        sleep.set(None);
                        return Poll::Pending;
                    }
                    Next::Call(number, connection, now) => {
                        if let Some(next) = connection.on_time(now) {
                            self.call_at(number, next);
                        }
                    }
                    Next::At(at) => {
                        if sleep.as_ref().as_pin_ref().map(|sleep| sleep.deadline()) != Some(at) {
                            sleep.set(Some(sleep_until(at)));
                        }
                        let sleep = sleep.as_mut().as_pin_mut().expect("set above");
                        ready!(sleep.poll(cx));
                    }
                }
            }
        })
        .await;
    }

    fn next(&self, cx: &Context<'_>) -> Next {
        let mut schedule = self.lock();
        loop {
            if schedule.kept.is_empty() {
                schedule.running = false;
                return Next::End;
            }
            schedule.task = Some(cx.waker().clone());
            let Some(&(at, number)) = schedule.due.first() else {
                return Next::Nothing;
            };
            let now = self.runtime.now();
            if now < at {
                return Next::At(at);
            }
            schedule.due.pop_first();
            let kept = schedule.kept.get_mut(&number);
            let kept = kept.expect("whoever is due is kept");
            kept.at = None;
            if let Some(connection) = kept.connection.upgrade() {
                return Next::Call(number, connection, now);
            }
            schedule.kept.remove(&number);
        }
    }
}

/// What the keeper does next.
enum Next {
    Call(u64, Arc<Connection>, Instant),
    At(Instant),
    Nothing,
    End,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
    }
}
