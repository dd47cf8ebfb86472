//! A call that came from elsewhere may be passed on only as what it is.

use aloha_rpc::{AskError, RpcCallContext, RpcEndpointRef, SendError};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
enum Hello {
    SayHi(String, RpcCallContext<String>),
    Count(RpcCallContext<u64>),
}

fn forwarded(other: RpcEndpointRef<Hello>, call: RpcCallContext<String>) -> Result<(), SendError> {
    other.forward(Hello::Count(call))
}

async fn asked(
    other: RpcEndpointRef<Hello>,
    call: RpcCallContext<String>,
) -> Result<u64, AskError> {
    other.ask(|_| Hello::Count(call)).await
}

/// The reply is that of the variant.
async fn awaited(other: RpcEndpointRef<Hello>) -> Result<u64, AskError> {
    other.ask(|call| Hello::SayHi("WALL-E".into(), call)).await
}

fn main() {}
