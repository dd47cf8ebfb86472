//! What ends in time: requests at their deadlines, connections to peers that vanished. After Spark's
//! `RequestTimeoutIntegrationSuite`; there the connection has one clock, here each request has its own deadline.
#![expect(clippy::disallowed_methods, reason = "tests look at the paused clock")]

use std::sync::Arc;
use std::time::Duration;

use aloha_transport::testing::{MemoryNetwork, SimConditions, SimNetwork};
use aloha_transport::{
    CloseReason, Network, RequestError, RpcHandler, RpcResponseCallback, TransportClient,
    TransportConfig, TransportContext, TransportServer,
};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Answers, but not to what starts with `n`.
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

fn context(network: &SimNetwork, host: &str, config: TransportConfig) -> TransportContext {
    TransportContext::new(host, Echo)
        .network(network.host(host))
        .config(config)
}

/// Two hosts, `a` connected to `b`.
async fn hosts(
    config: TransportConfig,
) -> (
    SimNetwork,
    TransportServer,
    TransportContext,
    TransportClient,
) {
    let network = SimNetwork::new(7);
    let server = context(&network, "b", config.clone());
    let server = server.create_server("b:1").await.expect("a free port");
    let caller = context(&network, "a", config);
    let client = caller.create_client_factory().create_client("b:1").await;
    (network, server, caller, client.expect("it listens"))
}

fn pings(interval: Duration, timeout: Duration) -> TransportConfig {
    TransportConfig {
        ping_interval: Some(interval),
        ping_timeout: Some(timeout),
        ..TransportConfig::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_quick_reply_comes_and_a_silent_request_ends_at_its_own_deadline() {
    let (_network, _server, _caller, client) = hosts(TransportConfig::default()).await;
    let start = Instant::now();
    let silent = client.send_rpc(b"never", 3 * SECOND);
    let sooner = client.send_rpc(b"never", 2 * SECOND);
    assert_eq!(
        client.send_rpc(b"quick", SECOND).await.expect("a reply"),
        "quick"
    );
    for (request, seconds) in [(sooner, 2), (silent, 3)] {
        let error = request.await.expect_err("no reply");
        assert!(matches!(error, RequestError::TimedOut { .. }), "{error}");
        assert_eq!(start.elapsed().as_secs(), seconds);
    }
    assert!(client.is_active(), "the connection has done no wrong");
}

#[tokio::test(start_paused = true)]
async fn requests_of_many_connections_end_each_at_its_deadline_in_order() {
    let network = Arc::new(MemoryNetwork::default());
    let context = TransportContext::new("test", Echo).network(network);
    let server = context.create_server("b:0").await.expect("a free port");
    let factories: Vec<_> = (0..50).map(|_| context.create_client_factory()).collect();
    let start = Instant::now();
    let mut requests = tokio::task::JoinSet::new();
    for (n, factory) in factories.iter().enumerate() {
        let client = factory.create_client(server.address()).await;
        let after = MS * (10_000 - 100 * n as u32);
        let request = client.expect("it listens").send_rpc(b"never", after);
        requests.spawn(async move { (request.await.is_err(), after) });
    }
    let mut ended = Vec::new();
    while let Some(Ok((failed, after))) = requests.join_next().await {
        assert!(failed);
        assert!(start.elapsed() >= after && start.elapsed() < after + 20 * MS);
        ended.push(after);
    }
    assert_eq!(ended.len(), 50);
    assert!(ended.is_sorted());
}

#[tokio::test(start_paused = true)]
async fn a_context_whose_connections_have_ended_has_nothing_left_to_wait_for() {
    let (_network, server, caller, client) = hosts(TransportConfig::default()).await;
    client.close();
    client.closed().await;
    drop(server);
    let closed = tokio::time::timeout(SECOND, caller.wait_closed()).await;
    closed.expect("no task is left, and no timer");
}

#[tokio::test(start_paused = true)]
async fn a_peer_whose_network_vanished_is_found_in_time_and_all_that_waited_fails_together() {
    let (network, _server, _caller, client) = hosts(pings(15 * SECOND, 10 * SECOND)).await;
    let replied = client.send_rpc(b"quick", SECOND).await;
    replied.expect("a reply");
    network.partition("a", "b");
    let start = Instant::now();
    let waiting = [(); 3].map(|()| client.send_rpc(b"quick", HOUR));
    let mut ended = Vec::new();
    for request in waiting {
        let error = request.await.expect_err("nobody answers");
        let RequestError::ConnectionClosed { reason, .. } = error else {
            panic!("{error}");
        };
        assert!(
            matches!(reason, CloseReason::Silent { silence } if silence == 25 * SECOND),
            "{reason}"
        );
        assert!(reason.to_string().contains("nothing was received for 25s"));
        ended.push(start.elapsed());
    }
    assert!(ended[0] <= 40 * SECOND, "two intervals and the time-out");
    assert!(ended.iter().all(|at| *at == ended[0]));
    assert!(!client.is_active());
}

#[tokio::test(start_paused = true)]
async fn after_a_silent_peer_was_given_up_the_factory_gives_a_new_client_that_works() {
    let config = pings(2 * SECOND, SECOND);
    let (network, server, caller, _client) = hosts(config).await;
    let factory = caller.create_client_factory();
    let client = factory.create_client(server.address()).await;
    let client = client.expect("it listens");
    network.partition("a", "b");
    let reason = client.closed().await;
    assert!(matches!(reason, CloseReason::Silent { .. }), "{reason}");
    network.heal("a", "b");
    let again = factory.create_client(server.address()).await;
    let again = again.expect("it listens");
    assert!(!again.same_connection(&client));
    let reply = again.send_rpc(b"quick", SECOND).await;
    assert_eq!(reply.expect("a reply"), "quick");
}

#[tokio::test(start_paused = true)]
async fn a_server_finds_callers_that_vanished() {
    let (network, server, _caller, _client) = hosts(pings(2 * SECOND, SECOND)).await;
    network.isolate("a");
    tokio::time::sleep(5 * SECOND).await;
    // Nobody is left to say goodbye to.
    let start = Instant::now();
    server.stop().await;
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_lives_is_kept_however_long_nothing_is_said() {
    let (_network, _server, _caller, client) = hosts(pings(2 * SECOND, SECOND)).await;
    let silent = tokio::time::timeout(HOUR, client.closed()).await;
    silent.expect_err("it answers pings");
    assert!(client.is_active());
}

#[tokio::test(start_paused = true)]
async fn without_pings_nobody_is_given_up() {
    let config = TransportConfig {
        ping_interval: Some(Duration::ZERO),
        ..TransportConfig::default()
    };
    let (network, _server, _caller, client) = hosts(config).await;
    network.partition("a", "b");
    let silent = tokio::time::timeout(24 * HOUR, client.closed()).await;
    silent.expect_err("nobody looks");
}

/// A process that is stopped: its system takes the bytes, and nobody reads them.
#[tokio::test(start_paused = true)]
async fn a_peer_that_stands_still_is_found_though_its_system_takes_what_is_written() {
    let network = Arc::new(MemoryNetwork::default());
    let mut listener = network.bind("b:1").await.expect("a free port");
    let context = TransportContext::new("a", Echo)
        .network(Arc::clone(&network) as _)
        .config(pings(2 * SECOND, SECOND));
    let client = context.create_client_factory().client("b:1");
    let client = client.expect("open");
    let mut peer = listener.accept().await.expect("it calls");
    let mut hello = [0; 24];
    peer.reader.read_exact(&mut hello).await.expect("a hello");
    hello[6] = 1;
    hello[9] = 1;
    peer.writer.write_all(&hello).await.expect("open");
    let asked = client.send_rpc(b"?", HOUR);
    let start = Instant::now();
    let error = asked.await.expect_err("it stands still");
    assert!(
        matches!(
            error,
            RequestError::ConnectionClosed {
                reason: CloseReason::Silent { .. },
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(start.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_slow_way_on_which_much_goes_out_is_no_silence() {
    let (network, _server, _caller, client) = hosts(pings(3 * SECOND, 3 * SECOND)).await;
    network.set_conditions(SimConditions {
        delay: SECOND / 2..=SECOND / 2,
        ..SimConditions::default()
    });
    let start = Instant::now();
    client.send(&vec![0; 12 << 20]).expect("room");
    let reply = client.send_rpc(b"quick", HOUR).await;
    assert_eq!(reply.expect("a reply"), "quick");
    assert!(
        start.elapsed() > 15 * SECOND,
        "longer than a silence may last: {:?}",
        start.elapsed()
    );
    // It is found all the same when it stops.
    network.partition("a", "b");
    client.send(&vec![0; 12 << 20]).expect("room");
    let start = Instant::now();
    let reason = client.closed().await;
    assert!(matches!(reason, CloseReason::Silent { .. }), "{reason}");
    assert!(start.elapsed() <= 12 * SECOND);
}
