//! What many, slow and malicious clients can do to the REST server: nothing that others notice.
//!
//! The bounds belong to the server, whatever it serves: a few routes of the test's own stand behind most of them.

mod common;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aloha_rpc::RpcEnv;
use aloha_scheduler::Master;
use aloha_scheduler::rest::{RestGuard, RestLimits, RestLoad, RestServer, rest_router};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use common::Daemon;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, prlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;

/// Far above what anything here takes: a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

#[expect(clippy::disallowed_methods, reason = "tests measure")]
fn now() -> Instant {
    Instant::now()
}

/// Lets a test fail that waits in vain.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, what).await;
    done.expect("it happens soon")
}

async fn until(is_so: impl Fn() -> bool) {
    soon(async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// What the routes of the test share with it.
#[derive(Clone)]
struct Routes {
    /// A request to `/held` is answered once it gets a permit.
    gate: Arc<Semaphore>,
    /// Told when an answer to `/large` is over.
    large_ended: mpsc::Sender<()>,
    /// The other ends of what is followed.
    followers: mpsc::Sender<tokio::io::DuplexStream>,
}

fn routes() -> (Router, Held) {
    let (large_ended, has_ended) = mpsc::channel(16);
    let (followers, followed) = mpsc::channel(16);
    let routes = Routes {
        gate: Arc::new(Semaphore::new(0)),
        large_ended,
        followers,
    };
    let held = Held {
        gate: Arc::clone(&routes.gate),
        large_ended: has_ended,
        followed,
    };
    let router = Router::new()
        .route("/quick", get(async || "quick"))
        .route("/read", post(async |body: Bytes| body.len().to_string()))
        .route("/held", get(hold))
        .route("/held/wait", get(hold))
        .route("/large", get(large))
        .route("/output", get(output))
        .with_state(routes);
    (router, held)
}

struct Held {
    gate: Arc<Semaphore>,
    large_ended: mpsc::Receiver<()>,
    followed: mpsc::Receiver<tokio::io::DuplexStream>,
}

async fn hold(State(routes): State<Routes>) -> &'static str {
    let permit = routes.gate.acquire().await.expect("never closed");
    permit.forget();
    "held"
}

/// An answer that no socket takes at once; it says when it is over.
async fn large(State(routes): State<Routes>) -> Response {
    struct Ending(mpsc::Sender<()>);
    impl Drop for Ending {
        fn drop(&mut self) {
            self.0.try_send(()).expect("the test has room");
        }
    }
    let ending = Ending(routes.large_ended);
    let (mut writer, reader) = tokio::io::duplex(64 << 10);
    tokio::spawn(async move {
        let _ending = ending;
        while writer.write_all(&[b'x'; 64 << 10]).await.is_ok() {}
    });
    Response::new(Body::from_stream(ReaderStream::new(reader)))
}

/// An answer of what the test writes.
async fn output(State(routes): State<Routes>) -> Response {
    let (writer, reader) = tokio::io::duplex(64 << 10);
    routes.followers.send(writer).await.expect("the test runs");
    Response::new(Body::from_stream(ReaderStream::new(reader)))
}

struct Server {
    address: String,
    load: RestLoad,
    stop: CancellationToken,
    ended: JoinHandle<()>,
}

impl Server {
    async fn start(router: Router, limits: RestLimits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound").to_string();
        let server = RestServer::new(router, limits);
        let (load, stop) = (server.load(), CancellationToken::new());
        let ended = tokio::spawn(server.serve(listener, stop.clone()));
        Self {
            address,
            load,
            stop,
            ended,
        }
    }

    async fn connect(&self) -> Client {
        let stream = TcpStream::connect(&self.address).await.expect("connected");
        stream.set_nodelay(true).expect("set");
        Client(stream)
    }

    /// A request on a connection of its own.
    async fn ask(&self, request: &str) -> Answer {
        let mut client = self.connect().await;
        client.send(request).await;
        client.answer().await
    }

    /// All is as it was: nobody is connected, nothing under way, and a new client is served.
    async fn assert_is_well(&self) {
        until(|| self.load.connections() == 0).await;
        assert_eq!((self.load.requests(), self.load.long_requests()), (0, 0));
        assert_eq!(self.ask(&quick()).await.status, 200);
        until(|| self.load.connections() == 0).await;
    }
}

struct Client(TcpStream);

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// What a client is told that should try again.
    #[track_caller]
    fn assert_busy(&self, key: &str) {
        assert_eq!(self.status, 503, "{self:?}");
        assert_eq!(self.header("retry-after"), Some("1"), "{self:?}");
        self.assert_error(key);
    }

    #[track_caller]
    fn assert_error(&self, text: &str) {
        let json: serde_json::Value = serde_json::from_str(&self.body).expect("JSON");
        assert_eq!(json["action"], "ErrorResponse");
        let message = json["message"].as_str().expect("a text");
        assert!(message.contains(text), "{message}");
    }
}

impl Client {
    /// The server may have closed before it has read everything.
    async fn send(&mut self, text: &str) {
        drop(self.0.write_all(text.as_bytes()).await);
    }

    /// One answer, whose length is known or which ends with the connection.
    async fn answer(&mut self) -> Answer {
        let mut received = Vec::new();
        soon(async {
            loop {
                if let Some(answer) = whole(&received) {
                    return answer;
                }
                let read = self.0.read_buf(&mut received).await;
                if !matches!(read, Ok(count) if count > 0) {
                    let text = String::from_utf8_lossy(&received);
                    panic!("the connection ended, and this came: {text:?} {read:?}");
                }
            }
        })
        .await
    }

    /// Everything up to the end of the connection.
    async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        // A reset is an end too.
        drop(soon(self.0.read_to_end(&mut rest)).await);
        String::from_utf8_lossy(&rest).into_owned()
    }

    /// Everything up to the end of an answer in chunks.
    async fn rest_of_answer(&mut self) -> String {
        let mut received = Vec::new();
        while !received.ends_with(b"\r\n0\r\n\r\n") {
            let read = soon(self.0.read_buf(&mut received)).await;
            assert!(read.expect("connected") > 0, "it ended before its end");
        }
        String::from_utf8_lossy(&received).into_owned()
    }

    async fn assert_closed_silently(&mut self) {
        assert_eq!(self.rest().await, "");
    }
}

fn whole(received: &[u8]) -> Option<Answer> {
    let text = std::str::from_utf8(received).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let answer = |body: &str| Answer {
        status: head[9..12].parse().expect("a status"),
        head: head.to_owned(),
        body: body.to_owned(),
    };
    let length = answer("").header("content-length")?.parse().ok()?;
    body.get(..length).map(answer)
}

fn quick() -> String {
    "GET /quick HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned()
}

fn kept(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
}

/// Timeouts of which each is told from the others, and a test is over soon.
fn limits() -> RestLimits {
    RestLimits {
        header_timeout: Duration::from_millis(400),
        idle_timeout: Duration::from_millis(200),
        write_timeout: Duration::from_millis(200),
        ..RestLimits::default()
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_too_long_or_too_slow_is_refused() {
    let limits = RestLimits {
        header_bytes_max: 2000,
        ..limits()
    };
    let server = Server::start(routes().0, limits).await;
    let with = |headers: &str| format!("GET /quick HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    let large = with(&format!("X: {}\r\n", "x".repeat(2000)));
    assert_eq!(server.ask(&large).await.status, 431);
    let long_line = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(2000));
    assert_eq!(server.ask(&long_line).await.status, 431);
    let never_ending = format!("GET /quick HTTP/1.1\r\nX: {}", "x".repeat(1 << 20));
    assert_eq!(server.ask(&never_ending).await.status, 431);
    assert_eq!(server.ask(&with(&"X: y\r\n".repeat(99))).await.status, 200);
    assert_eq!(server.ask(&with(&"X: y\r\n".repeat(100))).await.status, 431);

    server.assert_is_well().await;

    let server = Server::start(routes().0, self::limits()).await;
    let mut silent = server.connect().await;
    silent.send("GET /quick HTTP/1.1\r\nHost: x\r\n").await;
    let answer = silent.answer().await;
    assert_eq!(answer.status, 408);
    answer.assert_error("headerTimeout");
    assert_eq!(answer.header("connection"), Some("close"));
    silent.assert_closed_silently().await;
    // A byte every now and then does not help: it is the head that must come in time.
    let mut slow = server.connect().await;
    slow.send("GET /quick HTTP/1.1\r\nHost: x\r\nX: ").await;
    let mut beginning = [0; 12];
    while slow.0.try_read(&mut beginning).is_err() {
        slow.send("x").await;
        assert_eq!(server.ask(&quick()).await.status, 200);
    }
    assert_eq!(&beginning, b"HTTP/1.1 408");
    drop((silent, slow));
    server.assert_is_well().await;
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_before_its_first_and_after_its_last() {
    let server = Server::start(routes().0, limits()).await;
    let mut fresh = server.connect().await;
    let mut used = server.connect().await;
    for _ in 0..2 {
        used.send(&kept("/quick")).await;
        assert_eq!(used.answer().await.body, "quick");
    }
    fresh.assert_closed_silently().await;
    used.assert_closed_silently().await;
    server.assert_is_well().await;
}

#[tokio::test]
async fn a_request_that_takes_long_is_answered_on_a_connection_that_nobody_closes() {
    let (router, held) = routes();
    let server = Server::start(router, limits()).await;
    let mut client = server.connect().await;
    client.send(&kept("/held")).await;
    until(|| server.load.requests() == 1).await;
    // Longer than anything else may take.
    let mut clock = server.connect().await;
    clock.send("G").await;
    assert_eq!(clock.answer().await.status, 408);
    held.gate.add_permits(1);
    assert_eq!(client.answer().await.body, "held");
    client.assert_closed_silently().await;
    drop((client, clock));
    server.assert_is_well().await;
}

#[tokio::test]
async fn who_does_not_read_an_answer_is_dropped_and_who_waits_for_one_is_not() {
    let (router, mut held) = routes();
    let server = Server::start(router, limits()).await;
    let mut follower = server.connect().await;
    follower.send(&kept("/output?follow=true")).await;
    let mut writer = soon(held.followed.recv()).await.expect("it is followed");
    assert_eq!(server.load.long_requests(), 1);

    let mut unread = server.connect().await;
    unread.send(&kept("/large")).await;
    soon(held.large_ended.recv()).await.expect("it is dropped");
    until(|| server.load.connections() == 1).await;
    // What is on its way arrives, and then the end that is none.
    let mut received = Vec::new();
    let cut = soon(unread.0.read_to_end(&mut received)).await;
    assert!(cut.is_err() || !received.ends_with(b"0\r\n\r\n"));

    let mut clock = server.connect().await;
    clock.send("G").await;
    assert_eq!(clock.answer().await.status, 408);
    drop(clock);
    let written = writer.write_all(b"news").await;
    written.expect("it is followed");
    drop(writer);
    let text = follower.rest_of_answer().await;
    assert!(text.ends_with("\r\n\r\n4\r\nnews\r\n0\r\n\r\n"), "{text}");
    drop(follower);
    server.assert_is_well().await;
}

#[tokio::test]
async fn a_reader_that_is_slow_but_goes_on_gets_its_answer() {
    const BYTES: usize = 4 << 20;
    let (router, mut held) = routes();
    let server = Server::start(router, limits()).await;
    // A window so small that the answer waits for every read.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("set");
    let address = server.address.parse().expect("an address");
    let mut reader = Client(socket.connect(address).await.expect("connected"));
    reader.send(&kept("/large")).await;
    let mut read = 0;
    let mut piece = vec![0; 64 << 10];
    let begun = now();
    while read < BYTES || begun.elapsed() < 3 * limits().write_timeout {
        let count = soon(reader.0.read(&mut piece)).await.expect("connected");
        assert!(count > 0, "closed after {read} bytes");
        read += count;
    }
    assert!(held.large_ended.try_recv().is_err());
    drop(reader);
    soon(held.large_ended.recv()).await.expect("it is dropped");
    server.assert_is_well().await;
}

#[tokio::test]
async fn one_more_connection_closes_the_one_that_waits_for_its_client_the_longest() {
    let limits = RestLimits {
        connections_max: 4,
        ..RestLimits::default()
    };
    let (router, held) = routes();
    let server = Server::start(router, limits).await;
    let mut busy = server.connect().await;
    busy.send(&kept("/held")).await;
    until(|| server.load.requests() == 1).await;
    let mut oldest = server.connect().await;
    until(|| server.load.connections() == 2).await;
    let mut head = server.connect().await;
    head.send("GET /").await;
    let mut body = server.connect().await;
    body.send("POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1")
        .await;
    until(|| server.load.connections() == 4).await;
    // They have waited for less than a second: nobody is closed for others that come all at once.
    let mut refused = 0;
    loop {
        let mut one_more = server.connect().await;
        one_more.send(&quick()).await;
        let answer = one_more.answer().await;
        if answer.status == 200 {
            break;
        }
        answer.assert_busy("connectionsMax");
        refused += 1;
    }
    assert!(refused > 0);
    oldest.assert_closed_silently().await;
    // The others that wait go next, and are told why, for they had begun to ask.
    let mut guests = Vec::new();
    for _ in 0..3 {
        let mut guest = server.connect().await;
        guest.send(&kept("/quick")).await;
        assert_eq!(guest.answer().await.status, 200);
        guests.push(guest);
    }
    head.answer().await.assert_busy("connectionsMax");
    body.answer().await.assert_busy("connectionsMax");
    held.gate.add_permits(1);
    assert_eq!(busy.answer().await.body, "held");
    drop((busy, head, body, oldest, guests));
    server.assert_is_well().await;
}

#[tokio::test]
async fn requests_beyond_their_number_are_told_to_come_again() {
    let limits = RestLimits {
        requests_max: 2,
        long_requests_max: 3,
        ..RestLimits::default()
    };
    let (router, held) = routes();
    let server = Server::start(router, limits).await;
    let mut waiting = Vec::new();
    for path in ["/held", "/held", "/held/wait", "/held/wait", "/held/wait"] {
        let mut client = server.connect().await;
        client.send(&kept(path)).await;
        waiting.push(client);
    }
    until(|| (server.load.requests(), server.load.long_requests()) == (2, 3)).await;
    let mut client = server.connect().await;
    for (path, key) in [
        ("/quick", "rest.requestsMax"),
        ("/quick?follow=true", "rest.longRequestsMax"),
        ("/quick", "rest.requestsMax"),
    ] {
        // The connection stays: the client need not connect to try again.
        client.send(&kept(path)).await;
        client.answer().await.assert_busy(key);
    }
    held.gate.add_permits(5);
    for mut client in waiting {
        assert_eq!(client.answer().await.body, "held");
    }
    client.send(&kept("/quick")).await;
    assert_eq!(client.answer().await.body, "quick");
    drop(client);
    server.assert_is_well().await;
}

#[tokio::test]
async fn bodies_that_are_not_there_yet_cost_nobody_a_place() {
    let limits = RestLimits {
        requests_max: 1,
        bodies_bytes_max: 1024,
        ..RestLimits::default()
    };
    let server = Server::start(routes().0, limits).await;
    let post = "POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 600\r\n\r\n";
    let mut slow = Vec::new();
    for _ in 0..5 {
        let mut client = server.connect().await;
        client.send(&format!("{post}{}", "x".repeat(180))).await;
        slow.push(client);
    }
    until(|| server.load.connections() == 5).await;
    assert_eq!(server.ask(&quick()).await.status, 200);
    // They hold so much together that no other fits in, until the slowest makes room.
    let mut refused = 0;
    loop {
        let answer = server.ask(&format!("{post}{}", "x".repeat(600))).await;
        if answer.status == 200 {
            break;
        }
        answer.assert_busy("bodiesBytesMax");
        refused += 1;
    }
    assert!(refused > 0);
    slow[0].answer().await.assert_busy("bodiesBytesMax");
    drop(slow);
    server.assert_is_well().await;
}

#[tokio::test]
async fn a_stop_closes_who_waits_for_news_and_lets_others_end() {
    let (router, mut held) = routes();
    let server = Server::start(router, RestLimits::default()).await;
    let mut idle = server.connect().await;
    let mut head = server.connect().await;
    head.send("GET /").await;
    let mut busy = server.connect().await;
    busy.send(&kept("/held")).await;
    let mut poll = server.connect().await;
    poll.send(&kept("/held/wait")).await;
    let mut follower = server.connect().await;
    follower.send(&kept("/output?follow=true")).await;
    let _writer = soon(held.followed.recv()).await.expect("it is followed");
    until(|| (server.load.requests(), server.load.long_requests()) == (1, 2)).await;
    server.stop.cancel();
    poll.answer().await.assert_busy("stops");
    idle.assert_closed_silently().await;
    head.assert_closed_silently().await;
    assert!(!follower.rest().await.ends_with("0\r\n\r\n"));
    assert!(TcpStream::connect(&server.address).await.is_err());
    held.gate.add_permits(1);
    let answer = busy.answer().await;
    assert_eq!(answer.body, "held");
    assert_eq!(answer.header("connection"), Some("close"));
    soon(server.ended).await.expect("no panic");
    assert_eq!(server.load.connections(), 0);
}

#[tokio::test]
async fn an_answer_that_comes_before_the_body_is_sent_arrives() {
    let server = Server::start(routes().0, RestLimits::default()).await;
    // More than fits into the buffers of both ends.
    let length = 32 << 20;
    let head = format!("POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    let client = server.connect().await;
    let (mut receiving, mut sending) = client.0.into_split();
    let sending = tokio::spawn(async move {
        drop(sending.write_all(head.as_bytes()).await);
        // It does not look whether anybody wants it.
        drop(sending.write_all(&vec![b'x'; length]).await);
        sending
    });
    let mut answer = [0; 12];
    let read = soon(receiving.read_exact(&mut answer)).await;
    read.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 413");
    drop((receiving, soon(sending).await));
    server.assert_is_well().await;
}

/// The server with a real master behind it.
async fn with_master(limits: RestLimits) -> (RpcEnv, Server) {
    let env = RpcEnv::builder("master").bind("127.0.0.1:0").start().await;
    let env = env.expect("started");
    let master = Master::start(&env, Master::default_settings(&env)).expect("started");
    let guard = RestGuard::new("127.0.0.1", &[], None, false).expect("loopback");
    let router = rest_router(Arc::new(master.client().clone()), guard, limits);
    let server = Server::start(router, limits).await;
    (env, server)
}

fn create(length: usize, body: &str) -> String {
    format!(
        "POST /v1/submissions/create HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test]
async fn a_body_that_is_too_large_or_too_slow_or_one_too_many_is_refused() {
    let limits = RestLimits {
        body_bytes_max: 2000,
        bodies_bytes_max: 3000,
        body_timeout: Duration::from_millis(300),
        ..RestLimits::default()
    };
    let (_env, server) = with_master(limits).await;
    // It is refused before it is sent.
    let answer = server.ask(&create(2001, "")).await;
    assert_eq!(answer.status, 413);
    answer.assert_error("bodyBytesMax");
    let chunk = format!("{:x}\r\n{}\r\n", 1500, "x".repeat(1500));
    let chunked = "POST /v1/submissions/create HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = server.ask(&format!("{chunked}{chunk}{chunk}")).await;
    assert_eq!(answer.status, 413);
    let huge = format!("{chunked}ffffffffffffffff\r\n{}", "x".repeat(4000));
    assert_eq!(server.ask(&huge).await.status, 413);
    let mut slow = server.connect().await;
    slow.send(&create(2000, &"x".repeat(1600))).await;
    let mut second = server.connect().await;
    second.send(&create(2000, &"x".repeat(1600))).await;
    let answers = [slow.answer().await, second.answer().await];
    let mut statuses = answers.each_ref().map(|answer| answer.status);
    statuses.sort_unstable();
    assert_eq!(statuses, [408, 503], "{answers:?}");
    for answer in answers {
        match answer.status {
            408 => answer.assert_error("bodyTimeout"),
            _ => answer.assert_busy("bodiesBytesMax"),
        }
    }
    drop((slow, second));
    until(|| server.load.connections() == 0).await;
    let ready = "GET /v1/submissions/readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(server.ask(ready).await.status, 200);
}

#[tokio::test]
async fn what_is_no_http_is_refused_or_closed_and_harms_nobody() {
    let (_env, server) = with_master(RestLimits::default()).await;
    let head = "POST /v1/submissions/create HTTP/1.1\r\nHost: localhost\r\n";
    let smuggled = "GET /v1/submissions/readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let bad: [(&str, String); 14] = [
        (
            "two lengths",
            format!("{head}Content-Length: 3\r\nContent-Length: 4\r\n\r\n{{}}  {smuggled}"),
        ),
        (
            "a list of lengths",
            format!("{head}Content-Length: 3, 4\r\n\r\n{{}}  {smuggled}"),
        ),
        (
            "a signed length",
            format!("{head}Content-Length: +3\r\n\r\n{{}} {smuggled}"),
        ),
        (
            "a length beyond all",
            format!("{head}Content-Length: 99999999999999999999999\r\n\r\n"),
        ),
        (
            "an unknown coding",
            format!("{head}Transfer-Encoding: cow\r\n\r\n{smuggled}"),
        ),
        (
            "chunked not last",
            format!("{head}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "chunked in HTTP/1.0",
            format!("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "a chunk beyond all",
            format!("{head}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nx"),
        ),
        (
            "a chunk without a length",
            format!("{head}Transfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n{smuggled}"),
        ),
        (
            "a blank in a name",
            format!("{head}Content-Length : 3\r\n\r\n{{}} {smuggled}"),
        ),
        (
            "a folded line",
            format!("{head}X: y\r\n Content-Length: 3\r\n\r\n{{}} {smuggled}"),
        ),
        (
            "a bare CR",
            format!("{head}X: y\rContent-Length: 3\r\n\r\n{smuggled}"),
        ),
        ("a NUL", format!("{head}X: \0\r\n\r\n{smuggled}")),
        (
            "another version",
            "GET / HTTP/3.7\r\nHost: localhost\r\n\r\n".to_owned(),
        ),
    ];
    for (name, request) in bad {
        let mut client = server.connect().await;
        client.send(&request).await;
        drop(client.0.shutdown().await);
        let text = client.rest().await;
        assert!(
            text.is_empty() || text.starts_with("HTTP/1.1 400 "),
            "{name}: {text}"
        );
        // Whatever came after it was not taken for a request.
        assert!(text.matches("HTTP/1.1").count() <= 1, "{name}: {text}");
    }
    // This is chunked, says the standard, and the last of its connection, lest others see it otherwise.
    let both =
        format!("{head}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}");
    let mut client = server.connect().await;
    client.send(&both).await;
    let text = client.rest().await;
    assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
    assert_eq!(text.matches("HTTP/1.1").count(), 1, "{text}");

    // Of others there is one kind for each first byte, and what comes of it is the same each time.
    let mut seed = 7_u64;
    for first in 0..=u8::MAX {
        let mut bytes = vec![first];
        for _ in 0..64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes.extend_from_slice(&seed.to_be_bytes()[..2]);
        }
        let mut client = server.connect().await;
        drop(client.0.write_all(&bytes).await);
        drop(client.0.shutdown().await);
        let text = client.rest().await;
        assert!(
            text.is_empty() || text.starts_with("HTTP/1.1 400 "),
            "{first}: {text}"
        );
    }
    until(|| server.load.connections() == 0).await;
    assert_eq!(server.ask(smuggled).await.status, 200);
}

#[tokio::test]
async fn who_speaks_another_protocol_is_told_so() {
    let server = Server::start(routes().0, RestLimits::default()).await;
    let hello = "ALOH\x12\0\0\x01\0\x01\0\x01\0\0\x10\0\0\x10\0\0\0\0\0\0";
    let answer = server.ask(hello).await;
    assert_eq!(answer.status, 400);
    answer.assert_error("RPC has a port of its own");
    let answer = server.ask("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(answer.status, 505);
    answer.assert_error("HTTP/1.1");
    // Whoever begins with TLS understands nothing but its end.
    let mut tls = server.connect().await;
    tls.0
        .write_all(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03")
        .await
        .expect("sent");
    let text = tls.rest().await;
    assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
    drop(tls);
    server.assert_is_well().await;

    // An RPC client says which of the two ports it was given.
    let client = RpcEnv::client("client").await.expect("started");
    let address = server.address.parse().expect("an address");
    let refused = aloha_scheduler::MasterClient::connect(&client, &[address]).await;
    let refused = aloha_scheduler::with_causes(&refused.expect_err("no master"));
    assert!(refused.contains("it speaks HTTP"), "{refused}");
    client.shutdown().await;
}

fn raise_file_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("the hard limit is allowed");
}

/// How long requests of a client take that connects for each of them, median and 99th of a hundred.
async fn latencies(server: &Server, mut between: impl AsyncFnMut(usize)) -> (Duration, Duration) {
    const REQUESTS: usize = 1000;
    let ready =
        "GET /v1/submissions/readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut took = Vec::with_capacity(REQUESTS);
    for number in 0..REQUESTS {
        between(number).await;
        let begun = now();
        assert_eq!(server.ask(ready).await.status, 200);
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    (took[REQUESTS / 2], took[REQUESTS * 99 / 100])
}

#[expect(clippy::print_stdout, reason = "the figures are for who asks for them")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_idle_and_a_thousand_slow_clients_do_not_delay_others() {
    const EACH: usize = 1000;
    raise_file_limit();
    let (_env, server) = with_master(RestLimits::default()).await;
    let alone = latencies(&server, async |_| {}).await;
    let mut idle = Vec::new();
    let mut slow = Vec::new();
    let head = "GET /v1/submissions/readyz HTTP/1.1\r\nHost: localhost\r\nX: ";
    let body = create(1000, "{");
    for number in 0..EACH {
        let mut client = server.connect().await;
        // Half of them were served before.
        if number % 2 == 0 {
            client
                .send("GET /v1/submissions/readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                .await;
            assert_eq!(client.answer().await.status, 200);
        }
        idle.push(client);
        let mut client = server.connect().await;
        client
            .send(if number % 2 == 0 { head } else { &body })
            .await;
        slow.push(client);
    }
    until(|| server.load.connections() == 2 * EACH).await;
    // Between two requests, ten of the slow ones send another byte.
    let beside = latencies(&server, async |number| {
        for place in 0..10 {
            slow[(10 * number + place) % EACH].send("x").await;
        }
    })
    .await;
    println!(
        "p50, p99 of a new connection and its request: alone {alone:?}, beside 2,000 others {beside:?}"
    );
    until(|| server.load.connections() == 2 * EACH).await;
    assert_eq!(server.load.requests(), 0, "they are not there yet");
    assert!(beside.0 < Duration::from_millis(20), "p50 {:?}", beside.0);
    assert!(beside.1 < Duration::from_millis(200), "p99 {:?}", beside.1);
    drop((idle, slow));
    until(|| server.load.connections() == 0).await;
    until(|| server.load.requests() == 0).await;
}

#[test]
fn a_master_without_files_to_open_says_so_once_and_goes_on() {
    use std::io::{Read as _, Write as _};
    let mut master = Daemon::master(&[]);
    let address = master.rest().strip_prefix("http://").expect("a URL");
    let open = std::fs::read_dir(format!("/proc/{}/fd", master.pid())).expect("it runs");
    let open: Vec<u64> = open
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    // The lowest numbers are given first, and here are the first two that are free.
    let free = (0..).filter(|number| !open.contains(number));
    let few = Rlimit {
        current: free.take(2).last().map(|last| last + 1),
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    prlimit(Some(master.pid()), Resource::Nofile, few).expect("it is our child");
    // More than it can take; the system does, and they wait.
    let connect = |_| std::net::TcpStream::connect(address).expect("connected");
    let idle: Vec<_> = (0..3).map(connect).collect();
    let mut last = connect(3);
    last.set_read_timeout(Some(PATIENCE)).expect("set");
    let ready = "GET /v1/submissions/readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    last.write_all(ready.as_bytes()).expect("sent");
    // Those before it make room, for they do not ask.
    let mut answer = [0; 12];
    last.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
    drop(idle);
    master.signal(Signal::TERM);
    let texts = ["REST cannot accept connections", "stopping"].map(str::to_owned);
    let lines = master.wait_for_lines(&texts);
    let told = lines.iter().filter(|line| line.contains(&texts[0]));
    assert_eq!(told.count(), 1, "{lines:#?}");
    assert!(master.wait().success());
}

#[test]
fn a_master_may_open_all_files_it_can_and_a_cluster_with_children_what_it_was_given() {
    let limited = |limit: &str| {
        let mut command = std::process::Command::new("bash");
        let script = format!("ulimit {limit} 512 && exec \"$0\" \"$@\"");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_aloha")]);
        command
    };
    let soft_and_hard = |daemon: &Daemon| {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid()));
        let limits = limits.expect("it runs");
        let files = limits
            .lines()
            .find(|line| line.starts_with("Max open files"));
        let words: Vec<_> = files.expect("a limit").split_whitespace().collect();
        (words[3].to_owned(), words[4].to_owned())
    };
    let arguments = ["master", "-p", "0", "--rest-port", "0"];
    let master = Daemon::start_by(limited("-Sn"), &arguments);
    let (soft, hard) = soft_and_hard(&master);
    assert_eq!(soft, hard);
    assert_ne!(soft, "512", "this test needs a higher hard limit");

    let directory = tempfile::tempdir().expect("a directory");
    let work = directory.path().to_str().expect("UTF-8");
    let arguments = ["local", "-p", "0", "--rest-port", "0", "-d", work];
    let local = Daemon::start_by(limited("-Sn"), &arguments);
    assert_eq!(soft_and_hard(&local).0, "512");
    let line = local.wait_for_line("REST takes fewer connections");
    assert!(line.contains("connections_max=256"), "{line}");
}

/// What of a client is left that vanished: the system asks it in time, for nobody else has anything to say.
#[tokio::test]
async fn the_system_looks_after_clients_that_wait_for_news() {
    let (router, mut held) = routes();
    let server = Server::start(router, RestLimits::default()).await;
    let mut follower = server.connect().await;
    follower.send(&kept("/output?follow=true")).await;
    let _writer = soon(held.followed.recv()).await.expect("it is followed");
    let port = |address: std::net::SocketAddr| format!(":{:04X}", address.port());
    let ours = port(follower.0.peer_addr().expect("connected"));
    let theirs = port(follower.0.local_addr().expect("connected"));
    // The head of the answer must be there, or another timer runs.
    let table = || std::fs::read_to_string("/proc/net/tcp").expect("a system with /proc");
    let probes = |table: &str| {
        table.lines().any(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let is_it = words.len() > 5 && words[1].ends_with(&ours) && words[2].ends_with(&theirs);
            is_it && words[5].starts_with("02:")
        })
    };
    until(|| probes(&table())).await;
}
