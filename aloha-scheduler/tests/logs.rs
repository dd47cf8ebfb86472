//! Output read and followed through the master, by command line and REST.

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};

use common::{Daemon, Pipe, command};
use rustix::process::Signal;
use tempfile::tempdir;

/// `aloha logs -f` in the background.
struct Follower {
    process: Child,
    out: BufReader<ChildStdout>,
}

impl Follower {
    fn start(cluster: &Daemon, arguments: &[&str]) -> Self {
        let mut process = command()
            .env("ALOHA_MASTER", &cluster.rpc)
            .args(["logs", "-f"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary is built");
        let out = BufReader::new(process.stdout.take().expect("piped"));
        Self { process, out }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("a line");
        line
    }

    /// The rest of the output, what was said beside it, and the exit code.
    fn rest(mut self) -> (String, String, Option<i32>) {
        let (mut out, mut err) = (String::new(), String::new());
        self.out.read_to_string(&mut out).expect("text");
        let stderr = self.process.stderr.as_mut().expect("piped");
        stderr.read_to_string(&mut err).expect("text");
        let code = self.process.wait().expect("it is our child").code();
        (out, err, code)
    }
}

/// Lets an application that waits for a line in this pipe go on.
fn let_go(gate: &Pipe) {
    fs::write(&gate.0, "go\n").expect("somebody reads");
}

#[test]
fn following_prints_what_is_written_at_once_and_ends_with_the_application() {
    let directory = tempdir().expect("a directory");
    let cluster = Daemon::local(directory.path());
    let (gate, last) = (
        Pipe::new(directory.path(), "gate"),
        Pipe::new(directory.path(), "last"),
    );
    let id = cluster.submit(&format!(
        "echo one; echo err >&2; cat {}; echo three; cat {}; echo the end",
        gate.path(),
        last.path()
    ));
    let mut out = Follower::start(&cluster, &[&id]);
    let mut err = Follower::start(&cluster, &["--stderr", &id]);
    assert_eq!(out.line(), "one\n");
    assert_eq!(err.line(), "err\n");
    let_go(&gate);
    assert_eq!(out.line(), "go\n");
    assert_eq!(out.line(), "three\n");
    let_go(&last);
    assert_eq!(out.rest(), ("go\nthe end\n".into(), String::new(), Some(0)));
    assert_eq!(err.rest(), (String::new(), String::new(), Some(0)));
    // Once it has ended, all is there at once.
    let again = cluster.ask(&["logs", "-f", &id]);
    assert_eq!(again.stdout, "one\ngo\nthree\ngo\nthe end\n");
    let unknown = cluster.ask(&["logs", "-f", "app-0"]);
    assert_eq!(
        (unknown.code, &*unknown.stderr),
        (
            Some(1),
            "aloha: there is no application app-0; `aloha apps` lists them\n"
        )
    );
}

#[test]
fn following_misses_nothing_while_the_output_rolls() {
    let directory = tempdir().expect("a directory");
    let cluster = Daemon::local(directory.path());
    let gate = Pipe::new(directory.path(), "gate");
    // More than one file holds.
    let id = cluster.submit(&format!("cat {}; seq 3000000", gate.path()));
    let follower = Follower::start(&cluster, &[&id]);
    let_go(&gate);
    let (out, err, code) = follower.rest();
    assert_eq!((err.as_str(), code), ("", Some(0)));
    let mut lines = out.lines();
    assert_eq!(lines.next(), Some("go"));
    let mut numbers = 0;
    for line in lines {
        numbers += 1;
        assert_eq!(line.parse(), Ok(numbers));
    }
    assert_eq!(numbers, 3_000_000);
    let rolled = directory
        .path()
        .join(&id)
        .join("stdout.00000000000000000000");
    assert!(rolled.exists());
}

#[test]
fn an_attempt_is_named_by_its_number_also_the_latest() {
    let directory = tempdir().expect("a directory");
    let cluster = Daemon::local(directory.path());
    let id = cluster.submit("echo hello");
    assert_eq!(cluster.ask(&["wait", &id]).code, Some(0));
    for flags in [&["logs", &id][..], &["logs", "--attempt", "1", &id]] {
        assert_eq!(cluster.ask(flags).stdout, "hello\n");
    }
    let missing = cluster.ask(&["logs", "--attempt", "2", &id]);
    let expected = format!("aloha: there is no attempt 2 of {id}, the latest is 1\n");
    assert_eq!((missing.code, missing.stderr), (Some(1), expected.clone()));
    let missing = cluster.ask(&["logs", "--follow", "--attempt", "2", &id]);
    assert_eq!((missing.code, missing.stderr), (Some(1), expected));
    assert_eq!(
        cluster.ask(&["logs", "--attempt", "0", &id]).code,
        Some(2),
        "attempts are counted from 1"
    );
}

#[test]
fn that_nobody_reads_on_is_no_failure() {
    let directory = tempdir().expect("a directory");
    let cluster = Daemon::local(directory.path());
    let id = cluster.submit("echo hello");
    assert_eq!(cluster.ask(&["wait", &id]).code, Some(0));
    for arguments in [&["logs", &id][..], &["logs", "-f", &id]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = command()
            .env("ALOHA_MASTER", &cluster.rpc)
            .args(arguments)
            .stdout(writer)
            .output()
            .expect("the binary is built");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), &*stderr), (Some(0), ""));
    }
}

#[test]
fn what_was_removed_before_it_was_read_is_counted_on_stderr() {
    let directory = tempdir().expect("a directory");
    let cluster = Daemon::local(directory.path());
    let id = cluster.submit("echo -n tail");
    assert_eq!(cluster.ask(&["wait", &id]).code, Some(0));
    // As a runner leaves it that has rolled twice and removed the first file.
    let rolled = directory
        .path()
        .join(&id)
        .join("stdout.00000000000000001000");
    fs::write(rolled, "rolled ").expect("written");
    for flags in [&["logs", &id][..], &["logs", "-f", &id]] {
        let answer = cluster.ask(flags);
        assert_eq!(answer.stdout, "rolled tail");
        assert_eq!(
            answer.stderr,
            "aloha: 1000 bytes were removed before they could be read\n"
        );
    }
}

#[test]
fn following_goes_on_with_the_attempt_after_a_lost_one() {
    let directory = tempdir().expect("a directory");
    let fast = ["-D", "aloha.worker.timeout=2"];
    let master = Daemon::master(&fast);
    let works = [directory.path().join("one"), directory.path().join("two")];
    let one = Daemon::worker(&master, &works[0]);
    let two = Daemon::worker(&master, &works[1]);
    let gates = [1, 2].map(|attempt| Pipe::new(directory.path(), &format!("gate-{attempt}")));
    let script = format!(
        "echo attempt $ALOHA_ATTEMPT; cat {}/gate-$ALOHA_ATTEMPT; echo end",
        directory.path().display()
    );
    let id = master.submit_with(&script, &["--supervise"]);
    let mut follower = Follower::start(&master, &[&id]);
    assert_eq!(follower.line(), "attempt 1\n");
    let has_it = |work: &Path| work.join(&id).join("stdout").exists();
    let worker = if has_it(&works[0]) { &one } else { &two };
    worker.signal(Signal::KILL);
    assert_eq!(follower.line(), "attempt 2\n");
    let_go(&gates[1]);
    let (out, err, code) = follower.rest();
    assert_eq!((out.as_str(), code), ("go\nend\n", Some(0)), "{err}");
    assert!(err.contains("aloha: attempt 2 begins\n"), "{err}");
    // The first still waits, on a machine that nobody asks any more.
    let_go(&gates[0]);
}

/// The answer to a request for output: status, where it begins, where the next begins, and the body.
async fn get(cluster: &Daemon, path: &str) -> (u16, String, String, String) {
    let url = format!("{}/v1/applications/{path}", cluster.rest());
    let response = reqwest::get(url).await.expect("an answer");
    let header = |name: &str| {
        let value = response.headers().get(name);
        value.map_or_else(String::new, |value| value.to_str().expect("text").into())
    };
    let (offset, next) = (header("x-aloha-offset"), header("x-aloha-next-offset"));
    let status = response.status().as_u16();
    (status, offset, next, response.text().await.expect("text"))
}

#[tokio::test]
async fn output_is_read_over_rest_piece_by_piece() {
    let directory = tempdir().expect("a directory");
    let cluster = Daemon::local(directory.path());
    let id = cluster.submit("echo hello; echo oh >&2");
    assert_eq!(cluster.ask(&["wait", &id]).code, Some(0));
    let ok = |offset: &str, next: &str, body: &str| (200, offset.into(), next.into(), body.into());
    let logs = |query: &str| format!("{id}/logs{query}");
    assert_eq!(get(&cluster, &logs("")).await, ok("0", "6", "hello\n"));
    let query = logs("?stream=stderr&offset=1&attempt=1");
    assert_eq!(get(&cluster, &query).await, ok("1", "3", "h\n"));
    assert_eq!(get(&cluster, &logs("?offset=6")).await, ok("6", "6", ""));
    assert_eq!(get(&cluster, &logs("?offset=99")).await, ok("6", "6", ""));
    // As a runner leaves it that has rolled twice and removed the first file.
    let rolled = directory
        .path()
        .join(&id)
        .join("stdout.00000000000000001000");
    fs::write(rolled, "rolled ").expect("written");
    assert_eq!(
        get(&cluster, &logs("?offset=5")).await,
        ok("1000", "1007", "rolled ")
    );
    assert_eq!(
        get(&cluster, &logs("?follow=true&offset=1003")).await,
        ok("1003", "", "led hello\n")
    );
    for (path, status, text) in [
        (logs("?attempt=2"), 404, "there is no attempt 2 of"),
        (
            logs("?follow=true&attempt=2"),
            404,
            "there is no attempt 2 of",
        ),
        ("app-0/logs".into(), 404, "there is no application app-0"),
        (
            "app-0/logs?follow=true".into(),
            404,
            "there is no application app-0",
        ),
        ("..%2F..%2Fetc/logs".into(), 404, "there is no application"),
        (logs("?stream=both"), 400, "expected stdout or stderr"),
    ] {
        let (code, _, _, body) = get(&cluster, &path).await;
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        let message = body["detail"].as_str().expect("text");
        assert!(code == status && message.contains(text), "{code} {message}");
    }
}

#[tokio::test]
async fn output_is_followed_over_rest_until_the_application_ends() {
    let directory = tempdir().expect("a directory");
    let cluster = Daemon::local(directory.path());
    let gate = Pipe::new(directory.path(), "gate");
    let id = cluster.submit(&format!("echo one; cat {}; echo the end", gate.path()));
    let url = format!("{}/v1/applications/{id}/logs?follow=true", cluster.rest());
    let mut response = reqwest::get(url).await.expect("an answer");
    assert_eq!(response.status(), 200);
    let first = response.chunk().await.expect("connected");
    assert_eq!(first.as_deref(), Some(&b"one\n"[..]));
    let_go(&gate);
    let mut rest = Vec::new();
    while let Some(chunk) = response.chunk().await.expect("a proper end") {
        rest.extend(chunk);
    }
    assert_eq!(rest, b"go\nthe end\n");
}
