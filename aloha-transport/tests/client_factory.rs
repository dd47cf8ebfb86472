//! What the factory of clients promises. After Spark's `TransportClientFactorySuite`; the numbers are its.
#![expect(clippy::disallowed_methods, reason = "tests look at the paused clock")]

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aloha_transport::testing::{MemoryNetwork, SimNetwork, SimRuntime};
use aloha_transport::{
    ConnectError, Listener, Network, RequestError, RpcHandler, RpcResponseCallback, Stream,
    TransportClient, TransportConfig, TransportContext, TransportServer,
};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

#[derive(Debug)]
struct Echo;

impl RpcHandler for Echo {
    fn receive(&self, _: &TransportClient, message: Bytes, callback: RpcResponseCallback) {
        callback.on_success(&message);
    }
}

/// A network in memory that counts who calls, and refuses while it is told to.
#[derive(Debug, Default)]
struct Counting {
    network: MemoryNetwork,
    calls: AtomicUsize,
    down: Mutex<bool>,
}

#[async_trait]
impl Network for Counting {
    async fn connect(&self, address: &str) -> io::Result<Stream> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        // Long enough for others to ask meanwhile.
        tokio::time::sleep(Duration::from_millis(1)).await;
        if *self.down.lock().expect("no panic under it") {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        self.network.connect(address).await
    }

    async fn bind(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        self.network.bind(address).await
    }
}

impl Counting {
    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    fn set_down(&self, down: bool) {
        *self.down.lock().expect("no panic under it") = down;
    }
}

async fn served(config: TransportConfig) -> (Arc<Counting>, TransportContext, TransportServer) {
    let network = Arc::new(Counting::default());
    let context = TransportContext::new("test", Echo)
        .network(Arc::clone(&network) as _)
        .config(config);
    let server = context.create_server("server:0").await;
    (network, context, server.expect("a free port"))
}

fn per_peer(connections: usize) -> TransportConfig {
    TransportConfig {
        connections_per_peer: connections,
        ..TransportConfig::default()
    }
}

/// How many connections the clients have among them.
fn distinct(clients: &[TransportClient]) -> usize {
    let mut different: Vec<&TransportClient> = Vec::new();
    for client in clients {
        if !different.iter().any(|known| known.same_connection(client)) {
            different.push(client);
        }
    }
    different.len()
}

#[tokio::test(start_paused = true)]
async fn one_after_the_other_there_are_so_many_connections_per_peer_and_no_more() {
    for connections in 1..=4 {
        let (network, context, server) = served(per_peer(connections)).await;
        let factory = context.create_client_factory();
        let mut clients = Vec::new();
        for _ in 0..10 * connections {
            let client = factory.create_client(server.address()).await;
            clients.push(client.expect("it listens"));
        }
        assert_eq!(distinct(&clients), connections);
        assert_eq!(network.calls(), connections);
    }
}

#[tokio::test(start_paused = true)]
async fn many_at_once_share_the_attempts_and_none_fails() {
    for connections in 1..=4 {
        let (network, context, server) = served(per_peer(connections)).await;
        let factory = Arc::new(context.create_client_factory());
        let mut creators = tokio::task::JoinSet::new();
        for _ in 0..10 * connections {
            let (factory, address) = (Arc::clone(&factory), server.address().to_owned());
            creators.spawn(async move { factory.create_client(&address).await });
        }
        let clients = creators.join_all().await;
        let clients: Result<Vec<_>, _> = clients.into_iter().collect();
        assert_eq!(distinct(&clients.expect("it listens")), connections);
        assert_eq!(network.calls(), connections);
    }
}

#[tokio::test(start_paused = true)]
async fn one_key_always_leads_to_the_same_connection() {
    let (_network, context, server) = served(per_peer(3)).await;
    let factory = context.create_client_factory();
    let at = |key| factory.client_at(server.address(), key).expect("open");
    let first: Vec<_> = (0..3).map(at).collect();
    assert_eq!(distinct(&first), 3);
    for key in 0..12 {
        assert!(at(key).same_connection(&first[key % 3]));
    }
    first[1].close();
    assert!(at(0).same_connection(&first[0]));
    assert!(!at(1).same_connection(&first[1]) && at(1).is_active());
}

#[tokio::test(start_paused = true)]
async fn different_servers_get_different_clients() {
    let (_network, context, server) = served(TransportConfig::default()).await;
    let other = context.create_server("other:0").await.expect("a free port");
    let factory = context.create_client_factory();
    let one = factory.create_client(server.address()).await;
    let two = factory.create_client(other.address()).await;
    let (one, two) = (one.expect("it listens"), two.expect("it listens"));
    assert!(!one.same_connection(&two));
    assert!(one.is_active() && two.is_active());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_not_active_is_never_given_out() {
    let (_network, context, server) = served(per_peer(2)).await;
    let factory = context.create_client_factory();
    for round in 0..20 {
        let client = factory.client(server.address()).expect("open");
        assert!(client.is_active());
        client.connected().await.expect("it listens");
        match round % 3 {
            0 => client.close(),
            1 => client.abort("on purpose"),
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn closing_the_factory_closes_its_clients_and_makes_no_more() {
    let (_network, context, server) = served(per_peer(2)).await;
    let factory = context.create_client_factory();
    let mut clients = Vec::new();
    for _ in 0..2 {
        let client = factory.create_client(server.address()).await;
        clients.push(client.expect("it listens"));
    }
    factory.close();
    for client in &clients {
        client.closed().await;
        assert!(!client.is_active());
    }
    let refused = factory.create_client(server.address()).await;
    let error = refused.expect_err("closed");
    assert!(matches!(error, ConnectError::Closed { .. }), "{error}");
    assert!(matches!(
        factory.client(server.address()),
        Err(ConnectError::Closed { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn a_second_attempt_within_the_window_fails_at_once_and_says_why_and_when() {
    let (network, context, server) = served(TransportConfig::default()).await;
    network.set_down(true);
    let factory = context.create_client_factory();
    let first = factory.create_client(server.address()).await;
    let first = first.expect_err("it is down");
    assert!(matches!(first, ConnectError::Io { .. }), "{first}");
    let start = Instant::now();
    let second = factory.create_client(server.address()).await;
    let second = second.expect_err("the window is not over");
    assert_eq!((start.elapsed(), network.calls()), (Duration::ZERO, 1));
    let words = second.to_string();
    let ConnectError::FastFail {
        address,
        retry_in,
        cause,
    } = second
    else {
        panic!("{second}");
    };
    assert_eq!(&*address, server.address());
    assert!(retry_in > 20 * Duration::from_millis(1) && retry_in <= Duration::from_millis(50));
    assert!(matches!(*cause, ConnectError::Io { .. }), "{cause}");
    assert!(words.contains(&cause.to_string()) && words.contains(&format!("{retry_in:?}")));
    // Also what was asked meanwhile fails at once, and as if the attempt had been made.
    let client = factory.client(server.address()).expect("open");
    let error = client.send_rpc(b"?", HOUR).await.expect_err("down");
    let fast = matches!(
        error,
        RequestError::NotConnected(ConnectError::FastFail { .. })
    );
    assert!(fast, "{error}");
    // Others are not concerned.
    let other = factory.create_client("nowhere:1").await.expect_err("down");
    assert!(matches!(other, ConnectError::Io { .. }), "{other}");

    tokio::time::sleep(retry_in).await;
    network.set_down(false);
    let third = factory.create_client(server.address()).await;
    third.expect("the window is over");
}

#[tokio::test(start_paused = true)]
async fn the_window_grows_with_each_failure_and_a_success_ends_that() {
    let (network, context, server) = served(TransportConfig::default()).await;
    network.set_down(true);
    let factory = context.create_client_factory();
    let wait = async || match factory.create_client(server.address()).await {
        Err(ConnectError::FastFail { retry_in, .. }) => retry_in,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it is down"),
    };
    let mut longest = Duration::ZERO;
    for n in 0..12 {
        let attempt = factory.create_client(server.address()).await;
        assert!(matches!(attempt, Err(ConnectError::Io { .. })), "{n}");
        let window = wait().await;
        let whole = Duration::from_millis(50 << n).min(5 * SECOND);
        assert!(window <= whole && window >= whole / 2, "{n}: {window:?}");
        longest = longest.max(window);
        tokio::time::sleep(window).await;
    }
    assert!(longest > 2 * SECOND);
    network.set_down(false);
    let client = factory.create_client(server.address()).await;
    client.expect("it is up").abort("on purpose");
    network.set_down(true);
    let attempt = factory.create_client(server.address()).await;
    assert!(matches!(attempt, Err(ConnectError::Io { .. })));
    assert!(wait().await <= Duration::from_millis(50));
}

#[tokio::test(start_paused = true)]
async fn the_windows_of_those_who_failed_together_differ() {
    let mut windows = BTreeSet::new();
    for seed in 0..10 {
        let network = SimNetwork::new(seed);
        let runtime = Arc::new(SimRuntime::new(seed));
        let context = TransportContext::with_handlers("test", runtime, |_| unreachable!("nobody"));
        let factory = context.network(network.host("a")).create_client_factory();
        factory.create_client("b:1").await.expect_err("nobody");
        match factory.create_client("b:1").await {
            Err(ConnectError::FastFail { retry_in, .. }) => windows.insert(retry_in),
            other => panic!("{other:?}"),
        };
    }
    assert_eq!(windows.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn without_limits_a_connection_stays_and_a_refused_one_still_fails() {
    let config = TransportConfig {
        connect_timeout: Duration::MAX,
        handshake_timeout: Duration::MAX,
        ping_interval: None,
        ping_timeout: None,
        reconnect_backoff_min: Duration::ZERO,
        ..TransportConfig::default()
    };
    let (network, context, server) = served(config).await;
    let factory = context.create_client_factory();
    let client = factory.create_client(server.address()).await;
    let client = client.expect("it listens");
    let ended = tokio::time::timeout(24 * HOUR, client.closed()).await;
    ended.expect_err("nothing ends it");
    let again = factory.create_client(server.address()).await;
    assert!(again.expect("it listens").same_connection(&client));
    network.set_down(true);
    for _ in 0..3 {
        let refused = factory.create_client("other:1").await;
        assert!(matches!(refused, Err(ConnectError::Io { .. })));
    }
}
