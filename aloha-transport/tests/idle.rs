//! Connections that nobody uses are closed by who made them, and none that anybody still needs.
#![expect(clippy::disallowed_methods, reason = "tests look at the paused clock")]

use std::sync::Arc;
use std::time::Duration;

use aloha_transport::testing::MemoryNetwork;
use aloha_transport::{
    Charge, CloseReason, INITIAL_CREDIT_BYTES, RpcHandler, RpcResponseCallback, TransportClient,
    TransportClientFactory, TransportConfig, TransportContext, TransportServer,
};
use bytes::Bytes;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Answers what it is asked, but not what starts with `n`.
#[derive(Debug)]
struct Echo;

impl RpcHandler for Echo {
    fn receive(&self, _: &TransportClient, message: Bytes, callback: RpcResponseCallback) {
        if message.starts_with(b"n") {
            tokio::spawn(async move { callback.cancelled().await });
        } else {
            callback.on_success(&message);
        }
    }
}

async fn joined() -> (TransportServer, TransportClientFactory, TransportClient) {
    let config = TransportConfig {
        idle_timeout: Some(SECOND),
        ping_interval: Some(SECOND / 10),
        ..TransportConfig::default()
    };
    let context = TransportContext::new("test", Echo)
        .network(Arc::new(MemoryNetwork::default()))
        .config(config);
    let server = context.create_server("server:0").await;
    let server = server.expect("a free port");
    let factory = context.create_client_factory();
    let client = factory.create_client(server.address()).await;
    (server, factory, client.expect("it listens"))
}

async fn stays(client: &TransportClient) {
    let ended = tokio::time::timeout(HOUR, client.closed()).await;
    ended.expect_err("somebody needs it");
    assert!(client.is_active());
}

/// How long from now on, and why.
async fn ends_after(client: &TransportClient) -> Duration {
    let start = Instant::now();
    let reason = tokio::time::timeout(HOUR, client.closed()).await;
    let reason = reason.expect("nobody needs it");
    assert!(matches!(reason, CloseReason::Local), "{reason}");
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_after_its_time_and_the_factory_makes_a_new_one() {
    let (server, factory, client) = joined().await;
    let after = ends_after(&client).await;
    assert!(
        after >= SECOND && after <= SECOND * 5 / 4,
        "pings are no use: {after:?}"
    );
    let again = factory.create_client(server.address()).await;
    let again = again.expect("it listens");
    assert!(!again.same_connection(&client));
    let reply = again.send_rpc(b"hello", SECOND).await;
    assert_eq!(reply.expect("a reply"), "hello");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_used_now_and_then_stays() {
    let (_server, _factory, client) = joined().await;
    for round in 0..100 {
        tokio::time::sleep(SECOND * 9 / 10).await;
        if round % 2 == 0 {
            client.send(b"still here").expect("open");
        } else {
            client.send_rpc(b"?", SECOND).await.expect("open");
        }
    }
    let after = ends_after(&client).await;
    assert!(after <= SECOND * 3 / 2, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn one_that_owes_or_is_owed_an_answer_stays() {
    let (_server, _factory, client) = joined().await;
    let asked = client.send_rpc(b"never", 10 * HOUR);
    stays(&client).await;
    // Its answer is due also after nobody waits any more.
    drop(asked);
    assert!(ends_after(&client).await >= SECOND);

    let (_server, _factory, client) = joined().await;
    let id = aloha_transport::RequestId::from_bits(3);
    let owed = client.callback(client.accept_id(id).expect("a free id"));
    stays(&client).await;
    owed.on_success(b"at last");
    assert!(ends_after(&client).await >= SECOND);
}

#[tokio::test(start_paused = true)]
async fn one_whose_credit_is_reserved_or_waited_for_stays() {
    let (_server, _factory, client) = joined().await;
    client.reserve(3).await.expect("credit");
    stays(&client).await;
    client.release(3);
    // A look may have found it in use a quarter before.
    assert!(ends_after(&client).await >= SECOND * 3 / 4);

    let (_server, _factory, client) = joined().await;
    let all = vec![0; INITIAL_CREDIT_BYTES as usize];
    let body = aloha_transport::Body::Copied(&all);
    client
        .one_way(Charge::Flow(3), &[], &body)
        .expect("so much is allowed");
    let waiting = client.clone();
    let waiting = tokio::spawn(async move { waiting.reserve(3).await });
    stays(&client).await;
    waiting.abort();
}

#[tokio::test(start_paused = true)]
async fn an_id_that_is_to_be_sent_inside_a_message_keeps_it() {
    let (_server, _factory, client) = joined().await;
    let id = client.reserve_id(|_| {}).expect("room");
    stays(&client).await;
    client.forget_id(id);
    let after = ends_after(&client).await;
    assert!(after <= SECOND * 3 / 2, "{after:?}");
}
