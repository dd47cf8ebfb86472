//! The workloads, several rounds, interleaved; beside the local ones bare tokio tasks.
//!
//! ```text
//! cargo bench -p aloha-benches --bench rpc -- [L1] ... [L6] [R1] [R3] [--rounds N] [--short]
//! ```
//!
//! Thousands of operations a second, the higher the better:
//!
//! | | |
//! |---|---|
//! | L1, L2 | local one-way messages, 1 producer of 1,000,000 and 4 of 250,000, until all are processed |
//! | L3, L4 | local asks, 200,000 in turn, and 500,000 by 1000 tasks, each asking in turn |
//! | L5 | setting up 100,000 endpoints, then stopping them, until all have ended |
//! | L6 | passing a token 1,000,000 times round a ring of 1000 endpoints, each time with a new text |
//! | R1 | 1,000,000 one-way messages to another process over one connection, ended by an ask answered after them all |
//! | R3 | 300,000 asks to another process, 64 tasks asking in turn |
//!
//! Bytes, the lower the better:
//!
//! | | |
//! |---|---|
//! | L5m | by how much the resident memory grows with each of 100,000 idle endpoints (Linux only) |
//!
//! A name stands for its workload and for the bare one beside it. The driver is a spawned task on a runtime of two
//! workers.
#![expect(clippy::print_stdout, reason = "a bench talks to whoever runs it")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use aloha_benches::{Counter, Load, Rounds, config, rate, text};
use aloha_rpc::{RpcEndpointRef, RpcEnv};
use tokio::runtime::Runtime;

mod bare;
mod local;

const NAME: &str = "counter";
const SERVE: &str = "--serve";
const IDLE: &str = "--idle";
const ASKERS: u64 = 64;

/// A workload, the unit of its figure, and how it runs.
struct Workload {
    name: &'static str,
    unit: &'static str,
    run: fn(&Runtime, &Server, u64) -> f64,
}

impl Workload {
    const fn speed(name: &'static str, run: fn(&Runtime, &Server, u64) -> f64) -> Self {
        let unit = "thousands a second";
        Self { name, unit, run }
    }

    /// Whether an argument means this one; a bare one goes by its sibling's name too.
    fn is_called(&self, wanted: &str) -> bool {
        self.name == wanted || self.name.strip_suffix(" bare") == Some(wanted)
    }
}

const WORKLOADS: [Workload; 15] = [
    Workload::speed("L1", local::l1),
    Workload::speed("L1 bare", bare::l1),
    Workload::speed("L2", local::l2),
    Workload::speed("L2 bare", bare::l2),
    Workload::speed("L3", local::l3),
    Workload::speed("L3 bare", bare::l3),
    Workload::speed("L4", local::l4),
    Workload::speed("L4 bare", bare::l4),
    Workload::speed("L5", local::l5),
    Workload::speed("L5 bare", bare::l5),
    Workload {
        name: "L5m",
        unit: "bytes",
        run: local::l5_memory,
    },
    Workload::speed("L6", local::l6),
    Workload::speed("L6 bare", bare::l6),
    Workload::speed("R1", r1),
    Workload::speed("R3", r3),
];

struct Options {
    workloads: Vec<String>,
    rounds: u64,
    /// Every workload is divided by this.
    divisor: u64,
}

impl Options {
    /// All are wanted if none is named.
    fn want(&self, workload: &Workload) -> bool {
        let mut names = self.workloads.iter();
        self.workloads.is_empty() || names.any(|name| workload.is_called(name))
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime starts");
    if arguments.first().is_some_and(|first| first == SERVE) {
        return serve(&runtime);
    }
    if let [IDLE, endpoints] = *arguments.iter().map(String::as_str).collect::<Vec<_>>() {
        return local::idle(&runtime, endpoints.parse().expect("a number"));
    }
    let options = options(arguments);
    let server = Server::start();
    let mut results: Vec<(&Workload, Rounds)> = WORKLOADS
        .iter()
        .filter(|workload| options.want(workload))
        .map(|workload| (workload, Rounds::default()))
        .collect();
    for _ in 0..options.rounds {
        for (workload, rounds) in &mut results {
            rounds.add((workload.run)(&runtime, &server, options.divisor));
        }
    }
    println!(
        "{:<8} {:>12} {:>12} {:>12}",
        "", "median", "minimum", "maximum"
    );
    for (Workload { name, unit, .. }, rounds) in results {
        let [median, minimum, maximum] = rounds.summary();
        println!("{name:<8} {median:>12.0} {minimum:>12.0} {maximum:>12.0}   {unit}");
    }
}

fn options(arguments: Vec<String>) -> Options {
    let mut options = Options {
        workloads: Vec::new(),
        rounds: 5,
        divisor: 1,
    };
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--short" => (options.rounds, options.divisor) = (1, 20),
            "--rounds" => {
                let rounds = arguments.next().and_then(|rounds| rounds.parse().ok());
                options.rounds = rounds.expect("--rounds takes a number");
            }
            name => {
                let known = WORKLOADS.iter().any(|workload| workload.is_called(name));
                assert!(known, "no workload or option is called {name}");
                options.workloads.push(argument);
            }
        }
    }
    options
}

/// Runs a driver as a task, for the main thread's wake-ups would be measured too.
fn drive<T: Send + 'static>(
    runtime: &Runtime,
    driver: impl Future<Output = T> + Send + 'static,
) -> T {
    runtime.block_on(async {
        tokio::spawn(driver)
            .await
            .expect("the driver does not panic")
    })
}

async fn remote(address: String) -> (RpcEnv, RpcEndpointRef<Load>) {
    let env = RpcEnv::builder("bench")
        .config(config())
        .start()
        .await
        .expect("it starts");
    let address = address.parse().expect("the server's address");
    let counter = env
        .retrieve_endpoint_ref(&address, NAME)
        .await
        .expect("it is there");
    (env, counter)
}

fn r1(runtime: &Runtime, server: &Server, divisor: u64) -> f64 {
    let messages = 1_000_000 / divisor;
    let address = server.address.clone();
    drive(runtime, async move {
        let (env, counter) = remote(address).await;
        let before = counter.ask(Load::Count).await.expect("a reply");
        let started = Instant::now();
        for note in 0..messages {
            if counter.send(Load::Note(text())).is_err() {
                let place = counter.reserve().await.expect("it lives");
                place.send(Load::Note(text())).expect("a place");
            }
            // A producer that never yields would keep the writer from its worker.
            if note % 128 == 0 {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(
            counter.ask(Load::Count).await.expect("a reply") - before,
            messages
        );
        let took = started.elapsed();
        env.shutdown().await;
        rate(messages, took)
    })
}

fn r3(runtime: &Runtime, server: &Server, divisor: u64) -> f64 {
    let asks = 300_000 / divisor / ASKERS;
    let address = server.address.clone();
    drive(runtime, async move {
        let (env, counter) = remote(address).await;
        let started = Instant::now();
        let mut askers = tokio::task::JoinSet::new();
        for _ in 0..ASKERS {
            let counter = counter.clone();
            askers.spawn(async move {
                for _ in 0..asks {
                    let echo = counter.ask(|call| Load::Echo(text(), call)).await;
                    assert_eq!(echo.expect("a reply").len(), 32);
                }
            });
        }
        askers.join_all().await;
        let took = started.elapsed();
        env.shutdown().await;
        rate(asks * ASKERS, took)
    })
}

/// The other process: this program again, until its stdin is closed.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start() -> Self {
        let mut server = Command::new(std::env::current_exe().expect("a bench has a path"));
        let spawned = server
            .arg(SERVE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut process = spawned.expect("this program runs");
        let mut address = String::new();
        let out = process.stdout.take().expect("piped");
        BufReader::new(out)
            .read_line(&mut address)
            .expect("it says where it listens");
        Self {
            process,
            address: address.trim().to_owned(),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        drop(self.process.wait());
    }
}

fn serve(runtime: &Runtime) {
    let env = drive(runtime, async {
        let builder = RpcEnv::builder("bench-server")
            .config(config())
            .bind("127.0.0.1:0");
        let env = builder.start().await.expect("a free port");
        env.setup_endpoint(NAME, Counter::default())
            .expect("a new name");
        println!("{}", env.address().expect("it listens"));
        env
    });
    // Until whoever started us closes the pipe, or is gone.
    drop(std::io::stdin().read_to_end(&mut Vec::new()));
    drive(runtime, async move { env.shutdown().await });
}
