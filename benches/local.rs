//! The workloads inside one process.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aloha_benches::{Counter, Idle, Load, Node, Token, config, rate, text};
use aloha_rpc::{RpcEndpointRef, RpcEnv};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::{IDLE, NAME, Server, drive};

pub(crate) const PRODUCERS: u64 = 4;
pub(crate) const TASKS: u64 = 1000;
pub(crate) const RING: usize = 1000;

async fn start() -> RpcEnv {
    let builder = RpcEnv::builder("bench").config(config());
    builder.start().await.expect("it starts")
}

async fn counter() -> (RpcEnv, RpcEndpointRef<Load>) {
    let env = start().await;
    let counter = env
        .setup_endpoint(NAME, Counter::default())
        .expect("a new name");
    (env, counter)
}

pub(crate) fn l1(runtime: &Runtime, _: &Server, divisor: u64) -> f64 {
    let messages = 1_000_000 / divisor;
    drive(runtime, async move {
        let (env, counter) = counter().await;
        let started = Instant::now();
        for _ in 0..messages {
            counter.send(Load::Note(text())).expect("room");
        }
        assert_eq!(counter.ask(Load::Count).await.expect("a reply"), messages);
        let took = started.elapsed();
        env.shutdown().await;
        rate(messages, took)
    })
}

pub(crate) fn l2(runtime: &Runtime, _: &Server, divisor: u64) -> f64 {
    let each = 1_000_000 / divisor / PRODUCERS;
    drive(runtime, async move {
        let (env, counter) = counter().await;
        let started = Instant::now();
        let mut producers = JoinSet::new();
        for _ in 0..PRODUCERS {
            let counter = counter.clone();
            producers.spawn(async move {
                for _ in 0..each {
                    counter.send(Load::Note(text())).expect("room");
                }
            });
        }
        producers.join_all().await;
        let count = counter.ask(Load::Count).await.expect("a reply");
        assert_eq!(count, each * PRODUCERS);
        let took = started.elapsed();
        env.shutdown().await;
        rate(count, took)
    })
}

pub(crate) fn l3(runtime: &Runtime, _: &Server, divisor: u64) -> f64 {
    let asks = 200_000 / divisor;
    drive(runtime, async move {
        let (env, counter) = counter().await;
        let started = Instant::now();
        for _ in 0..asks {
            let echo = counter.ask(|call| Load::Echo(text(), call)).await;
            assert_eq!(echo.expect("a reply").len(), 32);
        }
        let took = started.elapsed();
        env.shutdown().await;
        rate(asks, took)
    })
}

pub(crate) fn l4(runtime: &Runtime, _: &Server, divisor: u64) -> f64 {
    let each = 500_000 / divisor / TASKS;
    drive(runtime, async move {
        let (env, counter) = counter().await;
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..TASKS {
            let counter = counter.clone();
            tasks.spawn(async move {
                for _ in 0..each {
                    let echo = counter.ask(|call| Load::Echo(text(), call)).await;
                    assert_eq!(echo.expect("a reply").len(), 32);
                }
            });
        }
        tasks.join_all().await;
        let took = started.elapsed();
        env.shutdown().await;
        rate(each * TASKS, took)
    })
}

pub(crate) fn l5(runtime: &Runtime, _: &Server, divisor: u64) -> f64 {
    let endpoints = 100_000 / divisor;
    drive(runtime, async move {
        let env = start().await;
        let (alive, mut all_gone) = mpsc::channel(1);
        let started = Instant::now();
        let mut set_up = Vec::new();
        for number in 0..endpoints {
            let endpoint = Idle::telling_end(alive.clone());
            let name = format!("idle-{number}");
            set_up.push(env.setup_endpoint(&name, endpoint).expect("a new name"));
        }
        for endpoint in &set_up {
            env.stop(endpoint);
        }
        drop(alive);
        assert_eq!(all_gone.recv().await, None, "nobody sends anything");
        let took = started.elapsed();
        env.shutdown().await;
        rate(endpoints, took)
    })
}

/// In a process of its own, for what other workloads have freed would be used again.
pub(crate) fn l5_memory(_: &Runtime, _: &Server, divisor: u64) -> f64 {
    let endpoints = u32::try_from(100_000 / divisor).expect("it is not more");
    let mut process = Command::new(std::env::current_exe().expect("a bench has a path"));
    let output = process.args([IDLE, &endpoints.to_string()]).output();
    let output = output.expect("this program runs");
    assert!(output.status.success(), "{output:?}");
    let grown = String::from_utf8_lossy(&output.stdout);
    let grown: f64 = grown.trim().parse().expect("it says by how much it grew");
    grown / f64::from(endpoints)
}

/// The other process of [`l5_memory`]: says by how many bytes it grew with so many endpoints.
pub(crate) fn idle(runtime: &Runtime, endpoints: u32) {
    let grown = drive(runtime, async move {
        let env = start().await;
        let started = Arc::new(Semaphore::new(0));
        let set_up = |name: &str| {
            let endpoint = Idle::telling_start(Arc::clone(&started));
            env.setup_endpoint(name, endpoint).expect("a new name");
        };
        // What is there once and for all shall be there before.
        set_up("first");
        started.acquire().await.expect("open").forget();
        let before = resident_bytes();
        (0..endpoints).for_each(|number| set_up(&format!("idle-{number}")));
        let all = started.acquire_many(endpoints).await;
        all.expect("open").forget();
        // The last of them has still to park.
        tokio::time::sleep(Duration::from_millis(100)).await;
        resident_bytes().saturating_sub(before)
    });
    println!("{grown}");
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a Linux system");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|resident| resident.split_whitespace().next()?.parse::<u64>().ok());
    kib.expect("a size in KiB") << 10
}

pub(crate) fn l6(runtime: &Runtime, _: &Server, divisor: u64) -> f64 {
    let passes = 1_000_000 / divisor;
    drive(runtime, async move {
        let env = start().await;
        let home = Arc::new(Notify::new());
        let set_up = |number| {
            let node = Node::new(Arc::clone(&home));
            let name = format!("node-{number}");
            env.setup_endpoint(&name, node).expect("a new name")
        };
        let ring: Vec<RpcEndpointRef<Token>> = (0..RING).map(set_up).collect();
        for (node, next) in ring.iter().zip(ring.iter().cycle().skip(1)) {
            node.send(Token::Next(next.clone())).expect("room");
        }
        let started = Instant::now();
        ring[0].send(Token::Pass(passes, text())).expect("room");
        home.notified().await;
        let took = started.elapsed();
        env.shutdown().await;
        rate(passes, took)
    })
}
