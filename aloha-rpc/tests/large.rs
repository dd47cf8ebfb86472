//! A large message under way, and what others notice of it.
#![expect(clippy::disallowed_methods, reason = "tests measure")]

use std::time::{Duration, Instant};

use aloha_rpc::{
    EndpointContext, EndpointError, RpcCallContext, RpcConfig, RpcEndpoint, RpcEndpointRef, RpcEnv,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
enum Weigh {
    Bytes(#[serde(with = "serde_bytes")] Vec<u8>, RpcCallContext<u64>),
    Small(u64, RpcCallContext<u64>),
}

struct Scales;

impl RpcEndpoint for Scales {
    type Message = Weigh;

    async fn receive_and_reply(
        &mut self,
        message: Weigh,
        _: &EndpointContext<Weigh>,
    ) -> Result<(), EndpointError> {
        match message {
            Weigh::Bytes(bytes, call) => call.reply(bytes.len() as u64),
            Weigh::Small(number, call) => call.reply(number),
        }
        Ok(())
    }
}

fn config() -> RpcConfig {
    let mut config = RpcConfig::default();
    config.transport.frame_bytes_max = 512 << 20;
    config
}

async fn joined() -> (RpcEnv, RpcEnv) {
    let server = RpcEnv::builder("server")
        .config(config())
        .bind("127.0.0.1:0");
    let server = server.start().await.expect("a free port");
    let caller = RpcEnv::builder("caller").config(config()).start().await;
    (server, caller.expect("nothing to bind"))
}

async fn scales(server: &RpcEnv, caller: &RpcEnv, name: &str) -> RpcEndpointRef<Weigh> {
    server.setup_endpoint(name, Scales).expect("a free name");
    let address = server.address().expect("it listens");
    let found = caller.retrieve_endpoint_ref(address, name).await;
    found.expect("it is there")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
#[expect(clippy::print_stdout, reason = "a figure for whoever asks for it")]
async fn an_ask_to_another_endpoint_returns_at_once_while_256_mib_are_under_way() {
    let (server, caller) = joined().await;
    let heavy = scales(&server, &caller, "heavy").await;
    let light = scales(&server, &caller, "light").await;
    let bytes = vec![7; 256 << 20];
    let large = heavy.ask(|call| Weigh::Bytes(bytes, call));
    let mut large = tokio::spawn(large);
    let is_under_way = || {
        let connections = caller.snapshot().connections;
        connections.iter().any(|one| one.transfer_bytes > 0)
    };
    let (mut took, mut count) = (Vec::new(), 0);
    let weight = loop {
        let (asked, under_way) = (Instant::now(), is_under_way());
        let small = light.ask(|call| Weigh::Small(count, call));
        tokio::select! {
            biased;
            weight = &mut large => break weight,
            number = small => assert_eq!(number.expect("a reply"), count),
        }
        count += 1;
        if under_way {
            took.push(asked.elapsed());
        }
    };
    assert_eq!(weight.expect("no panic").expect("a reply"), 256 << 20);
    took.sort();
    let longest = took.last().copied().unwrap_or_default();
    let most = took.get(took.len() * 9 / 10).copied().unwrap_or_default();
    println!(
        "{count} small asks beside 256 MiB: nine of ten within {most:?}, all within {longest:?}"
    );
    assert!(count > 20, "{count}");
    // A machine with other work to do may hold up any single one.
    assert!(most < Duration::from_millis(50), "{most:?}");
    caller.shutdown().await;
    server.shutdown().await;
}

/// The first message to an endpoint introduces its name, and a large one lets those to others pass.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_may_be_introduced_by_messages_that_pass_each_other() {
    let (server, caller) = joined().await;
    let a = scales(&server, &caller, "a").await;
    let b = scales(&server, &caller, "b").await;
    let c = scales(&server, &caller, "c").await;
    for _ in 0..3 {
        let large = a.ask(|call| Weigh::Bytes(vec![7; 8 << 20], call));
        let middle = b.ask(|call| Weigh::Bytes(vec![7; 1 << 20], call));
        let small = c.ask(|call| Weigh::Small(5, call));
        assert_eq!(small.await.expect("a reply"), 5);
        assert_eq!(middle.await.expect("a reply"), 1 << 20);
        assert_eq!(large.await.expect("a reply"), 8 << 20);
    }
}
