//! A call that came from elsewhere is no call of this ask: whose reply would be awaited?

use aloha_rpc::{AskError, RpcCallContext, RpcEndpointRef};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
enum Hello {
    SayHi(String, RpcCallContext<String>),
}

/// To pass a call on is `forward`.
async fn passed_on(
    other: RpcEndpointRef<Hello>,
    call: RpcCallContext<String>,
) -> Result<(), AskError> {
    other.ask(|_| Hello::SayHi("WALL-E".into(), call)).await?;
    Ok(())
}

/// The reply of such an ask would be of no type at all.
async fn passed_on_unseen(other: RpcEndpointRef<Hello>, call: RpcCallContext<String>) {
    drop(other.ask(|_| Hello::SayHi("WALL-E".into(), call)).await);
}

fn main() {}
