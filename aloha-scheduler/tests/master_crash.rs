//! A master that is killed at random moments while four clients submit: every submission that it acknowledged runs
//! exactly once, in order.
//!
//! `ALOHA_MASTER_CRASH_ROUNDS` says how often (3 otherwise), `ALOHA_MASTER_CRASH_SEED` with which moments.
#![expect(clippy::print_stdout, reason = "a seed that fails is to be known")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use aloha_rpc::{RpcAddress, RpcEnv};
use aloha_scheduler::{AppDescription, AppId, AppPhase, MasterClient};
use common::moments::{Moments, number};
use common::ports::free_port;
use common::{Daemon, command, durable_master};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

const CLIENTS: usize = 4;
const KILLS: u32 = 6;

/// The place of an application in the queue: the last part of its id.
fn place(id: &str) -> u64 {
    let number = id.rsplit('-').next().and_then(|number| number.parse().ok());
    number.expect("an id ends with its number")
}

/// A master that comes back at its address with what it stored, and a worker of one core.
struct Ground {
    home: TempDir,
    port: u16,
    address: RpcAddress,
}

impl Ground {
    fn new() -> Self {
        let port = free_port();
        Self {
            home: tempfile::tempdir().expect("a directory"),
            port,
            address: format!("127.0.0.1:{port}").parse().expect("an address"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn master(&self) -> Daemon {
        let mut command = command();
        command.args(durable_master(self.port, &self.path("recovery")));
        Daemon::start_by(command, &["-D", "aloha.deploy.retainedApplications=100000"])
    }

    fn worker(&self) -> Daemon {
        let master = format!("aloha://{}", self.address);
        let stops = ["--stop-applications"];
        Daemon::worker_offering(&master, &self.path("work"), "1", "1G", &stops)
    }
}

/// What became of the submissions of a client.
#[derive(Default)]
struct Submitted {
    acknowledged: Vec<AppId>,
    /// Those without an answer: they may run, but not twice.
    unanswered: u32,
}

/// Submits one after another until told to stop, whatever becomes of the master meanwhile.
async fn submit_until(
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU32>,
    address: RpcAddress,
    journal: PathBuf,
) -> Submitted {
    let env = RpcEnv::client("master-crash-test").await.expect("started");
    let mut submitted = Submitted::default();
    while !stop.load(Ordering::Relaxed) {
        let Ok(client) = MasterClient::connect(&env, std::slice::from_ref(&address)).await else {
            continue; // it is not there for a moment
        };
        while !stop.load(Ordering::Relaxed) {
            let description = AppDescription {
                name: "journal".into(),
                entry_point: "SimpleProcess".into(),
                args: vec![format!("echo $ALOHA_APP_ID >> {}", journal.display())],
                cores: 1,
                memory_mib: 16,
                ..AppDescription::default()
            };
            match client.submit(description).await {
                Ok(answer) => {
                    let app = answer.accepted().expect("accepted");
                    submitted.acknowledged.push(app);
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => {
                    submitted.unanswered += 1;
                    break;
                }
            }
            // A worker of one core is to keep up.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    env.shutdown().await;
    submitted
}

/// How often each application ran, and whether each came after those that were submitted before.
fn read(journal: &Path) -> (BTreeMap<String, u32>, bool) {
    let text = fs::read_to_string(journal).expect("they wrote it");
    let places: Vec<u64> = text.lines().map(place).collect();
    let mut runs = BTreeMap::new();
    for line in text.lines() {
        *runs.entry(line.to_owned()).or_default() += 1;
    }
    (runs, places.is_sorted())
}

fn round(seed: u64) {
    let mut moments = Moments(seed);
    let ground = Ground::new();
    let journal = ground.path("journal");
    let mut master = ground.master();
    let worker = ground.worker();
    master.wait_for_line("worker registered");

    let runtime = Runtime::new().expect("a runtime");
    let (stop, acknowledged) = (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default());
    let clients: [JoinHandle<Submitted>; CLIENTS] = std::array::from_fn(|_| {
        let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
        let (address, journal) = (ground.address.clone(), journal.clone());
        runtime.spawn(submit_until(stop, acknowledged, address, journal))
    });
    let mut seen = 0;
    for _ in 0..KILLS {
        std::thread::sleep(Duration::from_micros(moments.below(400_000)));
        master.signal(Signal::KILL);
        master.wait();
        std::thread::sleep(Duration::from_micros(moments.below(50_000)));
        master = ground.master();
        // Else it might be killed each time before it has done anything.
        if moments.below(2) == 0 {
            master.wait_for_line("app submitted");
        }
        seen = acknowledged.load(Ordering::Relaxed);
    }
    stop.store(true, Ordering::Relaxed);
    let submitted: Vec<_> = clients
        .into_iter()
        .map(|client| runtime.block_on(client).expect("it does not panic"))
        .collect();
    let unanswered: u32 = submitted.iter().map(|client| client.unanswered).sum();
    let mut all: Vec<AppId> = submitted
        .into_iter()
        .flat_map(|client| client.acknowledged)
        .collect();
    all.sort_by_key(|app| place(app.as_str()));

    let wait = async {
        let env = RpcEnv::client("master-crash-test").await.expect("started");
        let masters = std::slice::from_ref(&ground.address);
        let client = MasterClient::connect(&env, masters)
            .await
            .expect("it is back");
        let mut lost = Vec::new();
        for app in &all {
            match client.wait(app).await.expect("an answer") {
                Some(status) => assert_eq!(status.phase, AppPhase::Finished, "{status:?}"),
                None => lost.push(app.clone()),
            }
        }
        // Also those whose answer never came.
        for status in client.apps().await.expect("an answer") {
            client.wait(&status.id).await.expect("an answer");
        }
        lost
    };
    let lost = runtime.block_on(wait);
    let (runs, is_in_order) = read(&journal);
    let runs_of = |app: &AppId| runs.get(app.as_str()).copied().unwrap_or_default();
    let never: Vec<_> = all.iter().filter(|app| runs_of(app) == 0).collect();
    let twice: Vec<_> = runs.iter().filter(|(_, runs)| **runs > 1).collect();
    let once = all.iter().filter(|app| runs_of(app) == 1).count();
    println!(
        "seed {seed}: {} acknowledged, {once} ran once, {} twice, {} never, {} unknown; {unanswered} without an answer, \
         {} ran in all; in order: {is_in_order}",
        all.len(),
        twice.len(),
        never.len(),
        lost.len(),
        runs.len()
    );
    assert!(seen > 0, "something was acknowledged between the kills");
    assert_eq!((lost, never), (Vec::new(), Vec::new()));
    assert_eq!(twice, Vec::new());
    assert!(
        is_in_order,
        "{}",
        fs::read_to_string(&journal).expect("read before")
    );
    drop(worker);
    drop(master);
}

#[test]
fn what_a_killed_master_had_acknowledged_runs_exactly_once_and_in_order() {
    let first = number("ALOHA_MASTER_CRASH_SEED", 1);
    for seed in first..first + number("ALOHA_MASTER_CRASH_ROUNDS", 3) {
        round(seed);
    }
}
