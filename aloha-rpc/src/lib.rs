//! Actors addressed by name across processes.
//!
//! An [`RpcEndpoint`] handles one message at a time. Its messages are an ordinary serde enum, and a variant that
//! expects an answer carries an [`RpcCallContext`]: no interface language, no macro, and a reply of the
//! wrong type does not compile. Others reach it through an [`RpcEndpointRef`], in the same [`RpcEnv`],
//! where messages are moved, or over TCP, where they are encoded.
//!
//! ```text
//!   RpcEndpointRef ──local──► Inbox ──► endpoint task
//!         │                     ▲
//!         └─remote─► Outbox     │ Dispatcher: name → inbox
//!                      │        │
//!             TransportClient   TransportServer ◄── frames
//! ```
//!
//! # Examples
//!
//! ```
//! use aloha_rpc::{EndpointContext, EndpointError, RpcCallContext, RpcEndpoint, RpcEndpointRef, RpcEnv};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, Serialize, Deserialize)]
//! enum Hello {
//!     SayHi(String, RpcCallContext<String>),
//!     SayBye(String, RpcCallContext<String>),
//! }
//!
//! struct HelloEndpoint;
//!
//! impl RpcEndpoint for HelloEndpoint {
//!     type Message = Hello;
//!
//!     async fn receive_and_reply(&mut self, message: Hello, _: &EndpointContext<Hello>) -> Result<(), EndpointError> {
//!         match message {
//!             Hello::SayHi(name, call) => call.reply(format!("Aloha: {name}")),
//!             Hello::SayBye(name, call) => call.reply(format!("Bye :), {name}")),
//!         }
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = RpcEnv::builder("hello-server").bind("127.0.0.1:0").start().await?;
//! server.setup_endpoint("hello-service", HelloEndpoint)?;
//!
//! let client = RpcEnv::client("hello-client").await?;
//! let address = server.address().expect("it listens");
//! let hello: RpcEndpointRef<Hello> = client.retrieve_endpoint_ref(address, "hello-service").await?;
//! assert_eq!(hello.ask(|call| Hello::SayHi("WALL-E".into(), call)).await?, "Aloha: WALL-E");
//! # client.shutdown().await;
//! # server.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod address;
mod ask;
mod behavior;
mod call_context;
mod codec;
mod concurrent;
mod config;
mod context;
mod dead_letter;
mod deadlines;
mod dispatcher;
mod endpoint;
mod endpoint_ref;
mod env;
mod envelope;
mod error;
mod flow;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod group;
mod inbox;
mod link;
mod metrics;
mod outbox;
mod permit;
mod progress;
mod relay;
mod remote;
mod running;
mod schema;
mod scope;
mod setup;
mod supervision;
mod target;
mod timers;
mod topic;
mod trace;
mod travel;
mod verifier;
mod watch;

/// What a model checker exchanges for its own.
mod sync {
    pub(crate) use std::sync::atomic::{AtomicUsize, Ordering};
}

pub use address::{AddressError, EndpointAddress, RpcAddress};
pub use aloha_transport::{BindError, Network, Runtime, TokioRuntime, TransportConfig};
pub use ask::Ask;
pub use behavior::{Behavior, BehaviorEndpoint, Next};
pub use call_context::RpcCallContext;
pub use codec::{Codec, CodecError};
pub use concurrent::ConcurrentEndpoint;
pub use config::RpcConfig;
pub use context::{EndpointContext, StashFull};
pub use dead_letter::{DeadLetter, DeadLetterReason, DeadLetters};
pub use endpoint::RpcEndpoint;
pub use endpoint_ref::RpcEndpointRef;
pub use env::{RpcEnv, RpcEnvBuilder};
pub use error::{AskError, EndpointError, LookupError, SendError, SetupError, StartError};
pub use group::Group;
pub use inbox::Overflow;
pub use metrics::{ConnectionSnapshot, EndpointSnapshot, EnvSnapshot, Metrics};
pub use permit::Permit;
pub use setup::EndpointBuilder;
pub use supervision::{Directive, RestartPolicy, Terminated, Termination};
pub use timers::TimerKey;
pub use topic::{Publication, Subscription, Topic};
pub use trace::TraceContext;
pub use watch::Watch;

#[cfg(feature = "testing")]
pub mod testing;
