//! More output than is kept: neither the disk nor the runner takes more for it, and whoever follows is told what he missed.
//!
//! `ALOHA_OUTPUT_MIB` says how much is written (200 otherwise).
#![expect(clippy::print_stdout, reason = "what was measured is to be known")]

mod common;

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use common::{Daemon, Pipe, command, runner_of};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::tempdir;

/// What is kept of each output of an attempt.
const KEPT_MAX: u64 = 4 << 20;
/// What all other files in the directory may take: the runner's records and its log.
const RECORDS_MAX: u64 = 64 << 10;
/// What a runner may have in memory of its own: not its program, which is large in a debug build.
const RUNNER_BYTES_MAX: u64 = 4 << 20;
const BLOCK: u64 = 4096;
/// The line by which an application says that it has written all.
const WRITTEN: &[u8] = b"written\n";

/// What a directory takes on the disk, in whole blocks.
///
/// A file that is written now is looked at before those that were seen beside it already: then what is counted was there
/// at one moment, however output rolls meanwhile.
fn disk_use(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).expect("a directory");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("readable").path())
        .collect();
    paths.sort_by_key(|path| path.extension().is_some());
    let size = |path: &Path| match fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => BLOCK + disk_use(path),
        Ok(data) => data.len().next_multiple_of(BLOCK),
        // It was removed this moment.
        Err(_) => 0,
    };
    paths.iter().map(|path| size(path)).sum()
}

/// What a process has in memory of its own, in bytes.
fn anonymous_memory(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_pid()));
    let status = status.expect("it lives");
    let own = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = own.and_then(|own| own.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<u64>().ok()).expect("a size") * 1024
}

/// What came out of something that was followed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Followed {
    bytes: u64,
    end: Vec<u8>,
}

impl Followed {
    /// Whether this is where the application had written all.
    fn take(&mut self, piece: &[u8]) -> bool {
        self.bytes += piece.len() as u64;
        self.end.extend(piece);
        self.end
            .drain(..self.end.len().saturating_sub(WRITTEN.len()));
        self.end == WRITTEN
    }
}

/// Reads what `aloha logs -f` prints to its end.
fn follow(process: &mut Child, written: &Sender<()>) -> Followed {
    let mut out = process.stdout.take().expect("piped");
    let mut followed = Followed::default();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = out.read(&mut buffer).expect("a pipe");
        if length == 0 {
            return followed;
        }
        if followed.take(&buffer[..length]) {
            written.send(()).expect("somebody waits");
        }
    }
}

/// The bytes that `aloha logs` says it could not print.
fn missed(stderr: &str) -> u64 {
    let told = stderr.lines().filter_map(|line| {
        let line = line.strip_prefix("aloha: ")?;
        line.strip_suffix(" bytes were removed before they could be read")
    });
    told.map(|bytes| bytes.parse::<u64>().expect("a number"))
        .sum()
}

#[test]
fn output_without_end_takes_no_more_disk_than_it_may_and_little_memory_and_can_be_followed() {
    let mib = std::env::var("ALOHA_OUTPUT_MIB").map_or(200, |mib| mib.parse().expect("a number"));
    let bytes: u64 = mib << 20;
    let home = tempdir().expect("a directory");
    let work = home.path().join("work");
    let cluster = Daemon::local_with(
        &work,
        &[
            "-D",
            "aloha.worker.log.rollBytes=512k",
            "-D",
            "aloha.worker.log.bytesMax=4m",
        ],
    );
    let gate = Pipe::new(home.path(), "gate");
    let line = "x".repeat(63);
    let script = format!(
        "case $ALOHA_ATTEMPT in 1) echo first; read <{}; yes {line} | head -c {bytes}; echo written; exec sleep 1000;; \
         *) echo second;; esac",
        gate.path()
    );
    let total = "first\n".len() as u64 + bytes + WRITTEN.len() as u64;
    let id = cluster.submit_with(&script, &["--supervise"]);
    let directory = work.join(&id);

    let mut process = command()
        .env("ALOHA_MASTER", &cluster.rpc)
        .args(["logs", "-f", &id])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary is built");
    let url = format!("{}/v1/applications/{id}/logs", cluster.rest());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (mut response, first) = runtime.block_on(async {
        let response = reqwest::get(format!("{url}?follow=true")).await;
        let mut response = response.expect("an answer");
        let first = response.chunk().await.expect("connected");
        (response, first)
    });
    assert_eq!(first.as_deref(), Some(&b"first\n"[..]));
    let (written, all_written) = channel();
    let over_rest = runtime.spawn({
        let written = written.clone();
        async move {
            let mut followed = Followed::default();
            while let Some(piece) = response.chunk().await.expect("a proper end") {
                if followed.take(&piece) {
                    written.send(()).expect("somebody waits");
                }
            }
            followed
        }
    });
    // Read meanwhile: who follows and falls behind has much to say of what he missed, and waits where nobody reads it.
    let mut notes = process.stderr.take().expect("piped");
    let notes = std::thread::spawn(move || {
        let mut text = String::new();
        notes.read_to_string(&mut text).map(|_| text)
    });
    let by_command = std::thread::spawn(move || (follow(&mut process, &written), process));
    let runner = runner_of(&work, &id);
    fs::write(&gate.0, "go\n").expect("it reads");

    let (mut looks, mut most, mut peak, mut followers) = (0, 0, 0, 2);
    while followers > 0 {
        looks += 1;
        let now = disk_use(&directory);
        assert!(now <= KEPT_MAX + RECORDS_MAX, "{now} bytes at look {looks}");
        most = most.max(now);
        peak = peak.max(anonymous_memory(runner));
        match all_written.recv_timeout(Duration::from_millis(2)) {
            Ok(()) => followers -= 1,
            Err(RecvTimeoutError::Timeout) => {}
            Err(error) => panic!("nobody follows any more: {error}"),
        }
    }
    println!("{looks} looks: at most {most} bytes on the disk, {peak} bytes of memory");
    assert!(looks > 10 && most > KEPT_MAX / 2, "{looks} looks, {most}");
    assert!(peak < RUNNER_BYTES_MAX, "{peak} bytes of memory");

    // The next attempt has files of its own.
    kill_process(runner, Signal::KILL).expect("it runs");
    assert_eq!(cluster.ask(&["wait", &id]).code, Some(0));
    assert_eq!(cluster.status(&id)["attempt"], 2);
    let end = b"\nsecond\n";
    let (followed, mut process) = by_command.join().expect("it read to the end");
    let stderr = notes.join().expect("it read to the end").expect("text");
    assert!(process.wait().expect("our child").success(), "{stderr}");
    assert_eq!(followed.end, end);
    assert_eq!(
        followed.bytes + missed(&stderr),
        total + "second\n".len() as u64,
        "{stderr}"
    );
    let followed = runtime.block_on(over_rest).expect("it read to the end");
    assert_eq!(followed.end, end);

    assert_eq!(cluster.ask(&["logs", &id]).stdout, "second\n");
    let kept = cluster.ask(&["logs", "--attempt", "1", &id]);
    let length = kept.stdout.len() as u64;
    assert!(kept.stdout.ends_with("\nwritten\n") && (KEPT_MAX / 2..=KEPT_MAX).contains(&length));
    assert_eq!(missed(&kept.stderr), total - length, "{}", kept.stderr);
    let kept = runtime.block_on(reqwest::get(format!("{url}?attempt=1")));
    let kept = kept.expect("an answer");
    let offset = kept.headers().get("x-aloha-offset").expect("it says");
    let offset = offset.to_str().expect("a number");
    assert_eq!(offset, (total - length).to_string());
    let now = disk_use(&directory.join("attempt-1"));
    assert!(now <= KEPT_MAX + RECORDS_MAX, "{now} bytes kept");
}
