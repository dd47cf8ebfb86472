//! A call is answered with what its asker waits for.

use aloha_rpc::{EndpointContext, EndpointError, RpcCallContext, RpcEndpoint};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
enum Hello {
    SayHi(String, RpcCallContext<String>),
}

struct HelloEndpoint;

impl RpcEndpoint for HelloEndpoint {
    type Message = Hello;

    async fn receive_and_reply(
        &mut self,
        message: Hello,
        _: &EndpointContext<Hello>,
    ) -> Result<(), EndpointError> {
        let Hello::SayHi(_, call) = message;
        call.reply(5);
        Ok(())
    }
}

fn main() {}
