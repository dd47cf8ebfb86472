//! What an endpoint knows of itself and can do while it handles a message.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::endpoint_ref::RpcEndpointRef;
use crate::env::RpcEnv;
use crate::error::EndpointError;
use crate::inbox::Inbox;
use crate::mail::{Control, Discard, Sent, discard_all};
use crate::mailbox::Mailbox;
use crate::supervision::Directive;
use crate::timers::{Due, TimerKey, Timers};
use crate::watch::link_endpoints;

/// What an endpoint knows of itself and can do while it handles a message. Cheap to clone.
pub struct EndpointContext<M> {
    inner: Arc<Inner<M>>,
}

struct Inner<M> {
    self_ref: RpcEndpointRef<M>,
    env: RpcEnv,
    inbox: Arc<Inbox<M>>,
    /// Whether it can be made anew.
    restarts: bool,
    /// Whether the message at hand was asked.
    asked: AtomicBool,
    any_timer: AtomicBool,
    /// Whether messages put aside are to be handled now.
    replaying: AtomicBool,
    /// Whether handlers run beside the endpoint's task, and tell their time themselves.
    concurrent: AtomicBool,
    /// Made when it is first needed.
    aside: Mutex<Option<Box<Aside<M>>>>,
    /// Ends what lives as long as the endpoint; made when it is first needed.
    life: OnceLock<CancellationToken>,
}

/// Timers, and messages put aside.
struct Aside<M> {
    timers: Timers<M>,
    stashed: VecDeque<(Sent, M)>,
    replay: VecDeque<(Sent, M)>,
    /// What ends the watches of other endpoints, by their URI.
    watched: BTreeMap<String, DropGuard>,
}

impl<M> Default for Aside<M> {
    fn default() -> Self {
        Self {
            timers: Timers::default(),
            stashed: VecDeque::new(),
            replay: VecDeque::new(),
            watched: BTreeMap::new(),
        }
    }
}

/// The stash is full; it has the bounds of the inbox. The message comes back.
#[derive(thiserror::Error)]
#[error("{limit} messages are put aside, and that is the limit")]
pub struct StashFull<M> {
    /// The message.
    pub message: M,
    /// As many as may wait in the inbox.
    pub limit: usize,
}

impl<M> fmt::Debug for StashFull<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StashFull")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl<M: Send + 'static> EndpointContext<M> {
    pub(crate) fn new(
        self_ref: RpcEndpointRef<M>,
        env: RpcEnv,
        inbox: Arc<Inbox<M>>,
        restarts: bool,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                self_ref,
                env,
                inbox,
                restarts,
                asked: AtomicBool::new(false),
                any_timer: AtomicBool::new(false),
                replaying: AtomicBool::new(false),
                concurrent: AtomicBool::new(false),
                aside: Mutex::new(None),
                life: OnceLock::new(),
            }),
        }
    }

    fn with_aside<R>(&self, run: impl FnOnce(&mut Aside<M>) -> R) -> R {
        let aside = self.inner.aside.lock();
        let mut aside = aside.unwrap_or_else(PoisonError::into_inner);
        run(aside.get_or_insert_default())
    }

    /// A reference to this endpoint.
    #[must_use]
    pub fn self_ref(&self) -> &RpcEndpointRef<M> {
        &self.inner.self_ref
    }

    /// The environment it lives in.
    #[must_use]
    pub fn env(&self) -> &RpcEnv {
        &self.inner.env
    }

    /// Stops this endpoint once it has handled what waits already.
    pub fn stop(&self) {
        self.inner.inbox.stop();
    }

    /// What [`on_error`](crate::RpcEndpoint::on_error) decides unless it is written: an endpoint whose linked one ended
    /// stops; after a panic, one that has a factory is restarted; everything else goes on.
    #[must_use]
    pub fn default_directive(&self, error: &EndpointError) -> Directive {
        match error.kind() {
            EndpointError::LINKED => Directive::Stop,
            EndpointError::PANIC if self.inner.restarts => Directive::Restart,
            _ => Directive::Resume,
        }
    }

    // ---- timers --------------------------------------------------------------------------------

    /// Gives `message` to [`receive`](crate::RpcEndpoint::receive) after `delay`, unless the endpoint has ended or was
    /// restarted by then. It does not pass through the inbox: a full one does not hold it up, and
    /// it comes between two batches of messages, not behind all that wait.
    pub fn send_after(&self, delay: Duration, message: M) -> TimerKey {
        self.set_timer(delay, Due::Once(message))
    }

    /// As [`send_after`](Self::send_after), again and again. Where handling takes longer than `period`, the next comes
    /// one period after: they do not pile up.
    pub fn send_every(
        &self,
        period: Duration,
        message: impl FnMut() -> M + Send + 'static,
    ) -> TimerKey {
        self.set_timer(period, Due::Every(period, Box::new(message)))
    }

    fn set_timer(&self, delay: Duration, what: Due<M>) -> TimerKey {
        let at = self.due_in(delay);
        let key = self.with_aside(|aside| aside.timers.set(at, what));
        self.inner.any_timer.store(true, Ordering::Relaxed);
        // The task may wait for mail alone.
        self.inner.inbox.nudge();
        key
    }

    fn due_in(&self, delay: Duration) -> Instant {
        let now = self.now();
        // A delay beyond the end of time is due in thirty years.
        now.checked_add(delay)
            .unwrap_or(now + Duration::from_secs(30 * 365 * 86_400))
    }

    /// Ends a timer; one that was due already is ignored.
    pub fn cancel_timer(&self, key: TimerKey) {
        let cancelled = self.with_aside(|aside| aside.timers.cancel(key));
        drop(cancelled);
    }

    pub(crate) fn has_timers(&self) -> bool {
        self.inner.any_timer.load(Ordering::Relaxed)
    }

    pub(crate) fn poll_timers(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.with_aside(|aside| aside.timers.poll(cx))
    }

    /// Takes one timer out that is due.
    pub(crate) fn pop_timer(&self, now: Instant) -> Option<(TimerKey, Due<M>)> {
        self.with_aside(|aside| {
            let due = aside.timers.pop(now);
            if aside.timers.is_empty() {
                self.inner.any_timer.store(false, Ordering::Relaxed);
            }
            due
        })
    }

    pub(crate) fn set_timer_again(&self, key: TimerKey, period: Duration, what: Due<M>) {
        // Not at this very moment again, or nothing else would ever come.
        let at = self.due_in(period.max(Duration::from_millis(1)));
        self.with_aside(|aside| aside.timers.set_again(at, key, what));
        self.inner.any_timer.store(true, Ordering::Relaxed);
    }

    // ---- messages put aside --------------------------------------------------------------------

    /// Puts the message at hand aside, to be handled when [`unstash_all`](Self::unstash_all) is called. It keeps what it
    /// was: asked or sent. For sequential endpoints; a concurrent one does not know which message is at hand.
    ///
    /// # Errors
    ///
    /// As many are put aside as may wait in the inbox. The message comes back.
    pub fn stash(&self, message: M) -> Result<(), StashFull<M>> {
        let sent = if self.inner.asked.load(Ordering::Relaxed) {
            Sent::Asked
        } else {
            Sent::OneWay
        };
        let limit = self.inner.inbox.messages_max();
        self.with_aside(|aside| {
            if aside.stashed.len() >= limit {
                return Err(StashFull { message, limit });
            }
            aside.stashed.push_back((sent, message));
            Ok(())
        })
    }

    /// Handles all messages that were put aside, in their order, before any that wait in the inbox.
    pub fn unstash_all(&self) {
        self.with_aside(|aside| {
            aside.replay.append(&mut aside.stashed);
            self.inner
                .replaying
                .store(!aside.replay.is_empty(), Ordering::Relaxed);
        });
        // The task may wait for mail alone, where another calls this.
        self.inner.inbox.nudge();
    }

    pub(crate) fn is_replaying(&self) -> bool {
        self.inner.replaying.load(Ordering::Relaxed)
    }

    pub(crate) fn set_asked(&self, sent: Sent) {
        self.inner
            .asked
            .store(sent == Sent::Asked, Ordering::Relaxed);
    }

    pub(crate) fn pop_replay(&self) -> Option<(Sent, M)> {
        self.with_aside(|aside| {
            let next = aside.replay.pop_front();
            if aside.replay.is_empty() {
                self.inner.replaying.store(false, Ordering::Relaxed);
            }
            next
        })
    }

    /// Before a restart: gives up the timers, and replays what was put aside.
    pub(crate) fn keep_aside(&self) {
        let timers = self.with_aside(|aside| {
            self.inner.any_timer.store(false, Ordering::Relaxed);
            aside.replay.append(&mut aside.stashed);
            let replaying = !aside.replay.is_empty();
            self.inner.replaying.store(replaying, Ordering::Relaxed);
            std::mem::take(&mut aside.timers)
        });
        discard_all(timers.into_messages(), Discard::Ended);
    }

    /// Gives up timers and what was put aside; gives the number of messages that were.
    pub(crate) fn clear(&self) -> usize {
        let aside = {
            let mut aside = self
                .inner
                .aside
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            self.inner.any_timer.store(false, Ordering::Relaxed);
            self.inner.replaying.store(false, Ordering::Relaxed);
            aside.take()
        };
        let Some(aside) = aside else {
            return 0;
        };
        let Aside {
            timers,
            stashed,
            replay,
            watched,
        } = *aside;
        let count = stashed.len() + replay.len();
        // Their handler has seen them.
        discard_all(replay, Discard::Ended);
        discard_all(stashed, Discard::Ended);
        discard_all(timers.into_messages(), Discard::Ended);
        drop(watched);
        count
    }

    // ---- others' ends --------------------------------------------------------------------------

    /// Calls [`on_terminated`](crate::RpcEndpoint::on_terminated) once `other` has ended, or its environment is out of
    /// reach. It comes by the control lane, before messages that wait. To watch again what is watched already does
    /// nothing, also after a restart: the watch outlives that.
    pub fn watch<O: Serialize + DeserializeOwned + Send + 'static>(
        &self,
        other: &RpcEndpointRef<O>,
    ) {
        let uri = other.uri();
        let ended = CancellationToken::new();
        let unwatched = ended.clone();
        let known = self.with_aside(|aside| {
            let known = aside.watched.contains_key(&uri);
            if !known {
                aside.watched.insert(uri.clone(), unwatched.drop_guard());
            }
            known
        });
        if known {
            return;
        }
        let watch = self.env().watch(other);
        let ctx = self.clone();
        self.spawn(async move {
            let Some(terminated) = ended.run_until_cancelled(watch).await else {
                return;
            };
            // A new watch of the same name may begin from here on.
            ctx.with_aside(|aside| aside.watched.remove(&uri));
            ctx.inner.inbox.control(Control::Terminated(terminated));
        });
    }

    /// Ends the watch of an endpoint, if there is one.
    pub fn unwatch<O>(&self, other: &RpcEndpointRef<O>) {
        let ended = self.with_aside(|aside| aside.watched.remove(&other.uri()));
        drop(ended);
    }

    /// Ties this endpoint's life to that of `other`: when one ends, for whatever reason, the other gets an error of kind
    /// [`EndpointError::LINKED`], on which it stops unless its [`on_error`](crate::RpcEndpoint::on_error) decides
    /// otherwise. A lost connection between them counts as the end of both.
    pub fn link<O: Serialize + DeserializeOwned + Send + 'static>(
        &self,
        other: &RpcEndpointRef<O>,
    ) {
        link_endpoints(&self.inner.self_ref, &self.inner.inbox, other);
    }

    /// Runs a task until it or the endpoint ends, whichever comes first. A restart does not end it.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let life = self
            .inner
            .life
            .get_or_init(CancellationToken::new)
            .child_token();
        self.env()
            .inner()
            .spawn(async move { life.run_until_cancelled_owned(task).await.unwrap_or(()) });
    }

    pub(crate) fn end_life(&self) {
        // Also what is spawned later ends at once.
        self.inner.life.get_or_init(CancellationToken::new).cancel();
    }

    /// An error of a handler that runs beside the endpoint's task.
    pub(crate) fn fail(&self, error: EndpointError) {
        self.inner.inbox.control(Control::Failed(error));
    }

    /// The time as this environment's runtime tells it, for [`RpcCallContext::time_left`](crate::RpcCallContext::time_left).
    #[must_use]
    pub fn now(&self) -> Instant {
        self.env().inner().runtime.now()
    }

    pub(crate) fn set_concurrent(&self) {
        self.inner.concurrent.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_concurrent(&self) -> bool {
        self.inner.concurrent.load(Ordering::Relaxed)
    }

    /// Notes the time that a handler beside the endpoint's task took.
    pub(crate) fn observe(&self, took: Duration) {
        self.inner.inbox.counts.on_time(took);
        let name = self.inner.inbox.name();
        self.env()
            .inner()
            .tell(|metrics| metrics.on_handled(name, took));
    }

    pub(crate) fn inbox(&self) -> &Arc<Inbox<M>> {
        &self.inner.inbox
    }
}

impl<M> Clone for EndpointContext<M> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<M> fmt::Debug for EndpointContext<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointContext")
            .field("self_ref", &self.inner.self_ref)
            .finish_non_exhaustive()
    }
}
