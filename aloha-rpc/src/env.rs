//! An environment: the endpoints of one process under one address, and its way to others.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use aloha_transport::{
    Network, Runtime, TokioRuntime, TransportClientFactory, TransportContext, TransportServer,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::address::{EndpointAddress, RpcAddress};
use crate::config::RpcConfig;
use crate::deadlines::Deadlines;
use crate::dispatcher::{Dispatcher, Registered};
use crate::endpoint::{RpcEndpoint, Running};
use crate::endpoint_ref::{RpcEndpointRef, downcast};
use crate::envelope::NAME_BYTES_MAX;
use crate::error::{LookupError, SetupError, StartError};
use crate::inbox::{Inbox, Mailbox};
use crate::outbox::Outbox;
use crate::remote::RemoteHandler;
use crate::schema::schema_of;
use crate::verifier::{self, Existence, RpcEndpointVerifier, Verify};

/// An environment of endpoints. Cheap to clone; all clones are the same environment.
///
/// It lives until [`shutdown`](Self::shutdown), also when the last clone is dropped.
#[derive(Clone)]
pub struct RpcEnv {
    inner: Arc<EnvInner>,
}

/// Tells the asks of a process apart, also those of two environments in it.
static NEXT_TOKEN: AtomicU64 = AtomicU64::new(0);

pub(crate) struct EnvInner {
    name: String,
    pub(crate) config: RpcConfig,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) address: OnceLock<RpcAddress>,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) factory: TransportClientFactory,
    pub(crate) deadlines: Deadlines,
    context: TransportContext,
    server: Mutex<Option<TransportServer>>,
    outboxes: Mutex<HashMap<RpcAddress, Arc<Outbox>>>,
    endpoints: TaskTracker,
    stopped: CancellationToken,
    terminated: CancellationToken,
    /// Set before `terminated`; cheap to ask.
    over: AtomicBool,
    dead_letters: AtomicU64,
}

/// How an environment is to be.
#[derive(Debug)]
#[must_use = "an environment starts with `start`"]
pub struct RpcEnvBuilder {
    name: String,
    config: RpcConfig,
    bind: Option<String>,
    advertised_host: Option<String>,
    network: Option<Arc<dyn Network>>,
    runtime: Option<Arc<dyn Runtime>>,
}

impl RpcEnvBuilder {
    /// Listens on `address` (`host:port`; port 0 picks a free one). Without it the environment is a
    /// client: it calls others, and is answered over its own connections.
    pub fn bind(mut self, address: impl Into<String>) -> Self {
        self.bind = Some(address.into());
        self
    }

    /// Tells peers to call another host than the one it listens on.
    pub fn advertise(mut self, host: impl Into<String>) -> Self {
        self.advertised_host = Some(host.into());
        self
    }

    /// With other limits and time-outs.
    pub fn config(mut self, config: RpcConfig) -> Self {
        self.config = config;
        self
    }

    /// Over another network than TCP.
    pub fn network(mut self, network: Arc<dyn Network>) -> Self {
        self.network = Some(network);
        self
    }

    /// With time, randomness and tasks from elsewhere than the current tokio runtime.
    pub fn runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Starts the environment on the current tokio runtime.
    ///
    /// # Errors
    ///
    /// The address cannot be had.
    ///
    /// # Panics
    ///
    /// Called outside a tokio runtime.
    pub async fn start(self) -> Result<RpcEnv, StartError> {
        let runtime = self
            .runtime
            .unwrap_or_else(|| Arc::new(TokioRuntime::current()));
        let inner = Arc::new_cyclic(|env: &std::sync::Weak<EnvInner>| {
            let env = env.clone();
            let mut context =
                TransportContext::with_handlers(&self.name, Arc::clone(&runtime), move |client| {
                    Box::new(RemoteHandler::new(env.clone(), client))
                })
                .config(self.config.transport.clone())
                .codec(self.config.codec.id());
            if let Some(network) = self.network {
                context = context.network(network);
            }
            EnvInner {
                name: self.name,
                config: self.config,
                address: OnceLock::new(),
                dispatcher: Dispatcher::default(),
                factory: context.create_client_factory(),
                deadlines: Deadlines::new(Arc::clone(&runtime)),
                runtime,
                context,
                server: Mutex::default(),
                outboxes: Mutex::default(),
                endpoints: TaskTracker::new(),
                stopped: CancellationToken::new(),
                terminated: CancellationToken::new(),
                over: AtomicBool::new(false),
                dead_letters: AtomicU64::new(0),
            }
        });
        let env = RpcEnv { inner };
        env.set_up(verifier::NAME, RpcEndpointVerifier)
            .expect("nobody else can have the name yet");
        let timer = Arc::clone(&env.inner);
        env.inner.runtime.spawn(Box::pin(async move {
            timer
                .terminated
                .run_until_cancelled(timer.deadlines.run())
                .await;
            timer.deadlines.expire_all();
        }));
        if let Some(bind) = &self.bind {
            env.listen(bind, self.advertised_host.as_deref()).await?;
        }
        Ok(env)
    }
}

impl RpcEnv {
    /// An environment to be named `name` in logs.
    pub fn builder(name: impl Into<String>) -> RpcEnvBuilder {
        RpcEnvBuilder {
            name: name.into(),
            config: RpcConfig::default(),
            bind: None,
            advertised_host: None,
            network: None,
            runtime: None,
        }
    }

    /// An environment that does not listen, with the usual limits.
    ///
    /// # Errors
    ///
    /// None today; a builder's `start` has them.
    ///
    /// # Panics
    ///
    /// Called outside a tokio runtime.
    pub async fn client(name: impl Into<String>) -> Result<Self, StartError> {
        Self::builder(name).start().await
    }

    async fn listen(&self, bind: &str, advertised_host: Option<&str>) -> Result<(), StartError> {
        let context = &self.inner.context;
        let server = match advertised_host {
            Some(host) => context.create_server_as(bind, host).await?,
            None => context.create_server(bind).await?,
        };
        let address = server
            .address()
            .parse()
            .unwrap_or_else(|_| RpcAddress::new(server.address(), 0));
        self.inner
            .address
            .set(address)
            .expect("an environment listens once");
        *self
            .inner
            .server
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(server);
        Ok(())
    }

    pub(crate) fn inner(&self) -> &Arc<EnvInner> {
        &self.inner
    }

    /// The name in logs.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Where others call this environment; none for a client.
    #[must_use]
    pub fn address(&self) -> Option<&RpcAddress> {
        self.inner.address.get()
    }

    /// Where this environment takes time, randomness and tasks from; endpoints that do the same can be simulated.
    #[must_use]
    pub fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.inner.runtime
    }

    /// How many messages came for endpoints that are not there, or found an inbox full or closed.
    #[must_use]
    pub fn dead_letters(&self) -> u64 {
        self.inner.dead_letters.load(Ordering::Relaxed)
    }

    /// Sets up an endpoint under a name and starts it.
    ///
    /// # Errors
    ///
    /// The name is taken or no name, or the environment is shut down.
    pub fn setup_endpoint<E: RpcEndpoint>(
        &self,
        name: &str,
        endpoint: E,
    ) -> Result<RpcEndpointRef<E::Message>, SetupError> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(['@', '/']) {
            return Err(SetupError::InvalidName(name.to_owned()));
        }
        if self.inner.stopped.is_cancelled() {
            return Err(SetupError::EnvironmentStopped);
        }
        self.set_up(name, endpoint)
    }

    fn set_up<E: RpcEndpoint>(
        &self,
        name: &str,
        endpoint: E,
    ) -> Result<RpcEndpointRef<E::Message>, SetupError> {
        let name: Arc<str> = name.into();
        let inbox = Arc::new(Inbox::new(
            Arc::clone(&name),
            self.inner.config.inbox_messages_max,
        ));
        let mailbox: Arc<dyn Mailbox> = Arc::clone(&inbox) as _;
        let schema = schema_of::<E::Message>().into();
        if !self
            .inner
            .dispatcher
            .register(Arc::clone(&name), Registered { mailbox, schema })
        {
            return Err(SetupError::NameTaken(name.to_string()));
        }
        let self_ref = RpcEndpointRef::local(Arc::clone(&self.inner), Arc::clone(&inbox));
        let running = Running::new(endpoint, inbox, self_ref.clone(), self.clone());
        self.inner
            .runtime
            .spawn(Box::pin(self.inner.endpoints.track_future(running.run())));
        Ok(self_ref)
    }

    /// A reference to the endpoint `name` at `address`, once its environment has confirmed that it is there and
    /// takes messages of type `M`.
    ///
    /// # Errors
    ///
    /// It is not there, takes other messages, or nobody answered within
    /// [`RpcConfig::lookup_timeout`](crate::RpcConfig::lookup_timeout).
    pub async fn retrieve_endpoint_ref<M: Serialize + DeserializeOwned + Send + 'static>(
        &self,
        address: &RpcAddress,
        name: &str,
    ) -> Result<RpcEndpointRef<M>, LookupError> {
        let schema = schema_of::<M>();
        let uri = || {
            EndpointAddress {
                address: Some(address.clone()),
                name: name.into(),
            }
            .to_string()
        };
        if self.address() == Some(address) {
            let found = self
                .inner
                .dispatcher
                .find(name)
                .ok_or_else(|| LookupError::NotFound { uri: uri() })?;
            let any: Arc<dyn Any + Send + Sync> = found.mailbox.as_any();
            return match downcast(any) {
                Some(inbox) => Ok(RpcEndpointRef::local(Arc::clone(&self.inner), inbox)),
                None => Err(LookupError::WrongType {
                    uri: uri(),
                    expected: found.schema.to_string(),
                    given: schema,
                }),
            };
        }
        let outbox = self.inner.outbox(address);
        let verifier: RpcEndpointRef<Verify> = RpcEndpointRef::remote(
            Arc::clone(&self.inner),
            Arc::clone(&outbox),
            verifier::NAME.into(),
        );
        let question = |call| Verify::CheckExistence {
            name: name.to_owned(),
            schema: schema.clone(),
            call,
        };
        let answer = verifier
            .ask_for(self.inner.config.lookup_timeout, question)
            .await;
        match answer.map_err(|reason| LookupError::Failed {
            uri: uri(),
            reason: reason.of_lookup(),
        })? {
            Existence::Exists => Ok(RpcEndpointRef::remote(
                Arc::clone(&self.inner),
                outbox,
                name.into(),
            )),
            Existence::Missing => Err(LookupError::NotFound { uri: uri() }),
            Existence::WrongType { expected } => Err(LookupError::WrongType {
                uri: uri(),
                expected,
                given: schema,
            }),
        }
    }

    /// As [`retrieve_endpoint_ref`](Self::retrieve_endpoint_ref), from `aloha://name@host:port`.
    ///
    /// # Errors
    ///
    /// As there, or the text is no such URI.
    pub async fn retrieve_endpoint_ref_by_uri<M: Serialize + DeserializeOwned + Send + 'static>(
        &self,
        uri: &str,
    ) -> Result<RpcEndpointRef<M>, LookupError> {
        let EndpointAddress { address, name } = uri.parse()?;
        let address = address.expect("a parsed URI has an address");
        self.retrieve_endpoint_ref(&address, &name).await
    }

    /// Stops a local endpoint once it has handled what waits already. Again, or for a remote one, it
    /// does nothing.
    pub fn stop<M: Send + 'static>(&self, endpoint: &RpcEndpointRef<M>) {
        if let (true, Some(inbox)) = (Arc::ptr_eq(endpoint.env(), &self.inner), endpoint.inbox()) {
            Mailbox::stop(&**inbox);
        }
    }

    /// Stops every endpoint once it has handled what waits already, then writes what is queued and closes
    /// all connections. Endpoints hear nothing of their own environment's disconnects.
    pub async fn shutdown(&self) {
        let inner = &self.inner;
        if inner.stopped.is_cancelled() {
            return inner.terminated.cancelled().await;
        }
        inner.stopped.cancel();
        inner.dispatcher.stop_all();
        inner.endpoints.close();
        inner.endpoints.wait().await;
        inner.factory.close();
        let server = inner
            .server
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(server) = server {
            server.stop().await;
        }
        inner.context.wait_closed().await;
        inner.over.store(true, Ordering::Release);
        inner.terminated.cancel();
    }

    /// Waits for the end of [`shutdown`](Self::shutdown), whoever calls it.
    pub async fn await_termination(&self) {
        self.inner.terminated.cancelled().await;
    }
}

impl EnvInner {
    pub(crate) fn is_stopped(&self) -> bool {
        // Endpoints may still answer and send until they have stopped.
        self.over.load(Ordering::Acquire)
    }

    pub(crate) fn next_token(&self) -> u64 {
        NEXT_TOKEN.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn count_dead_letters(&self, count: usize) {
        self.dead_letters.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn outbox(&self, address: &RpcAddress) -> Arc<Outbox> {
        let mut outboxes = self.outboxes.lock().unwrap_or_else(PoisonError::into_inner);
        let outbox = outboxes
            .entry(address.clone())
            .or_insert_with(|| Arc::new(Outbox::new(address.clone())));
        Arc::clone(outbox)
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(Box::pin(task));
    }
}

impl fmt::Debug for RpcEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcEnv")
            .field("name", &self.inner.name)
            .field("address", &self.address())
            .finish()
    }
}
