//! What is over a limit: messages too large for one end, and callers that do not say who they are.
#![expect(clippy::disallowed_methods, reason = "tests look at the paused clock")]

use std::sync::Arc;
use std::time::Duration;

use aloha_transport::testing::{MemoryNetwork, SimNetwork};
use aloha_transport::{
    ConnectError, FailureCode, LimitOf, Network, RefusalCode, RequestError, RpcHandler,
    RpcResponseCallback, SendError, TransportClient, TransportConfig, TransportContext,
};
use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

/// Answers with as many bytes as it is told in text.
#[derive(Debug)]
struct Generous;

impl RpcHandler for Generous {
    fn receive(&self, _: &TransportClient, message: Bytes, callback: RpcResponseCallback) {
        let text = String::from_utf8_lossy(&message).trim().to_owned();
        callback.on_success(&vec![0; text.parse().unwrap_or(0)]);
    }
}

/// A client, and a server with other limits.
async fn joined(ours: usize, peers: usize) -> TransportClient {
    let network = Arc::new(MemoryNetwork::default());
    let context = |frame_bytes_max| {
        TransportContext::new("test", Generous)
            .network(Arc::clone(&network) as _)
            .config(TransportConfig {
                frame_bytes_max,
                ..TransportConfig::default()
            })
    };
    let server = context(peers).create_server("server:1").await;
    let _server = server.expect("a free port");
    let factory = context(ours).create_client_factory();
    factory.create_client("server:1").await.expect("it listens")
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_is_refused_with_size_and_limit_and_whose_it_is_and_the_connection_stays()
{
    for (ours, peers, expected, word) in [
        (1000, 2000, LimitOf::Ours, "our"),
        (2000, 1000, LimitOf::Peers, "its"),
    ] {
        let client = joined(ours, peers).await;
        let sent = client.send(&[b' '; 1000]).expect_err("one byte too many");
        let asked = client.send_rpc(&[b' '; 996], SECOND).await;
        let RequestError::NotSent(asked) = asked.expect_err("one byte too many") else {
            panic!("it was sent");
        };
        for refused in [sent, asked] {
            assert_eq!(
                refused.to_string(),
                format!("a message of 1001 bytes to server:1 is over {word} limit of 1000")
            );
            let SendError::TooLarge { whose, .. } = refused else {
                panic!("{refused}");
            };
            assert_eq!(whose, expected);
        }
        client.send(&[b' '; 999]).expect("it fits");
        let asked = client.send_rpc(&[b' '; 995], SECOND).await;
        assert_eq!(asked.expect("it fits").len(), 0);
        assert!(client.is_active());
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_is_too_large_is_a_failure_that_says_so_and_the_connection_stays() {
    for (ours, peers, whose) in [(1000, 2000, "the asker's"), (2000, 1000, "the answerer's")] {
        let client = joined(ours, peers).await;
        let error = client.send_rpc(b"996", SECOND).await;
        let RequestError::Failed(failure) = error.expect_err("one byte too many") else {
            panic!("no failure");
        };
        assert_eq!(failure.code, FailureCode::REPLY_TOO_LARGE);
        assert_eq!(
            failure.text,
            format!("a reply of 1001 bytes is over {whose} limit of 1000")
        );
        let reply = client.send_rpc(b"995", SECOND).await;
        assert_eq!(reply.expect("it fits").len(), 995);
    }
}

#[tokio::test(start_paused = true)]
async fn silent_strangers_of_one_host_keep_others_out_neither_at_once_nor_for_long() {
    let network = SimNetwork::new(7);
    let context = |host: &str| TransportContext::new(host, Generous).network(network.host(host));
    let server = context("server").create_server("server:1").await;
    let _server = server.expect("a free port");
    let stranger = network.host("stranger");
    let start = Instant::now();
    let mut strangers = Vec::new();
    for _ in 0..300 {
        strangers.push(stranger.connect("server:1").await.expect("it listens"));
    }
    assert!(start.elapsed() < 5 * SECOND, "all are there at once");
    let friend = context("friend").create_client_factory();
    let client = friend.create_client("server:1").await.expect("room");
    let reply = client.send_rpc(b"5", SECOND).await;
    assert_eq!(reply.expect("a reply").len(), 5);
    // One of the crowded host is told why it has to wait.
    let neighbour = context("stranger").create_client_factory();
    let refused = neighbour.create_client("server:1").await;
    match refused.expect_err("no room") {
        ConnectError::Refused { refusal, .. } => {
            assert_eq!(refusal.code, RefusalCode::BUSY);
            assert_eq!(
                refusal.text,
                "256 callers from your host have not finished their handshake, and that is its limit"
            );
        }
        other => panic!("{other}"),
    }
    // All are sent away: those over the limit with a word, the others once their time is over.
    let (mut told, mut silent) = (0, 0);
    for mut stranger in strangers {
        let mut words = Vec::new();
        let end = stranger.reader.read_to_end(&mut words).await;
        end.expect("a clean end");
        if words.is_empty() {
            silent += 1;
        } else {
            told += 1;
        }
    }
    assert_eq!((told, silent), (44, 256));
    assert!(start.elapsed() < 11 * SECOND);
    tokio::time::sleep(SECOND).await;
    let again = neighbour.create_client("server:1").await;
    again.expect("there is room again");
    assert!(client.is_active());
}

#[tokio::test(start_paused = true)]
async fn established_connections_do_not_count_as_unfinished() {
    let network = Arc::new(MemoryNetwork::default());
    let context = TransportContext::new("test", Generous)
        .network(Arc::clone(&network) as _)
        .config(TransportConfig {
            handshakes_max: 2,
            ..TransportConfig::default()
        });
    let _server = context
        .create_server("server:1")
        .await
        .expect("a free port");
    let mut clients = Vec::new();
    for _ in 0..10 {
        let factory = context.create_client_factory();
        let client = factory.create_client("server:1").await;
        clients.push(client.expect("none is unfinished"));
    }
    let strangers = [
        network.connect("server:1").await,
        network.connect("server:1").await,
    ];
    let factory = context.create_client_factory();
    let refused = factory.create_client("server:1").await;
    let error = refused.expect_err("two are unfinished");
    assert!(error.to_string().contains("2 callers have not"), "{error}");
    assert!(clients.iter().all(TransportClient::is_active));
    drop(strangers);
}
