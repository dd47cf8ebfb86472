//! Greets the `hello_world_server` in another process.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example talks to whoever runs it"
)]

use std::error::Error;
use std::process::ExitCode;

use aloha_examples::hello::{Hello, SERVICE, address};
use aloha_rpc::{RpcEndpointRef, RpcEnv};

#[tokio::main]
async fn main() -> ExitCode {
    match greet().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn greet() -> Result<(), Box<dyn Error>> {
    let env = RpcEnv::client("hello-client").await?;
    let hello: RpcEndpointRef<Hello> = env
        .retrieve_endpoint_ref(&address().parse()?, SERVICE)
        .await?;
    println!(
        "{}",
        hello
            .ask(|call| Hello::SayHi("WALL-E".into(), call))
            .await?
    );
    println!(
        "{}",
        hello
            .ask(|call| Hello::SayBye("WALL-E".into(), call))
            .await?
    );
    env.shutdown().await;
    Ok(())
}
