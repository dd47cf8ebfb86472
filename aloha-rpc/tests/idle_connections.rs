//! Many idle connections between two processes: what they cost in memory, and that they cost no time.
//!
//! ```text
//! cargo test -p aloha-rpc --release --test idle_connections -- --nocapture
//! ALOHA_IDLE_CONNECTIONS=2000 cargo test ... --test idle_connections -- --nocapture
//! ```
//!
//! This program starts itself as the server and as the client. The client calls the server at as many addresses of the
//! loopback network as there are to be connections, each with a question to the verifier and one ask.
#![cfg(target_os = "linux")]
#![expect(clippy::print_stdout, reason = "it prints what it measures")]

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use aloha_rpc::{
    EndpointContext, EndpointError, RpcAddress, RpcCallContext, RpcConfig, RpcEndpoint,
    RpcEndpointRef, RpcEnv,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

const NAME: &str = "idle_connections_cost_little_memory_and_no_time";
const ROLE: &str = "ALOHA_IDLE_ROLE";
const ADDRESS: &str = "ALOHA_IDLE_ADDRESS";
const CONNECTIONS: &str = "ALOHA_IDLE_CONNECTIONS";
const CONNECTIONS_WANTED: u64 = 10_000;
/// Descriptors that are used for other things.
const OTHER_DESCRIPTORS: u64 = 100;
/// What a connection may cost in both processes together: 100 MB for 10,000.
const BYTES_MAX: u64 = 10_000;
/// How many connections are made at a time; a server admits 256 callers of one host before they have said who they are.
const AT_A_TIME: usize = 64;
const STRETCH: Duration = Duration::from_secs(2);
/// What the two processes may compute together in that time: ten times less than one read of each connection.
const COMPUTING_MAX: Duration = Duration::from_millis(5);

#[derive(Debug, Serialize, Deserialize)]
enum Question {
    Double(u64, RpcCallContext<u64>),
}

struct Answerer;

impl RpcEndpoint for Answerer {
    type Message = Question;

    async fn receive(
        &mut self,
        message: Question,
        _: &EndpointContext<Question>,
    ) -> Result<(), EndpointError> {
        let Question::Double(number, call) = message;
        call.reply(2 * number);
        Ok(())
    }
}

const HOUR: Duration = Duration::from_secs(3600);

/// Without pings, so that nothing is due.
fn config() -> RpcConfig {
    let mut config = RpcConfig::default();
    config.transport.ping_interval = None;
    // The moment at which a request would have run out of time is looked at once, also long after its answer. That
    // shall not fall into the stretch that is measured.
    (config.ask_timeout, config.lookup_timeout) = (HOUR, HOUR);
    config
}

fn say(line: &str) {
    println!("{line}");
    std::io::stdout().flush().expect("a pipe");
}

/// Until whoever started us says something, or is gone.
async fn hear() {
    let heard =
        tokio::task::spawn_blocking(|| drop(std::io::stdin().read_line(&mut String::new())));
    heard.await.expect("no panic");
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn serve() {
    let builder = RpcEnv::builder("server").config(config());
    let env = builder.bind("0.0.0.0:0").start().await;
    let env = env.expect("a free port");
    env.setup_endpoint("answerer", Answerer).expect("a name");
    let port = env.address().expect("it listens").port();
    say(&format!("port {port}"));
    hear().await;
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn call(port: u16, connections: u64) {
    let env = RpcEnv::builder("client").config(config()).start().await;
    let env = env.expect("it starts");
    // What is there once and for all shall be there before.
    let _first = connect(env.clone(), port, 0).await;
    say("started");
    hear().await;
    let mut connecting = JoinSet::new();
    let mut endpoints = Vec::new();
    for number in 1..=connections {
        if connecting.len() == AT_A_TIME {
            endpoints.push(connecting.join_next().await);
        }
        connecting.spawn(connect(env.clone(), port, number));
    }
    while let Some(endpoint) = connecting.join_next().await {
        endpoints.push(Some(endpoint));
    }
    say(&format!("connected {}", env.snapshot().connections.len()));
    hear().await;
}

/// Calls the server at an address that nobody has called it at, and asks it something.
async fn connect(env: RpcEnv, port: u16, number: u64) -> RpcEndpointRef<Question> {
    let host = format!("127.1.{}.{}", number / 250, 1 + number % 250);
    let address = RpcAddress::new(&host, port);
    let endpoint = env.retrieve_endpoint_ref(&address, "answerer").await;
    let endpoint: RpcEndpointRef<Question> = endpoint.expect("it is there");
    let doubled = endpoint.ask(|call| Question::Double(number, call)).await;
    assert_eq!(doubled.expect("a reply"), 2 * number);
    endpoint
}

/// One of the two processes, which ends when this is dropped.
struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(role: &str, address: &str, connections: u64) -> Self {
        let program = std::env::current_exe().expect("a test has a path");
        let mut child = Command::new(program)
            .args(["--exact", NAME, "--nocapture"])
            .env(ROLE, role)
            .env(ADDRESS, address)
            .env(CONNECTIONS, connections.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program runs");
        let stdin = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self {
            child,
            stdin,
            lines,
        }
    }

    fn go_on(&mut self) {
        let stdin = self.stdin.as_mut().expect("piped");
        writeln!(stdin).expect("it listens");
    }

    /// Waits for a line with that; gives what follows it.
    fn line_with(&mut self, start: &str) -> String {
        let mut lines = self.lines.by_ref().map(|line| line.expect("a line"));
        let found = lines.find_map(|line| {
            let (_, rest) = line.split_once(start)?;
            Some(rest.trim().to_owned())
        });
        found.expect("it says so")
    }

    fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("it lives");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        1024 * kib.expect("the kernel says so")
    }

    /// How long its threads have computed.
    fn computed(&self) -> Duration {
        let threads = format!("/proc/{}/task", self.child.id());
        let threads = std::fs::read_dir(threads).expect("it lives");
        let nanoseconds = threads.map(|thread| {
            let path = thread.expect("it lives").path().join("schedstat");
            let text = std::fs::read_to_string(path).expect("it lives");
            let first = text.split_whitespace().next();
            let first = first.and_then(|number| number.parse::<u64>().ok());
            first.expect("the kernel says so")
        });
        Duration::from_nanos(nanoseconds.sum())
    }

    fn end(mut self) {
        drop(self.stdin.take());
        assert!(self.child.wait().expect("it ends").success());
    }
}

/// As many as are wanted, or as the descriptors of one process allow.
fn connections() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // The processes that are started inherit it.
    setrlimit(Resource::Nofile, all).expect("a process may use what it is allowed");
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let wanted = std::env::var(CONNECTIONS);
    let wanted = wanted.map_or(CONNECTIONS_WANTED, |text| text.parse().expect("a number"));
    wanted.min(allowed.saturating_sub(OTHER_DESCRIPTORS))
}

#[test]
fn idle_connections_cost_little_memory_and_no_time() {
    let connections = connections();
    match std::env::var(ROLE).as_deref() {
        Ok("server") => return serve(),
        Ok(_) => {
            let port = std::env::var(ADDRESS).expect("set with the role");
            return call(port.parse().expect("a port"), connections);
        }
        Err(_) => {}
    }
    let mut server = Process::start("server", "", connections);
    let port = server.line_with("port ");
    let mut client = Process::start("client", &port, connections);
    client.line_with("started");
    let resident = |of: &Process| of.resident_bytes();
    let before = [&server, &client].map(resident);
    client.go_on();
    let connected = client.line_with("connected ");
    assert_eq!(connected, (connections + 1).to_string());
    let after = [&server, &client].map(resident);
    let grown = [0, 1].map(|side| after[side].saturating_sub(before[side]) / connections);
    println!(
        "{connections} connections: {} bytes each at the server, {} at the client, {} together",
        grown[0],
        grown[1],
        grown[0] + grown[1]
    );
    let computed = || server.computed() + client.computed();
    let before = computed();
    std::thread::sleep(STRETCH);
    let computed = computed().checked_sub(before).expect("no thread ends");
    println!("both computed {computed:?} in {STRETCH:?}");
    client.end();
    server.end();
    assert!(
        grown[0] + grown[1] <= BYTES_MAX,
        "10,000 idle connections take no more than 100 MB"
    );
    assert!(computed <= COMPUTING_MAX, "idle connections take no time");
}
