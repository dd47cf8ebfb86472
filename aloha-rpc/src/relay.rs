//! The way to endpoints that cannot be called: whoever passes on a reference to an endpoint of a client becomes its
//! relay.
//!
//! A relay is an endpoint with a name that nobody can guess. It decodes what it gets and sends it on, with the calls
//! inside passed on as in any other message, so that answers, cancels, deadlines, credit and the loss of either
//! connection go hop by hop. It watches the endpoint, and ends when that does or is out of reach.

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::debug;

use crate::context::EndpointContext;
use crate::dead_letter::DeadLetterReason;
use crate::endpoint::RpcEndpoint;
use crate::endpoint_ref::RpcEndpointRef;
use crate::env::{EnvInner, RpcEnv};
use crate::error::{EndpointError, SendError};
use crate::link::Link;
use crate::mail::{Discard, Sent, discard};
use crate::supervision::{Directive, Terminated, Termination};

/// What the names of relays begin with.
pub(crate) const NAME_PREFIX: &str = "relay-";

/// The relays of an environment: which leads where.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    names: Mutex<HashMap<Key, Arc<str>>>,
}

/// The connection to the client (0: an environment of this process), the endpoint's name, and its messages.
type Key = (u32, String, TypeId);

/// The name of the relay to an endpoint, set up now if there is none.
pub(crate) fn to<M: Serialize + DeserializeOwned + Send + 'static>(
    env: &Arc<EnvInner>,
    endpoint: &RpcEndpointRef<M>,
    client: Option<&Arc<Link>>,
) -> Result<String, String> {
    let link_id = client.map_or(0, |link| link.id());
    let key = (link_id, endpoint.uri(), TypeId::of::<M>());
    let known = {
        let names = env.relays.names.lock();
        let names = names.unwrap_or_else(PoisonError::into_inner);
        names.get(&key).cloned()
    };
    if let Some(known) = known.filter(|name| env.dispatcher.find(name).is_some()) {
        return Ok(known.to_string());
    }
    let name: Arc<str> = format!("{NAME_PREFIX}{:016x}", env.runtime.random_u64()).into();
    let relay = Relay {
        to: endpoint.clone(),
        key: key.clone(),
        env: env.this(),
        lost: false,
    };
    let names = env.relays.names.lock();
    names
        .unwrap_or_else(PoisonError::into_inner)
        .insert(key, Arc::clone(&name));
    RpcEnv::of(Arc::clone(env))
        .endpoint(name.to_string())
        .setup(relay)
        .map_err(|error| format!("cannot relay to {}: {error}", endpoint.uri()))?;
    Ok(name.to_string())
}

struct Relay<M> {
    to: RpcEndpointRef<M>,
    key: Key,
    env: Weak<EnvInner>,
    /// Whether the endpoint has ended, or the way to it is lost.
    lost: bool,
}

impl<M: Serialize + DeserializeOwned + Send + 'static> Relay<M> {
    async fn pass_on(&self, sent: Sent, message: M) -> Result<(), EndpointError> {
        let place = self.to.env().unless_stopped(self.to.reserve()).await;
        let passed = match place {
            Some(Ok(permit)) => permit.post(sent, message),
            Some(Err(error)) => Err((error, message)),
            None => {
                let endpoint = self.to.uri();
                Err((SendError::EnvironmentStopped { endpoint }, message))
            }
        };
        passed.map_err(|(error, message): (SendError, M)| {
            // The askers learn that it was lost on the way, not that an endpoint forgot them.
            discard(message, Discard::RelayLost);
            let receiver = self.to.uri().into();
            self.to
                .env()
                .dead_letter(&receiver, DeadLetterReason::NotTaken, 1);
            EndpointError::from(error)
        })
    }
}

impl<M: Serialize + DeserializeOwned + Send + 'static> RpcEndpoint for Relay<M> {
    type Message = M;

    async fn on_start(&mut self, ctx: &EndpointContext<M>) -> Result<(), EndpointError> {
        ctx.watch(&self.to);
        Ok(())
    }

    async fn receive(&mut self, message: M, _: &EndpointContext<M>) -> Result<(), EndpointError> {
        self.pass_on(Sent::OneWay, message).await
    }

    async fn receive_and_reply(
        &mut self,
        message: M,
        _: &EndpointContext<M>,
    ) -> Result<(), EndpointError> {
        self.pass_on(Sent::Asked, message).await
    }

    /// The relay ends as the endpoint did, so that whoever watches it hears the same.
    async fn on_terminated(
        &mut self,
        ended: &Terminated,
        ctx: &EndpointContext<M>,
    ) -> Result<(), EndpointError> {
        self.lost = true;
        match ended.reason.clone() {
            Termination::Failed { kind, text } => Err(EndpointError::new(kind, text)),
            Termination::Disconnected { reason } => {
                Err(EndpointError::new(EndpointError::DISCONNECTED, reason))
            }
            Termination::Stopped | Termination::NotFound => {
                ctx.stop();
                Ok(())
            }
        }
    }

    async fn on_error(&mut self, error: EndpointError, ctx: &EndpointContext<M>) -> Directive {
        if self.lost {
            return Directive::Stop;
        }
        debug!(relay = ctx.self_ref().name(), %error, "a message was lost on its way");
        Directive::Resume
    }

    async fn on_stop(&mut self) -> Result<(), EndpointError> {
        if let Some(env) = self.env.upgrade() {
            let names = env.relays.names.lock();
            names
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&self.key);
        }
        Ok(())
    }
}
