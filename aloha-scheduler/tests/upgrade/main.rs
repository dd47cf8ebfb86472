//! Masters and workers of the version before and of this one, in one cluster, upgraded one after another while
//! applications run.
//!
//! `ALOHA_BEFORE` is the binary of the version before, which `build-before` makes; without it nothing is tested here, and
//! each test says so.
#![allow(clippy::print_stderr, clippy::unwrap_used, reason = "a test")]

#[path = "../common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use common::ports::free_port;
use common::{Daemon, Pipe, command, durable_master};
use rustix::process::Signal;
use tempfile::{TempDir, tempdir};

/// Which binary.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Before,
    Now,
}

use Version::{Before, Now};

struct Ground {
    home: TempDir,
    port: u16,
    before: PathBuf,
}

impl Ground {
    /// None where there is no binary of the version before.
    fn new(test: &str) -> Option<Self> {
        let Some(before) = std::env::var_os("ALOHA_BEFORE") else {
            eprintln!("NOT TESTED: {test}: ALOHA_BEFORE is no binary of the version before");
            return None;
        };
        Some(Self {
            home: tempdir().unwrap(),
            port: free_port(),
            before: before.into(),
        })
    }

    fn command(&self, version: Version) -> Command {
        match version {
            Before => {
                let mut command = Command::new(&self.before);
                for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ALOHA_")) {
                    command.env_remove(name);
                }
                command
            }
            Now => command(),
        }
    }

    fn master(&self, version: Version) -> Daemon {
        let arguments = durable_master(self.port, &self.home.path().join("store"));
        Daemon::start_by(self.command(version), &arguments)
    }

    /// A worker that leaves what runs to its successor.
    fn worker(&self, version: Version, master: &Daemon, name: &str) -> Daemon {
        let work = self.home.path().join(name);
        let backoff = "aloha.worker.register.backoff.max=200ms";
        let work = work.to_str().unwrap();
        let arguments = [
            "worker",
            "-c",
            "4",
            "-m",
            "2G",
            "-d",
            work,
            "-D",
            backoff,
            &master.rpc,
        ];
        let worker = Daemon::start_by(self.command(version), &arguments);
        master.wait_for_line("worker registered");
        worker
    }

    /// Runs a client command.
    fn ask(&self, version: Version, words: &[&str]) -> (Option<i32>, String) {
        let master = format!("aloha://127.0.0.1:{}", self.port);
        let output = self
            .command(version)
            .env("ALOHA_MASTER", master)
            .args(words)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8(text).unwrap().trim().to_owned(),
        )
    }

    /// An application that notes that it begins, and ends with this code once it may.
    fn submit(&self, version: Version, code: i32, flags: &[&str]) -> Running {
        let pipe = |what: &str| Pipe::new(self.home.path(), &format!("{what}-{code}"));
        let (begun, may_end) = (pipe("begun"), pipe("may-end"));
        let script = format!(
            "echo $ALOHA_APP_ID >> {}; echo begun > {}; read line < {}; exit {code}",
            self.home.path().join("journal").display(),
            begun.path(),
            may_end.path()
        );
        let fixed = ["submit", "--entry-point", "SimpleProcess", "--memory", "64"];
        let (answered, id) = self.ask(version, &[&fixed, flags, &["--", &script]].concat());
        assert_eq!(answered, Some(0), "{id}");
        assert_eq!(begun.read(), "begun\n");
        Running { id, code, may_end }
    }

    /// Lets it end, and asserts that its own end is what is told.
    fn finish(&self, version: Version, running: Running) {
        std::fs::write(&running.may_end.0, "\n").unwrap();
        let (code, text) = self.ask(version, &["wait", &running.id]);
        assert_eq!(code, Some(running.code), "{text}");
    }

    fn assert_runs(&self, version: Version, running: &Running) {
        let (_, text) = self.ask(version, &["status", "--json", &running.id]);
        let status: serde_json::Value = serde_json::from_str(&text).expect(&text);
        assert_eq!(status["phase"], "RUNNING", "{text}");
    }

    fn assert_each_began_once(&self) {
        let journal = std::fs::read_to_string(self.home.path().join("journal")).unwrap();
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        journal
            .lines()
            .for_each(|id| *counts.entry(id).or_default() += 1);
        assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    }
}

struct Running {
    id: String,
    code: i32,
    may_end: Pipe,
}

fn end(mut daemon: Daemon) {
    daemon.signal(Signal::TERM);
    daemon.wait();
}

#[test]
fn masters_first_and_then_the_workers() {
    let Some(ground) = Ground::new("masters first") else {
        return;
    };
    let master = ground.master(Before);
    let workers = ["a", "b"].map(|name| ground.worker(Before, &master, name));
    let one = ground.submit(Before, 11, &[]);
    let two = ground.submit(Before, 12, &["--cores", "4"]);
    end(master);
    let master = ground.master(Now);
    for _ in &workers {
        master.wait_for_line("worker registered");
    }
    // Workers of before under a master of now, and clients of both.
    for (version, running) in [(Before, &one), (Now, &two)] {
        ground.assert_runs(version, running);
    }
    let three = ground.submit(Before, 13, &[]);
    let four = ground.submit(Now, 14, &[]);
    let killed = ground.submit(Before, 15, &[]);
    assert_eq!(ground.ask(Before, &["kill", &killed.id]).0, Some(0));
    assert_eq!(ground.ask(Before, &["wait", &killed.id]).0, Some(137));
    ground.finish(Before, one);
    let [a, b] = workers;
    end(a);
    let a = ground.worker(Now, &master, "a");
    ground.assert_runs(Before, &three);
    ground.finish(Now, three);
    end(b);
    let b = ground.worker(Now, &master, "b");
    let five = ground.submit(Before, 16, &[]);
    for running in [two, four, five] {
        ground.assert_runs(Now, &running);
        ground.finish(Before, running);
    }
    ground.assert_each_began_once();
    end(a);
    end(b);
    end(master);
}

#[test]
fn workers_first_and_then_the_master() {
    let Some(ground) = Ground::new("workers first") else {
        return;
    };
    let master = ground.master(Before);
    let a = ground.worker(Before, &master, "a");
    let one = ground.submit(Before, 21, &["--supervise"]);
    end(a);
    // A worker and a client of now, under a master of before.
    let a = ground.worker(Now, &master, "a");
    ground.assert_runs(Now, &one);
    let two = ground.submit(Now, 22, &[]);
    let killed = ground.submit(Now, 23, &[]);
    assert_eq!(ground.ask(Now, &["kill", &killed.id]).0, Some(0));
    assert_eq!(ground.ask(Now, &["wait", &killed.id]).0, Some(137));
    let (code, text) = ground.ask(Now, &["drain", "worker-a"]);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("the master is of an earlier version, which cannot drain workers"),
        "{text}"
    );
    ground.finish(Now, two);
    end(master);
    let master = ground.master(Now);
    master.wait_for_line("worker registered");
    ground.assert_runs(Before, &one);
    // It is supervised, and ends as it likes: killed, for it would run again.
    assert_eq!(ground.ask(Before, &["kill", &one.id]).0, Some(0));
    assert_eq!(ground.ask(Before, &["wait", &one.id]).0, Some(137));
    ground.assert_each_began_once();
    end(a);
    end(master);
}

#[test]
fn a_worker_of_before_is_drained_and_then_to_be_stopped_by_hand() {
    let Some(ground) = Ground::new("a drain of a worker of before") else {
        return;
    };
    let master = ground.master(Now);
    let a = ground.worker(Before, &master, "a");
    let address = a.rpc.trim_start_matches("aloha://").to_owned();
    let one = ground.submit(Now, 31, &[]);
    assert_eq!(
        ground.ask(Now, &["drain", "--no-wait", &address]).0,
        Some(0)
    );
    ground.finish(Now, one);
    let (code, text) = ground.ask(Now, &["drain", &address]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("which does not leave by itself"), "{text}");
    // It did not take it ill, and says that it goes when it is stopped.
    assert!(ground.ask(Before, &["workers"]).1.contains("LEAVING"));
    end(a);
    assert!(ground.ask(Before, &["workers"]).1.contains("DEAD"));
    end(master);
}
