//! The contestant's side: a process does one workload once and says in one line how it went.
//!
//! ```text
//! --list                               what it can do: contestant, kind and workload, a line each
//! --run CONTESTANT WORKLOAD DIVISOR    does it and prints `name=value` pairs
//! --serve CONTESTANT WORKLOAD          the other process of a remote one: prints its address, then answers each line on
//!                                      its standard input with the processor time it took so far, until that is closed
//! ```
#![expect(clippy::print_stdout, reason = "it is how the processes talk")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustix::thread::CpuSet;
use rustix::time::ClockId;

use crate::Workload;

/// What a contestant is to the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Aloha.
    Ours,
    /// What the machine can do with the same means and none of the promises.
    Limit,
    /// What it can do by other means, such as a blocked thread for each connection: shown, and not compared with.
    Aside,
    /// Another actor or RPC library.
    Peer,
}

impl Kind {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Limit => "limit",
            Self::Aside => "aside",
            Self::Peer => "peer",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn called(name: &str) -> Option<Self> {
        let kinds = [Self::Ours, Self::Limit, Self::Aside, Self::Peer];
        kinds.into_iter().find(|kind| kind.name() == name)
    }
}

/// One contestant's way to do one workload.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    contestant: &'static str,
    kind: Kind,
    workload: Workload,
    run: fn(Job) -> Figures,
    serve: Option<fn(Lobby)>,
    fewer: u64,
}

impl Entry {
    /// A workload inside one process.
    #[must_use]
    pub const fn local(
        contestant: &'static str,
        kind: Kind,
        workload: Workload,
        run: fn(Job) -> Figures,
    ) -> Self {
        Self {
            contestant,
            kind,
            workload,
            run,
            serve: None,
            fewer: 1,
        }
    }

    /// A workload for two processes.
    #[must_use]
    pub const fn remote(
        contestant: &'static str,
        kind: Kind,
        workload: Workload,
        run: fn(Job) -> Figures,
        serve: fn(Lobby),
    ) -> Self {
        Self {
            contestant,
            kind,
            workload,
            run,
            serve: Some(serve),
            fewer: 1,
        }
    }

    /// Does so many times fewer operations, for a slow one would hold up all others.
    #[must_use]
    pub const fn fewer(self, fewer: u64) -> Self {
        Self { fewer, ..self }
    }
}

/// A workload to be done now.
#[derive(Debug)]
pub struct Job {
    /// What.
    pub workload: Workload,
    /// How many operations.
    pub operations: u64,
    server: Option<Server>,
}

impl Job {
    /// Where the other process listens.
    ///
    /// # Panics
    ///
    /// If the workload is a local one.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.server.as_ref().expect("it is a remote one").address
    }

    /// The time begins. Reading the other process's clock is not part of it.
    #[must_use]
    pub fn start(&self) -> Start {
        Start {
            cpu: self.cpu(),
            at: Instant::now(),
        }
    }

    /// The time ends.
    #[must_use]
    pub fn stop(&self, start: &Start, operations: u64) -> Figures {
        let took = start.at.elapsed();
        Figures {
            operations,
            took,
            cpu: self.cpu() - start.cpu,
            ..Figures::default()
        }
    }

    fn cpu(&self) -> Duration {
        let server = self.server.as_ref().map_or(Duration::ZERO, Server::cpu);
        server + own_cpu()
    }
}

/// When a workload began.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    cpu: Duration,
    at: Instant,
}

/// How a workload went.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figures {
    /// How many operations were done.
    pub operations: u64,
    /// How long they took.
    pub took: Duration,
    /// The processor time of both processes.
    pub cpu: Duration,
    /// What half of the operations took at most.
    pub median: Option<Duration>,
    /// By how many bytes the resident memory grew.
    pub grown: Option<u64>,
}

impl Figures {
    /// For a workload that measures memory.
    #[must_use]
    pub fn memory(operations: u64, grown: u64) -> Self {
        Self {
            operations,
            grown: Some(grown),
            ..Self::default()
        }
    }

    /// One line of `name=value` pairs.
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut line = format!(
            "operations={} nanoseconds={} cpu_nanoseconds={}",
            self.operations,
            self.took.as_nanos(),
            self.cpu.as_nanos()
        );
        if let Some(median) = self.median {
            line += &format!(" median_nanoseconds={}", median.as_nanos());
        }
        if let Some(grown) = self.grown {
            line += &format!(" grown_bytes={grown}");
        }
        line
    }

    /// Reads what [`to_line`](Self::to_line) wrote.
    #[must_use]
    pub fn from_line(line: &str) -> Option<Self> {
        let mut figures = Self::default();
        for pair in line.split_whitespace() {
            let (name, value) = pair.split_once('=')?;
            let value = value.parse().ok()?;
            match name {
                "operations" => figures.operations = value,
                "nanoseconds" => figures.took = Duration::from_nanos(value),
                "cpu_nanoseconds" => figures.cpu = Duration::from_nanos(value),
                "median_nanoseconds" => figures.median = Some(Duration::from_nanos(value)),
                "grown_bytes" => figures.grown = Some(value),
                _ => return None,
            }
        }
        (figures.operations > 0).then_some(figures)
    }
}

/// Where the server of a remote workload waits.
#[derive(Debug)]
pub struct Lobby(());

impl Lobby {
    /// Says where the server listens and returns when it is not needed any more. Blocks the thread.
    pub fn open(self, address: &str) {
        println!("{address}");
        for line in std::io::stdin().lock().lines() {
            if line.is_err() {
                return;
            }
            println!("{}", own_cpu().as_nanos());
        }
    }
}

/// The other process: this program again, until its standard input is closed.
#[derive(Debug)]
struct Server {
    process: Child,
    pipes: Mutex<Option<(ChildStdin, BufReader<ChildStdout>)>>,
    address: String,
}

impl Server {
    fn start(entry: &Entry) -> Self {
        let mut server = Command::new(std::env::current_exe().expect("a program has a path"));
        let spawned = server
            .args(["--serve", entry.contestant, entry.workload.name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut process = spawned.expect("this program runs");
        let input = process.stdin.take().expect("piped");
        let mut output = BufReader::new(process.stdout.take().expect("piped"));
        let mut address = String::new();
        let said = output.read_line(&mut address);
        assert!(said.is_ok_and(|read| read > 0), "the server did not start");
        Self {
            process,
            pipes: Mutex::new(Some((input, output))),
            address: address.trim().to_owned(),
        }
    }

    fn cpu(&self) -> Duration {
        let mut pipes = self.pipes.lock().expect("nothing panics under it");
        let (input, output) = pipes.as_mut().expect("open until it is dropped");
        input.write_all(b"\n").expect("the server lives");
        let mut answer = String::new();
        output.read_line(&mut answer).expect("the server lives");
        Duration::from_nanos(answer.trim().parse().expect("a number of nanoseconds"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.pipes.lock().map(|mut pipes| pipes.take()));
        drop(self.process.wait());
    }
}

/// The processor time of all threads of this process, also of those that have ended.
fn own_cpu() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("it is not negative")
}

/// How many bytes of memory this process has.
///
/// # Panics
///
/// If the system is not Linux.
#[must_use]
pub fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a Linux system");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|resident| resident.split_whitespace().next()?.parse::<u64>().ok());
    kib.expect("a size in KiB") << 10
}

/// Whether the arguments call for a contestant, and if so, everything a contestant's `main` does.
///
/// # Panics
///
/// If anything fails: whoever started the process sees that by its exit code.
pub fn take_part(entries: &[Entry], arguments: &[String]) -> bool {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["--list"] => {
            for entry in entries {
                let (kind, workload) = (entry.kind.name(), entry.workload.name());
                println!("{kind} {workload} {}", entry.contestant);
            }
        }
        ["--run", contestant, workload, divisor] => {
            let entry = prepare(entries, contestant, workload);
            let divisor: u64 = divisor.parse().expect("a number");
            let job = Job {
                workload: entry.workload,
                operations: entry.workload.operations() / divisor / entry.fewer,
                server: entry.serve.map(|_| Server::start(entry)),
            };
            println!("{}", (entry.run)(job).to_line());
        }
        ["--serve", contestant, workload] => {
            let entry = prepare(entries, contestant, workload);
            entry.serve.expect("it is a remote one")(Lobby(()));
        }
        _ => return false,
    }
    true
}

/// Nothing outlives whoever started it, and what shall run on one core does so from its first thread on.
fn prepare<'entries>(
    entries: &'entries [Entry],
    contestant: &str,
    workload: &str,
) -> &'entries Entry {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).expect("a Linux system");
    let is_wanted =
        |entry: &&Entry| entry.contestant == contestant && entry.workload.name() == workload;
    let entry = entries.iter().find(is_wanted).expect("it was listed");
    if entry.workload == Workload::R2p {
        let mut first = CpuSet::new();
        first.set(0);
        rustix::thread::sched_setaffinity(None, &first).expect("there is a first core");
    }
    entry
}
