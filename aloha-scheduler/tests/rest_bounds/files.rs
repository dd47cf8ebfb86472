//! How many files the process may open.

use rustix::process::{Resource, Rlimit, Signal, getrlimit, prlimit};

use crate::common::Daemon;
use crate::server::PATIENCE;

#[test]
fn a_master_without_files_to_open_says_so_once_and_goes_on() {
    use std::io::{Read as _, Write as _};
    let mut master = Daemon::master(&[]);
    let address = master.rest().strip_prefix("http://").expect("a URL");
    let open = std::fs::read_dir(format!("/proc/{}/fd", master.pid())).expect("it runs");
    let open: Vec<u64> = open
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    // The lowest numbers are given first, and here are the first two that are free.
    let free = (0..).filter(|number| !open.contains(number));
    let few = Rlimit {
        current: free.take(2).last().map(|last| last + 1),
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    prlimit(Some(master.pid()), Resource::Nofile, few).expect("it is our child");
    // More than it can take; the system does, and they wait.
    let connect = |_| std::net::TcpStream::connect(address).expect("connected");
    let idle: Vec<_> = (0..3).map(connect).collect();
    let mut last = connect(3);
    last.set_read_timeout(Some(PATIENCE)).expect("set");
    let ready = "GET /v1/submissions/readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    last.write_all(ready.as_bytes()).expect("sent");
    // Those before it make room, for they do not ask.
    let mut answer = [0; 12];
    last.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
    drop(idle);
    master.signal(Signal::TERM);
    let texts = ["REST cannot accept connections", "stopping"].map(str::to_owned);
    let lines = master.wait_for_lines(&texts);
    let told = lines.iter().filter(|line| line.contains(&texts[0]));
    assert_eq!(told.count(), 1, "{lines:#?}");
    assert!(master.wait().success());
}

#[test]
fn a_master_may_open_all_files_it_can_and_a_cluster_with_children_what_it_was_given() {
    let limited = |limit: &str| {
        let mut command = std::process::Command::new("bash");
        let script = format!("ulimit {limit} 512 && exec \"$0\" \"$@\"");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_aloha")]);
        command
    };
    let soft_and_hard = |daemon: &Daemon| {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid()));
        let limits = limits.expect("it runs");
        let files = limits
            .lines()
            .find(|line| line.starts_with("Max open files"));
        let words: Vec<_> = files.expect("a limit").split_whitespace().collect();
        (words[3].to_owned(), words[4].to_owned())
    };
    let arguments = ["master", "-p", "0", "--rest-port", "0"];
    let master = Daemon::start_by(limited("-Sn"), &arguments);
    let (soft, hard) = soft_and_hard(&master);
    assert_eq!(soft, hard);
    assert_ne!(soft, "512", "this test needs a higher hard limit");

    let directory = tempfile::tempdir().expect("a directory");
    let work = directory.path().to_str().expect("UTF-8");
    let arguments = ["local", "-p", "0", "--rest-port", "0", "-d", work];
    let local = Daemon::start_by(limited("-Sn"), &arguments);
    assert_eq!(soft_and_hard(&local).0, "512");
    let line = local.wait_for_line("REST takes fewer connections");
    assert!(line.contains("connections_max=256"), "{line}");
}
