//! Every ask ends, once, with a reason; deadlines and cancels go along with what is asked on behalf of another.

mod common;

use std::sync::Arc;
use std::time::Duration;

use aloha_rpc::testing::Simulation;
use aloha_rpc::{
    AskError, EndpointContext, EndpointError, RpcCallContext, RpcConfig, RpcEndpoint,
    RpcEndpointRef, RpcEnv, SendError,
};
use common::{Pair, until};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};

#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    Echo(u32, RpcCallContext<u32>),
    /// Answered never; its cancel is noted.
    Never(RpcCallContext<u32>),
    /// Asks another, within the time of this call.
    Through(RpcEndpointRef<Self>, RpcCallContext<u32>),
    /// Passes the call on.
    Forward(Vec<RpcEndpointRef<Self>>, RpcCallContext<u32>),
    TimeLeft(RpcCallContext<Duration>),
    Large(usize, RpcCallContext<Vec<u8>>),
    Blob(Vec<u8>, RpcCallContext<u32>),
}

#[derive(Clone)]
struct Answerer {
    cancelled: Arc<Notify>,
    calls: mpsc::Sender<&'static str>,
}

impl RpcEndpoint for Answerer {
    type Message = Ask;

    async fn receive(
        &mut self,
        message: Ask,
        ctx: &EndpointContext<Ask>,
    ) -> Result<(), EndpointError> {
        match message {
            Ask::Echo(number, call) => call.reply(number),
            Ask::Never(call) => {
                self.calls.send("never").await?;
                let cancelled = Arc::clone(&self.cancelled);
                ctx.spawn(async move {
                    call.cancelled().await;
                    cancelled.notify_one();
                });
            }
            Ask::Through(next, call) => {
                ctx.spawn(async move {
                    let asked = next.ask(Ask::Never).within(&call);
                    tokio::select! {
                        biased;
                        () = call.cancelled() => {}
                        answer = asked => match answer {
                            Ok(number) => call.reply(number),
                            Err(error) => call.send_failure(error),
                        }
                    }
                });
            }
            Ask::Forward(mut way, call) => match way.pop() {
                Some(next) if way.is_empty() => next.forward(Ask::Never(call))?,
                Some(next) => next.forward(Ask::Forward(way, call))?,
                None => call.reply(0),
            },
            Ask::TimeLeft(call) => {
                let left = call.time_left(ctx.env().runtime().now());
                call.reply(left.unwrap_or(Duration::MAX));
            }
            Ask::Large(bytes, call) => call.reply(vec![7; bytes]),
            Ask::Blob(bytes, call) => call.reply(u32::try_from(bytes.len())?),
        }
        Ok(())
    }
}

fn answerer() -> (Answerer, Arc<Notify>, mpsc::Receiver<&'static str>) {
    let cancelled = Arc::new(Notify::new());
    let (calls, seen) = mpsc::channel(64);
    let answerer = Answerer {
        cancelled: Arc::clone(&cancelled),
        calls,
    };
    (answerer, cancelled, seen)
}

async fn a_nested_ask_has_the_time_that_is_left(pair: Pair) {
    let (answerer, _cancelled, _calls) = answerer();
    let first = pair.set_up("first", answerer.clone()).await;
    let second = pair.set_up("second", answerer).await;
    let limit = Duration::from_millis(80);
    let failed = first
        .ask_for(limit, |call| Ask::Through(second, call))
        .await
        .expect_err("nobody answers");
    // Either the asker's clock ends it, or the nested ask, whose limit was no longer, did a moment before.
    match &failed {
        AskError::TimedOut { timeout, key, .. } => {
            assert_eq!((*timeout, *key), (limit, RpcConfig::ASK_TIMEOUT_KEY));
        }
        AskError::Failed { text, .. } => assert!(text.contains("no reply"), "{text}"),
        other => panic!("{other}"),
    }
    let left = first
        .ask_for(Duration::from_secs(10), Ask::TimeLeft)
        .await
        .expect("a reply");
    assert!(left <= Duration::from_secs(10) && left > Duration::from_secs(5));
    pair.shutdown().await;
}

async fn a_cancel_goes_through_a_nested_ask(pair: Pair) {
    let (answerer, cancelled, mut calls) = answerer();
    let first = pair.set_up("first", answerer.clone()).await;
    let second = pair.set_up("second", answerer).await;
    let asked = first.ask(|call| Ask::Through(second, call));
    calls.recv().await.expect("it arrived");
    drop(asked);
    cancelled.notified().await;
    pair.shutdown().await;
}

async fn a_cancel_and_a_deadline_follow_a_call_that_was_passed_on(pair: Pair) {
    let third = pair.third(true).await;
    let (answerer, cancelled, mut calls) = answerer();
    let first = pair.set_up("first", answerer.clone()).await;
    let last = third.setup_endpoint("last", answerer.clone());
    let last = last.expect("a new name");
    let back = pair.caller.setup_endpoint("back", answerer);
    let back = back.expect("a new name");
    let way = vec![last.clone(), back];
    let asked = first.ask(|call| Ask::Forward(way, call));
    calls.recv().await.expect("it arrived at the last");
    drop(asked);
    cancelled.notified().await;
    let left = first.ask(|call| Ask::Forward(vec![last], call));
    calls.recv().await.expect("it arrived at the last");
    drop(left);
    cancelled.notified().await;
    third.shutdown().await;
    pair.shutdown().await;
}

async fn a_stopped_environment_ends_what_is_asked_of_it(pair: Pair) {
    let (answerer, _, mut calls) = answerer();
    let first = pair.set_up("first", answerer).await;
    let asked = first.ask(Ask::Never);
    calls.recv().await.expect("it arrived");
    pair.server.shutdown().await;
    let error = asked.await.expect_err("nobody answers");
    // The call is dropped with the task that held it, or cut off with the connection.
    assert!(
        matches!(
            &error,
            AskError::EnvironmentStopped { .. }
                | AskError::EndpointStopped { .. }
                | AskError::Dropped { .. }
                | AskError::Disconnected { .. }
        ),
        "{error}"
    );
    let later = first.ask(|call| Ask::Echo(1, call)).await;
    assert!(later.is_err());
    pair.caller.shutdown().await;
}

async fn what_is_too_large_says_so_and_hurts_nothing_else(pair: Pair) {
    let (answerer, ..) = answerer();
    let first = pair.set_up("first", answerer).await;
    if pair.is_local() {
        let reply = first.ask(|call| Ask::Large(4 << 20, call)).await;
        assert_eq!(reply.expect("locally nothing is too large").len(), 4 << 20);
        return pair.shutdown().await;
    }
    let blob = vec![1; 3 << 20];
    let refused = first.ask(|call| Ask::Blob(blob, call)).await;
    let refused = refused.expect_err("over the frame limit");
    let text = refused.to_string();
    assert!(
        text.contains("over our limit") && !refused.may_have_been_seen(),
        "{text}"
    );
    let reply = first.ask(|call| Ask::Large(3 << 20, call)).await;
    let reply = reply.expect_err("over the frame limit");
    assert!(matches!(&reply, AskError::BadReply { text, .. } if text.contains("limit")));
    let large = first.ask(|call| Ask::Blob(vec![1; 1 << 20], call)).await;
    assert_eq!(large.expect("below the limit"), 1 << 20);
    assert_eq!(
        first.ask(|call| Ask::Echo(3, call)).await.expect("a reply"),
        3
    );
    pair.shutdown().await;
}

everywhere!(
    a_nested_ask_has_the_time_that_is_left,
    a_cancel_goes_through_a_nested_ask,
    a_cancel_and_a_deadline_follow_a_call_that_was_passed_on,
    a_stopped_environment_ends_what_is_asked_of_it,
    what_is_too_large_says_so_and_hurts_nothing_else,
);

#[test]
fn a_lost_connection_says_whether_the_question_may_have_been_seen() {
    Simulation::run(3, async |sim| {
        let (server, client) = (sim.env("server").await, sim.client("client").await);
        let (answerer, _, mut calls) = answerer();
        server.setup_endpoint("first", answerer).expect("a name");
        let address = server.address().expect("it listens");
        let first: RpcEndpointRef<Ask> = client
            .retrieve_endpoint_ref(address, "first")
            .await
            .expect("it is there");
        let asked = first.ask(Ask::Never);
        calls.recv().await.expect("it arrived");
        sim.network().cut("server", "client");
        let error = asked.await.expect_err("the connection is gone");
        assert!(matches!(error, AskError::Disconnected { .. }), "{error}");
        assert!(error.may_have_been_seen());

        sim.network().crash("server");
        let error = first.ask(Ask::Never).await.expect_err("nobody listens");
        assert!(!error.may_have_been_seen(), "{error}");
        assert!(matches!(error, AskError::NotConnected { .. }), "{error}");
    });
}

#[test]
fn an_ask_over_a_partition_ends_at_its_limit_and_one_that_heals_in_time_is_answered() {
    Simulation::run(4, async |sim| {
        let (server, client) = (sim.env("server").await, sim.client("client").await);
        let (answerer, ..) = answerer();
        server.setup_endpoint("first", answerer).expect("a name");
        let address = server.address().expect("it listens");
        let first: RpcEndpointRef<Ask> = client
            .retrieve_endpoint_ref(address, "first")
            .await
            .expect("it is there");
        sim.network().partition("server", "client");
        let short = first.ask_for(Duration::from_secs(3), |call| Ask::Echo(1, call));
        let long = first.ask_for(Duration::from_secs(30), |call| Ask::Echo(2, call));
        let error = short.await.expect_err("nothing comes through");
        assert!(matches!(error, AskError::TimedOut { .. }), "{error}");
        sim.network().heal("server", "client");
        assert_eq!(long.await.expect("it healed in time"), 2);
        client.shutdown().await;
        server.shutdown().await;
    });
}

/// Messages of one environment arrive in order over a reconnect, and what is lost is a stretch around the break: what
/// was written and not received, and what was queued. Nothing comes twice.
#[test]
fn the_loss_around_a_reconnect_is_one_stretch_and_the_order_holds() {
    #[derive(Debug, Serialize, Deserialize)]
    enum Number {
        Number(u32),
        Seen(RpcCallContext<Vec<u32>>),
    }
    #[derive(Default)]
    struct Numbers(Vec<u32>);
    impl RpcEndpoint for Numbers {
        type Message = Number;
        async fn receive(
            &mut self,
            message: Number,
            _: &EndpointContext<Number>,
        ) -> Result<(), EndpointError> {
            match message {
                Number::Number(number) => self.0.push(number),
                Number::Seen(call) => call.reply(self.0.clone()),
            }
            Ok(())
        }
    }
    for seed in 0..20 {
        Simulation::run(seed, async |sim| {
            let (server, client) = (sim.env("server").await, sim.client("client").await);
            server
                .setup_endpoint("numbers", Numbers::default())
                .expect("a name");
            let address = server.address().expect("it listens");
            let numbers: RpcEndpointRef<Number> = client
                .retrieve_endpoint_ref(address, "numbers")
                .await
                .expect("it is there");
            let break_at = sim.random_below(1_000);
            for number in 0..1_000 {
                if u64::from(number) == break_at {
                    sim.network().cut("server", "client");
                }
                numbers.send(Number::Number(number)).expect("room");
                if number % 10 == 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            let seen = numbers.ask(Number::Seen).await.expect("connected again");
            assert!(seen.is_sorted_by(|one, two| one < two), "seed {seed}");
            let gaps: Vec<_> = seen
                .windows(2)
                .filter(|pair| pair[1] != pair[0] + 1)
                .collect();
            assert!(gaps.len() <= 1, "seed {seed}: {gaps:?}");
            assert_eq!(seen.last(), Some(&999), "seed {seed}");
            // What had not been written is counted at the sender; what was under way is known to nobody.
            let lost = 1_000 - seen.len() as u64;
            assert!(client.dead_letters() <= lost, "seed {seed}");
            client.shutdown().await;
            server.shutdown().await;
        });
    }
}

#[tokio::test(flavor = "current_thread")]
async fn order_holds_while_the_connection_is_being_made() {
    let network = Arc::new(aloha_rpc::testing::MemoryNetwork::default());
    let start = async |name: &str, bind: Option<&str>| {
        let mut builder = RpcEnv::builder(name).network(Arc::clone(&network) as _);
        if let Some(bind) = bind {
            builder = builder.bind(bind);
        }
        builder.start().await.expect("a free port")
    };
    let server = start("server", Some("host:1")).await;
    let holder = start("holder", Some("host:2")).await;
    let (answerer, ..) = answerer();
    server.setup_endpoint("first", answerer).expect("a name");
    let first: RpcEndpointRef<Ask> = holder
        .retrieve_endpoint_ref(server.address().expect("it listens"), "first")
        .await
        .expect("it is there");
    drop(first);
    // A new environment knows no connection yet; all asks queue before it is made.
    let fresh = start("fresh", None).await;
    let address = server.address().expect("it listens").clone();
    let looked_up = fresh.retrieve_endpoint_ref::<Ask>(&address, "first");
    let first = looked_up.await.expect("it is there");
    let mut done = Vec::new();
    let asks: Vec<_> = (0..100)
        .map(|number| first.ask(move |call| Ask::Echo(number, call)))
        .collect();
    for ask in asks {
        done.push(ask.await.expect("a reply"));
    }
    assert!(done.is_sorted());
    for env in [fresh, holder, server] {
        env.shutdown().await;
    }
}

#[tokio::test(flavor = "current_thread")]
async fn an_ask_that_was_refused_says_so_at_once_and_may_be_asked_again() {
    let env = RpcEnv::client("alone").await.expect("it starts");
    let (answerer, ..) = answerer();
    let first = env.endpoint("first").messages_max(2).setup(answerer);
    let first = first.expect("a name");
    let asks: Vec<_> = (0..3)
        .map(|number| first.ask(move |call| Ask::Echo(number, call)))
        .collect();
    let mut ends = Vec::new();
    for ask in asks {
        ends.push(ask.await);
    }
    assert!(matches!(ends[0], Ok(0)) && matches!(ends[1], Ok(1)));
    assert!(matches!(
        &ends[2],
        Err(AskError::NotSent(SendError::InboxFull { limit: 2, .. }))
    ));
    let place = first.reserve().await.expect("it lives");
    let answer = place.ask(|call| Ask::Echo(9, call)).await;
    assert_eq!(answer.expect("a place was waited for"), 9);
    until(|| env.snapshot().endpoints[0].handled == 3).await;
    env.shutdown().await;
}
