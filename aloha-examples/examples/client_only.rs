//! An environment without a port: it asks, and is asked back over the connection that it made.
//!
//! `cargo run -p aloha-examples --example client_only` prints, with ports of its own,
//!
//! ```text
//! the client listens at None
//! server: 127.0.0.1:50000 is connected
//! server: the client is asked back
//! client: the server has our name
//! client: our order was taken for WALL-E
//! server: 127.0.0.1:50000 has gone
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::sync::Arc;

use aloha_rpc::{
    EndpointContext, EndpointError, RpcAddress, RpcCallContext, RpcEndpoint, RpcEndpointRef, RpcEnv,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

#[derive(Debug, Serialize, Deserialize)]
enum ToServer {
    Order(RpcEndpointRef<ToClient>, RpcCallContext<String>),
}

#[derive(Debug, Serialize, Deserialize)]
enum ToClient {
    WhoAreYou(RpcCallContext<String>),
}

struct Server {
    alone: Arc<Notify>,
}

impl RpcEndpoint for Server {
    type Message = ToServer;

    async fn receive_and_reply(
        &mut self,
        ToServer::Order(client, call): ToServer,
        _: &EndpointContext<ToServer>,
    ) -> Result<(), EndpointError> {
        println!("server: the client is asked back");
        // No longer than the client itself waits.
        let name = client.ask(ToClient::WhoAreYou).within(&call).await?;
        call.reply(format!("our order was taken for {name}"));
        Ok(())
    }

    async fn on_connected(
        &mut self,
        remote: &RpcAddress,
        _: &EndpointContext<ToServer>,
    ) -> Result<(), EndpointError> {
        println!("server: {remote} is connected");
        Ok(())
    }

    async fn on_disconnected(
        &mut self,
        remote: &RpcAddress,
        _: &EndpointContext<ToServer>,
    ) -> Result<(), EndpointError> {
        println!("server: {remote} has gone");
        self.alone.notify_one();
        Ok(())
    }
}

struct Client;

impl RpcEndpoint for Client {
    type Message = ToClient;

    async fn receive_and_reply(
        &mut self,
        ToClient::WhoAreYou(call): ToClient,
        _: &EndpointContext<ToClient>,
    ) -> Result<(), EndpointError> {
        println!("client: the server has our name");
        call.reply("WALL-E".to_owned());
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = RpcEnv::builder("server")
        .bind("127.0.0.1:0")
        .start()
        .await?;
    let alone = Arc::new(Notify::new());
    let shop = Server {
        alone: Arc::clone(&alone),
    };
    server.setup_endpoint("shop", shop)?;

    let client = RpcEnv::client("client").await?;
    println!("the client listens at {:?}", client.address());
    let myself = client.setup_endpoint("myself", Client)?;
    let address = server.address().expect("it listens");
    let shop: RpcEndpointRef<ToServer> = client.retrieve_endpoint_ref(address, "shop").await?;
    let answer = shop.ask(|call| ToServer::Order(myself, call)).await?;
    println!("client: {answer}");

    client.shutdown().await;
    alone.notified().await;
    server.shutdown().await;
    Ok(())
}
