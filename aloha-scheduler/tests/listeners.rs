//! Listeners of a real master.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::{Daemon, command};
use rustix::process::Signal;
use tempfile::tempdir;

#[test]
fn a_command_and_the_log_hear_of_each_state_until_the_master_has_ended() {
    let directory = tempdir().expect("a directory");
    let (program, heard) = (
        directory.path().join("told"),
        directory.path().join("heard"),
    );
    let script = format!(
        "#!/bin/bash\necho \"$ALOHA_EVENT $ALOHA_EVENT_NAME $ALOHA_EVENT_TO $(wc -c)\" >> {}\n",
        heard.display()
    );
    fs::write(&program, script).expect("written");
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("ours");
    let key = format!("aloha.listeners.command={}", program.display());
    let more = ["-D", "aloha.extraListeners=log,command", "-D", &key];
    let mut cluster = Daemon::local_with(&directory.path().join("work"), &more);
    let id = cluster.submit_with("exit 0", &["--name", "etl"]);
    assert_eq!(cluster.ask(&["wait", &id]).code, Some(0));
    cluster.wait_for_line("state=FINISHED");
    cluster.signal(Signal::TERM);
    assert!(cluster.wait().success());
    let heard = fs::read_to_string(heard).expect("it was told");
    let of_app: Vec<_> = heard
        .lines()
        .filter_map(|line| line.strip_prefix("AppStateChanged etl "))
        .map(|line| line.split_once(' ').expect("a state and a size"))
        .collect();
    let states: Vec<_> = of_app.iter().map(|(state, _)| *state).collect();
    assert_eq!(states, ["SUBMITTED", "LAUNCHING", "RUNNING", "FINISHED"]);
    for (state, bytes) in of_app {
        let bytes: u32 = bytes.parse().expect("a number");
        assert!(bytes > 100, "{state} came with {bytes} bytes of JSON");
    }
}

#[test]
fn a_listener_that_does_not_exist_stops_the_start_with_the_names_of_those_that_do() {
    let unknown = [
        "master",
        "-p",
        "0",
        "--rest-port",
        "0",
        "-D",
        "aloha.extraListeners=lgo",
    ];
    let output = command().args(unknown).output().expect("it is built");
    assert_eq!(output.status.code(), Some(1));
    let said =
        "aloha: aloha.extraListeners names \"lgo\", which is no listener; there are command, log\n";
    assert_eq!(String::from_utf8_lossy(&output.stderr), said);
}
