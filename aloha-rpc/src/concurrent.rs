//! Endpoints that handle several messages at once.

use std::future::Future;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tracing::error;

use crate::address::RpcAddress;
use crate::context::EndpointContext;
use crate::endpoint::RpcEndpoint;
use crate::error::EndpointError;
use crate::running::guarded;
use crate::supervision::{Directive, Terminated};

/// An actor that handles up to a stated number of messages at once, each on a task of its own.
///
/// Messages are taken up in the order of the inbox; they may end in any order, and one handler does not see what
/// another did unless the endpoint synchronises them itself. `on_start` ends before the first message is taken up;
/// `on_stop` begins after the last has ended. Set up with
/// [`EndpointBuilder::setup_concurrent`](crate::EndpointBuilder::setup_concurrent).
pub trait ConcurrentEndpoint: Send + Sync + 'static {
    /// Everything that can be said to this endpoint.
    type Message: Serialize + DeserializeOwned + Send + 'static;

    /// Before the first message.
    fn on_start(
        &self,
        ctx: &EndpointContext<Self::Message>,
    ) -> impl Future<Output = Result<(), EndpointError>> + Send {
        let _ = ctx;
        async { Ok(()) }
    }

    /// A message that was sent. By default it is an error of kind [`EndpointError::UNHANDLED`].
    fn receive(
        &self,
        message: Self::Message,
        ctx: &EndpointContext<Self::Message>,
    ) -> impl Future<Output = Result<(), EndpointError>> + Send {
        drop(message);
        let error = EndpointError::unhandled(ctx.self_ref().name());
        async { Err(error) }
    }

    /// A message that was asked or forwarded. By default it goes to [`receive`](Self::receive).
    fn receive_and_reply(
        &self,
        message: Self::Message,
        ctx: &EndpointContext<Self::Message>,
    ) -> impl Future<Output = Result<(), EndpointError>> + Send {
        self.receive(message, ctx)
    }

    /// An error or a panic of another callback; see [`RpcEndpoint::on_error`].
    fn on_error(
        &self,
        error: EndpointError,
        ctx: &EndpointContext<Self::Message>,
    ) -> impl Future<Output = Directive> + Send {
        error!(endpoint = ctx.self_ref().name(), kind = error.kind(), %error, "endpoint failed");
        let directive = ctx.default_directive(&error);
        async move { directive }
    }

    /// A remote environment is connected; see [`RpcEndpoint::on_connected`].
    fn on_connected(
        &self,
        remote: &RpcAddress,
        ctx: &EndpointContext<Self::Message>,
    ) -> impl Future<Output = Result<(), EndpointError>> + Send {
        let _ = (remote, ctx);
        async { Ok(()) }
    }

    /// The connection to a remote environment has ended.
    fn on_disconnected(
        &self,
        remote: &RpcAddress,
        ctx: &EndpointContext<Self::Message>,
    ) -> impl Future<Output = Result<(), EndpointError>> + Send {
        let _ = (remote, ctx);
        async { Ok(()) }
    }

    /// The connection to a remote environment broke; see [`RpcEndpoint::on_network_error`].
    fn on_network_error(
        &self,
        cause: &str,
        remote: &RpcAddress,
        ctx: &EndpointContext<Self::Message>,
    ) -> impl Future<Output = Result<(), EndpointError>> + Send {
        let _ = (cause, remote, ctx);
        async { Ok(()) }
    }

    /// An endpoint that was watched has ended.
    fn on_terminated(
        &self,
        ended: &Terminated,
        ctx: &EndpointContext<Self::Message>,
    ) -> impl Future<Output = Result<(), EndpointError>> + Send {
        let _ = (ended, ctx);
        async { Ok(()) }
    }

    /// After the last message has been handled.
    fn on_stop(&self) -> impl Future<Output = Result<(), EndpointError>> + Send {
        async { Ok(()) }
    }
}

/// A concurrent endpoint as the sequential one that starts its handlers.
pub(crate) struct Concurrently<C> {
    endpoint: Arc<C>,
    places: Arc<Semaphore>,
    at_once: u32,
}

impl<C: ConcurrentEndpoint> Concurrently<C> {
    pub(crate) fn new(endpoint: C, at_once: u32) -> Self {
        let at_once = at_once.max(1);
        Self {
            endpoint: Arc::new(endpoint),
            places: Arc::new(Semaphore::new(at_once as usize)),
            at_once,
        }
    }

    async fn handle(&self, message: C::Message, asked: bool, ctx: &EndpointContext<C::Message>) {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        let (endpoint, ctx) = (Arc::clone(&self.endpoint), ctx.clone());
        let env = Arc::clone(ctx.env().inner());
        let (trace, span) = (crate::TraceContext::current(), tracing::Span::current());
        let handling = async move {
            let started = ctx.env().inner().is_observed().then(|| ctx.now());
            let handled = guarded(|| async {
                if asked {
                    endpoint.receive_and_reply(message, &ctx).await
                } else {
                    endpoint.receive(message, &ctx).await
                }
            })
            .await;
            if let Some(started) = started {
                ctx.observe(ctx.now().saturating_duration_since(started));
            }
            if let Err(error) = handled {
                ctx.fail(error);
            }
            drop(endpoint);
            drop(place);
        };
        match trace {
            None => env.spawn(handling),
            Some(trace) => env.spawn(tracing::Instrument::instrument(trace.scope(handling), span)),
        }
    }
}

impl<C: ConcurrentEndpoint> RpcEndpoint for Concurrently<C> {
    type Message = C::Message;

    async fn on_start(&mut self, ctx: &EndpointContext<C::Message>) -> Result<(), EndpointError> {
        ctx.set_concurrent();
        self.endpoint.on_start(ctx).await
    }

    async fn receive(
        &mut self,
        message: C::Message,
        ctx: &EndpointContext<C::Message>,
    ) -> Result<(), EndpointError> {
        self.handle(message, false, ctx).await;
        Ok(())
    }

    async fn receive_and_reply(
        &mut self,
        message: C::Message,
        ctx: &EndpointContext<C::Message>,
    ) -> Result<(), EndpointError> {
        self.handle(message, true, ctx).await;
        Ok(())
    }

    async fn on_error(
        &mut self,
        error: EndpointError,
        ctx: &EndpointContext<C::Message>,
    ) -> Directive {
        self.endpoint.on_error(error, ctx).await
    }

    async fn on_connected(
        &mut self,
        remote: &RpcAddress,
        ctx: &EndpointContext<C::Message>,
    ) -> Result<(), EndpointError> {
        self.endpoint.on_connected(remote, ctx).await
    }

    async fn on_disconnected(
        &mut self,
        remote: &RpcAddress,
        ctx: &EndpointContext<C::Message>,
    ) -> Result<(), EndpointError> {
        self.endpoint.on_disconnected(remote, ctx).await
    }

    async fn on_network_error(
        &mut self,
        cause: &str,
        remote: &RpcAddress,
        ctx: &EndpointContext<C::Message>,
    ) -> Result<(), EndpointError> {
        self.endpoint.on_network_error(cause, remote, ctx).await
    }

    async fn on_terminated(
        &mut self,
        ended: &Terminated,
        ctx: &EndpointContext<C::Message>,
    ) -> Result<(), EndpointError> {
        self.endpoint.on_terminated(ended, ctx).await
    }

    async fn on_stop(&mut self) -> Result<(), EndpointError> {
        // The handlers that still run hold the places.
        drop(self.places.acquire_many(self.at_once).await);
        self.endpoint.on_stop().await
    }
}
