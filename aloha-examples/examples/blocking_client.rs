//! Greets the `hello_world_server` from a program that is not async.
#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use aloha_examples::hello::{Hello, SERVICE, address};
use aloha_rpc::{RpcEndpointRef, RpcEnv};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The environment's own tasks run on this runtime; its thread is not ours.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let address = address().parse()?;
    let hello: RpcEndpointRef<Hello> = runtime.block_on(async {
        let env = RpcEnv::client("blocking-client").await?;
        Ok::<_, Box<dyn std::error::Error>>(env.retrieve_endpoint_ref(&address, SERVICE).await?)
    })?;
    println!(
        "{}",
        hello.ask_blocking(|call| Hello::SayHi("EVE".into(), call))?
    );
    Ok(())
}
