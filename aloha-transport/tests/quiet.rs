//! A connection on which nothing happens costs no time: no timer of its own, no task that looks again and again.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aloha_transport::testing::MemoryNetwork;
use aloha_transport::{
    BindError, Body, ConnectError, Incoming, RequestHandler, RpcHandler, RpcResponseCallback,
    Runtime, TokioRuntime, TransportClient, TransportClientFactory, TransportConfig,
    TransportContext, TransportServer,
};
use bytes::Bytes;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const CONNECTIONS: usize = 100;

/// Counts how often each task is polled.
#[derive(Debug)]
struct Counting {
    runtime: TokioRuntime,
    polls: Mutex<Vec<Arc<AtomicU64>>>,
}

impl Counting {
    fn polls(&self) -> Vec<u64> {
        let polls = self.polls.lock().expect("no panic");
        let polls = polls.iter().map(|polls| polls.load(Ordering::Relaxed));
        polls.collect()
    }

    /// How often each task that was polled at all is polled in this time.
    async fn polls_within(&self, time: Duration) -> Vec<u64> {
        let before = self.polls();
        tokio::time::sleep(time).await;
        let after = self.polls();
        assert_eq!(after.len(), before.len(), "no task is spawned");
        let polls = after
            .iter()
            .zip(&before)
            .map(|(after, before)| after - before);
        polls.filter(|polls| *polls > 0).collect()
    }
}

impl Runtime for Counting {
    fn now(&self) -> Instant {
        self.runtime.now()
    }

    fn wall(&self) -> SystemTime {
        self.runtime.wall()
    }

    fn random_u64(&self) -> u64 {
        self.runtime.random_u64()
    }

    fn spawn(&self, mut task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        let polls = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&polls);
        self.polls.lock().expect("no panic").push(polls);
        self.runtime.spawn(Box::pin(poll_fn(move |cx| {
            counted.fetch_add(1, Ordering::Relaxed);
            task.as_mut().poll(cx)
        })));
    }
}

/// Answers with nothing.
struct Answerer(TransportClient);

impl RequestHandler for Answerer {
    fn on_messages(&mut self, _: &Bytes, messages: &mut Vec<Incoming>) {
        for request in messages.drain(..).filter_map(|message| message.request) {
            self.0.respond(request, &[], &Body::Copied(&[]));
        }
    }
}

/// Connections between a server and clients of one context, each of which has carried a request.
struct Quiet {
    runtime: Arc<Counting>,
    _server: TransportServer,
    _factory: TransportClientFactory,
}

async fn quiet(config: TransportConfig) -> Quiet {
    let runtime = Arc::new(Counting {
        runtime: TokioRuntime::current(),
        polls: Mutex::default(),
    });
    let handler = |client: &TransportClient| -> Box<dyn RequestHandler> {
        Box::new(Answerer(client.clone()))
    };
    let shared = Arc::clone(&runtime) as Arc<dyn Runtime>;
    let context = TransportContext::with_handlers("test", shared, handler)
        .network(Arc::new(MemoryNetwork::default()))
        .config(TransportConfig {
            connections_per_peer: CONNECTIONS,
            ..config
        });
    let server = context.create_server("server:0").await;
    let server = server.expect("a free port");
    let factory = context.create_client_factory();
    for key in 0..CONNECTIONS {
        let client = factory.client_at(server.address(), key);
        let client = client.expect("the factory is open");
        client.send_rpc(b"?", SECOND).await.expect("a reply");
    }
    // What was begun comes to its end.
    tokio::time::sleep(2 * SECOND).await;
    Quiet {
        runtime,
        _server: server,
        _factory: factory,
    }
}

#[tokio::test(start_paused = true)]
async fn where_nothing_is_due_no_task_runs() {
    let quiet = quiet(TransportConfig {
        ping_interval: None,
        ..TransportConfig::default()
    });
    let polls = quiet.await.runtime.polls_within(1000 * HOUR).await;
    assert_eq!(polls, []);
}

#[tokio::test(start_paused = true)]
async fn one_task_alone_looks_after_all_connections() {
    let quiet = quiet(TransportConfig {
        ping_interval: None,
        idle_timeout: Some(HOUR),
        ..TransportConfig::default()
    });
    // Of the looks at each of them, a quarter of an hour apart, three are due.
    let polls = quiet.await.runtime.polls_within(HOUR * 7 / 8).await;
    assert_eq!(polls, [3], "the connections were made at the same moment");
}

#[tokio::test(start_paused = true)]
async fn between_two_looks_no_task_runs_and_one_task_looks_at_all() {
    let interval = 15 * SECOND;
    let quiet = quiet(TransportConfig {
        ping_interval: Some(interval),
        ..TransportConfig::default()
    });
    let quiet = quiet.await;
    assert_eq!(quiet.runtime.polls_within(interval - 3 * SECOND).await, []);
    // The first look finds that something came, and asks nobody.
    assert_eq!(quiet.runtime.polls_within(2 * SECOND).await, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_polls_stops_when_nothing_comes_and_is_refused_where_there_is_one_processor()
{
    let config = TransportConfig {
        ping_interval: None,
        polling: Some(Duration::from_micros(50)),
        ..TransportConfig::default()
    };
    if let Err(refused) = config.check() {
        let context = TransportContext::new("test", Nobody).config(config);
        let server = context.create_server("127.0.0.1:0").await;
        assert!(matches!(server, Err(BindError::Config { .. })), "{refused}");
        let client = context.create_client_factory();
        let client = client.create_client("127.0.0.1:1").await;
        assert!(
            matches!(client, Err(ConnectError::Config { .. })),
            "{refused}"
        );
        return;
    }
    let quiet = quiet(config).await;
    let most = quiet.runtime.polls().into_iter().max();
    assert!(most > Some(100), "it tries again and again: {most:?}");
    assert_eq!(quiet.runtime.polls_within(1000 * HOUR).await, []);
}

/// Is never asked.
#[derive(Debug)]
struct Nobody;

impl RpcHandler for Nobody {
    fn receive(&self, _: &TransportClient, _: Bytes, _: RpcResponseCallback) {}
}
