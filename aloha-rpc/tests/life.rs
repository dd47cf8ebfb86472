//! The life of connections under an environment: where it can be, how many there are, and how they end.

use std::time::Duration;

use aloha_rpc::testing::Simulation;
use aloha_rpc::{
    AskError, EndpointContext, EndpointError, LimitOf, RpcAddress, RpcCallContext, RpcConfig,
    RpcEndpoint, RpcEndpointRef, RpcEnv, SendError,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

#[derive(Debug, Serialize, Deserialize)]
enum Say {
    Note(u32),
    Notes(RpcCallContext<Vec<u32>>),
    Echo(String, RpcCallContext<String>),
    /// Answered so many seconds later, from another task.
    Later(u64, RpcCallContext<()>),
    /// Answered with so many bytes.
    Bytes(u32, RpcCallContext<Vec<u8>>),
    Never(RpcCallContext<()>),
}

/// Tells of connections.
#[derive(Default)]
struct Talker {
    notes: Vec<u32>,
    kept: Vec<RpcCallContext<()>>,
    news: Option<mpsc::Sender<String>>,
}

impl Talker {
    fn tell(&self, news: String) {
        if let Some(to) = &self.news {
            to.try_send(news).expect("room for a handful");
        }
    }

    fn with_news() -> (Self, mpsc::Receiver<String>) {
        let (news, told) = mpsc::channel(100);
        let talker = Self {
            news: Some(news),
            ..Self::default()
        };
        (talker, told)
    }
}

impl RpcEndpoint for Talker {
    type Message = Say;

    async fn receive(
        &mut self,
        message: Say,
        _: &EndpointContext<Say>,
    ) -> Result<(), EndpointError> {
        match message {
            Say::Note(note) => self.notes.push(note),
            Say::Notes(call) => call.reply(self.notes.clone()),
            Say::Echo(text, call) => call.reply(text),
            // Not a task of the endpoint's, which would end with it.
            Say::Later(seconds, call) => drop(tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                call.reply(());
            })),
            Say::Bytes(bytes, call) => call.reply(vec![0; bytes as usize]),
            Say::Never(call) => self.kept.push(call),
        }
        Ok(())
    }

    async fn on_connected(
        &mut self,
        _: &RpcAddress,
        _: &EndpointContext<Say>,
    ) -> Result<(), EndpointError> {
        self.tell("connected".to_owned());
        Ok(())
    }

    async fn on_disconnected(
        &mut self,
        _: &RpcAddress,
        _: &EndpointContext<Say>,
    ) -> Result<(), EndpointError> {
        self.tell("disconnected".to_owned());
        Ok(())
    }

    async fn on_network_error(
        &mut self,
        cause: &str,
        _: &RpcAddress,
        _: &EndpointContext<Say>,
    ) -> Result<(), EndpointError> {
        self.tell(cause.to_owned());
        Ok(())
    }
}

async fn look_up(env: &RpcEnv, server: &RpcEnv) -> RpcEndpointRef<Say> {
    let address = server.address().expect("it listens");
    let found = env.retrieve_endpoint_ref(address, "talker").await;
    found.expect("it is set up")
}

fn echo(text: &str) -> impl FnOnce(RpcCallContext<String>) -> Say + use<> {
    let text = text.to_owned();
    |call| Say::Echo(text, call)
}

/// Asks, sends, and news of the end, over whatever `address` is.
async fn an_environment_is_called_at(address: &str) {
    let server = RpcEnv::builder("server").bind(address).start().await;
    let server = server.expect("a free address");
    let (talker, mut told) = Talker::with_news();
    server.setup_endpoint("talker", talker).expect("a new name");
    let client = RpcEnv::client("client").await.expect("nothing is needed");
    let uri = format!("aloha://talker@{}", server.address().expect("it listens"));
    let talker = client.retrieve_endpoint_ref_by_uri::<Say>(&uri).await;
    let talker = talker.expect("it is set up");
    assert_eq!(talker.uri(), uri);
    let reply = talker.ask(echo("hello")).await;
    assert_eq!(reply.expect("a reply"), "hello");
    for note in 0..100 {
        talker.send(Say::Note(note)).expect("room");
    }
    let notes = talker.ask(Say::Notes).await.expect("a reply");
    assert!(notes.into_iter().eq(0..100));
    assert_eq!(told.recv().await.expect("news"), "connected");
    client.shutdown().await;
    assert_eq!(told.recv().await.expect("news"), "disconnected");
    server.shutdown().await;
}

#[tokio::test]
async fn an_environment_at_an_ipv6_address_is_called_there() {
    if let Err(error) = std::net::TcpListener::bind("[::1]:0") {
        let text = format!("skipped: this machine has no IPv6 loopback: {error}\n");
        drop(std::io::Write::write_all(
            &mut std::io::stderr(),
            text.as_bytes(),
        ));
        return;
    }
    an_environment_is_called_at("[::1]:0").await;
}

#[cfg(unix)]
#[tokio::test]
async fn an_environment_at_a_unix_domain_socket_is_called_there() {
    let path = std::env::temp_dir().join(format!("aloha-rpc-{}.sock", std::process::id()));
    let address = format!("unix:{}", path.display());
    an_environment_is_called_at(&address).await;
    assert!(!path.exists(), "it is removed with its server");
    let refused = RpcEnv::builder("server")
        .bind("unix:relative")
        .start()
        .await;
    refused.expect_err("nobody else would find it");
}

#[test]
fn what_is_too_large_names_the_limit_and_its_key_and_the_connection_stays() {
    Simulation::run(1, async |sim| {
        let mut small = RpcConfig::default();
        small.transport.frame_bytes_max = 2000;
        let server = sim.env_with("server", small).await;
        let (talker, mut told) = Talker::with_news();
        server.setup_endpoint("talker", talker).expect("a new name");
        let client = sim.client("client").await;
        let talker = look_up(&client, &server).await;
        let refused = talker.ask(echo(&"x".repeat(3000))).await;
        let refused = refused.expect_err("too large");
        let AskError::NotSent(SendError::TooLarge {
            limit, whose, key, ..
        }) = &refused
        else {
            panic!("{refused}");
        };
        assert_eq!(
            (*limit, *whose, *key),
            (2000, LimitOf::Peers, "aloha.rpc.message.maxSize")
        );
        let words = "is over its limit of 2000, which aloha.rpc.message.maxSize controls";
        assert!(refused.to_string().contains(words), "{refused}");
        let reply = talker.ask(|call| Say::Bytes(3000, call)).await;
        let reply = reply.expect_err("too large");
        let words =
            "is over the answerer's limit of 2000, which aloha.rpc.message.maxSize controls";
        assert!(reply.to_string().contains(words), "{reply}");
        let fits = talker.ask(echo("hello")).await;
        assert_eq!(fits.expect("a reply"), "hello");
        assert_eq!(told.recv().await.expect("news"), "connected");
        assert!(told.try_recv().is_err(), "and nothing since");
    });
}

#[test]
fn with_several_connections_per_peer_each_endpoint_has_its_order() {
    Simulation::run(2, async |sim| {
        let server = sim.env("server").await;
        let names = ["one", "two", "three", "four", "five", "six"];
        for name in names {
            let set_up = server.setup_endpoint(name, Talker::default());
            set_up.expect("a new name");
        }
        let mut several = RpcConfig::default();
        several.transport.connections_per_peer = 3;
        let client = sim.builder("client").config(several).start().await;
        let client = client.expect("a client needs no port");
        let address = server.address().expect("it listens");
        let mut talkers = Vec::new();
        for name in names {
            let found = client.retrieve_endpoint_ref::<Say>(address, name).await;
            talkers.push(found.expect("it is set up"));
        }
        for note in 0..500 {
            for talker in &talkers {
                talker.send(Say::Note(note)).expect("room");
            }
        }
        for talker in &talkers {
            let notes = talker.ask(Say::Notes).await.expect("a reply");
            assert!(notes.into_iter().eq(0..500));
        }
        assert_eq!(client.snapshot().connections.len(), 3);
    });
}

#[test]
fn a_call_that_is_answered_while_its_environment_shuts_down_is_answered() {
    Simulation::run(3, async |sim| {
        let server = sim.env("server").await;
        let set_up = server.setup_endpoint("talker", Talker::default());
        set_up.expect("a new name");
        let client = sim.client("client").await;
        let talker = look_up(&client, &server).await;
        let later = talker.ask(|call| Say::Later(1, call));
        talker.ask(echo("it has begun")).await.expect("a reply");
        let (answer, ()) = tokio::join!(later, server.shutdown());
        answer.expect("within the flush");
    });
}

#[test]
fn what_was_sent_before_a_shutdown_arrives() {
    Simulation::run(4, async |sim| {
        let server = sim.env("server").await;
        let set_up = server.setup_endpoint("talker", Talker::default());
        let talker = set_up.expect("a new name");
        let client = sim.client("client").await;
        let remote = look_up(&client, &server).await;
        for note in 0..5000 {
            remote.send(Say::Note(note)).expect("room");
        }
        client.shutdown().await;
        let notes = talker.ask(Say::Notes).await.expect("a reply");
        assert!(notes.into_iter().eq(0..5000));
        assert_eq!(client.dead_letters(), 0);
    });
}

#[test]
fn an_ask_to_an_environment_that_vanished_ends_long_before_its_time_and_endpoints_hear_why() {
    Simulation::run(5, async |sim| {
        let server = sim.env("server").await;
        let set_up = server.setup_endpoint("talker", Talker::default());
        set_up.expect("a new name");
        let client = sim.client("client").await;
        let (witness, mut told) = Talker::with_news();
        client
            .setup_endpoint("witness", witness)
            .expect("a new name");
        let talker = look_up(&client, &server).await;
        assert_eq!(told.recv().await.expect("news"), "connected");
        sim.network().isolate("server");
        let started = sim_now(&client);
        let lost = talker.ask_for(HOUR, Say::Never).await;
        let lost = lost.expect_err("it vanished");
        assert!(matches!(lost, AskError::Disconnected { .. }), "{lost}");
        assert!(sim_now(&client) - started <= 40 * SECOND);
        let why = told.recv().await.expect("news");
        assert!(why.contains("nothing was received for"), "{why}");
        assert_eq!(told.recv().await.expect("news"), "disconnected");
        sim.network().heal_all();
        let reply = talker.ask(echo("again")).await;
        assert_eq!(reply.expect("a new connection"), "again");
    });
}

#[test]
fn who_cannot_be_reached_is_not_called_again_at_once() {
    Simulation::run(6, async |sim| {
        let server = sim.env("server").await;
        let set_up = server.setup_endpoint("talker", Talker::default());
        set_up.expect("a new name");
        let client = sim.client("client").await;
        let talker = look_up(&client, &server).await;
        server.shutdown().await;
        let first = talker.ask(echo("?")).await.expect_err("nobody");
        let second = talker.ask(echo("?")).await.expect_err("nobody");
        for (error, fast) in [(first, false), (second, true)] {
            assert!(matches!(error, AskError::NotConnected { .. }), "{error}");
            let says_so = error.to_string().contains("not calling server:7077 again");
            assert_eq!(says_so, fast, "{error}");
        }
        // Its successor is found once the pause is over.
        let server = sim.env("server").await;
        let set_up = server.setup_endpoint("talker", Talker::default());
        set_up.expect("a new name");
        tokio::time::sleep(SECOND).await;
        let reply = talker.ask(echo("again")).await;
        assert_eq!(reply.expect("a reply"), "again");
    });
}

#[test]
fn a_connection_that_nobody_uses_is_closed_where_that_is_asked_for_and_made_anew_when_needed() {
    Simulation::run(7, async |sim| {
        let server = sim.env("server").await;
        let set_up = server.setup_endpoint("talker", Talker::default());
        set_up.expect("a new name");
        let mut idle = RpcConfig::default();
        idle.transport.idle_timeout = Some(10 * SECOND);
        let client = sim.builder("client").config(idle).start().await;
        let client = client.expect("a client needs no port");
        let (witness, mut told) = Talker::with_news();
        client
            .setup_endpoint("witness", witness)
            .expect("a new name");
        let talker = look_up(&client, &server).await;
        assert_eq!(told.recv().await.expect("news"), "connected");
        let watched = client.watch(&talker);
        tokio::time::sleep(HOUR).await;
        assert!(told.try_recv().is_err(), "a watch holds it");
        drop(watched);
        assert_eq!(told.recv().await.expect("news"), "disconnected");
        assert_eq!(client.snapshot().connections.len(), 0);
        let reply = talker.ask(echo("again")).await;
        assert_eq!(reply.expect("a new connection"), "again");
        assert_eq!(told.recv().await.expect("news"), "connected");
    });
}

fn sim_now(env: &RpcEnv) -> tokio::time::Instant {
    env.runtime().now()
}
