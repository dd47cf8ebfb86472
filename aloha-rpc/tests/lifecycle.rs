//! When callbacks are called, and that nothing they do ends what should go on.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aloha_rpc::testing::Simulation;
use aloha_rpc::{
    AskError, Directive, EndpointContext, EndpointError, RpcAddress, RpcCallContext, RpcConfig,
    RpcEndpoint, RpcEndpointRef,
};
use common::Pair;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
enum Step {
    /// Sent to itself in `on_start`.
    Myself,
    Fail,
    Panic(RpcCallContext<()>),
    Log(RpcCallContext<Vec<String>>),
    Never(RpcCallContext<()>),
}

/// Writes down what is called.
#[derive(Clone, Default)]
struct Diary {
    log: Arc<Mutex<Vec<String>>>,
    fails_at: &'static [&'static str],
}

impl Diary {
    fn failing_at(fails_at: &'static [&'static str]) -> Self {
        Self {
            fails_at,
            ..Self::default()
        }
    }

    fn note(&self, what: impl Into<String>) -> Result<(), EndpointError> {
        let what = what.into();
        let fails = self.fails_at.contains(&what.as_str());
        self.log
            .lock()
            .expect("no panic under it")
            .push(what.clone());
        if fails {
            return Err(EndpointError::new("broke", what));
        }
        Ok(())
    }

    fn read(&self) -> Vec<String> {
        self.log.lock().expect("no panic under it").clone()
    }
}

impl RpcEndpoint for Diary {
    type Message = Step;

    async fn on_start(&mut self, ctx: &EndpointContext<Step>) -> Result<(), EndpointError> {
        ctx.self_ref().send(Step::Myself)?;
        self.note("start")
    }

    async fn receive(
        &mut self,
        message: Step,
        ctx: &EndpointContext<Step>,
    ) -> Result<(), EndpointError> {
        match message {
            Step::Myself => self.note(format!("myself {}", ctx.self_ref().name())),
            Step::Fail => self.note("fail"),
            Step::Panic(call) => {
                let _held = call;
                panic!("on purpose");
            }
            Step::Never(call) => {
                ctx.spawn(async move { call.cancelled().await });
                Ok(())
            }
            Step::Log(call) => {
                call.reply(self.read());
                Ok(())
            }
        }
    }

    async fn on_error(&mut self, error: EndpointError, _: &EndpointContext<Step>) -> Directive {
        drop(self.note(format!("error {}", error.kind())));
        Directive::Resume
    }

    async fn on_connected(
        &mut self,
        remote: &RpcAddress,
        _: &EndpointContext<Step>,
    ) -> Result<(), EndpointError> {
        self.note(format!("connected {remote}"))
    }

    async fn on_disconnected(
        &mut self,
        remote: &RpcAddress,
        _: &EndpointContext<Step>,
    ) -> Result<(), EndpointError> {
        self.note(format!("disconnected {remote}"))
    }

    async fn on_network_error(
        &mut self,
        cause: &str,
        remote: &RpcAddress,
        _: &EndpointContext<Step>,
    ) -> Result<(), EndpointError> {
        assert!(!cause.is_empty());
        self.note(format!("network error {remote}"))
    }

    async fn on_stop(&mut self) -> Result<(), EndpointError> {
        self.note("stop")
    }
}

fn without_connections(log: &[String]) -> Vec<&str> {
    let log = log.iter().map(String::as_str);
    log.filter(|line| !line.contains("connected")).collect()
}

async fn start_comes_first_and_stop_last_once_each(pair: Pair) {
    let diary = Diary::default();
    let remote = pair.set_up("diary", diary.clone()).await;
    let there = pair.server.endpoint_ref::<Step>("diary");
    let there = there.expect("it is there");
    remote.ask(Step::Log).await.expect("a reply");
    let ended = pair.server.watch(&there);
    pair.server.stop(&there);
    pair.server.stop(&there);
    ended.await;
    assert_eq!(
        without_connections(&diary.read()),
        ["start", "myself diary", "stop"]
    );
    pair.shutdown().await;
    assert_eq!(without_connections(&diary.read()).len(), 3);
}

async fn errors_of_every_callback_come_to_on_error(pair: Pair) {
    let diary = Diary::failing_at(&["start", "fail", "stop"]);
    let remote = pair.set_up("diary", diary.clone()).await;
    // Behind its start, so that what it sent itself came first.
    remote.ask(Step::Log).await.expect("a reply");
    remote.send(Step::Fail).expect("room");
    let log = remote.ask(Step::Log).await.expect("a reply");
    assert_eq!(
        without_connections(&log),
        [
            "start",
            "error broke",
            "myself diary",
            "fail",
            "error broke"
        ]
    );
    pair.shutdown().await;
    assert_eq!(
        without_connections(&diary.read())[5..],
        ["stop", "error broke"]
    );
}

async fn a_hundred_panics_are_told_and_the_environment_serves(pair: Pair) {
    let remote = pair.set_up("diary", Diary::default()).await;
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let panics: Vec<_> = (0..100).map(|_| remote.ask(Step::Panic)).collect();
    for panicked in panics {
        let error = panicked.await.expect_err("it panics");
        assert!(matches!(error, AskError::Panicked { .. }), "{error}");
    }
    std::panic::set_hook(quiet);
    let log = remote.ask(Step::Log).await.expect("it serves");
    assert_eq!(
        log.iter().filter(|line| *line == "error panic").count(),
        100
    );
    pair.shutdown().await;
}

async fn a_time_out_names_its_key_once(pair: Pair) {
    let remote = pair.set_up("diary", Diary::default()).await;
    let late = remote.ask_for(Duration::from_millis(1), Step::Never).await;
    let text = late.expect_err("nobody answers").to_string();
    assert_eq!(
        text.matches(RpcConfig::ASK_TIMEOUT_KEY).count(),
        1,
        "{text}"
    );
    assert!(text.contains("aloha://diary@"), "{text}");
    pair.shutdown().await;
}

everywhere!(
    start_comes_first_and_stop_last_once_each,
    errors_of_every_callback_come_to_on_error,
    a_hundred_panics_are_told_and_the_environment_serves,
    a_time_out_names_its_key_once,
);

/// A server sees another server by the address it listens on and a client by that of its connection; a client sees
/// the server; and what breaks is told before what ends.
#[test]
fn both_ends_of_a_connection_see_it_come_break_and_go() {
    Simulation::run(8, async |sim| {
        let (server, other) = (sim.env("server").await, sim.env("other").await);
        let client = sim.client("client").await;
        let (at_server, at_client) = (Diary::default(), Diary::default());
        server
            .setup_endpoint("diary", at_server.clone())
            .expect("a name");
        client
            .setup_endpoint("diary", at_client.clone())
            .expect("a name");
        let address = server.address().expect("it listens");
        for env in [&other, &client] {
            let found: RpcEndpointRef<Step> = env
                .retrieve_endpoint_ref(address, "diary")
                .await
                .expect("it is there");
            found.ask(Step::Log).await.expect("a reply");
        }
        sim.network().cut("server", "other");
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.shutdown().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(
            at_server.read()[2..],
            [
                "connected other:7077",
                "connected client:49152",
                "network error other:7077",
                "disconnected other:7077",
                "disconnected client:49152",
            ]
        );
        assert_eq!(
            at_client.read(),
            ["start", "myself diary", "connected server:7077", "stop"],
            "its own shutdown is no news"
        );
        server.shutdown().await;
        assert_eq!(at_server.read().last().map(String::as_str), Some("stop"));
        other.shutdown().await;
    });
}

/// An ask to a client whose network lets nothing through ends by its limit, and says who and how long.
#[test]
fn an_ask_to_a_client_that_hears_nothing_ends_by_its_limit() {
    #[derive(Debug, Serialize, Deserialize)]
    enum Desk {
        Here(RpcEndpointRef<Step>, RpcCallContext<()>),
        AskBack(RpcCallContext<String>),
    }
    #[derive(Default)]
    struct Clerk(Option<RpcEndpointRef<Step>>);
    impl RpcEndpoint for Clerk {
        type Message = Desk;
        async fn receive(
            &mut self,
            message: Desk,
            _: &EndpointContext<Desk>,
        ) -> Result<(), EndpointError> {
            match message {
                Desk::Here(back, call) => {
                    self.0 = Some(back);
                    call.reply(());
                }
                Desk::AskBack(call) => {
                    let back = self.0.as_ref().expect("it was here");
                    let answer = back.ask_for(Duration::from_millis(700), Step::Log).await;
                    call.reply(answer.expect_err("it hears nothing").to_string());
                }
            }
            Ok(())
        }
    }
    Simulation::run(9, async |sim| {
        let (server, client) = (sim.env("server").await, sim.client("client").await);
        let local = server.setup_endpoint("desk", Clerk::default());
        let local = local.expect("a name");
        let back = client.setup_endpoint("back", Diary::default());
        let back = back.expect("a name");
        let desk: RpcEndpointRef<Desk> = client
            .retrieve_endpoint_ref(server.address().expect("it listens"), "desk")
            .await
            .expect("it is there");
        desk.ask(|call| Desk::Here(back, call))
            .await
            .expect("a reply");
        sim.network().partition("server", "client");
        let text = local.ask(Desk::AskBack).await.expect("a reply");
        assert!(
            text.contains("aloha://back@client:49152") && text.contains("700ms"),
            "{text}"
        );
        sim.network().heal_all();
        client.shutdown().await;
        server.shutdown().await;
    });
}
