//! References to endpoints: cheap to clone, typed by the endpoint's messages, fit to travel inside messages.

use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aloha_transport::ConnectError;
use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::address::{EndpointAddress, RpcAddress};
use crate::ask::Ask;
use crate::call_context::RpcCallContext;
use crate::env::EnvInner;
use crate::envelope::Envelope;
use crate::error::{AskError, SendError};
use crate::inbox::{Inbox, Refused, Sent};
use crate::link::{Link, Verb};
use crate::outbox::Outbox;
use crate::scope::{self, Encoding};

/// A reference to an endpoint, here or elsewhere, that takes messages of type `M`.
///
/// It may travel inside messages. A reference to an endpoint of an environment that does not listen
/// works for the peer it is connected to, over that connection; that peer cannot pass it on yet.
pub struct RpcEndpointRef<M> {
    env: Arc<EnvInner>,
    target: TypedTarget<M>,
}

enum TypedTarget<M> {
    Local(Arc<Inbox<M>>),
    Remote(Arc<RemoteTarget>),
}

/// Whom a reference or an ask means, without the type of its messages.
#[derive(Clone)]
pub(crate) enum Target {
    Local(Arc<str>),
    Remote(Arc<RemoteTarget>),
}

pub(crate) struct RemoteTarget {
    name: Arc<str>,
    route: Route,
    /// The link whose number for the name is known, and the number.
    known: AtomicU64,
}

enum Route {
    /// An environment that listens.
    Address(Arc<Outbox>),
    /// Whoever is at the other end of a connection.
    Peer(Arc<Link>),
}

impl Target {
    pub(crate) fn uri(&self, env: &EnvInner) -> String {
        match self {
            Self::Local(name) => EndpointAddress {
                address: env.address.get().cloned(),
                name: Arc::clone(name),
            }
            .to_string(),
            Self::Remote(remote) => EndpointAddress {
                address: remote.address(),
                name: Arc::clone(&remote.name),
            }
            .to_string(),
        }
    }
}

impl RemoteTarget {
    fn new(name: Arc<str>, route: Route) -> Arc<Self> {
        Arc::new(Self {
            name,
            route,
            known: AtomicU64::new(0),
        })
    }

    fn address(&self) -> Option<RpcAddress> {
        match &self.route {
            Route::Address(outbox) => Some(outbox.address().clone()),
            Route::Peer(link) => crate::remote::address_of(&link.client),
        }
    }

    fn link(&self, env: &EnvInner, broken: Option<&Arc<Link>>) -> Result<Arc<Link>, ConnectError> {
        match &self.route {
            Route::Address(outbox) => outbox.link(&env.factory, broken),
            Route::Peer(link) => Ok(Arc::clone(link)),
        }
    }

    fn known(&self, link: &Link) -> Option<u32> {
        let known = self.known.load(Ordering::Relaxed);
        (known >> 32 == u64::from(link.id())).then_some(known as u32)
    }

    fn learn(&self, link: &Link, number: u32) {
        self.known.store(
            u64::from(link.id()) << 32 | u64::from(number),
            Ordering::Relaxed,
        );
    }
}

impl<M> RpcEndpointRef<M> {
    pub(crate) fn local(env: Arc<EnvInner>, inbox: Arc<Inbox<M>>) -> Self {
        Self {
            env,
            target: TypedTarget::Local(inbox),
        }
    }

    pub(crate) fn remote(env: Arc<EnvInner>, outbox: Arc<Outbox>, name: Arc<str>) -> Self {
        let target = TypedTarget::Remote(RemoteTarget::new(name, Route::Address(outbox)));
        Self { env, target }
    }

    /// The name of the endpoint.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.target {
            TypedTarget::Local(inbox) => inbox.name(),
            TypedTarget::Remote(remote) => &remote.name,
        }
    }

    /// Where the endpoint's environment can be called; none for a local endpoint of an environment that
    /// does not listen. For one at a client, where the client called from.
    #[must_use]
    pub fn address(&self) -> Option<RpcAddress> {
        match &self.target {
            TypedTarget::Local(_) => self.env.address.get().cloned(),
            TypedTarget::Remote(remote) => remote.address(),
        }
    }

    /// `aloha://name@host:port`.
    #[must_use]
    pub fn uri(&self) -> String {
        self.untyped().uri(&self.env)
    }

    fn untyped(&self) -> Target {
        match &self.target {
            TypedTarget::Local(inbox) => Target::Local(Arc::clone(inbox.name())),
            TypedTarget::Remote(remote) => Target::Remote(Arc::clone(remote)),
        }
    }

    pub(crate) fn env(&self) -> &Arc<EnvInner> {
        &self.env
    }

    pub(crate) fn inbox(&self) -> Option<&Arc<Inbox<M>>> {
        match &self.target {
            TypedTarget::Local(inbox) => Some(inbox),
            TypedTarget::Remote(_) => None,
        }
    }

    fn refused(&self, refused: Refused) -> SendError {
        let endpoint = self.uri();
        match refused {
            Refused::Stopped if self.env.is_stopped() => SendError::EnvironmentStopped { endpoint },
            Refused::Stopped => SendError::EndpointStopped { endpoint },
            Refused::Full => {
                let limit = self.inbox().map_or(0, |inbox| inbox.messages_max());
                SendError::InboxFull { endpoint, limit }
            }
        }
    }

    /// Waits for a place for one message: in the inbox of a local endpoint, in the queue to the peer of a
    /// remote one. Cancel safe.
    ///
    /// # Errors
    ///
    /// The endpoint is stopped or the connection has ended.
    pub async fn reserve(&self) -> Result<Permit<'_, M>, SendError> {
        match &self.target {
            TypedTarget::Local(inbox) => inbox
                .reserve()
                .await
                .map_err(|refused| self.refused(refused))?,
            TypedTarget::Remote(remote) => {
                let not_sent = |reason| SendError::Transport {
                    endpoint: self.uri(),
                    reason,
                };
                let link = remote
                    .link(&self.env, None)
                    .map_err(|error| not_sent(closed(error)))?;
                match link.client.room().await {
                    // The next message makes a new connection.
                    Ok(()) | Err(aloha_transport::SendError::Closed { .. }) => {}
                    Err(error) => return Err(not_sent(error)),
                }
            }
        }
        Ok(Permit {
            to: self,
            used: false,
        })
    }
}

impl<M: Serialize + Send + 'static> RpcEndpointRef<M> {
    /// Sends a message; no reply comes. It never waits: `Ok` says that the message is queued, in order
    /// behind all that this environment sent to the endpoint before.
    ///
    /// # Errors
    ///
    /// The message was not taken: the endpoint is known to be gone, the environment is shut down, or a bound
    /// is reached. For a remote endpoint, what happens after queuing shows nowhere: ask if you need to know.
    pub fn send(&self, message: M) -> Result<(), SendError> {
        self.post(Sent::OneWay, message)
    }

    /// Passes on a message with the call it carries: it is handled as if asked, and the answer goes
    /// to whoever asked first.
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send); the asker then gets a failure.
    pub fn forward(&self, message: M) -> Result<(), SendError> {
        self.post(Sent::Asked, message)
    }

    fn post(&self, sent: Sent, message: M) -> Result<(), SendError> {
        match &self.target {
            TypedTarget::Local(inbox) => inbox.post(sent, message).map_err(|(refused, message)| {
                drop(message);
                self.refused(refused)
            }),
            TypedTarget::Remote(remote) => {
                let envelope = Envelope {
                    asked: sent == Sent::Asked,
                    ..Envelope::default()
                };
                match self.transmit(remote, &message, None, envelope, Verb::OneWay) {
                    Ok(_) => Ok(()),
                    Err(AskError::NotSent(error)) => Err(error),
                    Err(error) => Err(SendError::Unencodable {
                        endpoint: self.uri(),
                        reason: error.to_string(),
                    }),
                }
            }
        }
    }

    /// Asks: `message` puts the call context it is given into the message. The message is queued now, not
    /// when the reply is awaited. The time limit is that of the environment, unless
    /// [`Ask::timeout`] or [`Ask::within`] says otherwise.
    ///
    /// # Examples
    ///
    /// ```
    /// # use aloha_rpc::*;
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize)] enum Hello { SayHi(String, RpcCallContext<String>) }
    /// # async fn example(hello: RpcEndpointRef<Hello>) -> Result<(), AskError> {
    /// let hi = hello.ask(|call| Hello::SayHi("WALL-E".into(), call)).await?;
    /// # Ok(()) }
    /// ```
    pub fn ask<R>(&self, message: impl FnOnce(RpcCallContext<R>) -> M) -> Ask<R> {
        self.ask_for(self.env.config.ask_timeout, message)
    }

    /// As [`ask`](Self::ask), with a time limit of its own.
    pub fn ask_for<R>(
        &self,
        timeout: Duration,
        message: impl FnOnce(RpcCallContext<R>) -> M,
    ) -> Ask<R> {
        let env = &self.env;
        let deadline = env.runtime.now().checked_add(timeout);
        match &self.target {
            TypedTarget::Local(inbox) => {
                let (reply, answer) = oneshot::channel();
                let message = message(RpcCallContext::local(reply, deadline, None));
                let target = Target::Local(Arc::clone(inbox.name()));
                match inbox.post(Sent::Asked, message) {
                    Ok(()) => Ask::local(
                        answer,
                        deadline.map(|at| (at, timeout)),
                        Arc::clone(env),
                        target,
                    ),
                    Err((refused, message)) => {
                        drop(message);
                        Ask::failed(
                            AskError::NotSent(self.refused(refused)),
                            Arc::clone(env),
                            target,
                        )
                    }
                }
            }
            TypedTarget::Remote(remote) => self.ask_remotely(remote, timeout, deadline, message),
        }
    }

    /// Asks and waits on this thread, which must not be one that runs async code.
    ///
    /// # Errors
    ///
    /// As for [`ask`](Self::ask).
    pub fn ask_blocking<R: DeserializeOwned>(
        &self,
        message: impl FnOnce(RpcCallContext<R>) -> M,
    ) -> Result<R, AskError> {
        self.ask(message).wait()
    }

    fn ask_remotely<R>(
        &self,
        remote: &Arc<RemoteTarget>,
        timeout: Duration,
        deadline: Option<Instant>,
        message: impl FnOnce(RpcCallContext<R>) -> M,
    ) -> Ask<R> {
        let token = self.env.next_token();
        let message = message(RpcCallContext::asking(token, deadline, None));
        let limit = deadline.map(|_| timeout);
        let envelope = Envelope {
            asked: true,
            time_left: limit,
            ..Envelope::default()
        };
        let target = Target::Remote(Arc::clone(remote));
        match self.transmit(
            remote,
            &message,
            Some(token),
            envelope,
            Verb::Request(limit),
        ) {
            Ok((Some(reply), link)) => Ask::remote(reply, link, Arc::clone(&self.env), target),
            Ok((None, _)) => unreachable!("a request has a reply"),
            Err(error) => Ask::failed(error, Arc::clone(&self.env), target),
        }
    }

    /// Encodes a message and queues it on the link in use, or on a new one when that is found broken.
    fn transmit(
        &self,
        remote: &RemoteTarget,
        message: &M,
        token: Option<u64>,
        mut envelope: Envelope<'_>,
        verb: Verb,
    ) -> Result<(Option<aloha_transport::ResponseFuture>, Arc<Link>), AskError> {
        let env = &self.env;
        let not_sent = |reason| {
            AskError::NotSent(SendError::Transport {
                endpoint: self.uri(),
                reason,
            })
        };
        let unencodable = |reason| {
            AskError::NotSent(SendError::Unencodable {
                endpoint: self.uri(),
                reason,
            })
        };
        if env.is_stopped() {
            return Err(AskError::NotSent(SendError::EnvironmentStopped {
                endpoint: self.uri(),
            }));
        }
        let mut link = remote
            .link(env, None)
            .map_err(|error| not_sent(closed(error)))?;
        if !link.client.is_active() {
            link = remote
                .link(env, Some(&link))
                .map_err(|error| not_sent(closed(error)))?;
        }
        let mut body = scope::take_scratch();
        let codec = env.config.codec;
        let (encoded, mut encoding) =
            scope::encoding(Encoding::message(Arc::clone(&link), token), || {
                codec.encode(message, &mut body)
            });
        encoded.map_err(|error| unencodable(error.to_string()))?;
        if token.is_some() && !encoding.claimed() {
            return Err(AskError::ContextMissing {
                endpoint: self.uri(),
            });
        }
        envelope.calls = encoding.commit(env).map_err(unencodable)?;
        let mut head = HEADS.take();
        head.clear();
        let calls = envelope.calls.clone();
        let mut number = remote.known(&link);
        let was_known = number.is_some();
        let queued = link.post(
            verb,
            &remote.name,
            &mut number,
            envelope,
            &mut head,
            &mut body,
        );
        HEADS.set(head);
        scope::keep_scratch(body);
        match queued {
            Ok(reply) => {
                if let (false, Some(number)) = (was_known, number) {
                    remote.learn(&link, number);
                }
                Ok((reply, link))
            }
            Err(error) => {
                // The askers of the calls inside learn that their way ended here.
                calls.iter().for_each(|id| link.client.forget_id(*id));
                Err(not_sent(error))
            }
        }
    }
}

thread_local! {
    /// Envelopes are written here before they go into the write queue.
    static HEADS: std::cell::Cell<Vec<u8>> = const { std::cell::Cell::new(Vec::new()) };
}

fn closed(error: ConnectError) -> aloha_transport::SendError {
    let peer = match &error {
        ConnectError::Closed { address } => Arc::clone(address),
        other => other.to_string().into(),
    };
    aloha_transport::SendError::Closed {
        peer,
        reason: aloha_transport::CloseReason::NotConnected(error),
    }
}

/// A place for one message. Dropped unused, it is free again.
#[must_use = "a permit that is dropped frees its place"]
pub struct Permit<'a, M> {
    to: &'a RpcEndpointRef<M>,
    used: bool,
}

impl<M: Serialize + Send + 'static> Permit<'_, M> {
    /// Sends the message that the place was for.
    ///
    /// # Errors
    ///
    /// The endpoint has stopped meanwhile, or the connection does not take the message.
    pub fn send(mut self, message: M) -> Result<(), SendError> {
        let Some(inbox) = self.to.inbox() else {
            return self.to.send(message);
        };
        self.used = true;
        inbox
            .post_reserved(Sent::OneWay, message)
            .map_err(|(refused, message)| {
                drop(message);
                self.to.refused(refused)
            })
    }
}

impl<M> Drop for Permit<'_, M> {
    fn drop(&mut self) {
        if let (false, Some(inbox)) = (self.used, self.to.inbox()) {
            inbox.release();
        }
    }
}

impl<M> fmt::Debug for Permit<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("to", self.to).finish()
    }
}

impl<M> Clone for RpcEndpointRef<M> {
    fn clone(&self) -> Self {
        let target = match &self.target {
            TypedTarget::Local(inbox) => TypedTarget::Local(Arc::clone(inbox)),
            TypedTarget::Remote(remote) => TypedTarget::Remote(Arc::clone(remote)),
        };
        Self {
            env: Arc::clone(&self.env),
            target,
        }
    }
}

impl<M> fmt::Debug for RpcEndpointRef<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RpcEndpointRef({})", self.uri())
    }
}

/// References are equal when they name the same endpoint at the same address.
impl<M> PartialEq for RpcEndpointRef<M> {
    fn eq(&self, other: &Self) -> bool {
        match (&self.target, &other.target) {
            (TypedTarget::Local(one), TypedTarget::Local(two)) => Arc::ptr_eq(one, two),
            _ => self.name() == other.name() && self.address() == other.address(),
        }
    }
}

impl<M> Eq for RpcEndpointRef<M> {}

impl<M> Hash for RpcEndpointRef<M> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
        self.address().hash(state);
    }
}

/// A reference on the wire.
#[derive(Serialize, Deserialize)]
enum Encoded {
    /// An endpoint of an environment that listens.
    At(RpcAddress, String),
    /// An endpoint of the environment that sends this.
    Sender(String),
    /// An endpoint of the environment that receives this.
    Receiver(String),
}

impl<M> Serialize for RpcEndpointRef<M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let link = scope::receiver().map_err(S::Error::custom)?;
        let name = self.name().to_owned();
        let encoded = match &self.target {
            TypedTarget::Local(_) => match self.env.address.get() {
                Some(address) => Encoded::At(address.clone(), name),
                None => Encoded::Sender(name),
            },
            TypedTarget::Remote(remote) => match &remote.route {
                Route::Address(outbox) => Encoded::At(outbox.address().clone(), name),
                Route::Peer(peer) if peer.id() == link.id() => Encoded::Receiver(name),
                Route::Peer(_) => {
                    return Err(S::Error::custom(format!(
                        "{} does not listen, so a reference to it cannot be passed on",
                        self.uri()
                    )));
                }
            },
        };
        encoded.serialize(serializer)
    }
}

impl<'de, M: Send + 'static> Deserialize<'de> for RpcEndpointRef<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (env, link) = scope::sender().map_err(D::Error::custom)?;
        let local = |env: &Arc<EnvInner>, name: &str| {
            let found = env
                .dispatcher
                .find(name)
                .and_then(|found| downcast(found.mailbox.as_any()));
            found.map(|inbox| TypedTarget::Local(inbox))
        };
        let target = match Encoded::deserialize(deserializer)? {
            Encoded::At(address, name) if env.address.get() == Some(&address) => {
                let outbox = || Route::Address(env.outbox(&address));
                local(&env, &name).unwrap_or_else(|| {
                    TypedTarget::Remote(RemoteTarget::new(name.into(), outbox()))
                })
            }
            Encoded::At(address, name) => {
                let route = Route::Address(env.outbox(&address));
                TypedTarget::Remote(RemoteTarget::new(name.into(), route))
            }
            Encoded::Sender(name) => {
                TypedTarget::Remote(RemoteTarget::new(name.into(), Route::Peer(link)))
            }
            Encoded::Receiver(name) => local(&env, &name).ok_or_else(|| {
                D::Error::custom(format!("a reference to endpoint {name}, which is not here"))
            })?,
        };
        Ok(Self { env, target })
    }
}

pub(crate) fn downcast<M: Send + 'static>(
    mailbox: Arc<dyn Any + Send + Sync>,
) -> Option<Arc<Inbox<M>>> {
    mailbox.downcast().ok()
}
