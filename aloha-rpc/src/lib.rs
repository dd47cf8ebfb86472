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
mod call_context;
mod codec;
mod config;
mod deadlines;
mod dispatcher;
mod endpoint;
mod endpoint_ref;
mod env;
mod envelope;
mod error;
mod inbox;
mod link;
mod outbox;
mod remote;
mod schema;
mod scope;
mod verifier;

pub use address::{AddressError, EndpointAddress, RpcAddress};
pub use aloha_transport::{BindError, Network, Runtime, TokioRuntime, TransportConfig};
pub use ask::Ask;
pub use call_context::RpcCallContext;
pub use codec::{Codec, CodecError};
pub use config::RpcConfig;
pub use endpoint::{Directive, EndpointContext, RpcEndpoint};
pub use endpoint_ref::{Permit, RpcEndpointRef};
pub use env::{RpcEnv, RpcEnvBuilder};
pub use envelope::TraceContext;
pub use error::{AskError, EndpointError, LookupError, SendError, SetupError, StartError};

/// Tools for tests of your own endpoints.
#[cfg(feature = "testing")]
pub mod testing {
    pub use aloha_transport::testing::MemoryNetwork;
}
