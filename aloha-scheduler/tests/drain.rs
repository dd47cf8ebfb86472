//! Workers that are drained, as processes.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use common::ports::free_port;
use common::{Daemon, Pipe, command, durable_master};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::{TempDir, tempdir};

struct Ground {
    home: TempDir,
    master: Daemon,
}

impl Ground {
    fn new() -> Self {
        Self {
            home: tempdir().unwrap(),
            master: Daemon::master(&[]),
        }
    }

    fn path(&self) -> &Path {
        self.home.path()
    }

    /// A worker, and its id.
    fn worker(&self, name: &str) -> (Daemon, String) {
        let worker = Daemon::worker(&self.master, &self.path().join(name));
        let address = worker.rpc.trim_start_matches("aloha://").to_owned();
        let listed = workers(&self.master);
        let of = |listed: &&Value| {
            format!("{}:{}", listed["host"].as_str().unwrap(), listed["port"]) == address
        };
        let id = listed.iter().find(of).unwrap()["id"].as_str().unwrap();
        (worker, id.to_owned())
    }

    fn drain(&self, words: &[&str]) -> Value {
        let answer = self.master.ask(&[&["drain", "--json"], words].concat());
        assert_eq!(answer.code, Some(0), "{}", answer.stderr);
        serde_json::from_str(&answer.stdout).unwrap()
    }

    /// An application that notes its beginning and end, says when it has begun, and runs until it is told to end.
    fn service(&self, flags: &[&str]) -> (String, Pipe, std::path::PathBuf) {
        let (begun, journal) = (Pipe::new(self.path(), "begun"), self.path().join("journal"));
        let script = format!(
            "trap 'echo end $ALOHA_ATTEMPT >> {journal}; exit 0' TERM; echo begin $ALOHA_ATTEMPT >> {journal}; \
             echo begun > {begun}; while :; do sleep 0.02; done",
            journal = journal.display(),
            begun = begun.path()
        );
        (self.master.submit_with(&script, flags), begun, journal)
    }
}

fn workers(master: &Daemon) -> Vec<Value> {
    let answer = master.ask(&["workers", "--json"]);
    serde_json::from_str(&answer.stdout).unwrap()
}

fn state_of(master: &Daemon, id: &str) -> String {
    let listed = workers(master);
    let found = listed.iter().find(|worker| worker["id"] == id).unwrap();
    found["state"].as_str().unwrap().to_owned()
}

#[test]
fn what_may_move_is_elsewhere_once_it_has_ended_here_and_the_process_of_the_worker_ends() {
    let ground = Ground::new();
    let (mut first, id) = ground.worker("first");
    let (app, begun, journal) = ground.service(&["--supervise"]);
    assert_eq!(begun.read(), "begun\n");
    let (_second, other) = ground.worker("second");
    let answer = ground.master.ask(&["drain", &id]);
    assert_eq!(answer.code, Some(0), "{}", answer.stderr);
    assert_eq!(
        answer.stdout,
        format!("{id} is gone; nothing is left on it\n")
    );
    assert_eq!(first.wait().code(), Some(0));
    assert_eq!(begun.read(), "begun\n");
    let lines = std::fs::read_to_string(journal).unwrap();
    assert_eq!(lines, "begin 1\nend 1\nbegin 2\n");
    let status = ground.master.status(&app);
    assert_eq!(
        (&status["worker"]["worker"], &status["attempt"]),
        (&other.into(), &2.into())
    );
    assert_eq!(ground.drain(&["--status", &id])["phase"], "GONE");
}

#[test]
fn what_may_not_move_runs_on_and_a_drain_can_be_called_off_and_be_cut_short() {
    let ground = Ground::new();
    let (mut worker, id) = ground.worker("first");
    let address = worker.rpc.trim_start_matches("aloha://").to_owned();
    let (app, begun, journal) = ground.service(&[]);
    assert_eq!(begun.read(), "begun\n");
    // It is found by where it is reached, too.
    let status = ground.drain(&["--no-wait", "--timeout", "1h", &address]);
    assert_eq!(
        (&status["phase"], &status["left"][0]["fate"]),
        (&"DRAINING".into(), &"RUNS_ON".into())
    );
    assert_eq!(state_of(&ground.master, &id), "LEAVING");
    let next = ground.master.submit("exit 7");
    let why = "every worker is disconnected, leaving or drained";
    assert_eq!(ground.master.status(&next)["waiting_for"], why);
    assert_eq!(ground.drain(&["--cancel", &id])["phase"], "NONE");
    assert_eq!(state_of(&ground.master, &id), "ALIVE");
    assert_eq!(ground.master.ask(&["wait", &next]).code, Some(7));
    let status = ground.drain(&["--timeout", "0", &id]);
    assert_eq!(status["phase"], "GONE");
    assert_eq!(worker.wait().code(), Some(0));
    let status = ground.master.status(&app);
    assert_eq!(status["phase"], "ERROR");
    assert_eq!(
        status["message"],
        format!("ended, for the drain of {id} took too long")
    );
    assert_eq!(
        std::fs::read_to_string(journal).unwrap(),
        "begin 1\nend 1\n"
    );
}

#[test]
fn a_drain_goes_on_without_whoever_asked_for_it() {
    let ground = Ground::new();
    let (mut worker, id) = ground.worker("first");
    let (app, begun, _) = ground.service(&[]);
    assert_eq!(begun.read(), "begun\n");
    let mut asking = command()
        .env("ALOHA_MASTER", &ground.master.rpc)
        .args(["drain", &id])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(asking.stderr.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    assert_eq!(line, format!("aloha: 1 application left on {id}"));
    kill_process(Pid::from_child(&asking), Signal::INT).unwrap();
    let line = lines.next().unwrap().unwrap();
    assert!(
        line.starts_with(&format!("aloha: the drain of {id} goes on; ")),
        "{line}"
    );
    assert_eq!(asking.wait().unwrap().code(), Some(130));
    assert_eq!(ground.drain(&["--status", &id])["phase"], "DRAINING");
    assert_eq!(ground.master.ask(&["kill", &app]).code, Some(0));
    assert_eq!(worker.wait().code(), Some(0));
}

#[test]
fn a_drain_survives_a_master_that_is_killed() {
    let home = tempdir().unwrap();
    let arguments = durable_master(free_port(), &home.path().join("store"));
    let start = || Daemon::start_by(command(), &arguments);
    let mut ground = Ground {
        master: start(),
        home,
    };
    let (mut worker, id) = ground.worker("first");
    let (app, begun, _) = ground.service(&[]);
    assert_eq!(begun.read(), "begun\n");
    assert_eq!(ground.drain(&["--no-wait", &id])["phase"], "DRAINING");
    ground.master.signal(Signal::KILL);
    ground.master.wait();
    ground.master = start();
    ground.master.wait_for_line("worker registered");
    assert_eq!(state_of(&ground.master, &id), "LEAVING");
    assert_eq!(ground.master.ask(&["kill", &app]).code, Some(0));
    assert_eq!(worker.wait().code(), Some(0));
}

#[test]
fn rest_drains_too_and_what_cannot_be_drained_is_told() {
    let ground = Ground::new();
    let (mut worker, id) = ground.worker("first");
    let (app, begun, _) = ground.service(&[]);
    assert_eq!(begun.read(), "begun\n");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = reqwest::Client::new();
    let ask = |method: &str, path: String| {
        let method = method.parse().unwrap();
        let request = client.request(
            method,
            format!("{}/v1/workers/{path}", ground.master.rest()),
        );
        runtime.block_on(async {
            let response = request.send().await.unwrap();
            let status = response.status().as_u16();
            let body: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
            (status, body["phase"].clone())
        })
    };
    assert_eq!(ask("GET", format!("{id}/drain")), (200, "NONE".into()));
    let begin = format!("{id}/drain?mode=wait&timeout=600");
    assert_eq!(ask("POST", begin), (202, "DRAINING".into()));
    assert_eq!(ask("DELETE", format!("{id}/drain")), (200, "NONE".into()));
    assert_eq!(ask("POST", format!("{id}/drain?mode=now")).0, 400);
    assert_eq!(ask("POST", "worker-none/drain".to_owned()).0, 404);
    let refused = ground.master.ask(&["drain", "worker-none"]);
    assert_eq!(refused.code, Some(1));
    assert_eq!(
        refused.stderr,
        "aloha: there is no worker worker-none; `aloha workers` lists them\n"
    );
    assert_eq!(ask("POST", format!("{id}/drain")), (202, "DRAINING".into()));
    assert_eq!(ground.master.ask(&["kill", &app]).code, Some(0));
    assert_eq!(worker.wait().code(), Some(0));
}
