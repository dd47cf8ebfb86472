//! Requests, replies, failures, limits and ends, over a network in memory.
#![expect(clippy::disallowed_methods, reason = "tests look at the paused clock")]

use std::sync::Arc;
use std::time::Duration;

use aloha_transport::testing::MemoryNetwork;
use aloha_transport::{
    CloseReason, ConnectError, Failure, FailureCode, RequestError, RpcHandler, RpcResponseCallback,
    SendError, TransportClient, TransportConfig, TransportContext, TransportServer,
};
use bytes::Bytes;

/// Does what the first byte of a request says.
#[derive(Debug)]
struct Obedient;

impl RpcHandler for Obedient {
    fn receive(&self, _: &TransportClient, message: Bytes, callback: RpcResponseCallback) {
        match message.first() {
            Some(b'f') => callback.on_failure(&Failure::new(FailureCode::APPLICATION, "as told")),
            Some(b'd') => drop(callback),
            Some(b'p') => drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(
                move || {
                    let _held = callback;
                    panic!("as told");
                },
            ))),
            Some(b'n') => drop(tokio::spawn(async move { callback.cancelled().await })),
            Some(b'b') => callback.on_success(&vec![0; 2000]),
            _ => callback.on_success(&message),
        }
    }
}

async fn joined(config: TransportConfig) -> (TransportServer, TransportContext, TransportClient) {
    let network = Arc::new(MemoryNetwork::default());
    let context = TransportContext::new("test", Obedient).network(network);
    let server = context
        .create_server("server:0")
        .await
        .expect("a free port");
    let caller = context.clone().config(config);
    let client = caller
        .create_client_factory()
        .create_client(server.address())
        .await
        .expect("it listens");
    (server, caller, client)
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn each_answer_finds_its_own_asker() {
    let (_server, _, client) = joined(TransportConfig::default()).await;
    let asks =
        ["one", "fail", "two", "drop", "panic"].map(|text| client.send_rpc(text.as_bytes(), LONG));
    let mut answers = Vec::new();
    for ask in asks {
        answers.push(match ask.await {
            Ok(reply) => String::from_utf8_lossy(&reply).into_owned(),
            Err(RequestError::Failed(failure)) => format!("{}: {}", failure.code.0, failure.text),
            Err(other) => other.to_string(),
        });
    }
    let expected = [
        "one",
        "0: as told",
        "two",
        "1: the request was dropped without an answer",
        "2: the handler panicked",
    ];
    assert_eq!(answers, expected);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_requests_in_flight_are_all_answered() {
    let (_server, _, client) = joined(TransportConfig::default()).await;
    let asks: Vec<_> = (0..1000)
        .map(|n| client.send_rpc(format!("{n} {}", "x".repeat(n)).as_bytes(), LONG))
        .collect();
    for (n, ask) in asks.into_iter().enumerate() {
        let reply = ask.await.expect("a reply");
        if !matches!(reply.first(), Some(b'b' | b'f')) {
            assert_eq!(reply, format!("{n} {}", "x".repeat(n)));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_request_ends_at_its_limit_and_the_connection_stays() {
    let (_server, _, client) = joined(TransportConfig::default()).await;
    let started = tokio::time::Instant::now();
    let silent = client.send_rpc(b"never", Duration::from_millis(1500)).await;
    assert!(
        matches!(silent, Err(RequestError::TimedOut { timeout, .. }) if timeout == Duration::from_millis(1500))
    );
    assert_eq!(
        started.elapsed().as_millis() / 10,
        150,
        "on time, to the timer's millisecond"
    );
    assert_eq!(
        client.send_rpc(b"still here", LONG).await.expect("a reply"),
        "still here"
    );
}

#[tokio::test(start_paused = true)]
async fn too_large_a_message_is_refused_at_the_sender_and_the_connection_stays() {
    let config = TransportConfig {
        frame_bytes_max: 1000,
        ..TransportConfig::default()
    };
    let (_server, _, client) = joined(config).await;
    let large = client.send(&[0; 1000]).expect_err("over the limit");
    assert_eq!(
        large.to_string(),
        "a message of 1001 bytes to server:1 is over our limit of 1000"
    );
    // A reply that this side would not accept is a failure, not a broken connection.
    let reply = client
        .send_rpc(b"big", LONG)
        .await
        .expect_err("over the limit");
    assert!(
        matches!(&reply, RequestError::Failed(failure) if failure.code == FailureCode::REPLY_TOO_LARGE),
        "{reply}"
    );
    assert_eq!(
        client.send_rpc(b"still here", LONG).await.expect("a reply"),
        "still here"
    );
}

#[tokio::test(start_paused = true)]
async fn the_queue_to_a_peer_is_bounded() {
    let config = TransportConfig {
        outbound_bytes_max: 1000,
        ..TransportConfig::default()
    };
    let network = Arc::new(MemoryNetwork::default());
    let context = TransportContext::new("test", Obedient)
        .network(network)
        .config(config);
    let _server = context
        .create_server("server:0")
        .await
        .expect("a free port");
    // Not connected yet, so nothing is written.
    let client = context
        .create_client_factory()
        .client("server:1")
        .expect("open");
    client.send(&[0; 900]).expect("room");
    let full = client.send(&[0; 900]).expect_err("no room");
    assert!(
        matches!(
            full,
            SendError::Full {
                waiting: 905,
                limit: 1000,
                ..
            }
        ),
        "{full}"
    );
    client.room().await.expect("it is written once connected");
    client.send(&[0; 900]).expect("room");
}

#[tokio::test(start_paused = true)]
async fn a_factory_keeps_one_live_client_an_address() {
    let (server, context, _) = joined(TransportConfig::default()).await;
    let factory = context.create_client_factory();
    let one = factory
        .create_client(server.address())
        .await
        .expect("it listens");
    let again = factory
        .create_client(server.address())
        .await
        .expect("it listens");
    assert!(one.same_connection(&again));
    one.close();
    one.closed().await;
    let next = factory
        .create_client(server.address())
        .await
        .expect("it listens");
    assert!(!next.same_connection(&one) && next.is_active());
    factory.close();
    next.closed().await;
    assert!(matches!(
        factory.create_client(server.address()).await,
        Err(ConnectError::Closed { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn nobody_there_is_said_at_once_with_the_address() {
    let (_server, context, _) = joined(TransportConfig::default()).await;
    let client = context
        .create_client_factory()
        .client("nowhere:1")
        .expect("open");
    let ask = client.send_rpc(b"?", LONG);
    let refused = ask.await.expect_err("nobody there");
    assert!(
        matches!(refused, RequestError::NotConnected(_)),
        "{refused}"
    );
    assert!(refused.to_string().contains("nowhere:1"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_writes_what_is_queued_and_outstanding_requests_fail_once() {
    let (server, _, client) = joined(TransportConfig::default()).await;
    let answered = client.send_rpc(b"answered", LONG);
    let silent = client.send_rpc(b"never", LONG);
    assert_eq!(
        client.send_rpc(b"queued", LONG).await.expect("a reply"),
        "queued"
    );
    server.stop().await;
    assert_eq!(answered.await.expect("a reply"), "answered");
    let lost = silent.await.expect_err("the server is gone");
    assert!(
        matches!(
            lost,
            RequestError::ConnectionClosed {
                reason: CloseReason::Peer,
                ..
            }
        ),
        "{lost}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_says_nothing_is_turned_away() {
    use aloha_transport::Network as _;

    let network = Arc::new(MemoryNetwork::default());
    let context = TransportContext::new("test", Obedient).network(Arc::clone(&network) as _);
    let server = context
        .create_server("server:0")
        .await
        .expect("a free port");
    let mut stream = network.connect(server.address()).await.expect("it listens");
    let started = tokio::time::Instant::now();
    let mut answer = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut stream.reader, &mut answer)
        .await
        .expect("an end");
    assert_eq!((answer, started.elapsed().as_secs()), (Vec::new(), 5));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_given_up() {
    use aloha_transport::Network as _;
    use tokio::io::AsyncWriteExt;

    let network = Arc::new(MemoryNetwork::default());
    let config = TransportConfig {
        outbound_bytes_max: 1000,
        frame_bytes_max: 1000,
        ..TransportConfig::default()
    };
    let context = TransportContext::new("test", Obedient)
        .network(Arc::clone(&network) as _)
        .config(config);
    let server = context
        .create_server("server:0")
        .await
        .expect("a free port");
    let mut stream = network.connect(server.address()).await.expect("it listens");
    let hello =
        b"ALOH\x12\x00\x00\x01\x00\x01\x00\x00\x00\x00\x10\x00\x00\x10\x00\x00\x00\x00\x00\x00";
    stream.writer.write_all(hello).await.expect("open");
    let ping = [9, 0, 0, 0, 6, 1, 2, 3, 4, 5, 6, 7, 8];
    // Far more than the pipe, the queue and the batch being written hold.
    let written = async {
        for _ in 0..100_000 {
            stream.writer.write_all(&ping).await?;
        }
        Ok::<_, std::io::Error>(())
    };
    written.await.expect_err("the server ends the connection");
}
