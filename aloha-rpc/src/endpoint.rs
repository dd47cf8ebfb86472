//! What users write: the callbacks of an endpoint.
//!
//! ```text
//!   on_start ──► receive | receive_and_reply | on_connected | ... ──► on_stop
//!                   one at a time, in the order of the inbox
//! ```
//!
//! `on_start` comes before any message, `on_stop` after the last, each once, and `on_start` again after a restart. Errors
//! and panics of any callback go to `on_error`, which decides whether the endpoint goes on, is made anew, or stops.

use std::future::Future;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::error;

use crate::address::RpcAddress;
use crate::context::EndpointContext;
use crate::error::EndpointError;
use crate::supervision::{Directive, Terminated};

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
        let error = EndpointError::unhandled(ctx.self_ref().name());
        async { Err(error) }
    }

    /// A message that was asked or forwarded. By default it goes to [`receive`](Self::receive).
    fn receive_and_reply(
        &mut self,
        message: Self::Message,
        ctx: &EndpointContext<Self::Message>,
    ) -> impl Future<Output = Result<(), EndpointError>> + Send {
        self.receive(message, ctx)
    }

    /// An error or a panic of another callback. By default it is logged, and
    /// [`EndpointContext::default_directive`] decides: after a panic an endpoint that has a factory is restarted,
    /// one that lost an endpoint it is linked to stops, else it goes on.
    fn on_error(
        &mut self,
        error: EndpointError,
        ctx: &EndpointContext<Self::Message>,
    ) -> impl Future<Output = Directive> + Send {
        error!(endpoint = ctx.self_ref().name(), kind = error.kind(), %error, "endpoint failed");
        let directive = ctx.default_directive(&error);
        async move { directive }
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

    /// An endpoint that was [watched](EndpointContext::watch) has ended.
    fn on_terminated(
        &mut self,
        ended: &Terminated,
        ctx: &EndpointContext<Self::Message>,
    ) -> impl Future<Output = Result<(), EndpointError>> + Send {
        let _ = (ended, ctx);
        async { Ok(()) }
    }

    /// After the last message. There is no reference to itself any more.
    fn on_stop(&mut self) -> impl Future<Output = Result<(), EndpointError>> + Send {
        async { Ok(()) }
    }
}
