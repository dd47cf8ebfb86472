//! The transport without RPC: bytes in, bytes out.
#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::time::Duration;

use aloha_transport::{RpcHandler, RpcResponseCallback, TransportClient, TransportContext};
use bytes::Bytes;

/// Answers requests with their own bytes, and prints what wants no answer.
#[derive(Debug)]
struct Echo;

impl RpcHandler for Echo {
    fn receive(&self, _: &TransportClient, message: Bytes, callback: RpcResponseCallback) {
        callback.on_success(&message);
    }

    fn receive_one_way(&self, client: &TransportClient, message: Bytes) {
        println!(
            "{} says {:?}",
            client.peer(),
            String::from_utf8_lossy(&message)
        );
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let context = TransportContext::new("echo", Echo);
    let server = context.create_server("127.0.0.1:0").await?;
    let factory = context.create_client_factory();
    let client = factory.create_client(server.address()).await?;

    client.send(b"no answer needed")?;
    let reply = client.send_rpc(b"hello", Duration::from_secs(5)).await?;
    println!("{}", String::from_utf8_lossy(&reply));

    factory.close();
    server.stop().await;
    Ok(())
}
