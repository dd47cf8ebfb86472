//! A large message under way, and small ones that pass it on the same connection.
#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use aloha_rpc::{
    EndpointContext, EndpointError, RpcCallContext, RpcConfig, RpcEndpoint, RpcEndpointRef, RpcEnv,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
enum Store {
    Keep(#[serde(with = "serde_bytes")] Vec<u8>, RpcCallContext<u64>),
}

#[derive(Debug, Serialize, Deserialize)]
enum Clock {
    Tick(RpcCallContext<u32>),
}

struct Stored;

impl RpcEndpoint for Stored {
    type Message = Store;

    async fn receive(
        &mut self,
        Store::Keep(bytes, call): Store,
        _: &EndpointContext<Store>,
    ) -> Result<(), EndpointError> {
        call.reply(bytes.len() as u64);
        Ok(())
    }
}

struct Ticks(u32);

impl RpcEndpoint for Ticks {
    type Message = Clock;

    async fn receive(
        &mut self,
        Clock::Tick(call): Clock,
        _: &EndpointContext<Clock>,
    ) -> Result<(), EndpointError> {
        self.0 += 1;
        call.reply(self.0);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Both ends must take messages of that size.
    let mut config = RpcConfig::default();
    config.transport.frame_bytes_max = 512 << 20;
    config.transport.outbound_bytes_max = 512 << 20;
    let server = RpcEnv::builder("server")
        .config(config.clone())
        .bind("127.0.0.1:0")
        .start()
        .await?;
    server.setup_endpoint("store", Stored)?;
    server.setup_endpoint("clock", Ticks(0))?;
    let address = server.address().ok_or("it listens")?;
    let client = RpcEnv::builder("client").config(config).start().await?;
    let store: RpcEndpointRef<Store> = client.retrieve_endpoint_ref(address, "store").await?;
    let clock: RpcEndpointRef<Clock> = client.retrieve_endpoint_ref(address, "clock").await?;

    let mut kept = store.ask(|call| Store::Keep(vec![7; 256 << 20], call));
    let mut ticks = 0;
    let bytes = loop {
        tokio::select! {
            biased;
            bytes = &mut kept => break bytes?,
            tick = clock.ask(Clock::Tick) => ticks = tick?,
        }
    };
    println!(
        "{bytes} bytes kept, {} ticks meanwhile",
        if ticks > 1 { "many" } else { "no" }
    );

    client.shutdown().await;
    server.shutdown().await;
    Ok(())
}
