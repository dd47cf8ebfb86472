//! How an endpoint is set up: its inbox, its restarts, where it runs.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::concurrent::{ConcurrentEndpoint, Concurrently};
use crate::endpoint::RpcEndpoint;
use crate::endpoint_ref::RpcEndpointRef;
use crate::env::RpcEnv;
use crate::error::SetupError;
use crate::inbox::{Inbox, Limits, Overflow, Weigh};
use crate::running::Restarts;
use crate::supervision::{Budget, RestartPolicy};

/// How an endpoint is to be, from [`RpcEnv::endpoint`]; one of the `setup` functions sets it up.
///
/// # Examples
///
/// ```
/// # use aloha_rpc::*;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)] enum News { Line(String) }
/// # #[derive(Default)] struct Ticker;
/// # impl RpcEndpoint for Ticker { type Message = News; }
/// # fn example(env: &RpcEnv) -> Result<(), SetupError> {
/// env.endpoint("ticker")
///     .messages_max(100)
///     .overflow(Overflow::DropOldest)
///     .weight(|News::Line(line)| line.len())
///     .setup_with(RestartPolicy::default(), Ticker::default)?;
/// # Ok(()) }
/// ```
#[must_use = "an endpoint is set up with one of the `setup` functions"]
pub struct EndpointBuilder<M> {
    env: RpcEnv,
    name: String,
    limits: Limits,
    weigh: Option<Weigh<M>>,
    own_thread: bool,
}

impl<M: Serialize + DeserializeOwned + Send + 'static> EndpointBuilder<M> {
    pub(crate) fn new(env: RpcEnv, name: String) -> Self {
        let config = &env.inner().config;
        let limits = Limits {
            messages_max: config.inbox_messages_max,
            bytes_max: config.inbox_bytes_max,
            overflow: Overflow::Refuse,
        };
        Self {
            env,
            name,
            limits,
            weigh: None,
            own_thread: false,
        }
    }

    /// How many local, and how many remote messages may wait; at least 1. What is being handled does not count. Each
    /// connection may send 16,384 messages to begin with: a smaller limit takes hold once half of them are taken up.
    pub fn messages_max(mut self, messages: usize) -> Self {
        self.limits.messages_max = messages.max(1);
        self
    }

    /// How many bytes of local, and how many of remote messages may wait; one message of any size may always. Each
    /// connection may send 1 MiB to begin with: a smaller limit takes hold once half of it is taken up.
    pub fn bytes_max(mut self, bytes: usize) -> Self {
        self.limits.bytes_max = bytes.max(1);
        self
    }

    /// How many bytes a local message counts, instead of the size of its type: also what it points to, say. Called once
    /// for each, by who sends it; a panic is the sender's. Remote messages count as many as they had on the wire.
    pub fn weight(mut self, weight: impl Fn(&M) -> usize + Send + Sync + 'static) -> Self {
        self.weigh = Some(Box::new(weight));
        self
    }

    /// What happens to a message that finds the inbox full. Default [`Overflow::Refuse`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.limits.overflow = overflow;
        self
    }

    /// Runs the endpoint on a thread of its own, for callbacks that block.
    pub fn own_thread(mut self) -> Self {
        self.own_thread = true;
        self
    }

    /// Sets up an endpoint that handles one message at a time.
    ///
    /// # Errors
    ///
    /// The name is taken or is none, or the environment is shut down.
    pub fn setup<E: RpcEndpoint<Message = M>>(
        self,
        endpoint: E,
    ) -> Result<RpcEndpointRef<M>, SetupError> {
        self.start(endpoint, None)
    }

    /// Sets up what `factory` makes, now and at each restart.
    ///
    /// # Errors
    ///
    /// As for [`setup`](Self::setup).
    pub fn setup_with<E: RpcEndpoint<Message = M>>(
        self,
        policy: RestartPolicy,
        mut factory: impl FnMut() -> E + Send + 'static,
    ) -> Result<RpcEndpointRef<M>, SetupError> {
        let endpoint = factory();
        let restarts = Restarts {
            factory: Box::new(factory),
            budget: Budget::new(policy),
        };
        self.start(endpoint, Some(Box::new(restarts)))
    }

    /// Sets up an endpoint that handles up to `at_once` messages at once (at least 1).
    ///
    /// # Errors
    ///
    /// As for [`setup`](Self::setup).
    pub fn setup_concurrent<C: ConcurrentEndpoint<Message = M>>(
        self,
        at_once: u32,
        endpoint: C,
    ) -> Result<RpcEndpointRef<M>, SetupError> {
        self.start(Concurrently::new(endpoint, at_once), None)
    }

    /// As [`setup_concurrent`](Self::setup_concurrent), with what `factory` makes, now and at each restart. Handlers of
    /// the one before may still run beside those of the new one.
    ///
    /// # Errors
    ///
    /// As for [`setup`](Self::setup).
    pub fn setup_concurrent_with<C: ConcurrentEndpoint<Message = M>>(
        self,
        at_once: u32,
        policy: RestartPolicy,
        mut factory: impl FnMut() -> C + Send + 'static,
    ) -> Result<RpcEndpointRef<M>, SetupError> {
        self.setup_with(policy, move || Concurrently::new(factory(), at_once))
    }

    fn start<E: RpcEndpoint<Message = M>>(
        self,
        endpoint: E,
        restarts: Option<Box<Restarts<E>>>,
    ) -> Result<RpcEndpointRef<M>, SetupError> {
        let name: Arc<str> = self.name.into();
        let inbox = Arc::new(Inbox::new(name, self.limits, self.weigh));
        self.env
            .start_endpoint(endpoint, restarts, inbox, self.own_thread)
    }
}

impl<M> fmt::Debug for EndpointBuilder<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointBuilder")
            .field("name", &self.name)
            .field("limits", &self.limits)
            .field("own_thread", &self.own_thread)
            .finish_non_exhaustive()
    }
}
