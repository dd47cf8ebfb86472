//! The real binary: what it prints, and with which exit code it ends.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use common::assert_ends;
use serde_json::Value;

/// Runs `aloha` with nothing in its environment but these directories.
fn aloha(home: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_aloha"))
        .args(args)
        .env_clear()
        .env("HOME", home)
        .output()
        .expect("the binary runs")
}

fn home() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

#[test]
fn config_shows_every_key_with_its_source() {
    let home = home();
    let file = home.path().join("x.conf");
    fs::write(&file, "# ours\naloha.worker.timeout=30\n").expect("written");
    let file = file.to_str().expect("UTF-8");
    let args = [
        "config",
        "--properties-file",
        file,
        "-D",
        "aloha.worker.memory=2G",
    ];

    let text = aloha(home.path(), &args);
    assert_eq!(text.status.code(), Some(0));
    let text = String::from_utf8(text.stdout).expect("UTF-8");
    let words = |key: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(key));
        let words = line.expect(key).split_whitespace().skip(1).take(3);
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        words("aloha.worker.timeout"),
        ["30s", &format!("{file}:2"), "60s"]
    );
    assert_eq!(words("aloha.master.port"), ["7077", "default", "7077"]);

    let json = aloha(home.path(), &[&args[..], &["--json"]].concat());
    let rows: Vec<Value> = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(rows.len(), aloha_scheduler::config::KEYS.len());
    let memory = rows.iter().find(|row| row["key"] == "aloha.worker.memory");
    let memory = memory.expect("in the list");
    assert_eq!(
        (&memory["value"], &memory["source"]),
        (&"2G".into(), &"-D".into())
    );
}

#[test]
fn a_bad_setting_is_refused_in_one_line() {
    let home = home();
    let output = aloha(home.path(), &["config", "-D", "aloha.worker.timout=1"]);
    let line = "aloha: -D: unknown key aloha.worker.timout, did you mean aloha.worker.timeout?\n";
    assert_ends(&output, 1, "", line);
    let output = aloha(
        home.path(),
        &["config", "--properties-file", "/nonexistent"],
    );
    let line = "aloha: cannot read the properties file /nonexistent: No such file or directory (os error 2)\n";
    assert_ends(&output, 1, "", line);
}

#[test]
fn wrong_usage_has_an_exit_code_of_its_own() {
    let home = home();
    for args in [
        &["nonsense"][..],
        &["worker", "h1:7077"],
        &["daemon", "start", "master", "-p", "x"],
        &[],
    ] {
        let output = aloha(home.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(!output.stderr.is_empty());
    }
    let help = aloha(home.path(), &["worker", "--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&help.stdout).contains("Examples:"));
}

#[test]
fn an_entry_point_that_executes_a_command_needs_one() {
    let home = home();
    for entry_point in ["Process", "SimpleProcess", "me.jrwang.app.SimpleProcess"] {
        let output = aloha(home.path(), &["submit", "--entry-point", entry_point]);
        let line = format!(
            "aloha: {entry_point} needs a command: put it behind two dashes, as in `aloha submit -- sleep 60`\n"
        );
        assert_ends(&output, 2, "", &line);
    }
    // A type of one's own may do without; that there is no master is another matter.
    let args =
        "submit --master aloha://127.0.0.1:1 --entry-point com.example.Greeter --lib greeter";
    let args: Vec<&str> = args.split(' ').collect();
    let output = aloha(home.path(), &args);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(stderr.contains("start one with `aloha master`"), "{stderr}");
}

#[test]
fn a_daemon_that_was_never_started_does_not_run() {
    let home = home();
    let output = aloha(home.path(), &["daemon", "status", "master"]);
    assert_ends(&output, 1, "master does not run\n", "");
    let output = aloha(home.path(), &["daemon", "stop", "master"]);
    assert_ends(&output, 0, "master does not run\n", "");
    let output = aloha(home.path(), &["daemon", "--json", "status", "master"]);
    let json = "{\"message\":\"master does not run\",\"pid\":null,\"role\":\"master\",\"running\":false}\n";
    assert_ends(&output, 1, json, "");
}

#[test]
fn a_daemon_that_cannot_start_says_why() {
    let home = home();
    let args = [
        "daemon",
        "start",
        "master",
        "-p",
        "0",
        "--rest-port",
        "0",
        "-D",
        "nonsense",
    ];
    let output = aloha(home.path(), &args);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(
        stderr.starts_with("aloha: the master did not start: "),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(home.path().join(".aloha/logs/aloha-master.log").exists());
    assert!(!home.path().join(".aloha/run/aloha-master.pid").exists());
}

#[test]
fn a_stranger_in_the_pid_file_is_never_signalled() {
    let home = home();
    let run = home.path().join(".aloha/run");
    fs::create_dir_all(&run).expect("created");
    // This very test process, correctly described: it is alive, but no daemon of ours.
    let me = std::process::id();
    let stat = fs::read_to_string(format!("/proc/{me}/stat")).expect("readable");
    let fields = stat.rsplit(')').next().expect("fields");
    let ticks = fields.split_whitespace().nth(19).expect("a start time");
    for text in [
        format!("{me} {ticks}\n"),
        "1 1\n".into(),
        "-1 1\n".into(),
        String::new(),
    ] {
        fs::write(run.join("aloha-worker.pid"), &text).expect("written");
        let output = aloha(home.path(), &["daemon", "status", "worker"]);
        assert_ends(&output, 1, "worker does not run\n", "");
        let output = aloha(home.path(), &["daemon", "stop", "worker"]);
        assert_ends(&output, 0, "worker does not run\n", "");
    }
}
