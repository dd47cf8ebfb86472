//! An environment: the endpoints of one process under one address, and its way to others.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use aloha_transport::{
    BindError, Failure, Runtime, TokioRuntime, TransportClientFactory, TransportContext,
    TransportServer,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::address::{EndpointAddress, RpcAddress};
use crate::config::RpcConfig;
use crate::context::EndpointContext;
use crate::dead_letter::{DeadLetter, DeadLetterOffice, DeadLetterReason, DeadLetters};
use crate::deadlines::Deadlines;
use crate::dispatcher::{Dispatcher, Registered};
use crate::endpoint::RpcEndpoint;
use crate::endpoint_ref::{RpcEndpointRef, downcast};
use crate::env_builder::RpcEnvBuilder;
use crate::envelope::NAME_BYTES_MAX;
use crate::error::{LookupError, SetupError, StartError};
use crate::flow::InboundFlow;
use crate::group::Group;
use crate::inbox::Inbox;
use crate::link::Link;
use crate::mail::{Discard, LocalMail, discard_all};
use crate::mailbox::Mailbox;
use crate::metrics::{ConnectionSnapshot, EndpointSnapshot, EnvSnapshot, Metrics};
use crate::outbox::Outbox;
use crate::relay::{self, Relays};
use crate::remote::{self, RemoteHandler};
use crate::remote_lane::RemoteMail;
use crate::running::{Restarts, Running};
use crate::schema::schema_of;
use crate::setup::EndpointBuilder;
use crate::supervision::Termination;
use crate::topic::{Publication, Topic};
use crate::trace::TraceContext;
use crate::verifier::{self, Existence, RpcEndpointVerifier, Verify};
use crate::watch::Watch;

/// An environment of endpoints. Cheap to clone; all clones are the same environment.
///
/// It lives until [`shutdown`](Self::shutdown), also when the last clone is dropped.
#[derive(Clone)]
pub struct RpcEnv {
    inner: Arc<EnvInner>,
}

/// How long endpoints may take to give up what waits for them, once their time is over.
const ABANDON_TIME: Duration = Duration::from_millis(100);

/// Tells the asks of a process apart, also those of two environments in it.
static NEXT_TOKEN: AtomicU64 = AtomicU64::new(0);

pub(crate) struct EnvInner {
    this: Weak<Self>,
    name: String,
    pub(crate) config: RpcConfig,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) address: OnceLock<RpcAddress>,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) factory: TransportClientFactory,
    pub(crate) deadlines: Deadlines,
    pub(crate) metrics: Option<Arc<dyn Metrics>>,
    pub(crate) relays: Relays,
    /// Open connections, by the number of their link.
    connections: Mutex<BTreeMap<u32, Arc<Link>>>,
    context: TransportContext,
    server: Mutex<Option<TransportServer>>,
    /// Of addresses that a reference leads to.
    outboxes: Mutex<Outboxes>,
    endpoints: TaskTracker,
    shutting_down: AtomicBool,
    stopped: CancellationToken,
    /// The time that endpoints have for their end is over.
    hurry: CancellationToken,
    terminated: CancellationToken,
    /// Set before `terminated`; cheap to ask.
    over: AtomicBool,
    dead_letters: DeadLetterOffice,
}

#[derive(Default)]
struct Outboxes {
    by_address: HashMap<RpcAddress, Weak<Outbox>>,
    /// How many were in use when that was last looked at.
    used: usize,
}

impl RpcEnv {
    /// An environment to be named `name` in logs.
    pub fn builder(name: impl Into<String>) -> RpcEnvBuilder {
        RpcEnvBuilder::new(name.into())
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

    async fn listen(
        &self,
        bind: &str,
        advertised_host: Option<&str>,
        retries: u16,
    ) -> Result<(), StartError> {
        let context = &self.inner.context;
        let mut bind = bind.to_owned();
        let mut left = retries;
        let server = loop {
            let server = match advertised_host {
                Some(host) => context.create_server_as(&bind, host).await,
                None => context.create_server(&bind).await,
            };
            match server {
                Err(BindError::InUse { .. }) if left > 0 => match next_port(&bind) {
                    Some(next) => (bind, left) = (next, left - 1),
                    None => break server?,
                },
                server => break server?,
            }
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

    pub(crate) async fn start(builder: RpcEnvBuilder) -> Result<Self, StartError> {
        builder.config.transport.check()?;
        let runtime = builder
            .runtime
            .unwrap_or_else(|| Arc::new(TokioRuntime::current()));
        let codec = builder.config.codec;
        let inner = Arc::new_cyclic(|env: &Weak<EnvInner>| {
            let (this, env, lost_in) = (env.clone(), env.clone(), env.clone());
            let mut context = TransportContext::with_handlers(
                &builder.name,
                Arc::clone(&runtime),
                move |client| Box::new(RemoteHandler::new(env.clone(), codec, client)),
            )
            .on_lost(move |peer, count| {
                if let Some(env) = lost_in.upgrade() {
                    env.dead_letter(peer, DeadLetterReason::ConnectionLost, count);
                }
            })
            .config(builder.config.transport.clone())
            .codec(builder.config.codec.id());
            if let Some(network) = builder.network {
                context = context.network(network);
            }
            EnvInner {
                this,
                name: builder.name,
                config: builder.config,
                address: OnceLock::new(),
                dispatcher: Dispatcher::default(),
                factory: context.create_client_factory(),
                deadlines: Deadlines::new(Arc::clone(&runtime)),
                runtime,
                context,
                server: Mutex::default(),
                outboxes: Mutex::default(),
                endpoints: TaskTracker::new(),
                shutting_down: AtomicBool::new(false),
                stopped: CancellationToken::new(),
                hurry: CancellationToken::new(),
                terminated: CancellationToken::new(),
                over: AtomicBool::new(false),
                dead_letters: DeadLetterOffice::default(),
                metrics: builder.metrics,
                relays: Relays::default(),
                connections: Mutex::default(),
            }
        });
        let env = Self { inner };
        env.endpoint(verifier::NAME)
            .setup(RpcEndpointVerifier)
            .expect("nobody else can have the name yet");
        let timer = Arc::clone(&env.inner);
        env.inner.runtime.spawn(Box::pin(async move {
            timer
                .terminated
                .run_until_cancelled(timer.deadlines.run())
                .await;
            timer.deadlines.expire_all();
        }));
        if let Some(bind) = &builder.bind {
            let host = builder.advertised_host.as_deref();
            if let Err(error) = env.listen(bind, host, builder.port_retries).await {
                env.shutdown().await;
                return Err(error);
            }
        }
        Ok(env)
    }

    pub(crate) fn of(inner: Arc<EnvInner>) -> Self {
        Self { inner }
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

    /// How many messages were taken and not handled: no such endpoint, stopped before, displaced, undecodable, lost with
    /// their connection.
    #[must_use]
    pub fn dead_letters(&self) -> u64 {
        self.inner.dead_letters.count()
    }

    /// The dead letters from now on.
    #[must_use]
    pub fn observe_dead_letters(&self) -> DeadLetters {
        self.inner.dead_letters.observe()
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
        self.endpoint(name).setup(endpoint)
    }

    /// As [`setup_endpoint`](Self::setup_endpoint), with limits, a factory for restarts, several messages at once, or a
    /// thread of its own.
    pub fn endpoint<M: Serialize + DeserializeOwned + Send + 'static>(
        &self,
        name: impl Into<String>,
    ) -> EndpointBuilder<M> {
        EndpointBuilder::new(self.clone(), name.into())
    }

    pub(crate) fn start_endpoint<E: RpcEndpoint>(
        &self,
        endpoint: E,
        restarts: Option<Box<Restarts<E>>>,
        inbox: Arc<Inbox<E::Message>>,
        own_thread: bool,
    ) -> Result<RpcEndpointRef<E::Message>, SetupError> {
        let inner = &self.inner;
        let name = Arc::clone(inbox.name());
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(['@', '/']) {
            return Err(SetupError::InvalidName(name.to_string()));
        }
        if inner.stopped.is_cancelled() {
            return Err(SetupError::EnvironmentStopped);
        }
        let registered = Registered {
            mailbox: Arc::clone(&inbox) as _,
            schema: schema_of::<E::Message>,
        };
        if !inner.dispatcher.register(Arc::clone(&name), registered) {
            return Err(SetupError::NameTaken(name.to_string()));
        }
        if inner.stopped.is_cancelled() {
            // The shutdown may have gone through the list before this one was on it.
            Mailbox::stop(&*inbox);
        }
        let self_ref = RpcEndpointRef::local(Arc::clone(inner), Arc::clone(&inbox));
        let ctx = EndpointContext::new(self_ref.clone(), self.clone(), inbox, restarts.is_some());
        let running = Running::new(endpoint, restarts, ctx);
        let task = Box::pin(inner.endpoints.track_future(running.run()));
        if own_thread {
            if let Err(error) = inner.runtime.spawn_thread(&name, task) {
                inner.dispatcher.unregister(&name);
                return Err(SetupError::NoThread {
                    endpoint: name.to_string(),
                    reason: error.to_string(),
                });
            }
        } else {
            inner.runtime.spawn(task);
        }
        Ok(self_ref)
    }

    /// Sets up a group without members; they [join](Group::join).
    ///
    /// # Errors
    ///
    /// As for [`setup_endpoint`](Self::setup_endpoint).
    pub fn setup_group<M: Serialize + DeserializeOwned + Send + 'static>(
        &self,
        name: &str,
    ) -> Result<Group<M>, SetupError> {
        Group::set_up(self, name)
    }

    /// Sets up a topic.
    ///
    /// # Errors
    ///
    /// As for [`setup_endpoint`](Self::setup_endpoint).
    pub fn setup_topic<T: Publication>(&self, name: &str) -> Result<Topic<T>, SetupError> {
        Topic::set_up(self, name)
    }

    /// A topic of another environment.
    ///
    /// # Errors
    ///
    /// As for [`retrieve_endpoint_ref`](Self::retrieve_endpoint_ref); publications of another type are
    /// [`LookupError::WrongType`].
    pub async fn retrieve_topic<T: Publication>(
        &self,
        address: &RpcAddress,
        name: &str,
    ) -> Result<Topic<T>, LookupError> {
        Topic::look_up(self, address, name).await
    }

    /// Ends when the endpoint does, here or elsewhere, or when the connection to it ends; at once if it is not there. One
    /// elsewhere that ends before the watch arrives there was [not there](Termination::NotFound).
    pub fn watch<M: Serialize + DeserializeOwned + Send + 'static>(
        &self,
        endpoint: &RpcEndpointRef<M>,
    ) -> Watch {
        Watch::of(endpoint)
    }

    /// What every endpoint and connection is at, at this moment.
    #[must_use]
    pub fn snapshot(&self) -> EnvSnapshot {
        let inner = &self.inner;
        let now = inner.runtime.now();
        let mut mailboxes = inner.dispatcher.all();
        mailboxes.retain(|mailbox| {
            let name = &**mailbox.name();
            name != verifier::NAME && !name.starts_with(relay::NAME_PREFIX)
        });
        mailboxes.sort_by(|one, two| one.name().cmp(two.name()));
        let endpoints = mailboxes.iter().map(|mailbox| {
            let load = mailbox.load(now);
            EndpointSnapshot {
                name: Arc::clone(mailbox.name()),
                waiting: load.waiting,
                oldest: load.oldest,
                handled: load.handled,
                errors: load.errors,
                restarts: load.restarts,
                handler_time: load.handler_time,
                handler_time_max: load.handler_time_max,
            }
        });
        let links: Vec<Arc<Link>> = inner.connections().values().map(Arc::clone).collect();
        let connections = links.iter().map(|link| inner.connection_snapshot(link));
        EnvSnapshot {
            endpoints: endpoints.collect(),
            connections: connections.collect(),
            dead_letters: inner.dead_letters.count(),
        }
    }

    /// A reference to an endpoint of this environment.
    ///
    /// # Errors
    ///
    /// It is not there, or takes other messages.
    pub fn endpoint_ref<M: Serialize + DeserializeOwned + Send + 'static>(
        &self,
        name: &str,
    ) -> Result<RpcEndpointRef<M>, LookupError> {
        let uri = || {
            EndpointAddress {
                address: self.address().cloned(),
                name: name.into(),
            }
            .to_string()
        };
        let found = self.inner.dispatcher.find(name);
        let found = found.ok_or_else(|| LookupError::NotFound { uri: uri() })?;
        match downcast(found.mailbox.as_any()) {
            Some(inbox) => Ok(RpcEndpointRef::local(Arc::clone(&self.inner), inbox)),
            None => Err(LookupError::WrongType {
                uri: uri(),
                expected: (found.schema)().text,
                given: schema_of::<M>().text,
            }),
        }
    }

    /// A reference to the endpoint `name` at `address`, once its environment has confirmed that it is there and
    /// takes messages of type `M`: of an enum of that name with these variants in this order, where one of both ends
    /// may have more at its end. A message of a variant that the other end does not know is
    /// [`Undecodable`](crate::AskError::Undecodable) there, and nothing else fails with it.
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
        if self.address() == Some(address) {
            return self.endpoint_ref(name);
        }
        let schema = schema_of::<M>();
        let uri = || {
            EndpointAddress {
                address: Some(address.clone()),
                name: name.into(),
            }
            .to_string()
        };
        let outbox = self.inner.outbox(address);
        let verifier: RpcEndpointRef<Verify> = RpcEndpointRef::remote(
            Arc::clone(&self.inner),
            Arc::clone(&outbox),
            verifier::NAME.into(),
        );
        let question = |call| Verify::CheckExistence {
            name: name.to_owned(),
            schema: schema.text.clone(),
            call,
        };
        let answer = verifier
            .ask_for(self.inner.config.lookup_timeout, question)
            .await;
        let answer = answer.map_err(|reason| LookupError::Failed {
            uri: uri(),
            reason: reason.of_lookup(),
        })?;
        match answer {
            found if found.is_found_by(&schema) => Ok(RpcEndpointRef::remote(
                Arc::clone(&self.inner),
                outbox,
                name.into(),
            )),
            Existence::WrongType { expected } => Err(LookupError::WrongType {
                uri: uri(),
                expected,
                given: schema.text,
            }),
            Existence::Exists | Existence::Missing => Err(LookupError::NotFound { uri: uri() }),
        }
    }

    /// As [`retrieve_endpoint_ref`](Self::retrieve_endpoint_ref), from `aloha://name@host:port` or
    /// `aloha://name@unix:/path`.
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

    /// Stops a local endpoint: it takes nothing new and handles what waits, for as long as `limit`; what waits then is
    /// given up and becomes dead letters. Ends with the endpoint: a handler that runs is never cut short. Cancel
    /// safe: the endpoint stops all the same.
    pub async fn drain<M: Send + 'static>(
        &self,
        endpoint: &RpcEndpointRef<M>,
        limit: Duration,
    ) -> Termination {
        let Some(inbox) = endpoint.inbox() else {
            return Termination::NotFound;
        };
        if !Arc::ptr_eq(endpoint.env(), &self.inner) {
            return Termination::NotFound;
        }
        Mailbox::stop(&**inbox);
        let mut ended = inbox.watch();
        match tokio::time::timeout(limit, &mut ended).await {
            Ok(ended) => ended.unwrap_or(Termination::Stopped),
            Err(_) => {
                inbox.abandon();
                ended.await.unwrap_or(Termination::Stopped)
            }
        }
    }

    /// Stops every endpoint once it has handled what waits already, then writes what is queued and closes
    /// all connections. Endpoints hear nothing of their own environment's disconnects. Cancel safe: once begun, it goes
    /// on by itself. A handler that waits for it waits for its own end: let it call this from a task.
    pub async fn shutdown(&self) {
        self.begin_shutdown();
        self.inner.terminated.cancelled().await;
    }

    /// As [`shutdown`](Self::shutdown), but endpoints have no longer than `limit`: then what waits for them is given up,
    /// and connections are closed also while a handler still runs.
    pub async fn shutdown_within(&self, limit: Duration) {
        self.begin_shutdown();
        let terminated = self.inner.terminated.cancelled();
        if tokio::time::timeout(limit, terminated).await.is_err() {
            self.inner.hurry.cancel();
            self.inner.terminated.cancelled().await;
        }
    }

    fn begin_shutdown(&self) {
        let inner = &self.inner;
        let begun = inner.shutting_down.swap(true, Ordering::AcqRel);
        if !begun {
            inner.stopped.cancel();
            let env = Arc::clone(inner);
            inner.spawn(async move { env.run_shutdown().await });
        }
    }

    /// Waits for the end of [`shutdown`](Self::shutdown), whoever calls it.
    pub async fn await_termination(&self) {
        self.inner.terminated.cancelled().await;
    }
}

impl EnvInner {
    async fn run_shutdown(&self) {
        self.dispatcher.stop_all();
        self.endpoints.close();
        let ended = self.hurry.run_until_cancelled(self.endpoints.wait());
        if ended.await.is_none() {
            self.dispatcher.abandon_all();
            // Time to answer what waits, but none for a handler that hangs.
            drop(tokio::time::timeout(ABANDON_TIME, self.endpoints.wait()).await);
        }
        self.factory.close();
        let server = self
            .server
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(server) = server {
            server.stop().await;
        }
        self.context.wait_closed().await;
        self.over.store(true, Ordering::Release);
        self.dead_letters.close();
        self.terminated.cancel();
    }

    /// What a future gives, unless this environment is shut down first.
    pub(crate) async fn unless_stopped<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = future => Some(done),
            () = self.stopped.cancelled() => None,
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        // Endpoints may still answer and send until they have stopped.
        self.over.load(Ordering::Acquire)
    }

    pub(crate) fn this(&self) -> Weak<Self> {
        self.this.clone()
    }

    /// The URI of an endpoint of this environment.
    pub(crate) fn uri_of(&self, name: &Arc<str>) -> String {
        EndpointAddress {
            address: self.address.get().cloned(),
            name: Arc::clone(name),
        }
        .to_string()
    }

    pub(crate) fn next_token(&self) -> u64 {
        NEXT_TOKEN.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn dead_letter(&self, receiver: &Arc<str>, reason: DeadLetterReason, count: u64) {
        if count == 0 {
            return;
        }
        debug!(%receiver, %reason, count, "dead letters");
        let letter = DeadLetter {
            receiver: Arc::clone(receiver),
            reason,
            count,
        };
        self.dead_letters.add(&letter);
        self.tell(|metrics| metrics.on_dead_letter(&letter));
    }

    /// Drops messages that newer ones displaced.
    pub(crate) fn bury_displaced<M>(&self, receiver: &Arc<str>, displaced: Vec<LocalMail<M>>) {
        let count = displaced.len() as u64;
        discard_all(displaced, Discard::Displaced);
        self.dead_letter(receiver, DeadLetterReason::Displaced, count);
    }

    /// Answers a message that will not be handled; its sender may send another instead.
    pub(crate) fn give_back_and_bounce(
        &self,
        flow: &InboundFlow,
        mail: RemoteMail,
        failure: &Failure,
    ) {
        let window = (
            self.config.inbox_messages_max as u64,
            self.config.inbox_bytes_max as u64,
        );
        flow.give_back(1, mail.body.len() as u64, window);
        mail.bounce(flow, failure);
    }

    /// Tells the user's metrics something; a panic of theirs ends here.
    pub(crate) fn tell(&self, what: impl FnOnce(&dyn Metrics)) {
        if let Some(metrics) = &self.metrics
            && catch_unwind(AssertUnwindSafe(|| what(&**metrics))).is_err()
        {
            warn!("the metrics panicked");
        }
    }

    /// Whether the time of messages is measured.
    pub(crate) fn is_observed(&self) -> bool {
        self.metrics.is_some()
    }

    pub(crate) fn observed_now(&self) -> Option<Instant> {
        self.is_observed().then(|| self.runtime.now())
    }

    /// The trace that a message sent now carries.
    #[inline]
    pub(crate) fn outgoing_trace(&self) -> Option<Box<TraceContext>> {
        if self.config.trace {
            Some(Box::new(TraceContext::outgoing(self.runtime.as_ref())))
        } else {
            None
        }
    }

    pub(crate) fn connections(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Link>>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn connection_snapshot(&self, link: &Link) -> ConnectionSnapshot {
        let (client, statistics) = (&link.client, link.client.statistics());
        let remote = remote::address_of(client);
        let reconnects = match &remote {
            Some(address) if client.is_outbound() => self
                .known_outbox(address)
                .map_or(0, |outbox| outbox.reconnects()),
            _ => 0,
        };
        ConnectionSnapshot {
            remote,
            outbound: client.is_outbound(),
            reconnects,
            received_bytes: statistics.received_bytes,
            sent_bytes: statistics.sent_bytes,
            queued_bytes: statistics.queued_bytes,
            transfer_bytes: statistics.transfer_bytes,
            requests_outstanding: statistics.requests_outstanding,
            answers_owed: statistics.answers_owed,
        }
    }

    /// Waits for something, but not beyond the end of this environment.
    pub(crate) async fn until_stopped(&self, future: impl Future<Output = ()>) {
        self.stopped.run_until_cancelled(future).await.unwrap_or(());
    }

    pub(crate) fn outbox(&self, address: &RpcAddress) -> Arc<Outbox> {
        let mut outboxes = self.outboxes();
        if let Some(outbox) = outboxes.by_address.get(address).and_then(Weak::upgrade) {
            return outbox;
        }
        // Those that no reference leads to any more go before the map grows.
        if outboxes.by_address.len() >= 2 * outboxes.used.max(8) {
            outboxes
                .by_address
                .retain(|_, outbox| outbox.strong_count() > 0);
            outboxes.used = outboxes.by_address.len();
        }
        let outbox = Arc::new(Outbox::new(
            address.clone(),
            self.config.transport.connections_per_peer,
        ));
        outboxes
            .by_address
            .insert(address.clone(), Arc::downgrade(&outbox));
        outbox
    }

    fn known_outbox(&self, address: &RpcAddress) -> Option<Arc<Outbox>> {
        self.outboxes().by_address.get(address)?.upgrade()
    }

    fn outboxes(&self) -> MutexGuard<'_, Outboxes> {
        self.outboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn outboxes_kept(&self) -> usize {
        self.outboxes().by_address.len()
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(Box::pin(task));
    }
}

/// The address with the port after it.
fn next_port(address: &str) -> Option<String> {
    let (host, port) = address.rsplit_once(':')?;
    let next = port.parse::<u16>().ok()?.checked_add(1)?;
    Some(format!("{host}:{next}"))
}

impl fmt::Debug for RpcEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcEnv")
            .field("name", &self.inner.name)
            .field("address", &self.address())
            .finish()
    }
}
