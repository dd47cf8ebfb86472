//! A test of an endpoint of one's own on a simulated network: a partition that heals, and a run that can be had again.
//!
//! The counter must count each number once, although the asker asks again when it hears nothing. Waiting takes no
//! time: the clock jumps. In your own project this is a `#[test]`, and `aloha-rpc` a dev-dependency with the feature
//! `testing`.
//!
//! `cargo run -p aloha-examples --example simulation` prints
//!
//! ```text
//! 29 ms: the total is 1
//! 29 ms: the network is parted
//! 10029 ms: no reply, asked again
//! 20029 ms: no reply, asked again
//! 24038 ms: the total is 3
//! the same seed, the same run: true
//! another seed, another run: true
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::collections::BTreeSet;
use std::time::Duration;

use aloha_rpc::testing::Simulation;
use aloha_rpc::{
    AskError, EndpointContext, EndpointError, RpcCallContext, RpcEndpoint, RpcEndpointRef,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
enum Count {
    /// A number known to the asker, so that asking twice does no harm, and how much to add.
    Add(u32, u32, RpcCallContext<u32>),
}

#[derive(Default)]
struct Counter {
    seen: BTreeSet<u32>,
    total: u32,
}

impl RpcEndpoint for Counter {
    type Message = Count;

    async fn receive_and_reply(
        &mut self,
        Count::Add(id, number, call): Count,
        _: &EndpointContext<Count>,
    ) -> Result<(), EndpointError> {
        if self.seen.insert(id) {
            self.total += number;
        }
        call.reply(self.total);
        Ok(())
    }
}

/// What happened, and when.
fn run(seed: u64) -> Vec<String> {
    Simulation::run(seed, async |sim| {
        let (server, client) = (sim.env("server").await, sim.client("client").await);
        let began = client.runtime().now();
        let mut log = Vec::new();
        let mut note = |what: &str| {
            let elapsed = client.runtime().now() - began;
            log.push(format!("{} ms: {what}", elapsed.as_millis()));
        };
        server
            .setup_endpoint("counter", Counter::default())
            .expect("a new name");
        let address = server.address().expect("it listens");
        let counter = client.retrieve_endpoint_ref(address, "counter");
        let counter: RpcEndpointRef<Count> = counter.await.expect("it is there");
        let total = counter.ask(|call| Count::Add(1, 1, call)).await;
        note(&format!("the total is {}", total.expect("a reply")));

        sim.network().partition("server", "client");
        note("the network is parted");
        let network = sim.network().clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(24)).await;
            network.heal("server", "client");
        });
        let total = loop {
            let limit = Duration::from_secs(10);
            match counter.ask_for(limit, |call| Count::Add(2, 2, call)).await {
                Ok(total) => break total,
                Err(error @ AskError::TimedOut { .. }) if error.may_have_been_seen() => {
                    note("no reply, asked again");
                }
                Err(error) => panic!("{error}"),
            }
        };
        note(&format!("the total is {total}"));
        assert_eq!(total, 3, "each number counts once");

        client.shutdown().await;
        server.shutdown().await;
        log
    })
}

fn main() {
    let log = run(7);
    for line in &log {
        println!("{line}");
    }
    println!("the same seed, the same run: {}", run(7) == log);
    println!("another seed, another run: {}", run(8) != log);
}
