//! What is seen from outside: snapshots, metrics, dead letters, traces.

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aloha_rpc::{
    AskError, Codec, DeadLetter, DeadLetterReason, EndpointContext, EndpointError, Metrics,
    RestartPolicy, RpcAddress, RpcCallContext, RpcEndpoint, RpcEndpointRef, TraceContext,
};
use common::{Join, Pair, config, until};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
enum Work {
    Sleep(Duration, RpcCallContext<()>),
    Panic(RpcCallContext<()>),
    Trace(RpcCallContext<Option<[u8; 16]>>),
    Through(RpcEndpointRef<Self>, RpcCallContext<Option<[u8; 16]>>),
}

#[derive(Default)]
struct Worker;

impl RpcEndpoint for Worker {
    type Message = Work;

    async fn receive_and_reply(
        &mut self,
        message: Work,
        _: &EndpointContext<Work>,
    ) -> Result<(), EndpointError> {
        match message {
            Work::Sleep(time, call) => {
                tokio::time::sleep(time).await;
                call.reply(());
            }
            Work::Panic(call) => {
                let _held = call;
                panic!("on purpose");
            }
            Work::Trace(call) => {
                assert_eq!(
                    call.trace().map(|trace| trace.trace_id),
                    TraceContext::current().map(|trace| trace.trace_id)
                );
                call.reply(TraceContext::current().map(|trace| trace.trace_id));
            }
            Work::Through(next, call) => {
                let trace = next.ask(Work::Trace).within(&call).await?;
                call.reply(trace);
            }
        }
        Ok(())
    }
}

/// Counts what it hears of.
#[derive(Default, Clone)]
struct Counters(Arc<Mutex<BTreeMap<String, u64>>>);

impl Counters {
    fn add(&self, what: String) {
        *self.0.lock().expect("no panic").entry(what).or_default() += 1;
    }

    fn get(&self, what: &str) -> u64 {
        let counts = self.0.lock().expect("no panic");
        counts.get(what).copied().unwrap_or_default()
    }
}

impl Metrics for Counters {
    fn on_handled(&self, endpoint: &str, took: Duration) {
        self.add(format!("handled {endpoint}"));
        if took >= Duration::from_millis(5) {
            self.add(format!("slow {endpoint}"));
        }
    }
    fn on_error(&self, endpoint: &str, kind: &str) {
        self.add(format!("{kind} {endpoint}"));
    }
    fn on_restart(&self, endpoint: &str) {
        self.add(format!("restart {endpoint}"));
    }
    fn on_dead_letter(&self, letter: &DeadLetter) {
        self.add(format!("{} {}", letter.reason, letter.receiver));
    }
    fn on_connected(&self, _: &RpcAddress) {
        self.add("connected".to_owned());
    }
    fn on_disconnected(&self, _: &RpcAddress) {
        self.add("disconnected".to_owned());
    }
}

async fn observed(join: Join) {
    let counters = Counters::default();
    let metrics = counters.clone();
    let pair = Pair::with(join, Codec::Bincode, |builder| builder.metrics(metrics)).await;
    let policy = RestartPolicy {
        backoff_min: Duration::ZERO,
        ..RestartPolicy::default()
    };
    pair.server
        .endpoint("worker")
        .setup_with(policy, Worker::default)
        .expect("a name");
    let worker: RpcEndpointRef<Work> = pair.look_up("worker").await;
    let time = Duration::from_millis(10);
    let slept = worker.ask(|call| Work::Sleep(time, call));
    let panicked = worker.ask(Work::Panic);
    until(|| pair.server.snapshot().endpoints[0].waiting == 1).await;
    let busy = pair.server.snapshot().endpoints[0].clone();
    assert_eq!(&*busy.name, "worker");
    assert!(busy.oldest.is_some(), "one is at work, one waits");
    slept.await.expect("a reply");
    panicked.await.expect_err("it panics");
    until(|| pair.server.snapshot().endpoints[0].restarts == 1).await;
    let idle = pair.server.snapshot().endpoints[0].clone();
    assert_eq!(
        (idle.waiting, idle.handled, idle.errors),
        (0, 2, 1),
        "{idle:?}"
    );
    assert!(idle.handler_time >= time && idle.handler_time_max >= time);
    until(|| pair.server.snapshot().endpoints[0].oldest.is_none()).await;
    if join != Join::Local {
        let connections = pair.server.snapshot().connections;
        assert_eq!(connections.len(), 1);
        assert!(!connections[0].outbound && connections[0].received_bytes > 0);
        let asked = worker.ask(|call| Work::Sleep(time, call));
        let outstanding = || pair.caller.snapshot().connections[0].requests_outstanding;
        until(|| outstanding() == 1).await;
        assert!(pair.caller.snapshot().connections[0].outbound);
        asked.await.expect("a reply");
        assert_eq!(outstanding(), 0);
        pair.caller.shutdown().await;
        until(|| counters.get("disconnected") == 1).await;
        assert_eq!(counters.get("connected"), 1);
        assert!(pair.server.snapshot().connections.is_empty());
    }
    assert!(counters.get("slow worker") >= 1);
    assert_eq!(counters.get("panic worker"), 1);
    assert_eq!(counters.get("restart worker"), 1);
    pair.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_environment_is_observed_alone() {
    observed(Join::Local).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_environment_is_observed_over_tcp() {
    observed(Join::Tcp).await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_message_for_nobody_is_a_dead_letter() {
    let pair = Pair::new(Join::Memory, Codec::Bincode).await;
    let mut letters = pair.server.observe_dead_letters();
    let worker = pair.set_up("worker", Worker).await;
    let there: RpcEndpointRef<Work> = pair
        .server
        .retrieve_endpoint_ref(pair.server.address().expect("it listens"), "worker")
        .await
        .expect("it is there");
    let watch = pair.server.watch(&there);
    pair.server.stop(&there);
    watch.await;
    let error = worker.ask(Work::Trace).await.expect_err("it has ended");
    assert!(
        matches!(error, AskError::EndpointNotFound { .. }),
        "{error}"
    );
    let letter = letters.next().await.expect("it is seen");
    assert_eq!(
        (&*letter.receiver, letter.reason, letter.count),
        ("worker", DeadLetterReason::NoEndpoint, 1)
    );
    pair.shutdown().await;
    assert_eq!(letters.next().await, None, "no more come");
}

async fn traced(join: Join) {
    let mut config = config(Codec::Bincode);
    config.trace = true;
    // Both must carry it on.
    let tracing = |builder: aloha_rpc::RpcEnvBuilder| builder.config(config.clone());
    let pair = Pair::with_both(join, tracing).await;
    let first = pair.set_up("first", Worker).await;
    let second = pair.set_up("second", Worker).await;
    let fresh = first.ask(Work::Trace).await.expect("a reply");
    let other = first.ask(Work::Trace).await.expect("a reply");
    assert!(fresh.is_some() && fresh != other, "each a trace of its own");
    let mine = TraceContext {
        trace_id: [7; 16],
        span_id: [1; 8],
        flags: 1,
    };
    // An ask is sent when it is made, so it is made inside.
    let nested = mine.scope(async { first.ask(|call| Work::Through(second, call)).await });
    assert_eq!(
        nested.await.expect("a reply"),
        Some([7; 16]),
        "the trace goes through"
    );
    pair.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_goes_along_in_one_environment() {
    traced(Join::Local).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_goes_along_over_tcp() {
    traced(Join::Tcp).await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_busy_port_moves_to_the_next() {
    let first = aloha_rpc::RpcEnv::builder("first").bind("127.0.0.1:0");
    let first = first.start().await.expect("a free port");
    let address = first.address().expect("it listens");
    let bind = address.to_string();
    let refused = aloha_rpc::RpcEnv::builder("second").bind(bind.clone());
    assert!(refused.start().await.is_err());
    let moved = aloha_rpc::RpcEnv::builder("third")
        .bind(bind)
        .port_retries(16);
    let moved = moved.start().await.expect("one of the next");
    let port = moved.address().expect("it listens").port();
    assert!((1..=16).contains(&(port - address.port())));
    moved.shutdown().await;
    first.shutdown().await;
}

#[tokio::test(flavor = "current_thread")]
async fn another_host_may_be_advertised() {
    let env = aloha_rpc::RpcEnv::builder("named")
        .bind("127.0.0.1:0")
        .advertise("localhost");
    let env = env.start().await.expect("a free port");
    assert_eq!(env.address().expect("it listens").host(), "localhost");
    env.shutdown().await;
}
