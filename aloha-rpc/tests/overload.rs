//! A receiver a thousand times slower than its sender, in two processes: the memory of both stays flat, and every message
//! is handled, refused to its sender, or counted.
//!
//! ```text
//! cargo test -p aloha-rpc --release --test overload -- --nocapture           two seconds
//! ALOHA_OVERLOAD_SECONDS=60 cargo test ... --test overload -- --nocapture    the whole minute
//! ```
//!
//! This program starts itself as the receiver.
#![expect(clippy::disallowed_methods, reason = "a test of minutes on the wall")]
#![expect(clippy::print_stdout, reason = "it prints what it measures")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aloha_rpc::{
    EndpointContext, EndpointError, RpcCallContext, RpcEndpoint, RpcEndpointRef, RpcEnv,
};
use serde::{Deserialize, Serialize};

const RECEIVER: &str = "ALOHA_OVERLOAD_RECEIVER";
const SECONDS: &str = "ALOHA_OVERLOAD_SECONDS";
/// What one message takes to handle; to send one takes a few hundred nanoseconds.
const HANDLING: Duration = Duration::from_micros(500);

#[derive(Debug, Serialize, Deserialize)]
enum Load {
    Text(u64, String),
    /// From one who waited for a place.
    Waited(String),
    Seen(RpcCallContext<(u64, u64)>),
}

/// Counts texts, slowly.
struct Slow {
    seen: u64,
    last: Option<u64>,
    in_order: bool,
}

impl RpcEndpoint for Slow {
    type Message = Load;

    async fn receive(
        &mut self,
        message: Load,
        _: &EndpointContext<Load>,
    ) -> Result<(), EndpointError> {
        match message {
            Load::Text(number, _) => {
                std::thread::sleep(HANDLING);
                self.in_order &= self.last < Some(number);
                self.last = Some(number);
                self.seen += 1;
            }
            Load::Waited(_) => {
                std::thread::sleep(HANDLING);
                self.seen += 1;
            }
            Load::Seen(call) => {
                assert!(self.in_order, "order holds");
                call.reply((self.seen, self.last.unwrap_or_default()));
            }
        }
        Ok(())
    }
}

fn resident_mib(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it lives");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kib.expect("the kernel says so") / 1024.0
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn receive() {
    let env = RpcEnv::builder("receiver").bind("127.0.0.1:0");
    let env = env.start().await.expect("a free port");
    let slow = Slow {
        seen: 0,
        last: None,
        in_order: true,
    };
    env.endpoint("slow")
        .own_thread()
        .setup(slow)
        .expect("a name");
    println!("receiver {}", env.address().expect("it listens"));
    std::io::stdout().flush().expect("a pipe");
    // Until whoever started us closes the pipe, or is gone.
    tokio::task::spawn_blocking(|| drop(std::io::stdin().read_line(&mut String::new())))
        .await
        .expect("no panic");
    println!("dead letters {}", env.dead_letters());
}

#[test]
fn a_slow_receiver_costs_neither_side_memory() {
    if std::env::var_os(RECEIVER).is_some() {
        return receive();
    }
    let seconds = std::env::var(SECONDS).map_or(2, |text| text.parse().expect("a number"));
    let mut receiver = Command::new(std::env::current_exe().expect("a test has a path"))
        .args([
            "--exact",
            "a_slow_receiver_costs_neither_side_memory",
            "--nocapture",
        ])
        .env(RECEIVER, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program runs");
    let mut lines = BufReader::new(receiver.stdout.take().expect("piped")).lines();
    let mut line_with = |start: &str| {
        lines
            .by_ref()
            .map(|line| line.expect("a line"))
            .find_map(|line| {
                line.split_once(start)
                    .map(|(_, rest)| rest.trim().to_owned())
            })
            .expect("it says so")
    };
    let address = line_with("receiver ");
    overload(&address, receiver.id(), Duration::from_secs(seconds));
    drop(receiver.stdin.take());
    assert_eq!(line_with("dead letters "), "0", "nothing was thrown away");
    assert!(receiver.wait().expect("it ends").success());
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn overload(address: &str, receiver: u32, time: Duration) {
    let env = RpcEnv::client("sender").await.expect("it starts");
    let address = address.parse().expect("an address");
    let slow: RpcEndpointRef<Load> = env
        .retrieve_endpoint_ref(&address, "slow")
        .await
        .expect("it is there");
    let (mut taken, mut refused) = (0_u64, 0_u64);
    let waited = Arc::new(AtomicU64::new(0));
    // Beside the one who is refused again and again, one who waits.
    let patient = tokio::spawn({
        let (slow, waited) = (slow.clone(), Arc::clone(&waited));
        async move {
            let began = Instant::now();
            while began.elapsed() < time {
                let place = slow.reserve().await.expect("it lives");
                place.send(Load::Waited("x".repeat(100))).expect("a place");
                waited.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let began = Instant::now();
    let mut memory = Vec::new();
    println!("second  sender MiB  receiver MiB     taken     refused  waited for");
    while began.elapsed() < time {
        let number = taken + refused;
        match slow.send(Load::Text(number, "x".repeat(100))) {
            Ok(()) => taken += 1,
            Err(error) => {
                assert!(error.is_overload(), "{error}");
                refused += 1;
            }
        }
        if number.is_multiple_of(64) {
            tokio::task::yield_now().await;
        }
        if began.elapsed().as_secs() as usize >= memory.len() {
            let now = (resident_mib(std::process::id()), resident_mib(receiver));
            println!(
                "{:>6}  {:>10.1}  {:>12.1}  {taken:>8}  {refused:>10}  {:>10}",
                memory.len(),
                now.0,
                now.1,
                waited.load(Ordering::Relaxed)
            );
            memory.push(now);
        }
    }
    patient.await.expect("no panic");
    // What was taken arrives, all of it.
    let all = taken + waited.load(Ordering::Relaxed);
    let place = slow.reserve().await.expect("it lives");
    let (seen, _) = place.ask(Load::Seen).await.expect("a reply");
    println!("taken {all}, handled {seen}");
    assert_eq!(
        seen, all,
        "each message was handled, or refused to its sender"
    );
    assert!(refused > 0, "the sender was faster");
    let flat = |side: fn(&(f64, f64)) -> f64, name: &str| {
        // The window grows from 16,384 messages to the inbox's 65,536 while the receiver takes them up.
        let settled = memory.iter().skip(memory.len().div_ceil(2)).map(side);
        let (least, most) = settled.fold((f64::MAX, 0.0_f64), |(least, most), mib| {
            (least.min(mib), most.max(mib))
        });
        println!("{name}: {least:.1} to {most:.1} MiB in the second half");
        assert!(most < least + 12.0, "the memory of the {name} is flat");
        assert!(most < 48.0, "the memory of the {name} is small");
    };
    flat(|memory| memory.0, "sender");
    flat(|memory| memory.1, "receiver");
    env.shutdown().await;
}
