//! Handlers move between threads while they wait.

use std::rc::Rc;

use aloha_rpc::{EndpointContext, EndpointError, RpcEndpoint};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
enum Hello {
    Note(String),
}

struct HelloEndpoint;

impl RpcEndpoint for HelloEndpoint {
    type Message = Hello;

    async fn receive(
        &mut self,
        message: Hello,
        _: &EndpointContext<Hello>,
    ) -> Result<(), EndpointError> {
        let Hello::Note(text) = message;
        let text = Rc::new(text);
        tokio::task::yield_now().await;
        drop(text);
        Ok(())
    }
}

fn main() {}
