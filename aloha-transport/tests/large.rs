//! Large messages, which leave in parts: what passes them, what stays behind them.
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aloha_transport::testing::{MemoryNetwork, SimConditions, SimNetwork, SimRuntime};
use aloha_transport::{
    Body, Charge, CloseReason, Incoming, Network, RequestHandler, RpcHandler, RpcResponseCallback,
    SendError, TransportClient, TransportConfig, TransportContext, TransportServer,
};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

const LONG: Duration = Duration::from_secs(120);
const CHUNK: usize = 256 << 10;

/// Echoes; keeps a request that starts with `?` until it is cancelled, and says so.
#[derive(Debug, Default)]
struct Echo(Arc<Notify>);

impl RpcHandler for Echo {
    fn receive(&self, _: &TransportClient, message: Bytes, callback: RpcResponseCallback) {
        if message.first() == Some(&b'?') {
            let cancelled = Arc::clone(&self.0);
            tokio::spawn(async move {
                callback.cancelled().await;
                cancelled.notify_one();
            });
        } else {
            callback.on_success(&message);
        }
    }
}

fn large() -> TransportConfig {
    TransportConfig {
        frame_bytes_max: 512 << 20,
        ..TransportConfig::default()
    }
}

async fn in_memory() -> (TransportServer, TransportContext, TransportClient) {
    let context = TransportContext::new("test", Echo::default())
        .network(Arc::new(MemoryNetwork::default()))
        .config(large());
    let server = context.create_server("server:0").await;
    let server = server.expect("a free port");
    let factory = context.create_client_factory();
    let client = factory.create_client(server.address()).await;
    (server, context, client.expect("it listens"))
}

#[tokio::test(start_paused = true)]
async fn a_large_message_under_way_is_counted_apart_and_refuses_no_small_ones() {
    let (_server, _, client) = in_memory().await;
    let body = || Body::Shared(Bytes::from(vec![1; 100 << 20]));
    client
        .one_way(Charge::Flow(1), &[], &body())
        .expect("one of any size may pass");
    let full = client.one_way(Charge::Flow(2), &[], &body());
    assert!(
        matches!(full, Err(SendError::Full { waiting, .. }) if waiting > 100 << 20),
        "{full:?}"
    );
    client
        .one_way(Charge::Flow(2), b"small", &Body::Copied(b""))
        .expect("room");
    let statistics = client.statistics();
    assert_eq!(statistics.transfer_bytes, (100 << 20) + 1);
    assert!(statistics.queued_bytes < 100);
    client.room().await.expect("open");
}

#[tokio::test(start_paused = true)]
async fn a_cancel_reaches_the_large_request_that_it_follows() {
    let handler = Echo::default();
    let cancelled = Arc::clone(&handler.0);
    let context = TransportContext::new("test", handler)
        .network(Arc::new(MemoryNetwork::default()))
        .config(large());
    let server = context
        .create_server("server:0")
        .await
        .expect("a free port");
    let factory = context.create_client_factory();
    let client = factory
        .create_client(server.address())
        .await
        .expect("it listens");
    drop(client.send_rpc(&vec![b'?'; 20 * CHUNK], LONG));
    cancelled.notified().await;
    let still = client.send_rpc(b"there", LONG).await;
    assert_eq!(still.expect("a reply"), "there");
    assert_eq!(client.statistics().requests_outstanding, 0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_fails_what_was_partly_written_and_counts_it_as_lost() {
    let (server, _, client) = in_memory().await;
    let ask = client.send_rpc(&vec![1; 8 << 20], LONG);
    let body = Body::Shared(Bytes::from(vec![1; 8 << 20]));
    client.one_way(Charge::Free, &[], &body).expect("room");
    client
        .one_way(Charge::Free, b"behind", &Body::Copied(b""))
        .expect("room");
    // A few parts are through once a small one is answered.
    let small = client.request(Charge::Flow(2), b"small", &Body::Copied(b""), Some(LONG));
    small.expect("room").await.expect("a reply");
    client.abort("on purpose");
    assert!(ask.await.is_err());
    assert_eq!(client.statistics().messages_lost, 2);
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_closed_gracefully_writes_large_messages_first() {
    let (server, context, client) = in_memory().await;
    for _ in 0..12 {
        client.send(&vec![1; 3 * CHUNK]).expect("room");
    }
    client.close();
    assert!(matches!(client.closed().await, CloseReason::Local));
    server.stop().await;
    context.wait_closed().await;
    assert_eq!(client.statistics().messages_lost, 0);
}

/// A handler that notes what comes.
struct Noting(Arc<Mutex<Vec<Bytes>>>, Arc<Notify>, TransportClient);

impl RequestHandler for Noting {
    fn on_messages(&mut self, bytes: &Bytes, messages: &mut Vec<Incoming>) {
        for Incoming { body, request } in messages.drain(..) {
            let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            seen.push(bytes.slice(body));
            self.1.notify_one();
            if let Some(request) = request {
                self.2.callback(request).on_success(b"");
            }
        }
    }
}

/// Messages of random sizes in random flows, over a network that delays and loses. Each starts with flow and number.
fn flows_keep_their_order(seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.expect("a runtime").block_on(async {
        let network = SimNetwork::new(seed);
        network.set_conditions(SimConditions {
            delay: Duration::from_millis(1)..=Duration::from_millis(20),
            loss: 0.1,
            ..SimConditions::default()
        });
        let sim = Arc::new(SimRuntime::new(seed));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let arrived = Arc::new(Notify::new());
        let noting = (Arc::clone(&seen), Arc::clone(&arrived));
        let at = |host: &str| {
            let noting = noting.clone();
            TransportContext::with_handlers("test", Arc::clone(&sim) as _, move |client| {
                Box::new(Noting(
                    Arc::clone(&noting.0),
                    Arc::clone(&noting.1),
                    client.clone(),
                ))
            })
            .network(network.host(host))
        };
        let _server = at("b").create_server("b:1").await.expect("a free port");
        let client = at("a").create_client_factory().client("b:1").expect("open");
        let mut state = seed;
        let mut random = move |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        let mut sent = BTreeMap::<u8, u8>::new();
        let mut expected = 0;
        for _ in 0..60 {
            let flow = u8::try_from(random(4)).expect("small");
            let number = sent.entry(flow).or_default();
            let length = match random(3) {
                0 => usize::try_from(random(3 * CHUNK as u64)).expect("small"),
                _ => usize::try_from(random(300)).expect("small"),
            };
            let charge = match flow {
                0 => Charge::Free,
                flow => Charge::Flow(u32::from(flow)),
            };
            let head = [flow, *number];
            let body = Body::Shared(Bytes::from(vec![flow ^ *number; length]));
            let queued = if random(2) == 0 {
                client.one_way(charge, &head, &body)
            } else {
                client.request(charge, &head, &body, None).map(drop)
            };
            if queued.is_ok() {
                *number += 1;
                expected += 1;
            }
            if random(4) == 0 {
                tokio::time::sleep(Duration::from_millis(random(30))).await;
            }
        }
        while seen.lock().expect("no panic").len() < expected {
            arrived.notified().await;
        }
        let mut next = BTreeMap::<u8, u8>::new();
        for message in &*seen.lock().expect("no panic") {
            let number = next.entry(message[0]).or_default();
            assert_eq!(message[1], *number, "flow {} of seed {seed}", message[0]);
            *number += 1;
            let whole = message[2..]
                .iter()
                .all(|byte| *byte == message[0] ^ message[1]);
            assert!(whole, "bytes of another message");
        }
    });
}

#[test]
fn the_messages_of_a_flow_arrive_in_order_whatever_their_sizes() {
    (0..16).for_each(flows_keep_their_order);
}

/// The next frame of a peer without a library: its type, and what follows.
async fn frame(stream: &mut aloha_transport::Stream) -> (u8, Vec<u8>) {
    let length = stream.reader.read_u32_le().await.expect("a frame");
    let mut frame = vec![0; length as usize];
    stream.reader.read_exact(&mut frame).await.expect("a frame");
    (frame[0], frame.split_off(1))
}

#[tokio::test(start_paused = true)]
async fn what_is_small_is_written_before_the_next_part() {
    let network = MemoryNetwork::default();
    let mut listener = network.bind("server:1").await.expect("a free port");
    let context = TransportContext::new("test", Echo::default())
        .network(Arc::new(network))
        .config(large());
    let client = context
        .create_client_factory()
        .client("server:1")
        .expect("open");
    let body = Body::Shared(Bytes::from(vec![1; 4 << 20]));
    client.one_way(Charge::Free, &[], &body).expect("room");
    let mut stream = listener.accept().await.expect("a call");
    let mut hello = [0; 512];
    let hello_bytes = stream.reader.read(&mut hello).await.expect("a hello");
    // A welcome is a hello of another kind.
    hello[6] = 1;
    stream
        .writer
        .write_all(&hello[..hello_bytes])
        .await
        .expect("open");
    let (kind, begin) = frame(&mut stream).await;
    assert_eq!((kind, &begin[..8]), (10, &[0, 0, 0, 0, 1, 0, 64, 0][..]));
    let mut parts = 1;
    let (mut asked, mut passed, mut behind) = (0, 0, 0);
    let mut left = (4 << 20) + 1 - (begin.len() - 8);
    while left > 0 {
        // Whatever is asked now comes behind the parts that are written already: two, or three.
        let text = format!("{parts}");
        let small = Body::Copied(text.as_bytes());
        client.one_way(Charge::Flow(2), &[], &small).expect("room");
        client
            .one_way(Charge::Free, b"behind", &Body::Copied(b""))
            .expect("room");
        let ping = [9, 0, 0, 0, 6, 1, 2, 3, 4, 5, 6, 7, 8];
        stream.writer.write_all(&ping).await.expect("open");
        let mut awaited = vec![(2, text.into_bytes()), (7, ping[5..].to_vec())];
        let mut since = 0;
        while !awaited.is_empty() {
            let (kind, fields) = frame(&mut stream).await;
            if kind == 11 {
                assert_eq!(fields[..4], [0, 0, 0, 0]);
                left -= fields.len() - 4;
                parts += 1;
                since += 1;
                assert!(since <= 3, "{since} parts came first");
            } else if fields == b"behind" {
                assert_eq!(left, 0, "it passed the large one");
                behind += 1;
            } else {
                let one = awaited
                    .iter()
                    .position(|one| *one == (kind, fields.clone()));
                awaited.remove(one.expect("one of the two"));
                passed += 1;
            }
        }
        asked += 1;
    }
    while behind < asked {
        assert_eq!(frame(&mut stream).await, (2, b"behind".to_vec()));
        behind += 1;
    }
    assert!(passed >= 8, "{passed}");
}
