//! Streams behind requests and replies: whole, in bounded memory, and with an end that says what happened.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use aloha_transport::testing::{MemoryNetwork, SimConditions, SimNetwork, SimRuntime};
use aloha_transport::{
    BodyStream, Failure, FailureCode, Incoming, Network, RequestError, RequestHandler, RpcHandler,
    RpcResponseCallback, STREAMS_MAX, SendError, TransportClient, TransportConfig,
    TransportContext, TransportServer,
};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::sync::{Notify, oneshot};

const LONG: Duration = Duration::from_secs(600);
const WINDOW: usize = 256 << 10;
/// No length that matters is a multiple of this one.
static CYCLE: [u8; 251] = {
    let mut cycle = [0; 251];
    let mut at = 0;
    while at < 251 {
        cycle[at] = at as u8;
        at += 1;
    }
    cycle
};

/// A source of so many bytes that can be told from others; counts those that were taken.
#[derive(Debug)]
struct Pattern {
    seed: usize,
    length: usize,
    fails: bool,
    taken: Arc<AtomicUsize>,
    /// Dropped with it.
    _dropped: Option<oneshot::Sender<()>>,
}

impl Pattern {
    fn new(seed: usize, length: usize) -> Self {
        Self {
            seed,
            length,
            fails: false,
            taken: Arc::default(),
            _dropped: None,
        }
    }

    fn bytes(seed: usize, length: usize) -> Vec<u8> {
        let start = seed % CYCLE.len();
        let cycle = [&CYCLE[start..], &CYCLE[..start]].concat();
        let mut bytes = cycle.repeat(length / CYCLE.len() + 1);
        bytes.truncate(length);
        bytes
    }

    /// One whose count and whose end can be seen.
    fn watched(seed: usize, length: usize) -> (Self, Arc<AtomicUsize>, oneshot::Receiver<()>) {
        let (dropped, is_dropped) = oneshot::channel();
        let pattern = Self {
            _dropped: Some(dropped),
            ..Self::new(seed, length)
        };
        let taken = Arc::clone(&pattern.taken);
        (pattern, taken, is_dropped)
    }
}

impl AsyncRead for Pattern {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let at = self.taken.load(Ordering::Relaxed);
        let bytes = buffer.remaining().min(self.length - at).min(50_000);
        if bytes == 0 && self.fails {
            return Poll::Ready(Err(io::Error::other("the disk is on fire")));
        }
        buffer.put_slice(&Self::bytes(self.seed + at, bytes));
        self.taken.store(at + bytes, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

/// With a stream: reads it as the message says, and answers with its bytes. Without: answers with a stream of the
/// length that the message says.
#[derive(Debug, Default)]
struct Streaming {
    /// How reading ended.
    ends: Arc<Mutex<Vec<String>>>,
    ended: Arc<Notify>,
    held: Arc<Mutex<Vec<(BodyStream, RpcResponseCallback)>>>,
}

impl Streaming {
    fn note(ends: &Mutex<Vec<String>>, end: impl Into<String>) {
        let mut ends = ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.push(end.into());
    }
}

impl RpcHandler for Streaming {
    fn receive(&self, _: &TransportClient, message: Bytes, callback: RpcResponseCallback) {
        let text = String::from_utf8_lossy(&message).into_owned();
        match text.split_once(' ') {
            Some(("fail", length)) => {
                let source = Pattern {
                    fails: true,
                    ..Pattern::new(0, length.parse().expect("a number"))
                };
                callback.on_success_stream(b"failing", source);
            }
            Some((seed, length)) => {
                let seed = seed.parse().expect("a number");
                let source = Pattern::new(seed, length.parse().expect("a number"));
                callback.on_success_stream(seed.to_string().as_bytes(), source);
            }
            None => callback.on_success(&message),
        }
    }

    fn receive_stream(
        &self,
        _: &TransportClient,
        message: Bytes,
        mut stream: BodyStream,
        callback: RpcResponseCallback,
    ) {
        let (ends, ended) = (Arc::clone(&self.ends), Arc::clone(&self.ended));
        match &message[..] {
            b"hold" => {
                let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
                held.push((stream, callback));
            }
            b"drop" => callback.on_success(b"dropped"),
            b"fail" => callback.on_failure(&Failure::new(FailureCode::APPLICATION, "as told")),
            _ => drop(tokio::spawn(async move {
                let mut bytes = Vec::new();
                let read = stream.read_to_end(&mut bytes).await;
                Self::note(
                    &ends,
                    match read {
                        Ok(_) => format!("{} bytes", bytes.len()),
                        Err(error) => format!("{} bytes, {error}", bytes.len()),
                    },
                );
                ended.notify_one();
                callback.on_success(&bytes);
            })),
        }
    }
}

struct Joined {
    server: TransportServer,
    context: TransportContext,
    client: TransportClient,
    ends: Arc<Mutex<Vec<String>>>,
    ended: Arc<Notify>,
    held: Arc<Mutex<Vec<(BodyStream, RpcResponseCallback)>>>,
}

impl Joined {
    async fn new(network: Arc<dyn Network>, address: &str) -> Self {
        let handler = Streaming::default();
        let (ends, ended) = (Arc::clone(&handler.ends), Arc::clone(&handler.ended));
        let held = Arc::clone(&handler.held);
        let config = TransportConfig {
            frame_bytes_max: 64 << 20,
            ..TransportConfig::default()
        };
        let context = TransportContext::new("test", handler)
            .network(network)
            .config(config);
        let server = context.create_server(address).await.expect("a free port");
        let factory = context.create_client_factory();
        let client = factory.create_client(server.address()).await;
        Self {
            server,
            context,
            client: client.expect("it listens"),
            ends,
            ended,
            held,
        }
    }

    async fn in_memory() -> Self {
        Self::new(Arc::new(MemoryNetwork::default()), "server:0").await
    }

    async fn over_tcp() -> Self {
        Self::new(Arc::new(aloha_transport::Tcp), "127.0.0.1:0").await
    }

    async fn next_end(&self) -> String {
        self.ended.notified().await;
        self.ends.lock().expect("no panic").pop().expect("an end")
    }

    /// Asks for a stream, and compares it.
    async fn download(client: TransportClient, seed: usize, length: usize) {
        let text = format!("{seed} {length}");
        let (reply, mut stream) = client
            .send_rpc_for_stream(text.as_bytes(), LONG)
            .await
            .expect("a reply");
        assert_eq!(reply, seed.to_string());
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.expect("whole");
        assert!(
            bytes == Pattern::bytes(seed, length),
            "{} bytes",
            bytes.len()
        );
    }

    /// What was sent before has arrived, for this has been answered.
    async fn has_arrived(&self) {
        let there = self.client.send_rpc(b"there", LONG).await;
        assert_eq!(there.expect("a reply"), "there");
    }

    /// Nothing is left of what was under way. The end of a stream may follow the first answer in the same write.
    async fn is_quiet(&self) {
        for _ in 0..2 {
            self.has_arrived().await;
        }
        assert!(!self.client.is_outstanding());
    }
}

#[tokio::test]
async fn a_request_with_a_stream_arrives_whole_whatever_its_length() {
    for joined in [Joined::in_memory().await, Joined::over_tcp().await] {
        for length in [0, 1, 65_536, 65_537, WINDOW, WINDOW + 1, 5_000_000] {
            let source = Pattern::new(7, length);
            let echoed = joined.client.send_rpc_with_stream(b"echo", source, LONG);
            let echoed = echoed.await.expect("a reply");
            assert!(echoed == Pattern::bytes(7, length), "{length}");
        }
        joined.is_quiet().await;
    }
}

#[tokio::test]
async fn a_file_may_be_the_source() {
    let joined = Joined::over_tcp().await;
    let file = std::fs::read(env!("CARGO_MANIFEST_DIR").to_owned() + "/src/message.rs");
    let file = file.expect("it is there");
    let source = io::Cursor::new(file.clone());
    let echoed = joined.client.send_rpc_with_stream(b"echo", source, LONG);
    assert_eq!(echoed.await.expect("a reply"), file);
}

#[tokio::test]
async fn ten_requests_with_streams_at_once_keep_theirs_apart() {
    let joined = Joined::over_tcp().await;
    let asked: Vec<_> = (0..10)
        .map(|seed| {
            let source = Pattern::new(seed, 300_000 + seed);
            joined.client.send_rpc_with_stream(b"echo", source, LONG)
        })
        .collect();
    for (seed, echoed) in asked.into_iter().enumerate() {
        let echoed = echoed.await.expect("a reply");
        assert!(echoed == Pattern::bytes(seed, 300_000 + seed), "{seed}");
    }
    joined.is_quiet().await;
}

#[tokio::test]
async fn a_stream_with_a_reply_arrives_whole_empty_or_large() {
    for joined in [Joined::in_memory().await, Joined::over_tcp().await] {
        Joined::download(joined.client.clone(), 1, 0).await;
        Joined::download(joined.client.clone(), 2, 32 << 20).await;
        joined.is_quiet().await;
        joined.server.stop().await;
        drop(joined.context);
    }
}

#[tokio::test]
async fn twenty_streams_arrive_in_turn_and_twenty_at_once() {
    let joined = Joined::over_tcp().await;
    for seed in 0..20 {
        Joined::download(joined.client.clone(), seed, 100_000).await;
    }
    let at_once: Vec<_> = (0..20)
        .map(|seed| tokio::spawn(Joined::download(joined.client.clone(), seed, 1_000_000)))
        .collect();
    for download in at_once {
        download.await.expect("no panic");
    }
    joined.is_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_source_comes_behind_its_bytes_and_the_connection_stays() {
    let joined = Joined::in_memory().await;
    let source = Pattern {
        fails: true,
        ..Pattern::new(3, 100_000)
    };
    let answer = joined
        .client
        .send_rpc_with_stream(b"echo", source, LONG)
        .await;
    assert!(answer.expect("a reply") == Pattern::bytes(3, 100_000));
    assert_eq!(joined.next_end().await, "100000 bytes, the disk is on fire");
    let asked = joined
        .client
        .send_rpc_for_stream(b"fail 100000", LONG)
        .await;
    let (_, mut stream) = asked.expect("a reply");
    let mut bytes = Vec::new();
    let error = stream.read_to_end(&mut bytes).await.expect_err("no end");
    assert!(bytes == Pattern::bytes(0, 100_000));
    assert_eq!(error.to_string(), "the disk is on fire");
    drop(stream);
    joined.is_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_the_handler_or_an_early_answer_stops_the_source() {
    let joined = Joined::in_memory().await;
    for (told, answered) in [(&b"fail"[..], false), (b"drop", true)] {
        let (source, taken, dropped) = Pattern::watched(0, usize::MAX / 2);
        let answer = joined.client.send_rpc_with_stream(told, source, LONG).await;
        assert_eq!(answer.is_ok(), answered);
        dropped.await.expect_err("nothing is sent, it is dropped");
        assert_eq!(taken.load(Ordering::Relaxed), 0, "nobody asked for it");
    }
    joined.is_quiet().await;
}

/// A handler without streams.
#[derive(Debug)]
struct Plain;

impl RpcHandler for Plain {
    fn receive(&self, _: &TransportClient, message: Bytes, callback: RpcResponseCallback) {
        callback.on_success(&message);
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_takes_no_streams_refuses_them_and_the_connection_stays() {
    let context = TransportContext::new("test", Plain).network(Arc::new(MemoryNetwork::default()));
    let server = context
        .create_server("server:0")
        .await
        .expect("a free port");
    let factory = context.create_client_factory();
    let client = factory
        .create_client(server.address())
        .await
        .expect("it listens");
    let (source, _, dropped) = Pattern::watched(0, 10_000_000);
    let refused = client.send_rpc_with_stream(b"here", source, LONG).await;
    assert!(
        matches!(&refused, Err(RequestError::Failed(failure)) if failure.code == FailureCode::STREAM_REFUSED),
        "{refused:?}"
    );
    dropped.await.expect_err("nothing is sent, it is dropped");
    let (reply, mut nothing) = client
        .send_rpc_for_stream(b"there", LONG)
        .await
        .expect("a reply");
    assert_eq!(
        (&reply[..], nothing.read(&mut [0]).await.expect("an end")),
        (&b"there"[..], 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_not_asked_for_is_stopped() {
    let joined = Joined::in_memory().await;
    let reply = joined.client.send_rpc(b"5 10000000", LONG).await;
    assert_eq!(reply.expect("a reply"), "5");
    joined.is_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_stalled_reader_holds_back_its_stream_alone_within_the_window() {
    let joined = Joined::in_memory().await;
    let (source, taken, dropped) = Pattern::watched(9, usize::MAX / 2);
    let asked = joined.client.send_rpc_with_stream(b"hold", source, LONG);
    joined.has_arrived().await;
    let (mut stream, callback) = joined.held.lock().expect("no panic").pop().expect("held");
    assert_eq!(taken.load(Ordering::Relaxed), 0, "nobody has read");
    assert_eq!(stream.read_u8().await.expect("a byte"), 9);
    for read in 1..20 {
        // Others pass, and everything that may come has come when the clock is all that moves.
        Joined::download(joined.client.clone(), 1, 1_000_000).await;
        tokio::time::sleep(LONG / 1000).await;
        let ahead = taken.load(Ordering::Relaxed) - read;
        assert!(ahead <= WINDOW, "{ahead} bytes are under way or unread");
        assert!(ahead > WINDOW / 2, "{ahead}");
        let statistics = joined.client.statistics();
        assert_eq!((statistics.stream_bytes, statistics.streams_open), (0, 1));
        stream.read_u8().await.expect("a byte");
    }
    drop(stream);
    dropped.await.expect_err("nothing is sent, it is dropped");
    callback.on_success(b"enough");
    assert_eq!(asked.await.expect("a reply"), "enough");
    joined.is_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_counts_as_outstanding_until_it_has_ended() {
    let joined = Joined::in_memory().await;
    let asked = joined.client.send_rpc_for_stream(b"1 1000000", LONG).await;
    let (_, mut stream) = asked.expect("a reply");
    assert!(joined.client.is_outstanding());
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("whole");
    joined.is_quiet().await;
    let asked = joined.client.send_rpc_for_stream(b"fail 10", LONG).await;
    let (_, mut stream) = asked.expect("a reply");
    assert!(joined.client.is_outstanding());
    stream.read_to_end(&mut bytes).await.expect_err("it fails");
    joined.is_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn an_asker_that_gives_up_ends_its_stream_with_an_error() {
    let joined = Joined::in_memory().await;
    let (source, taken, dropped) = Pattern::watched(0, usize::MAX / 2);
    let asked = joined.client.send_rpc_with_stream(b"echo", source, LONG);
    while taken.load(Ordering::Relaxed) < 10 * WINDOW {
        tokio::task::yield_now().await;
    }
    drop(asked);
    dropped.await.expect_err("nothing is sent, it is dropped");
    let end = joined.next_end().await;
    assert!(end.ends_with(" bytes, the asker has given up"), "{end}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_dropped_or_whose_future_is_dropped_stops_its_source() {
    let joined = Joined::in_memory().await;
    for _ in 0..100 {
        // More than may be open at once.
        let asked = joined.client.send_rpc_for_stream(b"1 100000000", LONG);
        joined.has_arrived().await;
        drop(asked);
        let asked = joined
            .client
            .send_rpc_for_stream(b"1 100000000", LONG)
            .await;
        let (_, mut stream) = asked.expect("a reply");
        stream.read_u8().await.expect("a byte");
    }
    joined.is_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_connection_is_an_error_of_every_reader() {
    let joined = Joined::in_memory().await;
    let asked = joined
        .client
        .send_rpc_for_stream(b"1 100000000", LONG)
        .await;
    let (_, mut stream) = asked.expect("a reply");
    stream.read_u8().await.expect("a byte");
    let (source, _, dropped) = Pattern::watched(0, usize::MAX / 2);
    let asked = joined.client.send_rpc_with_stream(b"echo", source, LONG);
    joined.has_arrived().await;
    joined.client.abort("on purpose");
    let mut bytes = Vec::new();
    let error = stream.read_to_end(&mut bytes).await.expect_err("no end");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    assert!(error.to_string().contains("on purpose"), "{error}");
    dropped.await.expect_err("nothing is sent, it is dropped");
    assert!(asked.await.is_err());
    let end = joined.next_end().await;
    assert!(end.contains("bytes, "), "{end}");
}

#[tokio::test(start_paused = true)]
async fn a_graceful_close_ends_streams_with_an_error() {
    let joined = Joined::in_memory().await;
    let (source, _, dropped) = Pattern::watched(0, usize::MAX / 2);
    let asked = joined.client.send_rpc_with_stream(b"echo", source, LONG);
    joined.has_arrived().await;
    joined.client.close();
    dropped.await.expect_err("nothing is sent, it is dropped");
    assert!(asked.await.is_err());
    let end = joined.next_end().await;
    assert!(end.contains("bytes, the asker has given up"), "{end}");
    joined.server.stop().await;
    joined.context.wait_closed().await;
}

#[tokio::test(start_paused = true)]
async fn only_so_many_streams_are_open_at_once() {
    let joined = Joined::in_memory().await;
    let asked: Vec<_> = (0..STREAMS_MAX)
        .map(|_| {
            let source = tokio::io::repeat(1);
            joined.client.send_rpc_with_stream(b"hold", source, LONG)
        })
        .collect();
    let refused = joined
        .client
        .send_rpc_with_stream(b"hold", tokio::io::repeat(1), LONG)
        .await;
    assert!(
        matches!(refused, Err(RequestError::NotSent(SendError::TooManyStreams { limit, .. })) if limit == STREAMS_MAX)
    );
    let mut streams = Vec::new();
    for _ in 0..STREAMS_MAX {
        let asked = joined
            .client
            .send_rpc_for_stream(b"1 100000000", LONG)
            .await;
        streams.push(asked.expect("a reply"));
    }
    let refused = joined.client.send_rpc_for_stream(b"1 1", LONG).await;
    assert!(
        matches!(&refused, Err(RequestError::Failed(failure)) if failure.code == FailureCode::STREAM_REFUSED),
        "{refused:?}"
    );
    assert_eq!(joined.client.statistics().streams_open, 2 * STREAMS_MAX);
    drop((asked, streams));
    joined.held.lock().expect("no panic").clear();
    joined.is_quiet().await;
    Joined::download(joined.client.clone(), 1, 1).await;
}

/// Answers a request with a stream by a stream with the same bytes, while they come.
struct Through;

impl RequestHandler for Through {
    fn on_messages(&mut self, _: &Bytes, _: &mut Vec<Incoming>) {}

    fn on_stream_request(
        &mut self,
        message: Bytes,
        stream: BodyStream,
        callback: RpcResponseCallback,
    ) {
        callback.on_success_stream(&message, stream);
    }
}

#[test]
fn streams_arrive_whole_over_a_network_that_delays_and_loses() {
    for seed in 0..10 {
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
            let handler = Arc::new(Streaming::default());
            let at = |host: &str| {
                let handler = Arc::clone(&handler);
                TransportContext::with_handlers("test", Arc::clone(&sim) as _, move |client| {
                    Box::new(Seen(Arc::clone(&handler), client.clone()))
                })
                .network(network.host(host))
            };
            let _server = at("b").create_server("b:1").await.expect("a free port");
            let client = at("a").create_client_factory().client("b:1").expect("open");
            // A large message goes first: its parts and the streams share the connection.
            let large = client.send_rpc(&vec![1; 2 << 20], LONG);
            let uploads: Vec<_> = (0..5)
                .map(|seed| {
                    let source = Pattern::new(seed, 300_000 * seed);
                    client.send_rpc_with_stream(b"echo", source, LONG)
                })
                .collect();
            let downloads: Vec<_> = (0..5)
                .map(|seed| tokio::spawn(Joined::download(client.clone(), seed, 200_000 * seed)))
                .collect();
            for (seed, echoed) in uploads.into_iter().enumerate() {
                let echoed = echoed.await.expect("a reply");
                assert!(echoed == Pattern::bytes(seed, 300_000 * seed), "{seed}");
            }
            for download in downloads {
                download.await.expect("no panic");
            }
            assert_eq!(large.await.expect("a reply").len(), 2 << 20);
        });
    }
}

/// [`Streaming`] at one connection.
struct Seen(Arc<Streaming>, TransportClient);

impl RequestHandler for Seen {
    fn on_messages(&mut self, bytes: &Bytes, messages: &mut Vec<Incoming>) {
        for Incoming { body, request } in messages.drain(..) {
            if let Some(request) = request {
                let callback = self.1.callback(request);
                self.0.receive(&self.1, bytes.slice(body), callback);
            }
        }
    }

    fn on_stream_request(
        &mut self,
        message: Bytes,
        stream: BodyStream,
        callback: RpcResponseCallback,
    ) {
        self.0.receive_stream(&self.1, message, stream, callback);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_may_be_the_source_of_another() {
    let runtime = Arc::new(aloha_transport::TokioRuntime::current());
    let context = TransportContext::with_handlers("test", runtime, |_| Box::new(Through))
        .network(Arc::new(MemoryNetwork::default()));
    let server = context
        .create_server("server:0")
        .await
        .expect("a free port");
    let factory = context.create_client_factory();
    let client = factory
        .create_client(server.address())
        .await
        .expect("it listens");
    let source = Pattern::new(4, 3_000_000);
    let asked = client
        .send_rpc_with_and_for_stream(b"through", source, LONG)
        .await;
    let (reply, mut stream) = asked.expect("a reply");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("whole");
    assert_eq!(reply, "through");
    assert!(bytes == Pattern::bytes(4, 3_000_000));
}
