//! The workloads L1, L3, R1 and R3, several rounds, interleaved; beside the local ones a bare tokio task.
//!
//! ```text
//! cargo bench -p aloha-benches --bench rpc -- [L1] [L3] [R1] [R3] [--rounds N] [--short]
//! ```
//!
//! L1: 1,000,000 local one-way messages, until all are processed. L3: 200,000 local asks in turn. R1: 1,000,000 one-way
//! messages to another process over one connection, ended by an ask answered after them all. R3: 300,000 asks to
//! another process, 64 tasks asking in turn. The driver is a spawned task on a runtime of two workers.
#![expect(clippy::print_stdout, reason = "a bench talks to whoever runs it")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aloha_benches::{Counter, Load, Rounds, config, text};
use aloha_rpc::{RpcEndpointRef, RpcEnv};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

const NAME: &str = "counter";
const SERVE: &str = "--serve";
const ASKERS: u64 = 64;

/// A workload, and how it runs: operations done, and the time they took.
struct Workload {
    name: &'static str,
    run: fn(&Runtime, &Server, u64) -> (u64, Duration),
}

struct Options {
    workloads: Vec<String>,
    rounds: u64,
    /// Every workload is divided by this.
    divisor: u64,
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
    let options = options(arguments);
    let server = Server::start();
    let workloads = [
        Workload {
            name: "L1",
            run: l1,
        },
        Workload {
            name: "L1 bare",
            run: l1_bare,
        },
        Workload {
            name: "L3",
            run: l3,
        },
        Workload {
            name: "L3 bare",
            run: l3_bare,
        },
        Workload {
            name: "R1",
            run: r1,
        },
        Workload {
            name: "R3",
            run: r3,
        },
    ];
    let wanted = |name: &str| {
        options.workloads.is_empty()
            || options
                .workloads
                .iter()
                .any(|wanted| name.starts_with(wanted.as_str()))
    };
    let mut results: Vec<(&str, Rounds)> = Vec::new();
    for _ in 0..options.rounds {
        for Workload { name, run } in workloads.iter().filter(|workload| wanted(workload.name)) {
            let (operations, took) = run(&runtime, &server, options.divisor);
            match results.iter_mut().find(|(known, _)| known == name) {
                Some((_, rounds)) => rounds.add(operations, took),
                None => {
                    let mut rounds = Rounds::default();
                    rounds.add(operations, took);
                    results.push((name, rounds));
                }
            }
        }
    }
    println!(
        "{:<8} {:>12} {:>12} {:>12}   thousands a second",
        "", "median", "minimum", "maximum"
    );
    for (name, rounds) in results {
        let [median, minimum, maximum] = rounds.summary();
        println!("{name:<8} {median:>12.0} {minimum:>12.0} {maximum:>12.0}");
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
            _ => options.workloads.push(argument),
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

async fn local() -> (RpcEnv, RpcEndpointRef<Load>) {
    let env = RpcEnv::builder("bench")
        .config(config())
        .start()
        .await
        .expect("it starts");
    let counter = env
        .setup_endpoint(NAME, Counter::default())
        .expect("a new name");
    (env, counter)
}

fn l1(runtime: &Runtime, _: &Server, divisor: u64) -> (u64, Duration) {
    let messages = 1_000_000 / divisor;
    drive(runtime, async move {
        let (env, counter) = local().await;
        let started = Instant::now();
        for _ in 0..messages {
            counter.send(Load::Note(text())).expect("room");
        }
        assert_eq!(counter.ask(Load::Count).await.expect("a reply"), messages);
        let took = started.elapsed();
        env.shutdown().await;
        (messages, took)
    })
}

fn l1_bare(runtime: &Runtime, _: &Server, divisor: u64) -> (u64, Duration) {
    let messages = 1_000_000 / divisor;
    drive(runtime, async move {
        let (notes, mut inbox) = mpsc::channel::<String>(2_000_000);
        let started = Instant::now();
        let counter = tokio::spawn(async move {
            let mut count = 0;
            while let Some(text) = inbox.recv().await {
                count += u64::from(text.len() == 32);
            }
            count
        });
        for _ in 0..messages {
            notes.try_send(text()).expect("room");
        }
        drop(notes);
        assert_eq!(counter.await.expect("no panic"), messages);
        (messages, started.elapsed())
    })
}

fn l3(runtime: &Runtime, _: &Server, divisor: u64) -> (u64, Duration) {
    let asks = 200_000 / divisor;
    drive(runtime, async move {
        let (env, counter) = local().await;
        let started = Instant::now();
        for _ in 0..asks {
            let echo = counter.ask(|call| Load::Echo(text(), call)).await;
            assert_eq!(echo.expect("a reply").len(), 32);
        }
        let took = started.elapsed();
        env.shutdown().await;
        (asks, took)
    })
}

fn l3_bare(runtime: &Runtime, _: &Server, divisor: u64) -> (u64, Duration) {
    let asks = 200_000 / divisor;
    drive(runtime, async move {
        let (inbox, mut calls) = mpsc::channel::<(String, oneshot::Sender<String>)>(1024);
        tokio::spawn(async move {
            while let Some((text, reply)) = calls.recv().await {
                drop(reply.send(text));
            }
        });
        let started = Instant::now();
        for _ in 0..asks {
            let (reply, answer) = oneshot::channel();
            inbox.send((text(), reply)).await.expect("it listens");
            assert_eq!(answer.await.expect("a reply").len(), 32);
        }
        (asks, started.elapsed())
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

fn r1(runtime: &Runtime, server: &Server, divisor: u64) -> (u64, Duration) {
    let messages = 1_000_000 / divisor;
    let address = server.address.clone();
    drive(runtime, async move {
        let (env, counter) = remote(address).await;
        let before = counter.ask(Load::Count).await.expect("a reply");
        let started = Instant::now();
        for note in 0..messages {
            counter.send(Load::Note(text())).expect("room");
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
        (messages, took)
    })
}

fn r3(runtime: &Runtime, server: &Server, divisor: u64) -> (u64, Duration) {
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
        (asks * ASKERS, took)
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
