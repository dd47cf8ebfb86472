//! What users write: the callbacks of an endpoint, and the loop that calls them.
//!
//! ```text
//!   on_start ──► receive | receive_and_reply | on_connected | ... ──► on_stop
//!                   one at a time, in the order of the inbox
//! ```
//!
//! `on_start` comes before any message, `on_stop` after the last, each once. Errors and panics of any callback go to
//! `on_error`, which decides whether the endpoint goes on.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use aloha_transport::{Failure, FailureCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::{debug, error};

use crate::address::RpcAddress;
use crate::endpoint_ref::RpcEndpointRef;
use crate::env::{EnvInner, RpcEnv};
use crate::error::{EndpointError, code};
use crate::inbox::{Batch, ConnectionEvent, Inbox, RemoteMail, Sent, drop_stopped};
use crate::scope::{self, Decoding};

/// An actor: state, and what it does with each message.
///
/// Its message type is an ordinary serde enum; a variant that expects an answer carries an
/// [`RpcCallContext`](crate::RpcCallContext). What was sent goes to [`receive`](Self::receive), what was asked to
/// [`receive_and_reply`](Self::receive_and_reply), which hands on to `receive` unless it is written.
pub trait RpcEndpoint: Send + 'static {
    /// Everything that can be said to this endpoint.
    type Message: Serialize + DeserializeOwned + Send + 'static;

    /// Before the first message.
    fn on_start(
        &mut self,
        ctx: &EndpointContext<Self::Message>,
    ) -> impl Future<Output = Result<(), EndpointError>> + Send {
        let _ = ctx;
        async { Ok(()) }
    }

    /// A message that was sent. By default it is an error of kind [`EndpointError::UNHANDLED`].
    fn receive(
        &mut self,
        message: Self::Message,
        ctx: &EndpointContext<Self::Message>,
    ) -> impl Future<Output = Result<(), EndpointError>> + Send {
        drop(message);
        let text = format!(
            "endpoint {} does not handle this message",
            ctx.self_ref().name()
        );
        async { Err(EndpointError::new(EndpointError::UNHANDLED, text)) }
    }

    /// A message that was asked or forwarded. By default it goes to [`receive`](Self::receive).
    fn receive_and_reply(
        &mut self,
        message: Self::Message,
        ctx: &EndpointContext<Self::Message>,
    ) -> impl Future<Output = Result<(), EndpointError>> + Send {
        self.receive(message, ctx)
    }

    /// An error or a panic of another callback. By default it is logged, and the endpoint goes on.
    fn on_error(
        &mut self,
        error: EndpointError,
        ctx: &EndpointContext<Self::Message>,
    ) -> impl Future<Output = Directive> + Send {
        error!(endpoint = ctx.self_ref().name(), kind = error.kind(), %error, "endpoint failed");
        async { Directive::Resume }
    }

    /// A remote environment is connected: its address, or where it called from if it does not listen.
    fn on_connected(
        &mut self,
        remote: &RpcAddress,
        ctx: &EndpointContext<Self::Message>,
    ) -> impl Future<Output = Result<(), EndpointError>> + Send {
        let _ = (remote, ctx);
        async { Ok(()) }
    }

    /// The connection to a remote environment has ended.
    fn on_disconnected(
        &mut self,
        remote: &RpcAddress,
        ctx: &EndpointContext<Self::Message>,
    ) -> impl Future<Output = Result<(), EndpointError>> + Send {
        let _ = (remote, ctx);
        async { Ok(()) }
    }

    /// The connection to a remote environment broke; [`on_disconnected`](Self::on_disconnected) follows.
    fn on_network_error(
        &mut self,
        cause: &str,
        remote: &RpcAddress,
        ctx: &EndpointContext<Self::Message>,
    ) -> impl Future<Output = Result<(), EndpointError>> + Send {
        let _ = (cause, remote, ctx);
        async { Ok(()) }
    }

    /// After the last message. There is no reference to itself any more.
    fn on_stop(&mut self) -> impl Future<Output = Result<(), EndpointError>> + Send {
        async { Ok(()) }
    }
}

/// What becomes of an endpoint after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Directive {
    /// It goes on with the next message, its state as it is.
    #[default]
    Resume,
    /// It stops; what waits for it is answered with a failure.
    Stop,
}

/// What an endpoint knows of itself while it handles a message.
pub struct EndpointContext<M> {
    self_ref: RpcEndpointRef<M>,
    env: RpcEnv,
}

impl<M: Send + 'static> EndpointContext<M> {
    /// A reference to this endpoint.
    #[must_use]
    pub fn self_ref(&self) -> &RpcEndpointRef<M> {
        &self.self_ref
    }

    /// The environment it lives in.
    #[must_use]
    pub fn env(&self) -> &RpcEnv {
        &self.env
    }

    /// Stops this endpoint once it has handled what waits already.
    pub fn stop(&self) {
        self.env.stop(&self.self_ref);
    }
}

impl<M> std::fmt::Debug for EndpointContext<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EndpointContext")
            .field("self_ref", &self.self_ref)
            .finish_non_exhaustive()
    }
}

/// An endpoint at work.
pub(crate) struct Running<E: RpcEndpoint> {
    endpoint: E,
    inbox: Arc<Inbox<E::Message>>,
    ctx: EndpointContext<E::Message>,
    env: Arc<EnvInner>,
}

impl<E: RpcEndpoint> Running<E> {
    pub(crate) fn new(
        endpoint: E,
        inbox: Arc<Inbox<E::Message>>,
        self_ref: RpcEndpointRef<E::Message>,
        env: RpcEnv,
    ) -> Self {
        let inner = Arc::clone(env.inner());
        Self {
            endpoint,
            inbox,
            ctx: EndpointContext { self_ref, env },
            env: inner,
        }
    }

    /// The endpoint's life.
    pub(crate) async fn run(mut self) {
        let mut batch = Batch::default();
        let Self { endpoint, ctx, .. } = &mut self;
        let started = guarded(|| endpoint.on_start(ctx)).await;
        let mut directive = self.check(started).await;
        while directive == Directive::Resume {
            self.inbox.next(&mut batch).await;
            directive = self.work_through(&mut batch).await;
            batch.trim();
        }
        self.env.dispatcher.unregister(self.inbox.name());
        drop_stopped(batch);
        let left = self.inbox.close();
        for mail in left.remote {
            mail.bounce(code::ENDPOINT_STOPPED, "the endpoint is stopped");
        }
        drop_stopped(left.local);
        let endpoint = &mut self.endpoint;
        let stopped = guarded(|| endpoint.on_stop()).await;
        self.check(stopped).await;
        debug!(endpoint = %self.inbox.name(), "endpoint stopped");
    }

    async fn work_through(&mut self, batch: &mut Batch<E::Message>) -> Directive {
        for event in batch.events.drain(..) {
            let Self { endpoint, ctx, .. } = self;
            let handled = guarded(async || match &event {
                ConnectionEvent::Connected(remote) => endpoint.on_connected(remote, ctx).await,
                ConnectionEvent::Disconnected(remote) => {
                    endpoint.on_disconnected(remote, ctx).await
                }
                ConnectionEvent::NetworkError(cause, remote) => {
                    endpoint.on_network_error(cause, remote, ctx).await
                }
            })
            .await;
            if self.check(handled).await == Directive::Stop {
                return Directive::Stop;
            }
        }
        for (sent, message) in batch.local.drain(..) {
            if self.handle(sent, message).await == Directive::Stop {
                return Directive::Stop;
            }
        }
        for mail in batch.remote.drain(..) {
            let sent = mail.sent;
            let directive = match open::<E::Message>(mail, &self.env) {
                Opened::Message(message) => self.handle(sent, message).await,
                Opened::Cancelled => continue,
                Opened::Undecodable(error) => self.check(Err(error)).await,
            };
            if directive == Directive::Stop {
                return Directive::Stop;
            }
        }
        if batch.stop {
            Directive::Stop
        } else {
            Directive::Resume
        }
    }

    async fn handle(&mut self, sent: Sent, message: E::Message) -> Directive {
        tokio::task::coop::consume_budget().await;
        let Self { endpoint, ctx, .. } = self;
        let handled = match sent {
            Sent::OneWay => guarded(|| endpoint.receive(message, ctx)).await,
            Sent::Asked => guarded(|| endpoint.receive_and_reply(message, ctx)).await,
        };
        match handled {
            Ok(()) => Directive::Resume,
            Err(error) => self.check(Err(error)).await,
        }
    }

    async fn check(&mut self, handled: Result<(), EndpointError>) -> Directive {
        let Err(error) = handled else {
            return Directive::Resume;
        };
        let Self { endpoint, ctx, .. } = self;
        let decided = catch(|| endpoint.on_error(error, ctx)).await;
        decided.unwrap_or_else(|panic| {
            error!(endpoint = %self.inbox.name(), %panic, "on_error panicked, the endpoint stops");
            Directive::Stop
        })
    }
}

enum Opened<M> {
    Message(M),
    Cancelled,
    Undecodable(EndpointError),
}

/// Decodes a remote message; its calls are answered if that fails.
fn open<M: DeserializeOwned>(mail: RemoteMail, env: &Arc<EnvInner>) -> Opened<M> {
    if mail
        .request
        .as_ref()
        .is_some_and(aloha_transport::RpcResponseCallback::is_cancelled)
    {
        mail.bounce(FailureCode::CANCELLED, "cancelled before it was handled");
        return Opened::Cancelled;
    }
    let RemoteMail {
        link,
        body,
        request,
        calls,
        deadline,
        trace,
        ..
    } = mail;
    let decoding = Decoding {
        env: Arc::clone(env),
        link,
        request,
        calls,
        deadline,
        trace,
    };
    let codec = env.config.codec;
    let decode = || catch_unwind(AssertUnwindSafe(|| codec.decode::<M>(&body)));
    let (decoded, decoding) = scope::decoding(decoding, decode);
    let text = match decoded {
        Ok(Ok(message)) => {
            decoding.settle();
            return Opened::Message(message);
        }
        Ok(Err(error)) => error.to_string(),
        Err(panic) => format!("decoding panicked: {}", panic_text(&*panic)),
    };
    decoding.fail(&Failure::new(code::UNDECODABLE, text.clone()));
    Opened::Undecodable(EndpointError::new(EndpointError::UNDECODABLE, text))
}

async fn guarded<F: Future<Output = Result<(), EndpointError>>>(
    callback: impl FnOnce() -> F,
) -> Result<(), EndpointError> {
    match catch(callback).await {
        Ok(result) => result,
        Err(text) => Err(EndpointError::new(EndpointError::PANIC, text)),
    }
}

/// Runs a callback; a panic of it or of its future becomes its text.
async fn catch<F: Future>(callback: impl FnOnce() -> F) -> Result<F::Output, String> {
    let future = catch_unwind(AssertUnwindSafe(callback)).map_err(|panic| panic_text(&*panic))?;
    let mut future = pin!(future);
    poll_fn(
        |cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic_text(&*panic))),
        },
    )
    .await
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned())
}
