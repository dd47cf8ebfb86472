//! The protocol of the hello service: one enum, known to server and client.

use aloha_rpc::RpcCallContext;
use serde::{Deserialize, Serialize};

/// Everything that can be said to the hello service.
#[derive(Debug, Serialize, Deserialize)]
pub enum Hello {
    /// Answered with a greeting.
    SayHi(String, RpcCallContext<String>),
    /// Answered with a farewell.
    SayBye(String, RpcCallContext<String>),
}

/// The service's name in its environment.
pub const SERVICE: &str = "hello-service";
/// Where the server listens unless its first argument says otherwise.
pub const ADDRESS: &str = "127.0.0.1:52345";

/// The first argument, or [`ADDRESS`].
#[must_use]
pub fn address() -> String {
    std::env::args()
        .nth(1)
        .unwrap_or_else(|| ADDRESS.to_owned())
}
