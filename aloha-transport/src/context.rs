//! What the clients and servers of one program share.

use std::fmt;
use std::sync::{Arc, OnceLock};

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::client::TransportClient;
use crate::client_factory::TransportClientFactory;
use crate::config::TransportConfig;
use crate::connection::{Connection, LostHook};
use crate::error::BindError;
use crate::handshake::Hello;
use crate::keeper::Keeper;
use crate::request_handler::{PerConnection, RequestHandler, RpcHandler};
use crate::runtime::{Runtime, TokioRuntime};
use crate::server::TransportServer;
use crate::stream::{Network, Tcp};

type Handlers = Arc<dyn Fn(&TransportClient) -> Box<dyn RequestHandler> + Send + Sync>;

/// Makes clients and servers that share a name, limits, a handler, and the seams: network, time,
/// randomness and tasks.
#[derive(Clone)]
pub struct TransportContext {
    name: Arc<str>,
    codec: u8,
    config: Arc<TransportConfig>,
    network: Arc<dyn Network>,
    runtime: Arc<dyn Runtime>,
    handlers: Handlers,
    address: Arc<OnceLock<String>>,
    tasks: TaskTracker,
    keeper: Arc<Keeper>,
    lost_hook: Option<LostHook>,
}

impl TransportContext {
    /// A context over TCP on the current tokio runtime.
    ///
    /// # Panics
    ///
    /// Called outside a tokio runtime.
    pub fn new(name: &str, handler: impl RpcHandler) -> Self {
        let handler: Arc<dyn RpcHandler> = Arc::new(handler);
        Self::with_handlers(name, Arc::new(TokioRuntime::current()), move |client| {
            handler.connected(client);
            Box::new(PerConnection {
                handler: Arc::clone(&handler),
                client: client.clone(),
            })
        })
    }

    /// A context that asks `handlers` for a handler for each connection, once it is open.
    pub fn with_handlers(
        name: &str,
        runtime: Arc<dyn Runtime>,
        handlers: impl Fn(&TransportClient) -> Box<dyn RequestHandler> + Send + Sync + 'static,
    ) -> Self {
        let tasks = TaskTracker::new();
        Self {
            name: name.into(),
            codec: 0,
            config: Arc::default(),
            network: Arc::new(Tcp),
            keeper: Keeper::new(Arc::clone(&runtime), tasks.clone()),
            runtime,
            handlers: Arc::new(handlers),
            address: Arc::default(),
            tasks,
            lost_hook: None,
        }
    }

    /// With other limits.
    #[must_use]
    pub fn config(mut self, config: TransportConfig) -> Self {
        self.config = Arc::new(config);
        self
    }

    /// With the number of the encoding of bodies; peers with another number are refused.
    #[must_use]
    pub fn codec(mut self, codec: u8) -> Self {
        self.codec = codec;
        self
    }

    /// Tells `hook` of messages that were queued, want no answer, and were not written before their connection
    /// ended: to whom, and how many. Of the last write it is not known how much arrived; it counts as lost.
    #[must_use]
    pub fn on_lost(mut self, hook: impl Fn(&Arc<str>, u64) + Send + Sync + 'static) -> Self {
        self.lost_hook = Some(Arc::new(hook));
        self
    }

    /// Over another network.
    #[must_use]
    pub fn network(mut self, network: Arc<dyn Network>) -> Self {
        self.network = network;
        self
    }

    /// A factory of clients.
    #[must_use]
    pub fn create_client_factory(&self) -> TransportClientFactory {
        TransportClientFactory::new(self.clone())
    }

    /// Listens on `address` (`host:port`, where port 0 picks a free one; or `unix:/path`) and serves.
    ///
    /// # Errors
    ///
    /// The address cannot be had.
    pub async fn create_server(&self, address: &str) -> Result<TransportServer, BindError> {
        TransportServer::bind(self, address, None).await
    }

    /// As [`create_server`](Self::create_server), but peers are told to call `host`. That makes no difference to a
    /// Unix domain socket.
    ///
    /// # Errors
    ///
    /// The address cannot be had.
    pub async fn create_server_as(
        &self,
        address: &str,
        host: &str,
    ) -> Result<TransportServer, BindError> {
        TransportServer::bind(self, address, Some(host)).await
    }

    pub(crate) fn limits(&self) -> &TransportConfig {
        &self.config
    }

    pub(crate) fn now(&self) -> Instant {
        self.runtime.now()
    }

    pub(crate) fn random_u64(&self) -> u64 {
        self.runtime.random_u64()
    }

    pub(crate) fn net(&self) -> &dyn Network {
        &*self.network
    }

    pub(crate) fn advertise(&self, address: String) {
        // A second server of one context keeps the first's address in the handshake.
        drop(self.address.set(address));
    }

    pub(crate) fn hello(&self) -> Hello {
        let config = &self.config;
        let hello = Hello::new(
            self.codec,
            config.frame_bytes_max,
            config.requests_in_flight_max,
            &self.name,
        );
        Hello {
            address: self.address.get().cloned(),
            ..hello
        }
    }

    pub(crate) fn connection(&self, peer: &str, outbound: bool) -> Arc<Connection> {
        Connection::new(
            peer,
            outbound,
            Arc::clone(&self.config),
            Arc::clone(&self.runtime),
            Arc::clone(&self.keeper),
            self.lost_hook.clone(),
        )
    }

    pub(crate) fn handler(&self, client: &TransportClient) -> Box<dyn RequestHandler> {
        (self.handlers)(client)
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(Box::pin(self.tasks.track_future(task)));
    }

    /// Waits until every connection task has ended. Close the factories and servers first.
    pub async fn wait_closed(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl fmt::Debug for TransportContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportContext")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
