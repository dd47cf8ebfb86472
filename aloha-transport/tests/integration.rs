//! Requests and one-way messages from end to end, over real sockets. After Spark's `RpcIntegrationSuite` and
//! `TransportRequestHandlerSuite`; what they have of streams and chunks is tested where large payloads are.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aloha_transport::{
    CloseReason, Failure, FailureCode, Incoming, RequestError, RequestHandler, RpcHandler,
    RpcResponseCallback, TokioRuntime, TransportClient, TransportContext, TransportServer,
};
use bytes::Bytes;
use tokio::sync::mpsc;

const LONG: Duration = Duration::from_secs(60);

/// `hello/X` is answered, `return error/X` fails, `throw error/X` panics, `never` waits until it is cancelled.
#[derive(Debug)]
struct Handler {
    one_way: mpsc::Sender<Bytes>,
    cancelled: mpsc::Sender<()>,
    ended: mpsc::Sender<CloseReason>,
}

impl RpcHandler for Handler {
    fn receive(&self, _: &TransportClient, message: Bytes, callback: RpcResponseCallback) {
        let text = String::from_utf8_lossy(&message).into_owned();
        match text.split_once('/') {
            Some(("hello", name)) => callback.on_success(format!("Hello, {name}!").as_bytes()),
            Some(("return error", what)) => {
                let failure = Failure::new(FailureCode::APPLICATION, format!("Returned: {what}"));
                callback.on_failure(&failure);
            }
            Some(("throw error", what)) => std::panic::resume_unwind(Box::new(what.to_owned())),
            _ => {
                let cancelled = self.cancelled.clone();
                tokio::spawn(async move {
                    callback.cancelled().await;
                    let _ = cancelled.send(()).await;
                });
            }
        }
    }

    fn receive_one_way(&self, _: &TransportClient, message: Bytes) {
        if message == "throw" {
            std::panic::resume_unwind(Box::new("as told"));
        }
        self.one_way.try_send(message).expect("room for a handful");
    }

    fn disconnected(&self, client: &TransportClient, reason: &CloseReason) {
        if !client.is_outbound() {
            let room = self.ended.try_send(reason.clone());
            room.expect("room for a handful");
        }
    }
}

struct Served {
    server: TransportServer,
    client: TransportClient,
    one_way: mpsc::Receiver<Bytes>,
    cancelled: mpsc::Receiver<()>,
    ended: mpsc::Receiver<CloseReason>,
}

async fn served() -> Served {
    let (one_way, receives_one_way) = mpsc::channel(16);
    let (cancelled, receives_cancelled) = mpsc::channel(16);
    let (ended, receives_ended) = mpsc::channel(16);
    let handler = Handler {
        one_way,
        cancelled,
        ended,
    };
    let context = TransportContext::new("test", handler);
    let server = context.create_server("127.0.0.1:0").await;
    let server = server.expect("a free port");
    let factory = context.create_client_factory();
    let client = factory.create_client(server.address()).await;
    Served {
        server,
        client: client.expect("it listens"),
        one_way: receives_one_way,
        cancelled: receives_cancelled,
        ended: receives_ended,
    }
}

/// What each of them is answered, in their order; all are asked at once.
async fn answers(client: &TransportClient, requests: &[&str]) -> Vec<String> {
    let asked: Vec<_> = requests
        .iter()
        .map(|request| client.send_rpc(request.as_bytes(), LONG))
        .collect();
    let mut answers = Vec::new();
    for reply in asked {
        answers.push(match reply.await {
            Ok(reply) => String::from_utf8_lossy(&reply).into_owned(),
            Err(RequestError::Failed(failure)) => failure.text,
            Err(other) => panic!("{other}"),
        });
    }
    answers
}

#[tokio::test]
async fn one_request_is_answered() {
    let served = served().await;
    let answered = answers(&served.client, &["hello/Aaron"]).await;
    assert_eq!(answered, ["Hello, Aaron!"]);
}

#[tokio::test]
async fn two_requests_are_answered_each_with_its_own() {
    let served = served().await;
    let answered = answers(&served.client, &["hello/Aaron", "hello/Michael"]).await;
    assert_eq!(answered, ["Hello, Aaron!", "Hello, Michael!"]);
}

#[tokio::test]
async fn a_failure_of_the_handler_reaches_its_asker() {
    let served = served().await;
    let answered = answers(&served.client, &["return error/OK"]).await;
    assert_eq!(answered, ["Returned: OK"]);
}

#[tokio::test]
async fn a_handler_that_panics_fails_its_request_alone() {
    let served = served().await;
    let error = served.client.send_rpc(b"throw error/uh-oh", LONG).await;
    let RequestError::Failed(failure) = error.expect_err("it panicked") else {
        panic!("no failure");
    };
    assert_eq!(failure.code, FailureCode::PANICKED);
    assert!(!failure.text.contains("uh-oh"), "that is nobody's business");
    served.client.send(b"throw").expect("open");
    let answered = answers(&served.client, &["hello/again"]).await;
    assert_eq!(answered, ["Hello, again!"]);
}

#[tokio::test]
async fn failures_and_panics_are_told_apart() {
    let served = served().await;
    let requests = ["return error/one", "throw error/two"];
    let answered = answers(&served.client, &requests).await;
    assert_eq!(answered, ["Returned: one", "the handler panicked"]);
}

#[tokio::test]
async fn successes_and_failures_side_by_side_reach_each_its_own_asker() {
    let served = served().await;
    let requests = [
        "hello/Bob",
        "throw error/the",
        "hello/Builder",
        "return error/!",
        "hello/Bill",
    ];
    let answered = answers(&served.client, &requests).await;
    let expected = [
        "Hello, Bob!",
        "the handler panicked",
        "Hello, Builder!",
        "Returned: !",
        "Hello, Bill!",
    ];
    assert_eq!(answered, expected);
}

#[tokio::test]
async fn a_one_way_message_arrives_and_leaves_nothing_outstanding() {
    let mut served = served().await;
    served.client.send(b"no reply").expect("open");
    assert_eq!(served.client.statistics().requests_outstanding, 0);
    let arrived = served.one_way.recv().await;
    assert_eq!(arrived.expect("it came"), "no reply");
}

#[tokio::test]
async fn the_end_of_a_connection_frees_what_was_asked_on_it_and_is_told_once() {
    let mut served = served().await;
    let asked = served.client.send_rpc(b"never", LONG);
    answers(&served.client, &["hello/first"]).await;
    served.client.abort("on purpose");
    let error = asked.await.expect_err("it ended");
    let ended = matches!(error, RequestError::ConnectionClosed { .. });
    assert!(ended, "{error}");
    served.cancelled.recv().await.expect("nobody waits");
    let reason = served.ended.recv().await.expect("it is told");
    assert!(
        matches!(reason, CloseReason::Peer | CloseReason::Io(_)),
        "{reason}"
    );
    served.server.stop().await;
    assert!(served.ended.try_recv().is_err(), "once");
}

#[tokio::test]
async fn requests_go_both_ways_over_one_connection() {
    let asked = Arc::new(Mutex::new(None));
    #[derive(Debug)]
    struct Both(Arc<Mutex<Option<TransportClient>>>);
    impl RpcHandler for Both {
        fn receive(&self, client: &TransportClient, message: Bytes, callback: RpcResponseCallback) {
            *self.0.lock().expect("no panic under it") = Some(client.clone());
            callback.on_success(&message);
        }
    }
    let context = TransportContext::new("test", Both(Arc::clone(&asked)));
    let server = context.create_server("127.0.0.1:0").await;
    let server = server.expect("a free port");
    let factory = context.create_client_factory();
    let client = factory.create_client(server.address()).await;
    let reply = client.expect("it listens").send_rpc(b"there", LONG).await;
    assert_eq!(reply.expect("a reply"), "there");
    let caller = asked.lock().expect("no panic under it").take();
    let back = caller
        .expect("it was asked")
        .send_rpc(b"and back", LONG)
        .await;
    assert_eq!(back.expect("a reply"), "and back");
}

/// Panics at whatever comes.
struct Panicking;

impl RequestHandler for Panicking {
    fn on_messages(&mut self, _: &Bytes, _: &mut Vec<Incoming>) {
        panic!("on purpose");
    }
}

#[tokio::test]
async fn a_connection_whose_handler_panics_on_the_reader_ends() {
    let runtime = Arc::new(TokioRuntime::current());
    let context = TransportContext::with_handlers("test", runtime, |_| Box::new(Panicking));
    let server = context.create_server("127.0.0.1:0").await.expect("free");
    let factory = context.create_client_factory();
    let client = factory.create_client(server.address()).await.expect("open");
    let asked = client.send_rpc(b"?", LONG).await;
    assert!(
        matches!(asked, Err(RequestError::ConnectionClosed { .. })),
        "{asked:?}"
    );
}
