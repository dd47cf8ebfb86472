//! What a user types against a cluster, and gets.

mod common;

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Stdio};

use common::ports::free_port;
use common::{Answer, Daemon, Pipe, command, durable_master};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

fn cluster() -> (TempDir, Daemon) {
    let directory = tempdir().expect("a directory");
    let cluster = Daemon::local(directory.path());
    (directory, cluster)
}

#[track_caller]
fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[track_caller]
fn ids(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.code, Some(0), "{answer:?}");
    let apps = parse(&answer.stdout);
    let apps = apps.as_array().expect("a list").iter();
    apps.map(|app| app["id"].as_str().expect("a text").to_owned())
        .collect()
}

/// A client command that goes on while the test does.
fn spawn(master: &str, arguments: &[&str]) -> Child {
    command()
        .env("ALOHA_MASTER", master)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary is built")
}

fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.as_mut().expect("piped"));
    out.read_line(&mut line).expect("UTF-8");
    line.trim().to_owned()
}

#[test]
fn the_line_of_the_seed_takes_one_line() {
    let (_directory, cluster) = cluster();
    let script = "i=0; while [ $i -le 10 ]; do echo $i; ((i++)); done; echo done >&2; exit 4";
    let answer = cluster.ask(&["submit", "--wait", "--follow", "--shell", script]);
    let (_id, output) = answer.stdout.split_once('\n').expect("an id");
    let expected = "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n";
    assert_eq!(
        (answer.code, output, &*answer.stderr),
        (Some(4), expected, "done\n")
    );
    let both = cluster.ask(&["submit", "--shell", "true", "--", "true"]);
    assert_eq!(both.code, Some(2), "{both:?}");
}

#[test]
fn with_json_everything_is_json_errors_too() {
    let (_directory, cluster) = cluster();
    let answer = cluster.ask(&[
        "submit",
        "--json",
        "--wait",
        "--follow",
        "--shell",
        "echo hi; exit 3",
    ]);
    let lines: Vec<Value> = answer.stdout.lines().map(parse).collect();
    let id = lines[0]["id"].as_str().expect("an id");
    assert_eq!(lines[1], json!({"stream": "stdout", "text": "hi\n"}));
    assert_eq!(
        (&lines[2]["id"], &lines[2]["exit_code"]),
        (&json!(id), &json!(3))
    );
    assert_eq!(
        (lines.len(), answer.code, &*answer.stderr),
        (3, Some(3), "")
    );

    for (arguments, code, expected) in [
        (
            &["status", "--json", "app-0"][..],
            1,
            "there is no application app-0",
        ),
        (
            &["apps", "--json", "--state", "DEAD"],
            2,
            "invalid value 'DEAD'",
        ),
        (
            &[
                "submit",
                "--json",
                "--constraint",
                "none-has-this",
                "--cores",
                "0",
                "--",
                "x",
            ],
            2,
            "--cores",
        ),
        (
            &[
                "status",
                "--json",
                "--master",
                "aloha://127.0.0.1:1",
                "app-0",
            ],
            1,
            "127.0.0.1:1 did not answer",
        ),
        (&["logs", "--json", "app-0"], 1, "app-0"),
    ] {
        let answer = cluster.ask(arguments);
        assert_eq!(
            (answer.code, &*answer.stdout),
            (Some(code), ""),
            "{arguments:?}"
        );
        let error = parse(&answer.stderr);
        let error = error["error"].as_str().expect("a text");
        assert!(error.contains(expected), "{error}");
    }

    let cluster_status = parse(&cluster.ask(&["cluster", "--json"]).stdout);
    assert_eq!(
        (&cluster_status["apps"], &cluster_status["cores"]),
        (&json!({"FAILED": 1}), &json!(2))
    );
    let top = parse(&cluster.ask(&["top", "--once", "--json"]).stdout);
    assert_eq!(top["applications"][0]["id"], json!(id));
    assert_eq!(top["workers"][0]["cores"], json!(2));
    let killed = cluster.ask(&["kill", "--json", id]);
    assert_eq!(
        (killed.code, &parse(&killed.stdout)["success"]),
        (Some(1), &json!(false))
    );
}

#[test]
fn applications_are_filtered_ordered_and_limited() {
    let (_directory, cluster) = cluster();
    let submit = |name: &str, tag: &str, code: &str| {
        let flags = ["submit", "--wait", "--name", name, "--tag", tag, "--shell"];
        let answer = cluster.ask(&[&flags[..], &[&format!("exit {code}")]].concat());
        answer.stdout.trim().to_owned()
    };
    let (a, b, c) = (
        submit("etl-a", "etl", "0"),
        submit("import", "db", "0"),
        submit("etl-b", "etl", "1"),
    );
    for (flags, expected) in [
        (&[][..], vec![&a, &b, &c]),
        (&["--name", "etl"], vec![&a, &c]),
        (&["--tag", "db"], vec![&b]),
        (&["--state", "failed"], vec![&c]),
        (&["--state", "FAILED,RUNNING", "--name", "import"], vec![]),
        (&["--sort", "-submitted"], vec![&c, &b, &a]),
        (&["--sort", "name", "--limit", "2"], vec![&a, &c]),
    ] {
        let answer = cluster.ask(&[&["apps", "--json"], flags].concat());
        assert_eq!(
            ids(&answer).iter().collect::<Vec<_>>(),
            expected,
            "{flags:?}"
        );
    }
    let table = cluster.ask(&["list", "--name", "import"]).stdout;
    let lines: Vec<_> = table.lines().collect();
    assert!(
        lines.len() == 2 && lines[1].starts_with(&b) && lines[1].contains("FINISHED"),
        "{table}"
    );
}

#[test]
fn several_are_killed_and_forgotten_at_once() {
    let (directory, cluster) = cluster();
    let pipe = Pipe::new(directory.path(), "pipe");
    let running = cluster.submit(&format!("echo on > {}; exec sleep 1000", pipe.path()));
    assert_eq!(pipe.read(), "on\n");
    let waiting = cluster.submit_with("true", &["--cores", "2"]);
    let early = cluster.ask(&["forget", &running]);
    let expected = format!(
        "aloha: {running} is RUNNING; only what has ended can be forgotten, and `aloha kill {running}` ends it\n"
    );
    assert_eq!((early.code, early.stderr), (Some(1), expected));

    let killed = cluster.ask(&["kill", &waiting, "app-0", &running]);
    assert_eq!(
        (killed.code, killed.stdout.lines().count()),
        (Some(1), 2),
        "{killed:?}"
    );
    assert_eq!(killed.stderr, "aloha: there is no application app-0\n");
    for id in [&running, &waiting] {
        assert_eq!(cluster.ask(&["wait", id]).code, Some(137));
    }
    let both = cluster.ask(&["status", "--json", &running, &waiting]);
    assert_eq!(ids(&both), [running.clone(), waiting.clone()]);
    let forgotten = cluster.ask(&["forget", &running]);
    assert_eq!(forgotten.stdout, format!("{running} is forgotten\n"));
    assert_eq!(cluster.ask(&["status", &running]).code, Some(1));

    let more = cluster.submit_with("true", &["--cores", "64"]);
    let all = cluster.ask(&["kill", "--all"]);
    assert_eq!(all.stdout, "1 application is ended, or will be\n");
    assert_eq!(cluster.ask(&["wait", &more]).code, Some(137));
    let all = cluster.ask(&["forget", "--all"]);
    assert_eq!(all.stdout, "2 applications are forgotten\n");
    assert_eq!(cluster.ask(&["apps", "--json"]).stdout, "[]\n");
}

#[test]
fn a_key_names_one_submission() {
    let (_directory, cluster) = cluster();
    let submit =
        |name: &str| cluster.ask(&["submit", "--key", "k-1", "--name", name, "--", "true"]);
    let (first, second) = (submit("a"), submit("a"));
    assert_eq!((first.code, &first.stdout), (Some(0), &second.stdout));
    let other = submit("b");
    let id = first.stdout.trim();
    assert_eq!((other.code, &*other.stdout), (Some(1), ""));
    assert!(
        other
            .stderr
            .contains(&format!("the key k-1 is that of {id}")),
        "{other:?}"
    );
    // Without one, each is its own.
    let without = || cluster.ask(&["submit", "--", "true"]).stdout;
    assert_ne!(without(), without());
}

#[test]
fn ctrl_c_ends_the_waiting_and_says_that_the_application_runs_on() {
    let (_directory, cluster) = cluster();
    let mut waiting = spawn(
        &cluster.rpc,
        &["submit", "--wait", "--shell", "exec sleep 1000"],
    );
    let id = first_line(&mut waiting);
    kill_process(Pid::from_child(&waiting), Signal::INT).expect("it is our child");
    let status = waiting.wait().expect("it is our child");
    let mut said = String::new();
    let mut stderr = waiting.stderr.take().expect("piped");
    stderr.read_to_string(&mut said).expect("UTF-8");
    let expected = format!("aloha: {id} runs on; `aloha kill {id}` ends it\n");
    assert_eq!((status.code(), said), (Some(130), expected));
    assert_eq!(cluster.ask(&["kill", &id]).code, Some(0));
    assert_eq!(cluster.ask(&["wait", &id]).code, Some(137));
}

#[test]
fn waiting_and_following_go_on_over_a_restart_of_the_master() {
    let home = tempdir().expect("a directory");
    let store = home.path().join("store");
    let arguments = durable_master(free_port(), &store);
    let mut master = Daemon::start_by(command(), &arguments);
    let rpc = master.rpc.clone();
    let worker = Daemon::worker(&master, &home.path().join("work"));
    let (begun, goes_on) = (
        Pipe::new(home.path(), "begun"),
        Pipe::new(home.path(), "goes-on"),
    );
    let script = format!(
        "echo one; echo on > {}; read line < {}; echo $line; exit 6",
        begun.path(),
        goes_on.path()
    );
    let mut following = spawn(&rpc, &["submit", "--wait", "--follow", "--shell", &script]);
    let mut out = BufReader::new(following.stdout.take().expect("piped"));
    let mut id = String::new();
    out.read_line(&mut id).expect("UTF-8");
    let id = id.trim().to_owned();
    assert_eq!(begun.read(), "on\n");
    let mut one = String::new();
    out.read_line(&mut one).expect("UTF-8");
    assert_eq!(one, "one\n");
    let mut reading = spawn(&rpc, &["logs", "-f", &id]);
    assert_eq!(first_line(&mut reading), "one");

    master.signal(Signal::KILL);
    master.wait();
    let master = Daemon::start_by(command(), &arguments);
    assert_eq!(master.rpc, rpc);
    master.wait_for_line("worker registered");
    std::fs::write(&goes_on.0, "two\n").expect("somebody reads");

    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("UTF-8");
    assert_eq!(rest, "two\n");
    assert_eq!(following.wait().expect("it is our child").code(), Some(6));
    assert_eq!(first_line(&mut reading), "two");
    assert_eq!(reading.wait().expect("it is our child").code(), Some(0));
    drop(worker);
}

#[test]
fn on_a_terminal_nothing_wipes_out_an_output_without_an_end_of_line() {
    let (_directory, cluster) = cluster();
    let line = format!(
        "{} submit --wait --follow --shell 'printf aloha; exit 5'",
        env!("CARGO_BIN_EXE_aloha")
    );
    let terminal = std::process::Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .env("ALOHA_MASTER", &cluster.rpc)
        .stdin(Stdio::null())
        .output()
        .expect("every Debian has it");
    let shown = String::from_utf8_lossy(&terminal.stdout);
    assert_eq!(terminal.status.code(), Some(5), "{shown:?}");
    assert!(shown.ends_with("aloha"), "{shown:?}");
}

#[test]
fn output_that_a_full_disk_swallows_is_a_failure() {
    let (_directory, cluster) = cluster();
    for arguments in [
        &["apps"][..],
        &["cluster", "--json"],
        &["config"],
        &["completion", "bash"],
        &["submit", "--shell", "true"],
    ] {
        let full = std::fs::File::create("/dev/full").expect("there is one");
        let output = command()
            .env("ALOHA_MASTER", &cluster.rpc)
            .args(arguments)
            .stdout(full)
            .output()
            .expect("the binary is built");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
        assert!(
            stderr.contains("cannot write to stdout: No space"),
            "{stderr}"
        );
    }
}

#[test]
fn every_shell_gets_a_script() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = command().args(["completion", shell]).output();
        let output = output.expect("the binary is built");
        let script = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(
            script.contains("submit") && script.contains("follow"),
            "{shell}"
        );
    }
}
