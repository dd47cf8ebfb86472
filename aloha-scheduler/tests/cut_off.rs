//! A worker without its master, and runners without their worker: what may be started elsewhere is gone in time.

mod common;

use std::fs::File;
use std::io::Read;
use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use common::gates::{Network, Party};
use common::{Daemon, Pipe, now, processes_of};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::{TempDir, tempdir};

/// Everything happens within this: asked to end after a half, killed at three quarters.
const TIMEOUT: Duration = Duration::from_secs(8);
const TIMEOUT_KEY: [&str; 2] = ["-D", "aloha.worker.timeout=8"];

/// A master, a worker that stops what may be started elsewhere, and two applications that ignore requests to end.
struct Cluster {
    master: Daemon,
    worker: Daemon,
    /// Says which attempt runs.
    says: Pipe,
    /// Written to by the supervised one, for as long as anything of it runs.
    alive: File,
    plain: String,
    supervised: String,
    _home: TempDir,
}

impl Cluster {
    fn start() -> Self {
        let master = Daemon::master(&TIMEOUT_KEY);
        let url = master.rpc.clone();
        Self::start_with(master, &url)
    }

    /// With a worker that reaches its master there.
    fn start_with(master: Daemon, url: &str) -> Self {
        let home = tempdir().expect("a directory");
        let stops = ["-D", "aloha.worker.stopWhenCutOff=true"];
        let more = [TIMEOUT_KEY, stops].concat();
        let worker = Daemon::worker_with(url, &home.path().join("work"), &more);
        master.wait_for_line("worker registered");
        let (says, held) = (
            Pipe::new(home.path(), "says"),
            Pipe::new(home.path(), "held"),
        );
        let stubborn = "trap '' TERM; while :; do sleep 1; done";
        let announce = format!("echo attempt $ALOHA_ATTEMPT > {}", says.path());
        let at_once = ["--stop-timeout", "0"];
        let plain = master.submit_with(&format!("{announce}; {stubborn}"), &at_once);
        assert_eq!(says.read(), "attempt 1\n");
        let held = held.path();
        let script = format!(
            "[ $ALOHA_ATTEMPT = 1 ] && exec 9> {held}; {announce}; [ $ALOHA_ATTEMPT = 1 ] || exit 0; {stubborn}"
        );
        let supervised = master.submit_with(&script, &["--supervise"]);
        let alive = File::open(held).expect("the application opens it as well");
        assert_eq!(says.read(), "attempt 1\n");
        Self {
            master,
            worker,
            says,
            alive,
            plain,
            supervised,
            _home: home,
        }
    }

    /// Waits until nothing of the supervised application runs, and says how long that took.
    fn until_it_is_gone(&mut self, since: Instant) -> Duration {
        let mut nothing = Vec::new();
        self.alive.read_to_end(&mut nothing).expect("a pipe");
        now() - since
    }
}

#[test]
fn cut_off_from_every_master_a_worker_stops_what_may_be_started_elsewhere_in_time() {
    let mut cluster = Cluster::start();
    let since = now();
    cluster.master.signal(Signal::STOP);
    let taken = cluster.until_it_is_gone(since);
    assert!(taken < TIMEOUT, "it ran {taken:?} without a master");
    let plain = processes_of(&cluster.plain, &cluster.master.rpc);
    assert!(!plain.is_empty(), "the other runs on");

    cluster.master.signal(Signal::CONT);
    assert_eq!(cluster.says.read(), "attempt 2\n");
    let ended = cluster.master.ask(&["wait", &cluster.supervised]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let killed = cluster.master.ask(&["kill", &cluster.plain]);
    assert_eq!(killed.code, Some(0), "{}", killed.stderr);
    let ended = cluster.master.ask(&["wait", &cluster.plain]);
    assert_eq!(ended.code, Some(137), "{}", ended.stderr);
}

#[test]
fn a_worker_that_is_killed_takes_what_may_be_started_elsewhere_along_in_time() {
    let mut cluster = Cluster::start();
    let since = now();
    cluster.worker.signal(Signal::KILL);
    cluster.worker.wait();
    let taken = cluster.until_it_is_gone(since);
    assert!(taken < TIMEOUT, "it ran {taken:?} without a worker");
    end_plain(&cluster.plain, &cluster.master.rpc);
}

/// Ends the application that is not supervised, which still runs although nobody can be asked to end it.
fn end_plain(id: &str, master: &str) {
    let plain = processes_of(id, master);
    assert!(!plain.is_empty(), "the other runs on");
    for process in plain {
        let pid = process.strip_prefix("/proc/").expect("it is from there");
        let pid = pid.parse().ok().and_then(Pid::from_raw).expect("a pid");
        // It may have gone with another.
        let _ = kill_process(pid, Signal::KILL);
    }
}

#[test]
fn the_next_attempt_begins_elsewhere_only_after_the_one_before_is_gone() {
    let master = Daemon::master(&TIMEOUT_KEY);
    let network = Network::new();
    let address = master.rpc.strip_prefix("aloha://").expect("its scheme");
    let address = address.parse().expect("host and port");
    let gate = network.open((Ipv4Addr::LOCALHOST, 0).into(), Party::Master(0), address);
    let gate = format!("aloha://{gate}");
    let Cluster {
        master,
        worker,
        says,
        mut alive,
        plain,
        supervised,
        _home: home,
        ..
    } = Cluster::start_with(master, &gate);
    let _other = Daemon::worker(&master, &home.path().join("other"));
    network.cut(Party::Clients, Party::Master(0));
    let gone = thread::spawn(move || {
        alive.read_to_end(&mut Vec::new()).expect("a pipe");
        now()
    });
    assert_eq!(says.read(), "attempt 2\n");
    let begun = now();
    let gone = gone.join().expect("it reads");
    assert!(gone < begun, "both ran for {:?}", gone - begun);
    end_plain(&plain, &gate);
    let ended = master.ask(&["wait", &supervised]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    // Asked to stop, it would wait for its peer.
    worker.signal(Signal::KILL);
}
