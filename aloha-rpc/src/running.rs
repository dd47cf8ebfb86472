//! The life of one endpoint: the loop that takes its mail, calls its callbacks, and deals with what they throw.
//!
//! ```text
//!            on_start            control, timers, stash, local, remote
//!   set up ───────────► working ◄───────────────┐
//!                        │   │ └────────────────┘
//!            Stop, stop()│   │Restart: back off, make anew, on_start; what waits is kept
//!                        ▼   └──────────────────────────────────────► working
//!                     on_stop ──► those who watch hear of it
//! ```

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use aloha_transport::{Failure, FailureCode};
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tracing::{Instrument as _, debug, error, info_span, warn};

use crate::context::EndpointContext;
use crate::dead_letter::DeadLetterReason;
use crate::endpoint::RpcEndpoint;
use crate::env::EnvInner;
use crate::error::{EndpointError, code};
use crate::flow::Taken;
use crate::inbox::{Inbox, flag};
use crate::mail::{Batch, Control, Discard, Sent, discard, discard_all};
use crate::mailbox::Mailbox as _;
use crate::remote_lane::{RemoteMail, Source};
use crate::schema::schema_of;
use crate::scope::{self, Decoding, Origin};
use crate::supervision::{Budget, Directive, Termination};
use crate::timers::Due;
use crate::trace::TraceContext;
use crate::verifier;

/// An endpoint at work.
pub(crate) struct Running<E: RpcEndpoint> {
    endpoint: E,
    restarts: Option<Box<Restarts<E>>>,
    ctx: EndpointContext<E::Message>,
    inbox: Arc<Inbox<E::Message>>,
    env: Arc<EnvInner>,
    batch: Batch<E::Message>,
    taken: Taken,
    /// Whether it was made anew although it is to stop.
    last_chance: bool,
    /// To the verifier also a call that was cancelled means something: the end of a link.
    keeps_cancelled: bool,
}

/// How an endpoint is made anew.
pub(crate) struct Restarts<E> {
    pub(crate) factory: Box<dyn FnMut() -> E + Send>,
    pub(crate) budget: Budget,
}

/// Whether the endpoint goes on after a callback. Boxed, for it rarely does not.
type Verdict = Result<(), Box<Ending>>;

/// What the endpoint's task does next.
enum Next<M> {
    Message(Sent, M, Option<Box<TraceContext>>),
    Undecodable(Box<EndpointError>),
    Nothing,
    Stop,
}

/// Why the endpoint does not go on as it is.
enum Ending {
    Stop(Termination),
    Restart(Cause),
}

/// The error behind the end of an endpoint.
struct Cause {
    kind: String,
    text: String,
}

impl<E: RpcEndpoint> Running<E> {
    pub(crate) fn new(
        endpoint: E,
        restarts: Option<Box<Restarts<E>>>,
        ctx: EndpointContext<E::Message>,
    ) -> Self {
        let keeps_cancelled = **ctx.inbox().name() == *verifier::NAME;
        Self {
            endpoint,
            restarts,
            inbox: Arc::clone(ctx.inbox()),
            env: Arc::clone(ctx.env().inner()),
            ctx,
            batch: Batch::default(),
            taken: Taken::default(),
            last_chance: false,
            keeps_cancelled,
        }
    }

    /// The endpoint's life. What is rare stands in boxes of its own, so that an idle endpoint is small.
    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn keeps its arguments twice, and an idle endpoint shall be small"
    )]
    pub(crate) fn run(mut self) -> impl Future<Output = ()> {
        async move {
            let mut verdict = Box::pin(self.start()).await;
            let why = loop {
                verdict = match verdict {
                    Ok(()) => {
                        self.next().await;
                        self.work_through().await
                    }
                    Err(ending) => match *ending {
                        Ending::Restart(cause) => Box::pin(self.restart(cause)).await,
                        Ending::Stop(why) => break why,
                    },
                };
            };
            Box::pin(self.finish(why)).await;
        }
    }

    async fn start(&mut self) -> Verdict {
        let Self { endpoint, ctx, .. } = self;
        let started = guarded(|| endpoint.on_start(ctx)).await;
        self.check(started).await
    }

    /// Waits for mail or a timer, unless something was kept over a restart.
    async fn next(&mut self) {
        let Self {
            ctx, inbox, batch, ..
        } = self;
        if batch.messages() > 0 || !batch.control.is_empty() || batch.stop {
            return;
        }
        batch.trim();
        poll_fn(|cx| {
            if inbox.poll_next(batch, cx).is_ready() {
                return Poll::Ready(());
            }
            if ctx.is_replaying() {
                Poll::Ready(())
            } else if ctx.has_timers() {
                ctx.poll_timers(cx)
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    async fn work_through(&mut self) -> Verdict {
        if !self.batch.control.is_empty() {
            Box::pin(self.on_controls()).await?;
        }
        if self.ctx.has_timers() {
            Box::pin(self.fire_timers()).await?;
        }
        let verdict = loop {
            // A panic of a handler ends the work, not the endpoint. One guard for all messages, for it is not free.
            let worked = {
                let mut work = pin!(self.work());
                poll_fn(|cx| poll_caught(work.as_mut(), cx)).await
            };
            match worked {
                Ok(verdict) => break verdict,
                Err(panic) => {
                    self.inbox.on_handled();
                    let error = EndpointError::new(EndpointError::PANIC, panic_text(&*panic));
                    if let stopped @ Err(_) = self.check(Err(error)).await {
                        break stopped;
                    }
                }
            }
        };
        let Self { taken, inbox, .. } = self;
        taken.give_back(|| inbox.window());
        verdict
    }

    async fn on_controls(&mut self) -> Verdict {
        // One by one: what is left when one of them ends this life is for the next.
        while let Some(control) = self.batch.control.pop() {
            self.on_control(control).await?;
        }
        Ok(())
    }

    /// Handles what is in the batch. A handler may panic through this.
    async fn work(&mut self) -> Verdict {
        loop {
            tokio::task::coop::consume_budget().await;
            match self.take_next() {
                Next::Message(sent, message, None) => {
                    self.ctx.set_asked(sent);
                    let started = self.env.observed_now();
                    let Self { endpoint, ctx, .. } = self;
                    let handled = match sent {
                        Sent::OneWay => endpoint.receive(message, ctx).await,
                        Sent::Asked => endpoint.receive_and_reply(message, ctx).await,
                    };
                    self.count(started);
                    if handled.is_err() {
                        self.check(handled).await?;
                    }
                }
                Next::Message(sent, message, Some(trace)) => {
                    self.handle_traced(sent, message, *trace).await?;
                }
                Next::Undecodable(error) => self.check(Err(*error)).await?,
                Next::Nothing => return Ok(()),
                Next::Stop => return stop(Termination::Stopped),
            }
        }
    }

    /// What was put aside and is to be replayed comes first, then the batch.
    #[inline(always)]
    fn take_next(&mut self) -> Next<E::Message> {
        let flags = self.inbox.flags();
        if flags != 0 {
            if flags & flag::ABANDON != 0 {
                return Next::Stop;
            }
            if flags & flag::WAITED_FOR != 0 {
                self.inbox.wake_waiting();
            }
        }
        if self.ctx.is_replaying()
            && let Some((sent, message)) = self.ctx.pop_replay()
        {
            return Next::Message(sent, message, None);
        }
        if let Some(mail) = self.batch.local.pop_front() {
            self.inbox.on_local(mail.bytes);
            return Next::Message(mail.sent, mail.message, mail.trace);
        }
        self.take_remote()
    }

    /// Decodes the next remote message whose asker has not given up.
    #[inline(always)]
    fn take_remote(&mut self) -> Next<E::Message> {
        let Self {
            inbox,
            taken,
            batch,
            env,
            ..
        } = self;
        let skip = !self.keeps_cancelled;
        while let Some((mail, source)) = batch.remote.pop() {
            inbox.on_remote(mail.body.len());
            taken.add(source.flow(), mail.body.len(), || inbox.window());
            let (sent, trace) = (mail.sent, mail.trace());
            match open::<E::Message>(mail, source, skip) {
                Ok(message) => return Next::Message(sent, message, trace.map(Box::new)),
                Err(Unopened::Cancelled) => {}
                Err(Unopened::Undecodable(error)) => {
                    env.dead_letter(inbox.name(), DeadLetterReason::Undecodable, 1);
                    return Next::Undecodable(error);
                }
            }
        }
        if batch.stop {
            Next::Stop
        } else {
            Next::Nothing
        }
    }

    async fn on_control(&mut self, control: Control) -> Verdict {
        let Self { endpoint, ctx, .. } = self;
        let handled = match control {
            Control::Connected(remote) => guarded(|| endpoint.on_connected(&remote, ctx)).await,
            Control::Disconnected(remote) => {
                guarded(|| endpoint.on_disconnected(&remote, ctx)).await
            }
            Control::NetworkError(cause, remote) => {
                guarded(|| endpoint.on_network_error(&cause, &remote, ctx)).await
            }
            Control::Terminated(ended) => guarded(|| endpoint.on_terminated(&ended, ctx)).await,
            Control::Failed(error) => Err(error),
        };
        self.check(handled).await
    }

    async fn fire_timers(&mut self) -> Verdict {
        let now = self.env.runtime.now();
        while let Some((key, due)) = self.ctx.pop_timer(now) {
            let message = match due {
                Due::Once(message) => Ok(message),
                Due::Every(period, mut make) => {
                    let made = catch_unwind(AssertUnwindSafe(&mut make));
                    self.ctx
                        .set_timer_again(key, period, Due::Every(period, make));
                    made.map_err(|panic| {
                        EndpointError::new(EndpointError::PANIC, panic_text(&*panic))
                    })
                }
            };
            match message {
                Ok(message) => self.handle(Sent::OneWay, message).await?,
                Err(error) => self.check(Err(error)).await?,
            }
        }
        Ok(())
    }

    /// Handles a message in a span, as part of a trace.
    fn handle_traced(
        &mut self,
        sent: Sent,
        message: E::Message,
        trace: TraceContext,
    ) -> Pin<Box<dyn Future<Output = Verdict> + Send + '_>> {
        let span = info_span!("rpc", endpoint = %self.inbox.name(), trace = %trace);
        Box::pin(trace.scope(self.handle(sent, message).instrument(span)))
    }

    /// Handles one message outside of [`work`](Self::work).
    async fn handle(&mut self, sent: Sent, message: E::Message) -> Verdict {
        tokio::task::coop::consume_budget().await;
        self.ctx.set_asked(sent);
        let started = self.env.observed_now();
        let Self { endpoint, ctx, .. } = self;
        let handled = match sent {
            Sent::OneWay => guarded(|| endpoint.receive(message, ctx)).await,
            Sent::Asked => guarded(|| endpoint.receive_and_reply(message, ctx)).await,
        };
        self.count(started);
        self.check(handled).await
    }

    /// A message was handled.
    #[inline]
    fn count(&mut self, started: Option<Instant>) {
        self.inbox.on_handled();
        if let Some(started) = started
            && !self.ctx.is_concurrent()
        {
            let took = self.env.runtime.now().saturating_duration_since(started);
            self.ctx.observe(took);
        }
    }

    /// Lets the endpoint decide about an error.
    fn check(
        &mut self,
        handled: Result<(), EndpointError>,
    ) -> impl Future<Output = Verdict> + Send {
        let deciding = handled.err().map(|error| Box::pin(self.decide(error)));
        async move {
            match deciding {
                None => Ok(()),
                Some(deciding) => deciding.await,
            }
        }
    }

    async fn decide(&mut self, error: EndpointError) -> Verdict {
        let counts = &self.inbox.counts;
        counts.errors.fetch_add(1, Ordering::Relaxed);
        self.env
            .tell(|metrics| metrics.on_error(self.inbox.name(), error.kind()));
        let cause = Cause {
            kind: error.kind().to_owned(),
            text: error.to_string(),
        };
        let Self { endpoint, ctx, .. } = self;
        match catch(|| endpoint.on_error(error, ctx)).await {
            Ok(Directive::Resume) => Ok(()),
            Ok(Directive::Restart) => Err(Box::new(Ending::Restart(cause))),
            Ok(Directive::Stop) => cause.stop(),
            Err(panic) => {
                let panic = panic_text(&*panic);
                error!(endpoint = %self.inbox.name(), %panic, "on_error panicked, the endpoint stops");
                cause.stop()
            }
        }
    }

    /// Makes the endpoint anew, after a pause. What waits is kept, and what was put aside comes first.
    async fn restart(&mut self, cause: Cause) -> Verdict {
        let name = Arc::clone(self.inbox.name());
        let Some(restarts) = &mut self.restarts else {
            error!(endpoint = %name, error = cause.text, "there is no factory to make it anew, the endpoint stops");
            return cause.stop();
        };
        let runtime = &self.env.runtime;
        let Some(pause) = restarts.budget.spend(runtime.now(), runtime.random_u64()) else {
            error!(endpoint = %name, error = cause.text, "it was restarted too often, the endpoint stops");
            return cause.stop();
        };
        warn!(endpoint = %name, error = cause.text, ?pause, "endpoint is restarted");
        self.ctx.keep_aside();
        if self.inbox.is_open() {
            // A stop does not wait for the pause.
            tokio::select! {
                biased;
                () = poll_fn(|cx| self.inbox.poll_stop(cx)) => {}
                () = tokio::time::sleep(pause) => {}
            }
        } else if self.last_chance {
            return cause.stop();
        }
        // Asked to stop, it is made anew once more, for what waits.
        self.last_chance = !self.inbox.is_open();
        if self.inbox.flags() & flag::ABANDON != 0 {
            return stop(Termination::Stopped);
        }
        let restarts = self.restarts.as_mut().expect("looked at above");
        let made = catch_unwind(AssertUnwindSafe(&mut restarts.factory));
        let counts = &self.inbox.counts;
        counts.restarts.fetch_add(1, Ordering::Relaxed);
        self.env.tell(|metrics| metrics.on_restart(&name));
        match made {
            Ok(endpoint) => {
                let failed = std::mem::replace(&mut self.endpoint, endpoint);
                drop(catch_unwind(AssertUnwindSafe(|| drop(failed))));
                self.start().await
            }
            Err(panic) => Err(Box::new(Ending::Restart(Cause {
                kind: EndpointError::PANIC.to_owned(),
                text: format!("its factory panicked: {}", panic_text(&*panic)),
            }))),
        }
    }

    async fn finish(mut self, why: Termination) {
        let name = Arc::clone(self.inbox.name());
        self.env.dispatcher.unregister(&name);
        let waiting = self.inbox.close();
        let aside = self.ctx.clear();
        self.ctx.end_life();
        let left = self.batch.messages() + waiting.messages() + aside;
        let failure = Discard::Stopped.failure();
        for mut batch in [std::mem::take(&mut self.batch), waiting] {
            discard_all(batch.local, Discard::Stopped);
            while let Some((flow, mail)) = batch.remote.pop_unhandled() {
                self.env.give_back_and_bounce(&flow, mail, &failure);
            }
        }
        self.env
            .dead_letter(&name, DeadLetterReason::Stopped, left as u64);
        let endpoint = &mut self.endpoint;
        let stopped = guarded(|| endpoint.on_stop()).await;
        drop(self.check(stopped).await);
        // What handlers that ran beside this task had to say.
        let mut controls = self.inbox.take_control();
        while let Some(control) = controls.pop() {
            if let Control::Failed(error) = control {
                drop(self.check(Err(error)).await);
            }
        }
        let Self {
            endpoint,
            restarts,
            inbox,
            ..
        } = self;
        discard(endpoint, Discard::Ended);
        discard(restarts, Discard::Ended);
        inbox.end(&why);
        debug!(endpoint = %name, %why, "endpoint stopped");
    }
}

impl Cause {
    fn stop(self) -> Verdict {
        let Self { kind, text } = self;
        stop(Termination::Failed { kind, text })
    }
}

fn stop(why: Termination) -> Verdict {
    Err(Box::new(Ending::Stop(why)))
}

/// Why a remote message is not handled.
enum Unopened {
    Cancelled,
    Undecodable(Box<EndpointError>),
}

/// Decodes a remote message; its calls are answered if that fails.
#[inline(always)]
fn open<M: DeserializeOwned>(
    mail: RemoteMail,
    source: &mut Source,
    skip_cancelled: bool,
) -> Result<M, Unopened> {
    let client = &source.flow().link.client;
    if skip_cancelled
        && mail
            .request
            .as_ref()
            .is_some_and(|request| client.is_cancelled(request))
    {
        let failure = Failure::new(FailureCode::CANCELLED, "cancelled before it was handled");
        mail.bounce(source.flow(), &failure);
        return Err(Unopened::Cancelled);
    }
    let codec = source.flow().link.codec;
    let flow = source.flow.take().expect("put back after each message");
    let decoding = Decoding {
        origin: Origin::Flow(flow),
        request: mail.request,
        deadline: mail.deadline,
        extras: mail.extras,
    };
    let body = &source.bytes[mail.body];
    // Written to its place, for what a caught closure returns is moved twice.
    let mut decoded = None;
    let decode = || catch_unwind(AssertUnwindSafe(|| decoded = Some(codec.decode::<M>(body))));
    let (caught, decoding) = scope::decoding(decoding, decode);
    let text = match (decoded, caught) {
        (Some(Ok(message)), _) => {
            source.flow = decoding.settle();
            return Ok(message);
        }
        (Some(Err(error)), _) => {
            let variant = codec.variant_of(body);
            variant
                .and_then(|variant| schema_of::<M>().on_unknown(variant))
                .unwrap_or_else(|| error.to_string())
        }
        (None, Err(panic)) => {
            let text = format!("decoding panicked: {}", panic_text(&*panic));
            // What was thrown is the user's, and may panic anew: the calls are not answered yet.
            if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
                std::mem::forget(again);
            }
            text
        }
        (None, Ok(())) => unreachable!("it is written unless there is a panic"),
    };
    source.flow = decoding.fail(&Failure::new(code::UNDECODABLE, text.clone()));
    let error = EndpointError::new(EndpointError::UNDECODABLE, text);
    Err(Unopened::Undecodable(Box::new(error)))
}

/// Runs a callback; a panic of it or of its future becomes an error.
pub(crate) async fn guarded<F: Future<Output = Result<(), EndpointError>>>(
    callback: impl FnOnce() -> F,
) -> Result<(), EndpointError> {
    match catch(callback).await {
        Ok(result) => result,
        Err(panic) => {
            let text = panic_text(&*panic);
            Err(EndpointError::new(EndpointError::PANIC, text))
        }
    }
}

/// Runs a callback; a panic of it or of its future is caught.
async fn catch<F: Future>(callback: impl FnOnce() -> F) -> Result<F::Output, Box<dyn Any + Send>> {
    let mut future = pin!(async move { callback().await });
    poll_fn(|cx| poll_caught(future.as_mut(), cx)).await
}

fn poll_caught<F: Future>(
    future: Pin<&mut F>,
    cx: &mut Context<'_>,
) -> Poll<Result<F::Output, Box<dyn Any + Send>>> {
    match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    }
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned())
}
