//! When local asks run out of time: one timer for a whole environment, and a few tables, so that threads that ask at once
//! do not wait for each other.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use aloha_transport::Runtime;
use tokio::time::Instant;

/// How many tables there are. A thread keeps to one.
const TABLES: usize = 8;

pub(crate) struct Deadlines {
    runtime: Arc<dyn Runtime>,
    tables: [Mutex<Table>; TABLES],
}

thread_local! {
    /// The table of this thread.
    static TABLE: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % TABLES
    };
}

/// On a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Table {
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// No deadline in the table is earlier.
    next: Option<Instant>,
    timer: Option<Waker>,
}

enum Slot {
    Free,
    Waiting { at: Instant, waker: Waker },
    Expired,
}

impl Deadlines {
    pub(crate) fn new(runtime: Arc<dyn Runtime>) -> Self {
        Self {
            runtime,
            tables: Default::default(),
        }
    }

    /// The table that a slot is in.
    fn lock(&self, slot: usize) -> MutexGuard<'_, Table> {
        let table = self.tables[slot % TABLES].lock();
        table.unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready once `at` has passed. The first call takes a slot, which [`release`](Self::release) gives back.
    pub(crate) fn poll(&self, slot: &mut Option<usize>, at: Instant, cx: &Context<'_>) -> Poll<()> {
        let place = slot.unwrap_or_else(|| TABLE.with(|table| *table));
        let mut table = self.lock(place);
        match *slot {
            Some(taken) => match &mut table.slots[taken / TABLES] {
                Slot::Expired => return Poll::Ready(()),
                Slot::Waiting { waker, .. } if waker.will_wake(cx.waker()) => return Poll::Pending,
                other => {
                    *other = Slot::Waiting {
                        at,
                        waker: cx.waker().clone(),
                    }
                }
            },
            None => {
                let waiting = Slot::Waiting {
                    at,
                    waker: cx.waker().clone(),
                };
                *slot = Some(table.insert(waiting) * TABLES + place);
            }
        }
        let earlier = table.next.is_none_or(|next| at < next);
        let timer = if earlier {
            table.next = Some(at);
            table.timer.take()
        } else {
            None
        };
        drop(table);
        if let Some(timer) = timer {
            timer.wake();
        }
        Poll::Pending
    }

    pub(crate) fn release(&self, slot: usize) {
        let mut table = self.lock(slot);
        let released = std::mem::replace(&mut table.slots[slot / TABLES], Slot::Free);
        table.free.push(slot / TABLES);
        drop(table);
        drop(released);
    }

    /// Ends every wait: the environment is shut down.
    pub(crate) fn expire_all(&self) {
        let mut expired = Vec::new();
        for table in 0..TABLES {
            for slot in &mut self.lock(table).slots {
                if matches!(slot, Slot::Waiting { .. })
                    && let Slot::Waiting { waker, .. } = std::mem::replace(slot, Slot::Expired)
                {
                    expired.push(waker);
                }
            }
        }
        expired.into_iter().for_each(Waker::wake);
    }

    /// Wakes what is overdue, for as long as it is polled.
    pub(crate) async fn run(&self) {
        let mut sleep = pin!(tokio::time::sleep_until(self.runtime.now()));
        poll_fn(|cx| {
            loop {
                let now = self.runtime.now();
                let mut next: Option<Instant> = None;
                for table in 0..TABLES {
                    let mut table = self.lock(table);
                    let wakers = table.expire(now);
                    table.timer = Some(cx.waker().clone());
                    next = next.into_iter().chain(table.next).min();
                    drop(table);
                    wakers.into_iter().for_each(Waker::wake);
                }
                let Some(next) = next else {
                    return Poll::<()>::Pending;
                };
                if sleep.deadline() != next {
                    sleep.as_mut().reset(next);
                }
                std::task::ready!(sleep.as_mut().poll(cx));
            }
        })
        .await;
    }
}

impl Table {
    fn insert(&mut self, slot: Slot) -> usize {
        if let Some(free) = self.free.pop() {
            self.slots[free] = slot;
            return free;
        }
        self.slots.push(slot);
        self.slots.len() - 1
    }

    fn expire(&mut self, now: Instant) -> Vec<Waker> {
        if self.next.is_none_or(|next| now < next) {
            return Vec::new();
        }
        let mut expired = Vec::new();
        self.next = None;
        for slot in &mut self.slots {
            let Slot::Waiting { at, .. } = slot else {
                continue;
            };
            if *at > now {
                self.next = Some(self.next.map_or(*at, |next| next.min(*at)));
            } else if let Slot::Waiting { waker, .. } = std::mem::replace(slot, Slot::Expired) {
                expired.push(waker);
            }
        }
        expired
    }
}
