//! Answers greetings until Ctrl-C. `hello_world_client` asks it from another process.
#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use aloha_examples::hello::{Hello, SERVICE, address};
use aloha_rpc::{EndpointContext, EndpointError, RpcEndpoint, RpcEnv};

struct HelloEndpoint;

impl RpcEndpoint for HelloEndpoint {
    type Message = Hello;

    async fn receive_and_reply(
        &mut self,
        message: Hello,
        _: &EndpointContext<Hello>,
    ) -> Result<(), EndpointError> {
        match message {
            Hello::SayHi(name, call) => call.reply(format!("Aloha: {name}")),
            Hello::SayBye(name, call) => call.reply(format!("Bye :), {name}")),
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let env = RpcEnv::builder("hello-server")
        .bind(address())
        .start()
        .await?;
    env.setup_endpoint(SERVICE, HelloEndpoint)?;
    println!("ready {}", env.address().expect("it listens"));
    env.await_termination().await;
    Ok(())
}
