//! How connections end in good order: what was queued arrives, what was asked is answered, and nothing overtakes.
#![expect(clippy::disallowed_methods, reason = "tests look at the paused clock")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aloha_transport::testing::{MemoryNetwork, SimConditions, SimNetwork, SimRuntime};
use aloha_transport::{
    CloseReason, Network, RequestError, RpcHandler, RpcResponseCallback, Runtime, SendError,
    TransportClient, TransportConfig, TransportContext, TransportServer,
};
use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Notes what is sent to it; answers after as many milliseconds as it is asked to, or never, if it is asked nothing.
#[derive(Debug, Clone, Default)]
struct Notes {
    sent: Arc<Mutex<Vec<u32>>>,
    cancelled: Arc<AtomicUsize>,
    /// Of connections that came in.
    callers: Arc<Mutex<Vec<TransportClient>>>,
}

impl RpcHandler for Notes {
    fn receive(&self, _: &TransportClient, message: Bytes, callback: RpcResponseCallback) {
        let cancelled = Arc::clone(&self.cancelled);
        let Ok(millis) = String::from_utf8_lossy(&message).parse() else {
            tokio::spawn(async move {
                callback.cancelled().await;
                cancelled.fetch_add(1, Ordering::Relaxed);
                // And never a word more.
                std::future::pending::<()>().await;
            });
            return;
        };
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            callback.on_success(b"done");
        });
    }

    fn receive_one_way(&self, _: &TransportClient, message: Bytes) {
        let number = <[u8; 4]>::try_from(&message[..4]).expect("a number");
        let mut sent = self.sent.lock().expect("no panic under it");
        sent.push(u32::from_le_bytes(number));
    }

    fn connected(&self, client: &TransportClient) {
        if !client.is_outbound() {
            let mut callers = self.callers.lock().expect("no panic under it");
            callers.push(client.clone());
        }
    }
}

impl Notes {
    fn sent(&self) -> Vec<u32> {
        self.sent.lock().expect("no panic under it").clone()
    }

    fn caller(&self) -> TransportClient {
        let callers = self.callers.lock().expect("no panic under it");
        callers.last().expect("somebody called").clone()
    }
}

struct Pair {
    server: TransportServer,
    at_server: Notes,
    at_caller: Notes,
    caller: TransportContext,
    client: TransportClient,
}

async fn joined(config: TransportConfig) -> Pair {
    let network = Arc::new(MemoryNetwork::default());
    let (at_server, at_caller) = (Notes::default(), Notes::default());
    let context = |notes: &Notes| {
        TransportContext::new("test", notes.clone())
            .network(Arc::clone(&network) as _)
            .config(config.clone())
    };
    let server = context(&at_server).create_server("server:0").await;
    let server = server.expect("a free port");
    let caller = context(&at_caller);
    let factory = caller.create_client_factory();
    let client = factory.create_client(server.address()).await;
    let client = client.expect("it listens");
    // The server knows of the connection once it has answered something.
    client.send_rpc(b"0", SECOND).await.expect("a reply");
    Pair {
        server,
        at_server,
        at_caller,
        caller,
        client,
    }
}

fn closed_by(error: &RequestError) -> Option<&CloseReason> {
    match error {
        RequestError::ConnectionClosed { reason, .. } => Some(reason),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_answers_what_it_was_asked() {
    let pair = joined(TransportConfig::default()).await;
    let slow = pair.client.send_rpc(b"1500", HOUR);
    let sooner = pair.client.send_rpc(b"100", HOUR);
    let start = Instant::now();
    let (slow, sooner, ()) = tokio::join!(slow, sooner, pair.server.stop());
    assert_eq!(slow.expect("a reply"), "done");
    assert_eq!(sooner.expect("a reply"), "done");
    assert_eq!(start.elapsed().as_millis() / 10, 150, "and no longer");
    let reason = pair.client.closed().await;
    assert!(matches!(reason, CloseReason::Peer), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_answered_within_the_flush_fails_then() {
    let pair = joined(TransportConfig::default()).await;
    let silent = pair.client.send_rpc(b"never", HOUR);
    let late = pair.client.send_rpc(b"2500", HOUR);
    let start = Instant::now();
    let (silent, late, ()) = tokio::join!(silent, late, pair.server.stop());
    assert_eq!(start.elapsed().as_secs(), 2);
    for failed in [silent, late] {
        let error = failed.expect_err("no reply");
        let reason = closed_by(&error);
        assert!(matches!(reason, Some(CloseReason::Peer)), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_closing_side_asked_itself_fails_at_once_and_the_peer_is_told() {
    let pair = joined(TransportConfig::default()).await;
    let own = pair.client.send_rpc(b"never", HOUR);
    pair.client.send_rpc(b"0", SECOND).await.expect("a reply");
    let start = Instant::now();
    pair.client.close();
    let error = own.await.expect_err("closed");
    assert!(
        matches!(closed_by(&error), Some(CloseReason::Local)),
        "{error}"
    );
    let reason = pair.client.closed().await;
    assert!(matches!(reason, CloseReason::Local), "{reason}");
    assert_eq!(
        start.elapsed(),
        Duration::ZERO,
        "nobody waits for an answer"
    );
    assert_eq!(pair.at_server.cancelled.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_closes_answers_what_the_server_asked_it() {
    let pair = joined(TransportConfig::default()).await;
    let asked = pair.at_server.caller().send_rpc(b"500", HOUR);
    tokio::task::yield_now().await;
    pair.client.close();
    assert_eq!(asked.await.expect("a reply"), "done");
    assert!(!pair.at_server.caller().is_active());
}

#[tokio::test(start_paused = true)]
async fn what_either_side_sent_before_the_goodbye_arrives() {
    let pair = joined(TransportConfig::default()).await;
    let caller = pair.at_server.caller();
    let numbers: Vec<u32> = (0..1000).collect();
    // More than the pipe holds, so that both are still writing when one of them closes.
    let message = |number: u32| [&number.to_le_bytes()[..], &[0; 996]].concat();
    for number in &numbers {
        pair.client.send(&message(*number)).expect("room");
        caller.send(&message(*number)).expect("room");
    }
    pair.client.close();
    caller.closed().await;
    pair.client.closed().await;
    assert_eq!(pair.at_server.sent(), numbers);
    assert_eq!(pair.at_caller.sent(), numbers);
    assert_eq!(pair.client.statistics().messages_lost, 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_new_is_taken_behind_a_goodbye_at_either_end() {
    let pair = joined(TransportConfig::default()).await;
    let _owed = pair.client.send_rpc(b"1000", HOUR);
    tokio::task::yield_now().await;
    let caller = pair.at_server.caller();
    caller.close();
    let refused = caller.send(&[0; 4]).expect_err("closed");
    let reason = |error| match error {
        SendError::Closed { reason, .. } => reason,
        other => panic!("{other}"),
    };
    assert!(matches!(reason(refused), CloseReason::Local));
    // It is told, and not closed yet: it still waits for its answer.
    let room = pair.client.room();
    room.await.expect("the goodbye has not come yet");
    while pair.client.is_active() {
        tokio::task::yield_now().await;
    }
    let refused = pair.client.send(&[0; 4]).expect_err("closed");
    assert!(matches!(reason(refused), CloseReason::Peer));
    assert!(!pair.client.is_closed());
}

#[tokio::test(start_paused = true)]
async fn both_may_close_at_once() {
    let pair = joined(TransportConfig::default()).await;
    let one = pair.client.send_rpc(b"500", HOUR);
    let other = pair.at_server.caller().send_rpc(b"500", HOUR);
    let start = Instant::now();
    pair.client.close();
    pair.at_server.caller().close();
    assert!(one.await.is_err() && other.await.is_err());
    pair.client.closed().await;
    pair.server.stop().await;
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn who_closes_after_the_peers_goodbye_does_not_wait_for_its_own_answers() {
    let pair = joined(TransportConfig::default()).await;
    let own = pair.client.send_rpc(b"never", HOUR);
    tokio::task::yield_now().await;
    let caller = pair.at_server.caller();
    caller.close();
    while pair.client.is_active() {
        tokio::task::yield_now().await;
    }
    let start = Instant::now();
    pair.client.close();
    own.await.expect_err("closed");
    pair.client.closed().await;
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_no_goodbye_is_waited_for_no_longer_than_the_flush() {
    let network = Arc::new(MemoryNetwork::default());
    let mut listener = network.bind("b:1").await.expect("a free port");
    let context = TransportContext::new("a", Notes::default()).network(Arc::clone(&network) as _);
    let factory = context.create_client_factory();
    let client = factory.client("b:1").expect("open");
    let mut peer = listener.accept().await.expect("it calls");
    let mut hello = [0; 24];
    peer.reader.read_exact(&mut hello).await.expect("a hello");
    hello[6] = 1;
    peer.writer.write_all(&hello).await.expect("open");
    client.connected().await.expect("open");
    let start = Instant::now();
    factory.close();
    let reason = client.closed().await;
    assert!(matches!(reason, CloseReason::Local), "{reason}");
    assert_eq!(start.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_before_the_connection_was_made_goes_out_before_a_close() {
    let pair = joined(TransportConfig::default()).await;
    let factory = pair.caller.create_client_factory();
    let client = factory.client(pair.server.address()).expect("open");
    client.send(&7_u32.to_le_bytes()).expect("room");
    factory.close();
    let reason = client.closed().await;
    assert!(matches!(reason, CloseReason::Local), "{reason}");
    assert_eq!(pair.at_server.sent(), [7]);

    // Where nothing waits there is nothing to connect for.
    let factory = pair.caller.create_client_factory();
    let client = factory.client(pair.server.address()).expect("open");
    factory.close();
    assert!(client.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_neither_for_strangers_nor_for_who_does_not_answer() {
    let network = SimNetwork::new(7);
    let context = TransportContext::new("a", Notes::default()).network(network.host("a"));
    let server = context.create_server("a:1").await.expect("a free port");
    let stranger = network.host("b").connect("a:1").await;
    let _stranger = stranger.expect("it listens");
    tokio::time::sleep(SECOND).await;
    network.partition("a", "b");
    let factory = context.create_client_factory();
    let asked = factory.client("b:1").expect("open").send_rpc(b"0", HOUR);
    tokio::task::yield_now().await;
    let start = Instant::now();
    factory.close();
    let error = asked.await.expect_err("closed");
    assert!(
        matches!(closed_by(&error), Some(CloseReason::Local)),
        "{error}"
    );
    server.stop().await;
    context.wait_closed().await;
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn the_connection_that_replaces_one_overtakes_nothing_of_it() {
    let pair = joined(TransportConfig::default()).await;
    let factory = pair.caller.create_client_factory();
    for number in 0..200_u32 {
        let client = factory.client(pair.server.address()).expect("open");
        client.send(&number.to_le_bytes()).expect("room");
        if number % 7 == 3 {
            client.close();
        }
    }
    let last = factory.client(pair.server.address()).expect("open");
    last.send_rpc(b"0", HOUR).await.expect("a reply");
    assert!(pair.at_server.sent().into_iter().eq(0..200));
}

/// Numbers to a server, while either side closes connections as the seed says; what arrived.
async fn closing_at_random(seed: u64) -> (u32, Vec<u32>, Duration) {
    let network = SimNetwork::new(seed);
    network.set_conditions(SimConditions {
        loss: 0.05,
        ..SimConditions::default()
    });
    let runtime = Arc::new(SimRuntime::new(seed));
    let config = TransportConfig {
        flush_timeout: HOUR,
        ..TransportConfig::default()
    };
    let notes = Notes::default();
    let context = |host: &str, notes: &Notes| {
        TransportContext::new(host, notes.clone())
            .network(network.host(host))
            .config(config.clone())
    };
    let server = context("b", &notes).create_server("b:1").await;
    let server = server.expect("a free port");
    let caller = context("a", &Notes::default());
    let factory = caller.create_client_factory();
    let start = Instant::now();
    let mut sent = 0_u32;
    while sent < 300 {
        let client = factory.client("b:1").expect("open");
        // One that takes nothing any more says so, and the next is tried.
        if client.send(&sent.to_le_bytes()).is_ok() {
            sent += 1;
        }
        match runtime.random_u64() % 20 {
            0 => client.close(),
            1 => {
                let last = notes.callers.lock().expect("no panic under it");
                if let Some(caller) = last.last() {
                    caller.close();
                }
            }
            2..8 => tokio::time::sleep(MS * (runtime.random_u64() % 50) as u32).await,
            _ => {}
        }
    }
    factory.close();
    caller.wait_closed().await;
    server.stop().await;
    (sent, notes.sent(), start.elapsed())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whoever_closes_and_when_all_that_was_taken_arrives_once_and_in_order(seed: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("it needs nothing");
        runtime.block_on(async {
            let (sent, arrived, took) = closing_at_random(seed).await;
            assert!(arrived.iter().copied().eq(0..sent), "{arrived:?}");
            assert!(took < HOUR, "nothing hangs");
        });
    }
}

/// Real threads and sockets, where wakers race.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn over_sockets_and_threads_nothing_is_lost_and_no_close_waits_for_its_limit() {
    let config = TransportConfig {
        flush_timeout: HOUR,
        ..TransportConfig::default()
    };
    let notes = Notes::default();
    let server = TransportContext::new("server", notes.clone()).config(config.clone());
    let server = server.create_server("127.0.0.1:0").await;
    let server = server.expect("a free port");
    let caller = TransportContext::new("caller", Notes::default()).config(config);
    let factory = caller.create_client_factory();
    let all = async {
        for round in 0..100_u32 {
            let client = factory.client(server.address()).expect("open");
            for number in 0..20 {
                let number = round * 20 + number;
                client.send(&number.to_le_bytes()).expect("it is new");
            }
            client.send_rpc(b"0", HOUR).await.expect("a reply");
            let asked = client.send_rpc(b"1", HOUR);
            match round % 3 {
                0 => client.close(),
                1 => notes.caller().close(),
                _ => {
                    client.close();
                    notes.caller().close();
                }
            }
            match (round % 3, asked.await) {
                (1, Ok(reply)) => assert_eq!(reply, "done"),
                (1, Err(error)) => panic!("the server was asked before it closed: {error}"),
                _ => {}
            }
            client.closed().await;
        }
        factory.close();
        server.stop().await;
        caller.wait_closed().await;
    };
    let limit = Duration::from_secs(60);
    let ended = tokio::time::timeout(limit, all).await;
    ended.expect("no close waits for its limit");
    assert!(notes.sent().into_iter().eq(0..2000));
}
