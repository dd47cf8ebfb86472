//! Endpoints whose handler changes with their state ("become").

use std::fmt;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::context::EndpointContext;
use crate::endpoint::RpcEndpoint;
use crate::error::EndpointError;

/// What an endpoint does with messages while it is in one state.
///
/// Often a `match` over an enum of states is all it takes; this is for states that are types of their own, each with
/// the data that only it needs. What one state cannot handle yet, it can
/// [put aside](EndpointContext::stash) for the next.
#[async_trait]
pub trait Behavior<M>: Send + 'static {
    /// A message that was sent or asked.
    async fn receive(
        &mut self,
        message: M,
        ctx: &EndpointContext<M>,
    ) -> Result<Next<M>, EndpointError>;
}

/// What an endpoint does after a message.
#[non_exhaustive]
pub enum Next<M> {
    /// It stays as it is.
    Same,
    /// It becomes another.
    Become(Box<dyn Behavior<M>>),
    /// It stops once it has handled what waits already.
    Stop,
}

impl<M> Next<M> {
    /// It becomes `behavior`.
    pub fn become_now(behavior: impl Behavior<M>) -> Self {
        Self::Become(Box::new(behavior))
    }
}

impl<M> fmt::Debug for Next<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Same => "Same",
            Self::Become(_) => "Become(..)",
            Self::Stop => "Stop",
        })
    }
}

/// An endpoint that is what its [`Behavior`] of the moment is.
pub struct BehaviorEndpoint<M> {
    behavior: Box<dyn Behavior<M>>,
}

impl<M> BehaviorEndpoint<M> {
    /// Starts as `behavior`.
    pub fn new(behavior: impl Behavior<M>) -> Self {
        Self {
            behavior: Box::new(behavior),
        }
    }
}

impl<M> fmt::Debug for BehaviorEndpoint<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BehaviorEndpoint").finish_non_exhaustive()
    }
}

impl<M: Serialize + DeserializeOwned + Send + 'static> RpcEndpoint for BehaviorEndpoint<M> {
    type Message = M;

    async fn receive(&mut self, message: M, ctx: &EndpointContext<M>) -> Result<(), EndpointError> {
        match self.behavior.receive(message, ctx).await? {
            Next::Same => {}
            Next::Become(next) => self.behavior = next,
            Next::Stop => ctx.stop(),
        }
        Ok(())
    }
}
