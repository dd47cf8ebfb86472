//! One endpoint's mail: start first, stop last, one message at a time.
//!
//! Senders append under a short lock; the endpoint's task swaps the whole buffer out and works through it.
//! It is woken only when it waits. Local messages are moved and keep their type; remote ones come
//! as bytes and are decoded by the endpoint's task. Connection events have a lane of their own, looked at once a batch.

use std::any::Any;
use std::cell::Cell;
use std::future::poll_fn;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use aloha_transport::{Failure, FailureCode, RpcResponseCallback};
use bytes::Bytes;
use tokio::time::Instant;

use crate::address::RpcAddress;
use crate::config::RpcConfig;
use crate::envelope::TraceContext;
use crate::error::code;
use crate::link::Link;

/// A buffer with room for more messages than this is not kept.
const KEPT_MESSAGES_MAX: usize = 1024;

thread_local! {
    static STOPPING: Cell<bool> = const { Cell::new(false) };
}

/// Whether messages dropped now on this thread are dropped because their endpoint is stopped.
pub(crate) fn is_stopping() -> bool {
    STOPPING.get()
}

/// Drops what a stopped endpoint leaves behind; the calls inside say so.
pub(crate) fn drop_stopped<T>(mail: T) {
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            STOPPING.set(self.0);
        }
    }
    let _reset = Reset(STOPPING.replace(true));
    drop(mail);
}

/// How a message was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    OneWay,
    Asked,
}

/// A message that came over a connection, not decoded yet.
pub(crate) struct RemoteMail {
    pub(crate) link: Arc<Link>,
    pub(crate) sent: Sent,
    pub(crate) body: Bytes,
    pub(crate) request: Option<RpcResponseCallback>,
    pub(crate) calls: Vec<Option<RpcResponseCallback>>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) trace: Option<Box<TraceContext>>,
}

impl RemoteMail {
    /// Answers every call of the message with a failure.
    pub(crate) fn bounce(self, code: FailureCode, text: &str) {
        let failure = Failure::new(code, text);
        for call in self
            .request
            .into_iter()
            .chain(self.calls.into_iter().flatten())
        {
            call.on_failure(&failure);
        }
    }
}

/// Something that happened to a connection.
#[derive(Debug, Clone)]
pub(crate) enum ConnectionEvent {
    Connected(RpcAddress),
    Disconnected(RpcAddress),
    NetworkError(Arc<str>, RpcAddress),
}

/// What the endpoint's task takes at a time. After the rest of the batch: stop, when `stop` is set.
pub(crate) struct Batch<M> {
    pub(crate) events: Vec<ConnectionEvent>,
    pub(crate) local: Vec<(Sent, M)>,
    pub(crate) remote: Vec<RemoteMail>,
    pub(crate) stop: bool,
}

impl<M> Default for Batch<M> {
    fn default() -> Self {
        Self {
            events: Vec::new(),
            local: Vec::new(),
            remote: Vec::new(),
            stop: false,
        }
    }
}

/// Why an inbox does not take a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    Stopped,
}

pub(crate) struct Inbox<M> {
    name: Arc<str>,
    messages_max: usize,
    state: Mutex<State<M>>,
}

struct State<M> {
    batch: Batch<M>,
    open: bool,
    /// Places promised to holders of permits.
    reserved: usize,
    /// The endpoint's task, while it waits.
    consumer: Option<Waker>,
    /// Those who wait for a place.
    waiting: Vec<Waker>,
}

impl<M> Inbox<M> {
    pub(crate) fn new(name: Arc<str>, messages_max: usize) -> Self {
        let batch = Batch::default();
        let state = State {
            batch,
            open: true,
            reserved: 0,
            consumer: None,
            waiting: Vec::new(),
        };
        Self {
            name,
            messages_max,
            state: Mutex::new(state),
        }
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn messages_max(&self) -> usize {
        self.messages_max
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

    /// Appends a local message, or gives it back.
    pub(crate) fn post(&self, sent: Sent, message: M) -> Result<(), (Refused, M)> {
        let mut state = self.lock();
        if !state.open {
            return Err((Refused::Stopped, message));
        }
        if state.batch.local.len() + state.reserved >= self.messages_max {
            return Err((Refused::Full, message));
        }
        state.batch.local.push((sent, message));
        Self::wake(state);
        Ok(())
    }

    /// A place for one local message.
    pub(crate) async fn reserve(&self) -> Result<(), Refused> {
        poll_fn(|cx| {
            let mut state = self.lock();
            if !state.open {
                return Poll::Ready(Err(Refused::Stopped));
            }
            if state.batch.local.len() + state.reserved < self.messages_max {
                state.reserved += 1;
                return Poll::Ready(Ok(()));
            }
            state.waiting.push(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Gives a place back.
    pub(crate) fn release(&self) {
        let mut state = self.lock();
        state.reserved -= 1;
        let waiting = state.waiting.pop();
        drop(state);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }

    /// Fills a place.
    pub(crate) fn post_reserved(&self, sent: Sent, message: M) -> Result<(), (Refused, M)> {
        let mut state = self.lock();
        state.reserved -= 1;
        if !state.open {
            return Err((Refused::Stopped, message));
        }
        state.batch.local.push((sent, message));
        Self::wake(state);
        Ok(())
    }

    /// Waits for mail and swaps it into `batch`, which must be empty.
    pub(crate) async fn next(&self, batch: &mut Batch<M>) {
        poll_fn(|cx| self.poll_next(batch, cx)).await;
    }

    fn poll_next(&self, batch: &mut Batch<M>, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        let waiting = &state.batch;
        if waiting.local.is_empty()
            && waiting.remote.is_empty()
            && waiting.events.is_empty()
            && !waiting.stop
        {
            state.consumer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        mem::swap(&mut state.batch, batch);
        let waiting = mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
        Poll::Ready(())
    }

    /// Takes no more mail; gives back what waits.
    pub(crate) fn close(&self) -> Batch<M> {
        let mut state = self.lock();
        state.open = false;
        let batch = mem::take(&mut state.batch);
        let waiting = mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
        batch
    }
}

impl<M> Batch<M> {
    /// Lets go of memory that an unusual burst needed.
    pub(crate) fn trim(&mut self) {
        self.local.shrink_to(KEPT_MESSAGES_MAX);
        self.remote.shrink_to(KEPT_MESSAGES_MAX);
    }
}

/// An inbox without its message type: what the dispatcher and the connections see.
pub(crate) trait Mailbox: Send + Sync + 'static {
    /// Appends messages of one read, under one lock. What has no place is answered with a failure;
    /// gives the number of those that were dropped.
    fn deliver(&self, mail: &mut Vec<RemoteMail>) -> usize;
    fn notify(&self, event: ConnectionEvent);
    /// What was posted before is handled before.
    fn stop(&self);
    fn is_open(&self) -> bool;
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<M: Send + 'static> Mailbox for Inbox<M> {
    fn deliver(&self, mail: &mut Vec<RemoteMail>) -> usize {
        let mut state = self.lock();
        let open = state.open;
        let room = self.messages_max.saturating_sub(state.batch.remote.len());
        let taken = if open { mail.len().min(room) } else { 0 };
        state.batch.remote.extend(mail.drain(..taken));
        Self::wake(state);
        let dropped = mail.len();
        for mail in mail.drain(..) {
            if open {
                let key = RpcConfig::INBOX_MESSAGES_MAX_KEY;
                mail.bounce(
                    FailureCode::OVERLOADED,
                    &format!("{} messages wait ({key})", self.messages_max),
                );
            } else {
                mail.bounce(code::ENDPOINT_STOPPED, "the endpoint is stopped");
            }
        }
        dropped
    }

    fn notify(&self, event: ConnectionEvent) {
        let mut state = self.lock();
        if state.open {
            state.batch.events.push(event);
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

    fn is_open(&self) -> bool {
        self.lock().open
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbox() -> Inbox<u32> {
        Inbox::new("counter".into(), 2)
    }

    #[test]
    fn mail_is_taken_in_order_and_whole() {
        let inbox = inbox();
        inbox.post(Sent::OneWay, 1).unwrap();
        inbox.post(Sent::Asked, 2).unwrap();
        let mut batch = Batch::default();
        let cx = Context::from_waker(Waker::noop());
        assert!(inbox.poll_next(&mut batch, &cx).is_ready());
        assert_eq!(batch.local, [(Sent::OneWay, 1), (Sent::Asked, 2)]);
        batch.local.clear();
        assert!(inbox.poll_next(&mut batch, &cx).is_pending());
    }

    #[test]
    fn a_full_inbox_gives_the_message_back() {
        let inbox = inbox();
        inbox.post(Sent::OneWay, 1).unwrap();
        inbox.post(Sent::OneWay, 2).unwrap();
        assert_eq!(inbox.post(Sent::OneWay, 3), Err((Refused::Full, 3)));
    }

    #[test]
    fn what_came_before_stop_is_handled_and_what_comes_after_is_refused() {
        let inbox = inbox();
        inbox.post(Sent::OneWay, 1).unwrap();
        inbox.stop();
        inbox.stop();
        assert_eq!(inbox.post(Sent::OneWay, 2), Err((Refused::Stopped, 2)));
        let mut batch = Batch::default();
        assert!(
            inbox
                .poll_next(&mut batch, &Context::from_waker(Waker::noop()))
                .is_ready()
        );
        assert_eq!((batch.local, batch.stop), (vec![(Sent::OneWay, 1)], true));
    }

    #[test]
    fn ten_threads_racing_with_stop_lose_nothing_unsaid() {
        let inbox = Inbox::new("counter".into(), 10_000);
        let taken: usize = std::thread::scope(|scope| {
            let senders: Vec<_> = (0..10)
                .map(|_| {
                    scope.spawn(|| {
                        (0..100)
                            .filter(|n| inbox.post(Sent::OneWay, *n).is_ok())
                            .count()
                    })
                })
                .collect();
            inbox.stop();
            senders
                .into_iter()
                .map(|sender| sender.join().unwrap())
                .sum()
        });
        assert_eq!(inbox.close().local.len(), taken);
    }
}
