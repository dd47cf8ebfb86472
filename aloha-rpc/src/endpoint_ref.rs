//! References to endpoints: cheap to clone, typed by the endpoint's messages, fit to travel inside messages.

use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::address::RpcAddress;
use crate::ask::Ask;
use crate::call_context::RpcCallContext;
use crate::env::EnvInner;
use crate::error::{AskError, SendError};
use crate::inbox::{Inbox, Refused};
use crate::mail::{LocalMail, Sent};
use crate::outbox::Outbox;
use crate::permit::{Permit, Place};
use crate::target::{Posting, RemoteTarget, Route};
use crate::verifier::{self, Verify};

/// A reference to an endpoint, here or elsewhere, that takes messages of type `M`.
///
/// It may travel inside messages, to any environment. One to an endpoint of an environment that listens is its address.
/// One to an endpoint of a client works over the client's connection; passed on further, it leads through whoever passed
/// it on, who relays messages and answers for as long as both connections live.
pub struct RpcEndpointRef<M> {
    env: Arc<EnvInner>,
    target: TypedTarget<M>,
}

pub(crate) enum TypedTarget<M> {
    Local(Arc<Inbox<M>>),
    Remote(Arc<RemoteTarget>),
}

impl<M> RpcEndpointRef<M> {
    pub(crate) fn new(env: Arc<EnvInner>, target: TypedTarget<M>) -> Self {
        Self { env, target }
    }

    pub(crate) fn local(env: Arc<EnvInner>, inbox: Arc<Inbox<M>>) -> Self {
        Self::new(env, TypedTarget::Local(inbox))
    }

    pub(crate) fn remote(env: Arc<EnvInner>, outbox: Arc<Outbox>, name: Arc<str>) -> Self {
        let target = RemoteTarget::new(name, Route::Address(outbox));
        Self::new(env, TypedTarget::Remote(target))
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
        match &self.target {
            TypedTarget::Local(inbox) => self.env.uri_of(inbox.name()),
            TypedTarget::Remote(remote) => remote.uri(),
        }
    }

    pub(crate) fn env(&self) -> &Arc<EnvInner> {
        &self.env
    }

    pub(crate) fn target(&self) -> &TypedTarget<M> {
        &self.target
    }

    pub(crate) fn inbox(&self) -> Option<&Arc<Inbox<M>>> {
        match &self.target {
            TypedTarget::Local(inbox) => Some(inbox),
            TypedTarget::Remote(_) => None,
        }
    }

    /// The verifier of a remote endpoint's environment.
    pub(crate) fn verifier(&self) -> Option<RpcEndpointRef<Verify>> {
        match &self.target {
            TypedTarget::Local(_) => None,
            TypedTarget::Remote(remote) => Some(RpcEndpointRef::new(
                Arc::clone(&self.env),
                TypedTarget::Remote(remote.beside(verifier::NAME)),
            )),
        }
    }

    pub(crate) fn refused(&self, refused: Refused) -> SendError {
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

    /// Waits for a place for one message: in the inbox of a local endpoint; for a remote one, for credit that it gives
    /// and for room in the queue to it. Who waits first comes first at a local endpoint. Cancel safe.
    ///
    /// # Errors
    ///
    /// The endpoint is stopped or the connection cannot be made.
    pub async fn reserve(&self) -> Result<Permit<'_, M>, SendError> {
        match &self.target {
            TypedTarget::Local(inbox) => {
                inbox
                    .reserve()
                    .await
                    .map_err(|refused| self.refused(refused))?;
                Ok(Permit::local(self))
            }
            TypedTarget::Remote(remote) => {
                Ok(Permit::remote(self, remote.reserve(&self.env).await?))
            }
        }
    }
}

impl<M: Serialize + Send + 'static> RpcEndpointRef<M> {
    /// Sends a message; no reply comes. It never waits: `Ok` says that the message is queued, in order
    /// behind all that this environment sent to the endpoint before.
    ///
    /// # Errors
    ///
    /// The message was not taken: the endpoint is known to be gone, the environment is shut down, or a bound
    /// is reached ([`reserve`](Self::reserve) waits instead). For a remote endpoint, what happens after queuing shows
    /// nowhere but in the dead letters of either side: ask if you need to know.
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
        let trace = self.env.outgoing_trace();
        match &self.target {
            TypedTarget::Local(inbox) => {
                let mail = LocalMail::new(sent, message, trace);
                self.post_locally(inbox, mail)
                    .map_err(|(refused, message)| {
                        drop(message);
                        self.refused(refused)
                    })
            }
            TypedTarget::Remote(remote) => {
                let posting = Posting {
                    asked: sent == Sent::Asked,
                    trace: trace.as_deref().copied(),
                    ..Posting::default()
                };
                self.post_remotely(remote, &message, &posting)
            }
        }
    }

    pub(crate) fn post_remotely(
        &self,
        remote: &RemoteTarget,
        message: &M,
        posting: &Posting<'_>,
    ) -> Result<(), SendError> {
        match remote.transmit(&self.env, message, posting) {
            Ok(_) => Ok(()),
            Err(AskError::NotSent(error)) => Err(error),
            Err(error) => Err(SendError::Unencodable {
                endpoint: self.uri(),
                reason: error.to_string(),
            }),
        }
    }

    #[inline(always)]
    fn post_locally(&self, inbox: &Inbox<M>, mail: LocalMail<M>) -> Result<(), (Refused, M)> {
        let displaced = inbox.post(mail, self.env.observed_now())?;
        if !displaced.is_empty() {
            self.env.bury_displaced(inbox.name(), displaced);
        }
        Ok(())
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
        self.ask_with(Place::None, timeout, message)
    }

    pub(crate) fn ask_with<R>(
        &self,
        place: Place<M>,
        timeout: Duration,
        message: impl FnOnce(RpcCallContext<R>) -> M,
    ) -> Ask<R> {
        let env = &self.env;
        let deadline = env.runtime.now().checked_add(timeout);
        let trace = env.outgoing_trace();
        let for_context = trace.clone();
        match &self.target {
            TypedTarget::Local(inbox) => {
                let (reply, answer) = oneshot::channel();
                let message = message(RpcCallContext::local(reply, deadline, for_context));
                let mail = LocalMail::new(Sent::Asked, message, trace);
                let posted = match place {
                    Place::Local(place) => place.fill(mail, env),
                    Place::Remote(_) | Place::None => self.post_locally(inbox, mail),
                };
                match posted {
                    Ok(()) => {
                        // Without a limit it still ends with the environment.
                        let at = deadline.unwrap_or_else(|| env.runtime.now() + FAR_FUTURE);
                        let name = Arc::clone(inbox.name());
                        Ask::local(answer, (at, timeout), Arc::clone(env), name)
                    }
                    Err((refused, message)) => {
                        drop(message);
                        Ask::failed(self.refused(refused).into())
                    }
                }
            }
            TypedTarget::Remote(remote) => {
                let token = env.next_token();
                let message = message(RpcCallContext::asking(token, deadline, for_context));
                let posting = Posting {
                    asked: true,
                    ask: Some((token, deadline.map(|_| timeout))),
                    trace: trace.as_deref().copied(),
                    reserved: place.reserved(),
                };
                match remote.transmit(env, &message, &posting) {
                    Ok(transmitted) => {
                        place.spend();
                        Ask::remote(transmitted)
                    }
                    Err(error) => Ask::failed(error),
                }
            }
        }
    }

    /// As [`ask`](Self::ask), on behalf of another ask: with what is left of its time, which goes along to the endpoint.
    pub fn ask_within<R, T>(
        &self,
        call: &RpcCallContext<T>,
        message: impl FnOnce(RpcCallContext<R>) -> M,
    ) -> Ask<R> {
        let now = self.env.runtime.now();
        let timeout = call.time_left(now).unwrap_or(Duration::MAX);
        self.ask_for(timeout, message)
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

/// Later than anybody waits.
const FAR_FUTURE: Duration = Duration::from_secs(30 * 365 * 86_400);

pub(crate) fn downcast<M: Send + 'static>(
    mailbox: Arc<dyn Any + Send + Sync>,
) -> Option<Arc<Inbox<M>>> {
    mailbox.downcast().ok()
}
