//! One endpoint's mail: start first, stop last, one message at a time.
//!
//! Senders append under a short lock; the endpoint's task swaps the whole buffer out and works through it.
//! It is woken only when it waits. There are three lanes:
//!
//! - *control*: stop, connection events, news of watched endpoints. Never bounded, and no full lane keeps it out; looked
//!   at between two batches.
//! - *local* messages are moved and keep their type. The lane is bounded in messages and in bytes; who finds it full
//!   is refused, or displaces the oldest.
//! - *remote* messages come as bytes and are decoded by the endpoint's task. Their senders spend credit
//!   ([`InboundFlow`](crate::flow::InboundFlow)), so what was promised a place has one.

use std::any::Any;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use aloha_transport::{INITIAL_CREDIT_BYTES, INITIAL_CREDIT_MESSAGES};
use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::flow::InboundFlow;
use crate::mail::{Batch, Control, ControlLane, LocalMail};
use crate::mailbox::{Delivered, Load, Mailbox};
use crate::progress::Progress;
use crate::remote_lane::{RemoteLane, RemoteMail};
use crate::supervision::Termination;
use crate::waiters::{Left, Ticket, Waiters};

/// What an inbox does with a message that it has no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// The sender is told; nothing that was taken is lost.
    #[default]
    Refuse,
    /// The oldest message makes room. It becomes a dead letter; if it was asked, its asker is told. Senders in
    /// other environments are then held back by what is on the way alone.
    DropOldest,
}

/// The bounds of an inbox: of local messages, and again of remote ones.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) messages_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) overflow: Overflow,
}

/// Bytes of a moved message, as the user counts them.
pub(crate) type Weigh<M> = Box<dyn Fn(&M) -> usize + Send + Sync>;

/// Why an inbox does not take a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    Stopped,
}

/// Something the endpoint's task looks at before each message.
pub(crate) mod flag {
    /// The time to drain is over: what waits is given up.
    pub(crate) const ABANDON: u8 = 2;
    /// Somebody waits for a place.
    pub(crate) const WAITED_FOR: u8 = 4;
}

/// What the endpoint's task reads or writes for every message.
#[derive(Debug, Default)]
struct Working {
    flags: AtomicU8,
    local: Progress,
    remote: Progress,
    handled: AtomicU64,
}

/// Counts of an endpoint's life.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) errors: AtomicU64,
    pub(crate) restarts: AtomicU64,
    pub(crate) handler_nanos: AtomicU64,
    pub(crate) handler_nanos_max: AtomicU64,
}

impl Counts {
    pub(crate) fn on_time(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.handler_nanos.fetch_add(nanos, Ordering::Relaxed);
        self.handler_nanos_max.fetch_max(nanos, Ordering::Relaxed);
    }
}

/// In this order in memory: what senders write and what the endpoint's task writes are a cache line apart, by what nobody
/// writes. (Aligned to cache lines it would be half as large again, and there are many idle endpoints.)
#[repr(C)]
pub(crate) struct Inbox<M> {
    state: Mutex<State<M>>,
    name: Arc<str>,
    limits: Limits,
    weigh: Option<Weigh<M>>,
    /// Connections whose peers send to this endpoint.
    flows: AtomicUsize,
    working: Working,
    pub(crate) counts: Counts,
}

struct State<M> {
    batch: Batch<M>,
    /// Of what waits, as far as bytes are counted.
    local_bytes: usize,
    remote_bytes: usize,
    /// When the first message that waits came, and the first of the batch at work, if anybody observes.
    since: Option<Instant>,
    open: bool,
    /// Places promised to holders of permits.
    reserved: usize,
    /// Local messages of the batch that the task took last.
    taken: usize,
    working_since: Option<Instant>,
    /// The endpoint's task, while it waits.
    consumer: Option<Waker>,
    /// Those who wait for a place, in order.
    waiters: Option<Box<Waiters>>,
    life: Life,
}

enum Life {
    Alive(Vec<oneshot::Sender<Termination>>),
    Ended(Termination),
}

impl<M> Inbox<M> {
    pub(crate) fn new(name: Arc<str>, mut limits: Limits, weigh: Option<Weigh<M>>) -> Self {
        if weigh.is_none() {
            // All messages weigh the same: one of the two limits says it all.
            let fitting = limits.bytes_max / size_of::<M>().max(1);
            limits.messages_max = limits.messages_max.min(fitting.max(1));
        }
        let state = State {
            batch: Batch::default(),
            local_bytes: 0,
            remote_bytes: 0,
            since: None,
            open: true,
            reserved: 0,
            taken: 0,
            working_since: None,
            consumer: None,
            waiters: None,
            life: Life::Alive(Vec::new()),
        };
        Self {
            name,
            limits,
            weigh,
            state: Mutex::new(state),
            working: Working::default(),
            flows: AtomicUsize::new(0),
            counts: Counts::default(),
        }
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn messages_max(&self) -> usize {
        self.limits.messages_max
    }

    fn lock(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(mut state: MutexGuard<'_, State<M>>) {
        let consumer = state.consumer.take();
        drop(state);
        if let Some(consumer) = consumer {
            consumer.wake();
        }
    }

    // ---- senders -------------------------------------------------------------------------------

    fn weight(&self, message: &M) -> usize {
        self.weigh.as_ref().map_or(0, |weigh| weigh(message))
    }

    /// Whether a local message of this weight has a place. Where the oldest makes room, only what waits counts.
    fn has_room(&self, state: &State<M>, bytes: usize) -> bool {
        let displaces = self.displaces();
        let mut waiting = state.batch.local.len();
        if !displaces {
            waiting += state.reserved;
        }
        // The batch at work counts whole until it matters.
        if waiting + state.taken >= self.limits.messages_max {
            let at_work = if displaces {
                0
            } else {
                self.working.local.messages()
            };
            if waiting + at_work >= self.limits.messages_max {
                return false;
            }
        }
        if self.weigh.is_none() {
            return true;
        }
        let at_work = if displaces {
            0
        } else {
            self.working.local.bytes()
        };
        let left = state.local_bytes + at_work;
        // A single message over the limit may still enter an empty inbox.
        left == 0 || left + bytes <= self.limits.bytes_max
    }

    /// Appends a local message, or gives it back. `Ok` holds what it displaced.
    #[inline(always)]
    pub(crate) fn post(
        &self,
        mail: LocalMail<M>,
        now: Option<Instant>,
    ) -> Result<Vec<LocalMail<M>>, (Refused, M)> {
        if self.weigh.is_none() && now.is_none() {
            let mut state = self.lock();
            let certain = state.batch.local.len() + state.reserved + state.taken;
            if state.open && state.waiters.is_none() && certain < self.limits.messages_max {
                state.batch.local.push_back(mail);
                Self::wake(state);
                return Ok(Vec::new());
            }
        }
        self.post_with_care(mail, now)
    }

    #[cold]
    #[inline(never)]
    fn post_with_care(
        &self,
        mut mail: LocalMail<M>,
        now: Option<Instant>,
    ) -> Result<Vec<LocalMail<M>>, (Refused, M)> {
        let bytes = self.weight(&mail.message);
        mail.bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let mut state = self.lock();
        if !state.open {
            return Err((Refused::Stopped, mail.message));
        }
        let handed = self.hand_over(&mut state);
        let posted = if self.displaces() {
            let displaced = self.displace(&mut state, bytes);
            Self::append(&mut state, mail, now);
            Ok(displaced)
        } else if self.has_room(&state, bytes) {
            Self::append(&mut state, mail, now);
            Ok(Vec::new())
        } else {
            Err((Refused::Full, mail.message))
        };
        Self::wake(state);
        handed.into_iter().for_each(Waker::wake);
        posted
    }

    /// Takes the oldest messages out until one of this weight has room.
    fn displace(&self, state: &mut State<M>, bytes: usize) -> Vec<LocalMail<M>> {
        let mut displaced = Vec::new();
        while !self.has_room(state, bytes) {
            let Some(oldest) = state.batch.local.pop_front() else {
                break;
            };
            state.local_bytes = state.local_bytes.saturating_sub(oldest.bytes as usize);
            displaced.push(oldest);
        }
        displaced
    }

    #[inline(always)]
    fn append(state: &mut State<M>, mail: LocalMail<M>, now: Option<Instant>) {
        if now.is_some() && state.since.is_none() {
            state.since = now;
        }
        state.local_bytes += mail.bytes as usize;
        state.batch.local.push_back(mail);
    }

    /// A place for one local message, which the caller must fill or [`release`](Self::release).
    pub(crate) fn reserve(&self) -> Reserving<'_, M> {
        Reserving {
            inbox: self,
            ticket: None,
        }
    }

    fn poll_reserve(
        &self,
        ticket: &mut Option<Ticket>,
        cx: &Context<'_>,
    ) -> Poll<Result<(), Refused>> {
        let mut state = self.lock();
        if !state.open {
            return Poll::Ready(Err(Refused::Stopped));
        }
        let handed = self.hand_over(&mut state);
        let ready = match *ticket {
            Some(waiting) => {
                let waiters = state.waiters.get_or_insert_default();
                waiters.claim(waiting, cx.waker())
            }
            // Who waits already comes first.
            None => {
                let free = state
                    .waiters
                    .as_ref()
                    .is_none_or(|waiters| !waiters.anybody())
                    && (self.displaces() || self.has_room(&state, 0));
                if free {
                    state.reserved += 1;
                } else {
                    let waiters = state.waiters.get_or_insert_default();
                    *ticket = Some(waiters.join(cx.waker()));
                    self.working
                        .flags
                        .fetch_or(flag::WAITED_FOR, Ordering::Relaxed);
                }
                free
            }
        };
        drop(state);
        handed.into_iter().for_each(Waker::wake);
        if ready {
            *ticket = None;
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    /// Hands free places to those who wait.
    fn hand_over(&self, state: &mut State<M>) -> Vec<Waker> {
        let mut handed = Vec::new();
        while state
            .waiters
            .as_ref()
            .is_some_and(|waiters| waiters.anybody())
            && self.has_room(state, 0)
        {
            let waiters = state.waiters.as_mut().expect("looked at above");
            handed.extend(waiters.grant());
            state.reserved += 1;
        }
        if !state
            .waiters
            .as_ref()
            .is_some_and(|waiters| waiters.anybody())
        {
            self.working
                .flags
                .fetch_and(!flag::WAITED_FOR, Ordering::Relaxed);
        }
        handed
    }

    /// Gives a place back.
    pub(crate) fn release(&self) {
        let mut state = self.lock();
        state.reserved -= 1;
        let handed = self.hand_over(&mut state);
        drop(state);
        handed.into_iter().for_each(Waker::wake);
    }

    /// Fills a place. `Ok` holds what the message displaced. On an error the place is free again; it stays the caller's
    /// if this panics, which the weight may.
    pub(crate) fn post_reserved(
        &self,
        mut mail: LocalMail<M>,
        now: Option<Instant>,
    ) -> Result<Vec<LocalMail<M>>, (Refused, M)> {
        let bytes = self.weight(&mail.message);
        mail.bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let mut state = self.lock();
        state.reserved -= 1;
        if !state.open {
            return Err((Refused::Stopped, mail.message));
        }
        let displaced = if self.displaces() {
            self.displace(&mut state, bytes)
        } else {
            Vec::new()
        };
        Self::append(&mut state, mail, now);
        Self::wake(state);
        Ok(displaced)
    }

    // ---- the endpoint's task -------------------------------------------------------------------

    /// Takes what waits into `batch`, of which nothing may be left but what was kept over a restart.
    pub(crate) fn poll_next(&self, batch: &mut Batch<M>, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.batch.is_empty() {
            state.consumer = Some(cx.waker().clone());
            state.working_since = None;
            // Who found it full while the last message was at work, and saw too late how far that was.
            if state.waiters.is_some() {
                let handed = self.hand_over(&mut state);
                drop(state);
                handed.into_iter().for_each(Waker::wake);
            }
            return Poll::Pending;
        }
        debug_assert!(
            batch.is_empty(),
            "a batch is worked through before the next"
        );
        // Most batches have one lane.
        let new = &mut state.batch;
        if !new.control.is_empty() {
            mem::swap(&mut new.control, &mut batch.control);
        }
        batch.stop = mem::take(&mut new.stop);
        if !new.local.is_empty() {
            mem::swap(&mut new.local, &mut batch.local);
        }
        if !new.remote.is_empty() {
            mem::swap(&mut new.remote, &mut batch.remote);
        }
        let bytes = mem::take(&mut state.local_bytes);
        state.taken = batch.local.len();
        self.working.local.begin(batch.local.len(), bytes);
        let bytes = mem::take(&mut state.remote_bytes);
        self.working.remote.begin(batch.remote.len(), bytes);
        state.working_since = state.since.take();
        if state.waiters.is_some() {
            let handed = self.hand_over(&mut state);
            drop(state);
            handed.into_iter().for_each(Waker::wake);
        }
        Poll::Ready(())
    }

    /// Makes the endpoint's task look again.
    pub(crate) fn nudge(&self) {
        Self::wake(self.lock());
    }

    /// Ready once the endpoint is asked to stop.
    pub(crate) fn poll_stop(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if !state.open {
            return Poll::Ready(());
        }
        state.consumer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// A local message is taken up.
    pub(crate) fn on_local(&self, bytes: u32) {
        self.working.local.advance(bytes as usize);
    }

    /// A remote message is taken up.
    pub(crate) fn on_remote(&self, bytes: usize) {
        self.working.remote.advance(bytes);
    }

    /// What to look at before the next message.
    pub(crate) fn flags(&self) -> u8 {
        self.working.flags.load(Ordering::Relaxed)
    }

    pub(crate) fn raise(&self, flag: u8) {
        self.working.flags.fetch_or(flag, Ordering::Relaxed);
    }

    /// A message was handled, well or not.
    pub(crate) fn on_handled(&self) {
        let handled = self.working.handled.load(Ordering::Relaxed);
        self.working.handled.store(handled + 1, Ordering::Relaxed);
    }

    /// A place became free while somebody waits.
    pub(crate) fn wake_waiting(&self) {
        let mut state = self.lock();
        let handed = self.hand_over(&mut state);
        drop(state);
        handed.into_iter().for_each(Waker::wake);
    }

    /// Takes no more mail; gives back what waits.
    pub(crate) fn close(&self) -> Batch<M> {
        let mut state = self.lock();
        state.open = false;
        let batch = mem::take(&mut state.batch);
        let waiting = state.waiters.as_mut().map(|waiters| waiters.close());
        drop(state);
        waiting.into_iter().flatten().for_each(Waker::wake);
        batch
    }

    /// What came by the control lane after the end of all else.
    pub(crate) fn take_control(&self) -> ControlLane {
        mem::take(&mut self.lock().batch.control)
    }

    /// Tells those who watch that the endpoint has ended.
    pub(crate) fn end(&self, why: &Termination) {
        let mut state = self.lock();
        let life = mem::replace(&mut state.life, Life::Ended(why.clone()));
        drop(state);
        if let Life::Alive(watchers) = life {
            for watcher in watchers {
                // An error says that nobody watches any more.
                drop(watcher.send(why.clone()));
            }
        }
    }
}

/// The place to come. Dropped before it came, it leaves the queue, and hands on what it was just given.
pub(crate) struct Reserving<'a, M> {
    inbox: &'a Inbox<M>,
    ticket: Option<Ticket>,
}

impl<M> Future for Reserving<'_, M> {
    type Output = Result<(), Refused>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let inbox = self.inbox;
        inbox.poll_reserve(&mut self.ticket, cx)
    }
}

impl<M> Drop for Reserving<'_, M> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else {
            return;
        };
        let mut state = self.inbox.lock();
        let left = state.waiters.as_mut().map(|waiters| waiters.leave(ticket));
        drop(state);
        if left == Some(Left::APlace) {
            self.inbox.release();
        }
    }
}

impl<M> Inbox<M> {
    /// How many messages and bytes each connection may have on the way to this endpoint.
    pub(crate) fn window(&self) -> (u64, u64) {
        let flows = self.flows.load(Ordering::Relaxed).max(1);
        let share = |limit: usize| (limit / flows).max(1) as u64;
        let messages = share(self.limits.messages_max);
        let bytes = share(self.limits.bytes_max);
        if self.displaces() {
            // What has no room makes some: senders are held back by what is on the way alone.
            let initial = (INITIAL_CREDIT_MESSAGES.into(), INITIAL_CREDIT_BYTES.into());
            return (messages.max(initial.0), bytes.max(initial.1));
        }
        (messages, bytes)
    }

    /// Whether the oldest message makes room.
    pub(crate) fn displaces(&self) -> bool {
        self.limits.overflow == Overflow::DropOldest
    }
}

impl<M: Send + 'static> Mailbox for Inbox<M> {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn deliver(
        &self,
        flow: &Arc<InboundFlow>,
        bytes: &Bytes,
        mails: &mut Vec<RemoteMail>,
        now: Option<Instant>,
    ) -> Delivered {
        let mut state = self.lock();
        if !state.open {
            return Delivered::Stopped;
        }
        if now.is_some() && state.since.is_none() {
            state.since = now;
        }
        state.remote_bytes += mails.iter().map(|mail| mail.body.len()).sum::<usize>();
        state.batch.remote.append(flow, bytes, mails);
        let mut displaced = RemoteLane::default();
        if self.displaces() {
            while state.batch.remote.len() > self.limits.messages_max
                || (state.remote_bytes > self.limits.bytes_max && state.batch.remote.len() > 1)
            {
                let State {
                    batch,
                    remote_bytes,
                    ..
                } = &mut *state;
                let Some((oldest, source)) = batch.remote.pop() else {
                    break;
                };
                *remote_bytes -= oldest.body.len();
                displaced.append(source.flow(), &source.bytes, &mut vec![oldest]);
            }
        }
        Self::wake(state);
        if displaced.is_empty() {
            Delivered::Taken
        } else {
            Delivered::Displaced(displaced)
        }
    }

    fn control(&self, control: Control) {
        let mut state = self.lock();
        // Also after a stop was asked for: until it is done, the endpoint hears.
        if matches!(state.life, Life::Alive(_)) {
            state.batch.control.push(control);
            Self::wake(state);
        }
    }

    fn stop(&self) {
        let mut state = self.lock();
        if state.open {
            state.open = false;
            state.batch.stop = true;
            Self::wake(state);
        }
    }

    fn abandon(&self) {
        self.raise(flag::ABANDON);
        self.stop();
        self.nudge();
    }

    fn is_open(&self) -> bool {
        self.lock().open
    }

    fn watch(&self) -> oneshot::Receiver<Termination> {
        let (watcher, ended) = oneshot::channel();
        match &mut self.lock().life {
            Life::Alive(watchers) => {
                // Those who lost interest go before the list grows.
                if watchers.len() == watchers.capacity() {
                    watchers.retain(|watcher| !watcher.is_closed());
                }
                watchers.push(watcher);
            }
            Life::Ended(why) => drop(watcher.send(why.clone())),
        }
        ended
    }

    fn join(&self) {
        self.flows.fetch_add(1, Ordering::Relaxed);
    }

    fn leave(&self) {
        self.flows.fetch_sub(1, Ordering::Relaxed);
    }

    fn load(&self, now: Instant) -> Load {
        let state = self.lock();
        let since = state.working_since.or(state.since);
        let waiting =
            state.batch.messages() + self.working.local.messages() + self.working.remote.messages();
        drop(state);
        let nanos = |counter: &AtomicU64| Duration::from_nanos(counter.load(Ordering::Relaxed));
        Load {
            waiting,
            oldest: since.map(|since| now.saturating_duration_since(since)),
            handled: self.working.handled.load(Ordering::Relaxed),
            errors: self.counts.errors.load(Ordering::Relaxed),
            restarts: self.counts.restarts.load(Ordering::Relaxed),
            handler_time: nanos(&self.counts.handler_nanos),
            handler_time_max: nanos(&self.counts.handler_nanos_max),
        }
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

#[cfg(test)]
mod tests;
