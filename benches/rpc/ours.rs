//! Aloha's endpoints, and how they do the workloads.

use std::sync::Arc;
use std::time::Duration;

use aloha_benches::{
    Entry, Figures, Handle, Job, Kind, Lobby, RING, Workload, drive, perform, resident_bytes,
    runtime, text,
};
use aloha_rpc::{
    AskError, EndpointContext, EndpointError, RpcCallContext, RpcConfig, RpcEndpoint,
    RpcEndpointRef, RpcEnv, SendError,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore, mpsc};

const NAME: &str = "counter";

pub(crate) const ENTRIES: [Entry; 16] = [
    local(Workload::L1, common),
    local(Workload::L2, common),
    local(Workload::L3, common),
    local(Workload::L4, common),
    local(Workload::L5, start_and_stop),
    local(Workload::L5m, idle_memory),
    local(Workload::L6, ring),
    remote(Workload::R1, far),
    remote(Workload::R2, far),
    remote(Workload::R2p, far),
    remote(Workload::R3, far),
    remote(Workload::R4, far),
    remote(Workload::R5, far),
    polled(Workload::R2),
    polled(Workload::R3),
    polled(Workload::R4),
];

/// How long readers look for more where they do.
const POLLING: Duration = Duration::from_micros(50);

const fn local(workload: Workload, run: fn(Job) -> Figures) -> Entry {
    Entry::local("aloha", Kind::Ours, workload, run)
}

const fn remote(workload: Workload, run: fn(Job) -> Figures) -> Entry {
    Entry::remote("aloha", Kind::Ours, workload, run, serve)
}

/// As the others, with readers that poll before they wait: aside, for it takes a processor for itself.
/// Where all is on one processor, it is refused.
const fn polled(workload: Workload) -> Entry {
    let run = |job| far_with(job, Some(POLLING));
    let serve = |lobby| serve_with(lobby, Some(POLLING));
    Entry::remote("aloha, polled", Kind::Aside, workload, run, serve)
}

/// A message with a text, allocated for each.
#[derive(Debug, Serialize, Deserialize)]
enum Load {
    /// Counted.
    Note(String),
    /// Answered with the same text.
    Echo(String, RpcCallContext<String>),
    /// Answered with the number of notes.
    Count(RpcCallContext<u64>),
}

/// Counts notes and echoes texts.
#[derive(Debug, Default)]
struct Counter(u64);

impl RpcEndpoint for Counter {
    type Message = Load;

    async fn receive(
        &mut self,
        message: Load,
        _: &EndpointContext<Load>,
    ) -> Result<(), EndpointError> {
        match message {
            Load::Note(text) => self.0 += u64::from(text.len() == 32),
            Load::Echo(text, call) => call.reply(text),
            Load::Count(call) => call.reply(self.0),
        }
        Ok(())
    }
}

#[derive(Clone)]
struct Near(RpcEndpointRef<Load>);

impl Handle for Near {
    async fn tell(&mut self, text: String) {
        self.0.send(Load::Note(text)).expect("room");
    }

    async fn ask(&mut self, text: String) -> String {
        let echo = self.0.ask(|call| Load::Echo(text, call)).await;
        echo.expect("a reply")
    }

    async fn count(&mut self) -> u64 {
        self.0.ask(Load::Count).await.expect("a reply")
    }
}

#[derive(Clone)]
struct Far {
    counter: RpcEndpointRef<Load>,
    told: u64,
}

impl Handle for Far {
    async fn tell(&mut self, text: String) {
        let length = text.len();
        if self.counter.send(Load::Note(text)).is_err() {
            let place = self.counter.reserve().await.expect("it lives");
            place.send(Load::Note("x".repeat(length))).expect("a place");
        }
        // A producer that never yields would keep the writer from its worker.
        self.told += 1;
        if self.told.is_multiple_of(128) {
            tokio::task::yield_now().await;
        }
    }

    async fn ask(&mut self, text: String) -> String {
        let length = text.len();
        let mut echo = self.counter.ask(|call| Load::Echo(text, call)).await;
        // Large ones use up the credit of a new connection.
        while let Err(AskError::NotSent(SendError::NoCredit { .. })) = echo {
            let place = self.counter.reserve().await.expect("it lives");
            let again = |call| Load::Echo("x".repeat(length), call);
            echo = place.ask(again).await;
        }
        echo.expect("a reply")
    }

    async fn count(&mut self) -> u64 {
        self.counter.ask(Load::Count).await.expect("a reply")
    }
}

/// The usual limits, but room for a whole workload: the benches measure speed, not refusals.
fn config() -> RpcConfig {
    let mut config = RpcConfig {
        inbox_messages_max: 2_000_000,
        inbox_bytes_max: 1 << 30,
        ..RpcConfig::default()
    };
    config.transport.outbound_bytes_max = 1 << 30;
    config
}

async fn start() -> RpcEnv {
    start_with(None).await
}

async fn start_with(polling: Option<Duration>) -> RpcEnv {
    let mut config = config();
    config.transport.polling = polling;
    let builder = RpcEnv::builder("bench").config(config);
    builder.start().await.expect("it starts")
}

fn common(job: Job) -> Figures {
    drive(&runtime(), async move {
        let env = start().await;
        let counter = env.setup_endpoint(NAME, Counter::default());
        let counter = Near(counter.expect("a new name"));
        let figures = perform(&job, counter).await;
        env.shutdown().await;
        figures
    })
}

fn far(job: Job) -> Figures {
    far_with(job, None)
}

fn far_with(job: Job, polling: Option<Duration>) -> Figures {
    drive(&runtime(), async move {
        let env = start_with(polling).await;
        let address = job.address().parse().expect("the server's address");
        let counter = env.retrieve_endpoint_ref(&address, NAME).await;
        let (counter, told) = (counter.expect("it is there"), 0);
        let figures = perform(&job, Far { counter, told }).await;
        env.shutdown().await;
        figures
    })
}

fn serve(lobby: Lobby) {
    serve_with(lobby, None);
}

fn serve_with(lobby: Lobby, polling: Option<Duration>) {
    let runtime = runtime();
    let env = drive(&runtime, async move {
        let mut config = config();
        config.transport.polling = polling;
        let builder = RpcEnv::builder("bench-server").config(config);
        let env = builder.bind("127.0.0.1:0").start().await;
        let env = env.expect("a free port");
        let counter = env.setup_endpoint(NAME, Counter::default());
        counter.expect("a new name");
        env
    });
    lobby.open(&env.address().expect("it listens").to_string());
    drive(&runtime, async move { env.shutdown().await });
}

/// Does nothing but start and end, and can tell of both.
#[derive(Debug, Default)]
struct Idle {
    /// Gets a permit when it starts.
    started: Option<Arc<Semaphore>>,
    /// Closed when the last endpoint has ended.
    _alive: Option<mpsc::Sender<()>>,
}

impl RpcEndpoint for Idle {
    type Message = Load;

    async fn on_start(&mut self, _: &EndpointContext<Load>) -> Result<(), EndpointError> {
        if let Some(started) = &self.started {
            started.add_permits(1);
        }
        Ok(())
    }
}

fn start_and_stop(job: Job) -> Figures {
    drive(&runtime(), async move {
        let env = start().await;
        let (alive, mut all_gone) = mpsc::channel(1);
        let start = job.start();
        let mut set_up = Vec::new();
        for number in 0..job.operations {
            let endpoint = Idle {
                _alive: Some(alive.clone()),
                ..Idle::default()
            };
            let name = format!("idle-{number}");
            set_up.push(env.setup_endpoint(&name, endpoint).expect("a new name"));
        }
        for endpoint in &set_up {
            env.stop(endpoint);
        }
        drop(alive);
        assert_eq!(all_gone.recv().await, None, "nobody sends anything");
        let figures = job.stop(&start, job.operations);
        env.shutdown().await;
        figures
    })
}

fn idle_memory(job: Job) -> Figures {
    drive(&runtime(), async move {
        let env = start().await;
        let started = Arc::new(Semaphore::new(0));
        let set_up = |name: &str| {
            let endpoint = Idle {
                started: Some(Arc::clone(&started)),
                ..Idle::default()
            };
            env.setup_endpoint(name, endpoint).expect("a new name");
        };
        // What is there once and for all shall be there before.
        set_up("first");
        started.acquire().await.expect("open").forget();
        let before = resident_bytes();
        (0..job.operations).for_each(|number| set_up(&format!("idle-{number}")));
        let all = u32::try_from(job.operations).expect("it is not more");
        let all = started.acquire_many(all).await;
        all.expect("open").forget();
        // The last of them has still to park.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let grown = resident_bytes().saturating_sub(before);
        Figures::memory(job.operations, grown)
    })
}

/// What goes round a ring.
#[derive(Debug, Serialize, Deserialize)]
enum Token {
    /// Who comes next.
    Next(RpcEndpointRef<Self>),
    /// The token, how often it is still to be passed on, and a text of 32 bytes.
    Pass(u64, String),
}

/// A place in a ring: passes the token on, each time with a new text.
#[derive(Debug)]
struct Node {
    next: Option<RpcEndpointRef<Token>>,
    /// Notified when the token is not to be passed on any more.
    home: Arc<Notify>,
}

impl RpcEndpoint for Node {
    type Message = Token;

    async fn receive(
        &mut self,
        message: Token,
        _: &EndpointContext<Token>,
    ) -> Result<(), EndpointError> {
        match message {
            Token::Next(next) => self.next = Some(next),
            Token::Pass(0, _) => self.home.notify_one(),
            Token::Pass(left, _) => {
                let next = self.next.as_ref().expect("the ring is closed first");
                next.send(Token::Pass(left - 1, text())).expect("room");
            }
        }
        Ok(())
    }
}

fn ring(job: Job) -> Figures {
    drive(&runtime(), async move {
        let env = start().await;
        let home = Arc::new(Notify::new());
        let set_up = |number| {
            let node = Node {
                next: None,
                home: Arc::clone(&home),
            };
            let name = format!("node-{number}");
            env.setup_endpoint(&name, node).expect("a new name")
        };
        let ring: Vec<RpcEndpointRef<Token>> = (0..RING).map(set_up).collect();
        for (node, next) in ring.iter().zip(ring.iter().cycle().skip(1)) {
            node.send(Token::Next(next.clone())).expect("room");
        }
        let start = job.start();
        let token = Token::Pass(job.operations, text());
        ring[0].send(token).expect("room");
        home.notified().await;
        let figures = job.stop(&start, job.operations);
        env.shutdown().await;
        figures
    })
}
