//! What an application may have, from its submission to its end.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Daemon, Pipe, record, runner_of};
use rustix::process::{Signal, kill_process};
use tempfile::tempdir;

#[expect(clippy::print_stderr, reason = "whoever runs the test should know")]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

#[test]
fn an_application_beyond_its_memory_is_killed_and_its_status_says_why() {
    let home = tempdir().expect("a directory");
    let cluster = Daemon::local(home.path());
    let workers = cluster.ask(&["workers", "--json"]).stdout;
    let workers: serde_json::Value = serde_json::from_str(&workers).expect("JSON");
    let enforced = workers[0]["enforces"]["memory"].as_str().expect("a text");
    if !enforced.starts_with("enforced by cgroup v") {
        return skipped(enforced);
    }
    // Within its memory, the same is no trouble.
    let modest = cluster.submit("head -c 20000000 /dev/zero | tail -c 20000000 | wc -c");
    assert_eq!(cluster.ask(&["wait", &modest]).code, Some(0));
    assert_eq!(cluster.ask(&["logs", &modest]).stdout, "20000000\n");
    let greedy = cluster.submit("head -c 400000000 /dev/zero | tail -c 400000000");
    assert_eq!(cluster.ask(&["wait", &greedy]).code, Some(137));
    let status = cluster.status(&greedy);
    let found = (&status["phase"], &status["exit_code"], &status["message"]);
    let why = "killed, for it used more than its 128 MiB of memory";
    assert_eq!(found, (&"FAILED".into(), &137.into(), &why.into()));
    let text = cluster.ask(&["status", &greedy]).stdout;
    assert!(text.contains(why), "{text}");
}

#[test]
fn limits_variables_and_the_attempt_are_those_of_the_submission() {
    let home = tempdir().expect("a directory");
    let cluster = Daemon::local(home.path());
    let flags = ["--limit", "open-files=64", "--env", "GREETING=hello world"];
    let script = "bash -c 'ulimit -Sn; ulimit -Hn'; echo $GREETING, attempt $ALOHA_ATTEMPT";
    let id = cluster.submit_with(script, &flags);
    assert_eq!(cluster.ask(&["wait", &id]).code, Some(0));
    let output = cluster.ask(&["logs", &id]).stdout;
    assert_eq!(output, "64\n64\nhello world, attempt 1\n");
    // More than it may open, it cannot.
    let script = "for i in {10..80}; do eval \"exec $i</dev/null\" || exit 9; done";
    let id = cluster.submit_with(script, &flags);
    assert_ne!(cluster.ask(&["wait", &id]).code, Some(0));
    let id = cluster.submit(script);
    assert_eq!(cluster.ask(&["wait", &id]).code, Some(0));
}

#[test]
fn it_is_asked_to_end_by_its_signal_and_has_its_time() {
    let home = tempdir().expect("a directory");
    let cluster = Daemon::local_with(home.path(), &["-D", "aloha.worker.killGrace=60"]);
    let pipe = Pipe::new(home.path(), "pipe");
    let killed = |script: &str, flags: &[&str]| {
        let tail = "while :; do sleep 0.01; done";
        let script = format!("{script}; echo up > {}; {tail}", pipe.path());
        let id = cluster.submit_with(&script, flags);
        assert_eq!(pipe.read(), "up\n");
        assert_eq!(cluster.ask(&["kill", &id]).code, Some(0));
        assert_eq!(cluster.ask(&["wait", &id]).code, Some(137));
        assert_eq!(cluster.status(&id)["phase"], "KILLED");
        cluster.ask(&["logs", &id]).stdout
    };
    let script = "trap 'echo hung up; exit' HUP; trap 'echo terminated; exit' TERM";
    assert_eq!(killed(script, &["--stop-signal", "HUP"]), "hung up\n");
    assert_eq!(killed(script, &[]), "terminated\n");
    // With the time of its worker it would come to say so.
    let script = "trap 'echo asked; sleep 20; echo late; exit' TERM";
    assert_eq!(killed(script, &["--stop-timeout", "1"]), "asked\n");
}

/// The cgroups of an application that runs.
fn groups_of(work: &Path, id: &str) -> Vec<PathBuf> {
    let run = record(work, id, "run");
    let groups = run["cgroups"].as_array().expect("a list");
    let groups = groups.iter().filter_map(|group| group.as_str());
    groups
        .map(PathBuf::from)
        .filter(|group| group.exists())
        .collect()
}

#[test]
fn no_cgroup_is_left_of_what_ended_by_itself_or_by_force_or_with_its_cluster() {
    let home = tempdir().expect("a directory");
    let work = home.path().join("work");
    let mut cluster = Daemon::local(&work);
    let pipe = Pipe::new(home.path(), "pipe");
    let left = |groups: &[PathBuf]| -> Vec<PathBuf> {
        groups.iter().filter(|g| g.exists()).cloned().collect()
    };
    let none = Vec::<PathBuf>::new();
    let start = || {
        let script = "setsid sleep 1000 & echo on > PIPE; read < PIPE";
        let id = cluster.submit(&script.replace("PIPE", pipe.path()));
        assert_eq!(pipe.read(), "on\n");
        let groups = groups_of(&work, &id);
        (id, groups)
    };

    let (id, groups) = start();
    if groups.is_empty() {
        return skipped(&cluster.ask(&["workers"]).stdout);
    }
    fs::write(&pipe.0, "go\n").expect("it reads");
    assert_eq!(cluster.ask(&["wait", &id]).code, Some(0));
    assert_eq!(left(&groups), none);

    let (id, groups) = start();
    assert_ne!(groups, none);
    kill_process(runner_of(&work, &id), Signal::KILL).expect("it runs");
    assert_eq!(cluster.ask(&["wait", &id]).code, Some(1));
    assert_eq!(left(&groups), none);

    let (_, groups) = start();
    assert_ne!(groups, none);
    cluster.signal(Signal::TERM);
    assert_eq!(cluster.wait().code(), Some(0));
    assert_eq!(left(&groups), none);
}
