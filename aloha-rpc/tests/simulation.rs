//! A small program of asks, forwards, notes and watches over a simulated network that loses, delays, breaks and
//! splits, from many seeds. Whatever happens: each ask ends once, in its time; no reply reaches another's asker; notes of one
//! environment to one endpoint keep their order; every watch ends; and in the end nobody owes anybody an answer.
//!
//! ```text
//! cargo test -p aloha-rpc --all-features --test simulation          300 seeds
//! ALOHA_SEEDS=10000 cargo test ... --release                        as many as said
//! ALOHA_SEED=4711 cargo test ... -- --nocapture                     one, with its log
//! ```

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it prints what it ran, and the log of a seed"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aloha_rpc::testing::{SimConditions, Simulation};
use aloha_rpc::{
    AskError, Directive, EndpointContext, EndpointError, RestartPolicy, RpcCallContext, RpcConfig,
    RpcEndpoint, RpcEndpointRef, RpcEnv, Termination,
};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::Instant;

const HOSTS: [&str; 3] = ["a", "b", "c"];
/// The environment that does not listen, after the hosts.
const CLIENT: usize = HOSTS.len();
const NAME: &str = "node";
const OPERATIONS: u64 = 60;

#[derive(Debug, Serialize, Deserialize)]
enum Node {
    /// Answered with its id.
    Echo(u64, RpcCallContext<u64>),
    /// Passed along the way, and answered by its last.
    Along(u64, Vec<RpcEndpointRef<Self>>, RpcCallContext<u64>),
    /// The next on the way is asked on behalf of the asker.
    Through(u64, Vec<RpcEndpointRef<Self>>, RpcCallContext<u64>),
    /// Answered after a while, from another task.
    Later(u64, Duration, RpcCallContext<u64>),
    /// Put aside until the next note.
    Aside(u64, RpcCallContext<u64>),
    Panic(RpcCallContext<u64>),
    Drop(RpcCallContext<u64>),
    /// The n-th note of an environment to this endpoint.
    Note(String, u64),
    /// A reference to keep for others: of the client's endpoint, which only this host can call.
    Keep(RpcEndpointRef<Self>, RpcCallContext<()>),
    Give(RpcCallContext<RpcEndpointRef<Self>>),
}

/// What endpoints saw of notes, and what was wrong with them.
#[derive(Clone, Default)]
struct Notebook {
    last: Arc<Mutex<BTreeMap<String, u64>>>,
    wrong: Arc<Mutex<Vec<String>>>,
}

impl Notebook {
    fn note(&self, from: String, number: u64) {
        let mut last = self.last.lock().expect("no panic under it");
        let before = last.insert(from.clone(), number);
        if before >= Some(number) {
            let mut wrong = self.wrong.lock().expect("no panic under it");
            wrong.push(format!("note {number} of {from} came after {before:?}"));
        }
    }
}

struct Endpoint {
    notes: Notebook,
    replaying: bool,
    kept: Option<RpcEndpointRef<Node>>,
}

impl RpcEndpoint for Endpoint {
    type Message = Node;

    async fn receive(
        &mut self,
        message: Node,
        ctx: &EndpointContext<Node>,
    ) -> Result<(), EndpointError> {
        match message {
            Node::Echo(id, call) => call.reply(id),
            Node::Along(id, mut way, call) => match way.pop() {
                Some(next) => next.forward(Node::Along(id, way, call))?,
                None => call.reply(id),
            },
            Node::Through(id, mut way, call) => match way.pop() {
                None => call.reply(id),
                Some(next) => ctx.spawn(async move {
                    let asked = next.ask(|nested| Node::Through(id, way, nested));
                    match asked.within(&call).await {
                        Ok(id) => call.reply(id),
                        Err(error) => call.send_failure(error),
                    }
                }),
            },
            Node::Later(id, after, call) => ctx.spawn(async move {
                tokio::select! {
                    biased;
                    () = call.cancelled() => {}
                    () = tokio::time::sleep(after) => call.reply(id),
                }
            }),
            Node::Aside(id, call) if self.replaying => call.reply(id),
            aside @ Node::Aside(..) => ctx.stash(aside)?,
            Node::Panic(call) => {
                let _held = call;
                std::panic::resume_unwind(Box::new("on purpose"));
            }
            Node::Drop(call) => drop(call),
            Node::Note(from, number) => {
                self.notes.note(from, number);
                self.replaying = true;
                ctx.unstash_all();
            }
            Node::Keep(kept, call) => {
                self.kept = Some(kept);
                call.reply(());
            }
            Node::Give(call) => {
                if let Some(kept) = &self.kept {
                    call.reply(kept.clone());
                }
            }
        }
        Ok(())
    }

    async fn on_error(&mut self, error: EndpointError, ctx: &EndpointContext<Node>) -> Directive {
        ctx.default_directive(&error)
    }
}

/// How one ask ended.
struct Ended {
    id: u64,
    took: Duration,
    limit: Duration,
    result: Result<u64, AskError>,
}

/// One run; what happened, and when, is its log: the same seed gives the same.
struct Run {
    sim: Simulation,
    started: Instant,
    log: Vec<String>,
    envs: Vec<RpcEnv>,
    /// From an environment to the endpoint of a host.
    references: BTreeMap<(usize, usize), RpcEndpointRef<Node>>,
    notes: Vec<Notebook>,
    sent: BTreeMap<(usize, usize), u64>,
    asks: JoinSet<Ended>,
    watches: JoinSet<(usize, Termination)>,
    asked: u64,
    watched: u64,
    introductions: u64,
}

impl Run {
    async fn start(sim: Simulation) -> Self {
        let mut envs = Vec::new();
        let mut notes = Vec::new();
        let mut config = RpcConfig {
            lookup_timeout: Duration::from_secs(60),
            ..RpcConfig::default()
        };
        // Every third run is one of connections that come and go.
        if sim.seed() % 3 == 1 {
            config.transport.ping_interval = Some(Duration::from_millis(300));
            config.transport.ping_timeout = Some(Duration::from_millis(200));
            config.transport.connections_per_peer = 2;
        }
        for host in HOSTS {
            let env = sim.env_with(host, config.clone()).await;
            let notebook = Notebook::default();
            set_up(&env, &notebook);
            envs.push(env);
            notes.push(notebook);
        }
        let client = sim.client("d").await;
        let notebook = Notebook::default();
        set_up(&client, &notebook);
        envs.push(client);
        notes.push(notebook);
        let started = now();
        let mut run = Self {
            sim,
            started,
            log: Vec::new(),
            envs,
            references: BTreeMap::new(),
            notes,
            sent: BTreeMap::new(),
            asks: JoinSet::new(),
            watches: JoinSet::new(),
            asked: 0,
            watched: 0,
            introductions: 0,
        };
        for from in 0..run.envs.len() {
            for to in 0..HOSTS.len() {
                run.look_up(from, to).await;
            }
        }
        run.introduce().await;
        run
    }

    /// Makes the client's endpoint known to all, by way of a host that relays.
    async fn introduce(&mut self) {
        let relay = self.below(HOSTS.len());
        self.introductions += 1;
        self.note_down(format!("{} relays to d", HOSTS[relay]));
        let limit = Duration::from_secs(2);
        let mine = self.envs[CLIENT].endpoint_ref::<Node>(NAME);
        let mine = mine.expect("it is set up");
        let kept =
            self.references[&(CLIENT, relay)].ask_for(limit, |call| Node::Keep(mine.clone(), call));
        let kept = kept.await.is_ok();
        for from in 0..HOSTS.len() {
            let given = self.references[&(from, relay)].ask_for(limit, Node::Give);
            match given.await {
                Ok(reference) if kept => drop(self.references.insert((from, CLIENT), reference)),
                // It stays as it was, or the client has to do.
                _ => {
                    let instead = self.references[&(from, relay)].clone();
                    self.references.entry((from, CLIENT)).or_insert(instead);
                }
            }
        }
        self.references.insert((CLIENT, CLIENT), mine);
    }

    async fn look_up(&mut self, from: usize, to: usize) {
        let address = self.envs[to].address().expect("it listens").clone();
        let found = self.envs[from].retrieve_endpoint_ref(&address, NAME).await;
        self.references
            .insert((from, to), found.expect("it is there"));
    }

    fn note_down(&mut self, what: String) {
        let line = format!("{:>9.3} {what}", (now() - self.started).as_secs_f64());
        if std::env::var_os("ALOHA_SEED").is_some() {
            eprintln!("{line}");
        }
        self.log.push(line);
    }

    fn below(&self, end: usize) -> usize {
        usize::try_from(self.sim.random_below(end as u64)).expect("small")
    }

    fn hosts(&self) -> (&'static str, &'static str) {
        let all = ["a", "b", "c", "d"];
        let one = self.below(all.len());
        let two = (one + 1 + self.below(all.len() - 1)) % all.len();
        (all[one], all[two])
    }

    async fn operate(&mut self) {
        match self.sim.random_below(25) {
            0..=11 => self.ask(),
            12..=15 => self.note(),
            16 => self.watch(),
            17 => {
                let (one, two) = self.hosts();
                self.note_down(format!("cut {one} {two}"));
                self.sim.network().cut(one, two);
            }
            18 => {
                let (one, two) = self.hosts();
                self.note_down(format!("partition {one} {two}"));
                self.sim.network().partition(one, two);
            }
            19 => {
                self.note_down("heal".to_owned());
                self.sim.network().heal_all();
            }
            20 => self.replace().await,
            21 => self.introduce().await,
            _ => {
                let wait = Duration::from_millis(self.sim.random_below(400));
                tokio::time::sleep(wait).await;
                self.settle();
            }
        }
    }

    fn ask(&mut self) {
        let (from, to) = (self.below(self.envs.len()), self.below(self.envs.len()));
        let id = self.asked;
        self.asked += 1;
        let limit = Duration::from_millis(50 + self.sim.random_below(3_000));
        let later = Duration::from_millis(self.sim.random_below(2_000));
        let way: Vec<_> = (0..self.below(3))
            .map(|_| self.references[&(from, self.below(self.envs.len()))].clone())
            .collect();
        let target = &self.references[&(from, to)];
        let kind = self.sim.random_below(12);
        let ask = target.ask_for(limit, |call| match kind {
            0..=3 => Node::Echo(id, call),
            4..=5 => Node::Along(id, way, call),
            6..=7 => Node::Through(id, way, call),
            8 => Node::Later(id, later, call),
            9 => Node::Aside(id, call),
            10 => Node::Panic(call),
            _ => Node::Drop(call),
        });
        self.note_down(format!("ask {id} of kind {kind} from {from} to {to}"));
        // One in eight loses interest.
        let gives_up = self.sim.random_below(8) == 0;
        let patience = limit.mul_f64(0.5);
        let asked = now();
        self.asks.spawn(async move {
            let result = if gives_up {
                match tokio::time::timeout(patience, ask).await {
                    Ok(result) => result,
                    Err(_) => Ok(id),
                }
            } else {
                ask.await
            };
            Ended {
                id,
                took: now() - asked,
                limit,
                result,
            }
        });
    }

    fn note(&mut self) {
        let (from, to) = (self.below(self.envs.len()), self.below(self.envs.len()));
        let number = self.sent.entry((from, to)).or_default();
        *number += 1;
        let number = *number;
        // Order is promised along one way: a new introduction is another relay.
        let from_name = format!("{}-{}", self.envs[from].name(), self.introductions);
        let sent = self.references[&(from, to)].send(Node::Note(from_name, number));
        self.note_down(format!(
            "note {number} from {from} to {to}: {}",
            sent.is_ok()
        ));
    }

    fn watch(&mut self) {
        let (from, to) = (self.below(self.envs.len()), self.below(self.envs.len()));
        let watch = self.envs[from].watch(&self.references[&(from, to)]);
        self.note_down(format!("watch from {from} to {to}"));
        self.watched += 1;
        self.watches.spawn(async move { (to, watch.await.reason) });
    }

    /// Stops an endpoint and sets up another under its name.
    async fn replace(&mut self) {
        let at = self.below(HOSTS.len());
        self.note_down(format!("replace {at}"));
        let endpoint = self.references[&(at, at)].clone();
        let ended = self.envs[at].drain(&endpoint, Duration::from_millis(50));
        ended.await;
        set_up(&self.envs[at], &self.notes[at]);
        self.look_up(at, at).await;
    }

    /// Looks at what has ended meanwhile.
    fn settle(&mut self) {
        while let Some(ended) = self.asks.try_join_next() {
            self.on_ended(ended.expect("no panic"));
        }
        while let Some(ended) = self.watches.try_join_next() {
            let (of, why) = ended.expect("no panic");
            self.note_down(format!("watched {of} ended: {why}"));
        }
    }

    fn on_ended(&mut self, ended: Ended) {
        let Ended {
            id,
            took,
            limit,
            result,
        } = ended;
        assert!(
            took <= limit + Duration::from_millis(5),
            "ask {id} took {took:?} of {limit:?}"
        );
        match result {
            Ok(reply) => {
                assert_eq!(reply, id, "the reply is the asker's own");
                self.note_down(format!("ask {id} was answered"));
            }
            Err(error) => self.note_down(format!("ask {id} failed: {error}")),
        }
    }

    async fn finish(mut self) -> Vec<String> {
        self.sim.network().heal_all();
        while let Some(ended) = self.asks.join_next().await {
            self.on_ended(ended.expect("no panic"));
        }
        self.note_down("all asks have ended".to_owned());
        // Whatever was answered too late for its asker is through by now.
        tokio::time::sleep(Duration::from_secs(30)).await;
        for at in 0..self.envs.len() {
            let endpoint = self.references[&(at, at)].clone();
            self.envs[at].drain(&endpoint, Duration::from_secs(1)).await;
        }
        let mut ended = 0;
        let patience = Duration::from_secs(60);
        while let Some(watch) = tokio::time::timeout(patience, self.watches.join_next())
            .await
            .expect("every watch ends")
        {
            watch.expect("no panic");
            ended += 1;
        }
        self.note_down(format!("the last {ended} watches have ended"));
        tokio::time::sleep(Duration::from_secs(5)).await;
        for env in &self.envs {
            for connection in env.snapshot().connections {
                assert_eq!(
                    (connection.requests_outstanding, connection.answers_owed),
                    (0, 0),
                    "{env:?} and {:?} owe each other nothing",
                    connection.remote
                );
            }
        }
        for notebook in &self.notes {
            let wrong = notebook.wrong.lock().expect("no panic under it");
            assert!(wrong.is_empty(), "{wrong:?}");
        }
        for env in &self.envs {
            let limit = Duration::from_secs(60);
            tokio::time::timeout(limit, env.shutdown())
                .await
                .expect("a shutdown ends");
        }
        self.log
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the paused clock of the simulation"
)]
fn now() -> Instant {
    Instant::now()
}

fn set_up(env: &RpcEnv, notes: &Notebook) {
    let policy = RestartPolicy {
        restarts_max: 1_000,
        backoff_min: Duration::from_millis(1),
        backoff_max: Duration::from_millis(20),
        ..RestartPolicy::default()
    };
    let notes = notes.clone();
    env.endpoint(NAME)
        .setup_with(policy, move || Endpoint {
            notes: notes.clone(),
            replaying: false,
            kept: None,
        })
        .expect("a free name");
}

fn run(seed: u64) -> Vec<String> {
    Simulation::run(seed, async |sim| {
        let mut run = Run::start(sim).await;
        run.sim.network().set_conditions(SimConditions {
            delay: Duration::from_millis(1)..=Duration::from_millis(1 + run.sim.random_below(40)),
            loss: run.sim.random_below(10) as f64 / 100.0,
            retransmit_after: Duration::from_millis(200),
            reset: run.sim.random_below(5) as f64 / 1_000.0,
        });
        for _ in 0..OPERATIONS {
            run.operate().await;
        }
        run.finish().await
    })
}

fn number_of(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

#[test]
fn whatever_the_network_does_each_ask_ends_once() {
    if let Some(seed) = number_of("ALOHA_SEED") {
        run(seed);
        return;
    }
    let seeds = number_of("ALOHA_SEEDS").unwrap_or(300);
    for seed in 0..seeds {
        let outcome = std::panic::catch_unwind(|| run(seed));
        assert!(
            outcome.is_ok(),
            "seed {seed} failed; run it alone with ALOHA_SEED={seed}"
        );
    }
    println!("{seeds} seeds held");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..20 {
        let (one, two) = (run(seed), run(seed));
        for (one, two) in one.iter().zip(&two) {
            assert_eq!(one, two, "seed {seed}");
        }
        assert_eq!(one.len(), two.len(), "seed {seed}");
    }
    assert_ne!(run(0), run(1));
}
