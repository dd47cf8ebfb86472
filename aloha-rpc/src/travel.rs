//! How a reference stands in a message, and what becomes of it on arrival.

use std::sync::Arc;

use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::address::RpcAddress;
use crate::endpoint_ref::{RpcEndpointRef, TypedTarget, downcast};
use crate::env::EnvInner;
use crate::relay;
use crate::scope;
use crate::target::{RemoteTarget, Route};

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

/// As an endpoint of this environment is known to others.
fn of_this(env: &EnvInner, name: String) -> Encoded {
    match env.address.get() {
        Some(address) => Encoded::At(address.clone(), name),
        None => Encoded::Sender(name),
    }
}

impl<M: Serialize + DeserializeOwned + Send + 'static> Serialize for RpcEndpointRef<M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (env, link) = scope::receiver().map_err(S::Error::custom)?;
        let name = self.name().to_owned();
        let encoded = match self.target() {
            // Of another environment of this process: whoever receives this must be able to call it.
            TypedTarget::Local(_) if !Arc::ptr_eq(&env, self.env()) => {
                match self.env().address.get() {
                    Some(address) => Encoded::At(address.clone(), name),
                    None => of_this(&env, relay::to(&env, self, None).map_err(S::Error::custom)?),
                }
            }
            TypedTarget::Local(_) => of_this(&env, name),
            TypedTarget::Remote(remote) => match &remote.route {
                Route::Address(outbox) => Encoded::At(outbox.address().clone(), name),
                Route::Peer(peer) if peer.id() == link.id() => Encoded::Receiver(name),
                Route::Peer(peer) => of_this(
                    &env,
                    relay::to(&env, self, Some(peer)).map_err(S::Error::custom)?,
                ),
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
        Ok(Self::new(env, target))
    }
}
