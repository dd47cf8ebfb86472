//! When local asks run out of time: one table and one timer for a whole environment.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use aloha_transport::Runtime;
use tokio::time::Instant;

pub(crate) struct Deadlines {
    runtime: Arc<dyn Runtime>,
    table: Mutex<Table>,
}

#[derive(Default)]
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
            table: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready once `at` has passed. The first call takes a slot, which [`release`](Self::release) gives back.
    pub(crate) fn poll(&self, slot: &mut Option<usize>, at: Instant, cx: &Context<'_>) -> Poll<()> {
        let mut table = self.lock();
        match *slot {
            Some(taken) => match &mut table.slots[taken] {
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
                *slot = Some(table.insert(waiting));
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
        let mut table = self.lock();
        let released = std::mem::replace(&mut table.slots[slot], Slot::Free);
        table.free.push(slot);
        drop(table);
        drop(released);
    }

    /// Ends every wait: the environment is shut down.
    pub(crate) fn expire_all(&self) {
        let mut expired = Vec::new();
        for slot in &mut self.lock().slots {
            if matches!(slot, Slot::Waiting { .. })
                && let Slot::Waiting { waker, .. } = std::mem::replace(slot, Slot::Expired)
            {
                expired.push(waker);
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
                let mut table = self.lock();
                let wakers = table.expire(now);
                table.timer = Some(cx.waker().clone());
                let next = table.next;
                drop(table);
                wakers.into_iter().for_each(Waker::wake);
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
