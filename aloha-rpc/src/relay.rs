//! The way to endpoints that cannot be called: whoever passes on a reference to an endpoint of a client becomes its
//! relay.
//!
//! A relay is an endpoint with a name that nobody can guess. It decodes what it gets and sends it on, with the calls
//! inside passed on as in any other message, so that answers, cancels, deadlines, credit and the loss of either
//! connection go hop by hop. It lives as long as the connection to the client.

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::debug;

use crate::context::EndpointContext;
use crate::endpoint::RpcEndpoint;
use crate::endpoint_ref::RpcEndpointRef;
use crate::env::{EnvInner, RpcEnv};
use crate::error::{EndpointError, SendError};
use crate::inbox::{Discard, Mailbox, Sent, discard};
use crate::link::Link;
use crate::supervision::Directive;

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
    };
    let relay_ref = RpcEnv::of(Arc::clone(env))
        .endpoint(name.to_string())
        .setup(relay)
        .map_err(|error| format!("cannot relay to {}: {error}", endpoint.uri()))?;
    let names = env.relays.names.lock();
    names
        .unwrap_or_else(PoisonError::into_inner)
        .insert(key.clone(), Arc::clone(&name));
    let client = client.map(|link| link.client.clone());
    let ended = endpoint.inbox().map(|inbox| inbox.watch());
    let env = Arc::clone(env);
    Arc::clone(&env).spawn(async move {
        let way_lost = async {
            if let Some(client) = client {
                drop(client.closed().await);
            } else if let Some(ended) = ended {
                drop(ended.await);
            }
        };
        env.until_stopped(way_lost).await;
        RpcEnv::of(Arc::clone(&env)).stop(&relay_ref);
        let names = env.relays.names.lock();
        names.unwrap_or_else(PoisonError::into_inner).remove(&key);
    });
    Ok(name.to_string())
}

struct Relay<M> {
    to: RpcEndpointRef<M>,
}

impl<M: Serialize + DeserializeOwned + Send + 'static> Relay<M> {
    async fn pass_on(&self, sent: Sent, message: M) -> Result<(), EndpointError> {
        let passed = match self.to.reserve().await {
            Ok(permit) => permit.post(sent, message),
            Err(error) => Err((error, message)),
        };
        passed.map_err(|(error, message): (SendError, M)| {
            // The askers learn that it was lost on the way, not that an endpoint forgot them.
            discard(message, Discard::RelayLost);
            EndpointError::from(error)
        })
    }
}

impl<M: Serialize + DeserializeOwned + Send + 'static> RpcEndpoint for Relay<M> {
    type Message = M;

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

    async fn on_error(&mut self, error: EndpointError, ctx: &EndpointContext<M>) -> Directive {
        debug!(relay = ctx.self_ref().name(), %error, "a message was lost on its way");
        Directive::Resume
    }
}
