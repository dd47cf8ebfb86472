//! The work directory is cleaned of what ended applications left, and of nothing else.

mod common;

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use common::{Daemon, Pipe};
use rustix::process::Signal;
use tempfile::tempdir;

const REMOVED: &str = "removed what an ended application left";

fn records(work: &Path, id: &str) -> std::path::PathBuf {
    work.join(id).join(".aloha")
}

/// Notes that the master knows of an end: the worker does so too, a moment after the master tells others.
fn settle(work: &Path, id: &str) {
    fs::write(records(work, id).join("reported-1"), "").expect("written");
}

/// Makes an application look as if nothing had happened to it for very long.
fn age(work: &Path, id: &str) {
    let records = fs::File::open(records(work, id)).expect("a directory");
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    records.set_modified(long_ago).expect("it is ours");
}

fn wait_until_removed(worker: &Daemon, work: &Path, id: &str) {
    let line = worker.wait_for_line(REMOVED);
    assert!(line.contains(id), "{line} instead of {id}");
    assert!(!work.join(id).exists());
}

#[test]
fn old_directories_go_but_not_of_what_runs_or_is_still_to_be_reported() {
    let home = tempdir().expect("a directory");
    let work = home.path().join("work");
    let mut master = Daemon::master(&[]);
    let settings = [
        "--stop-applications",
        "-D",
        "aloha.worker.cleanup.interval=1",
        "-D",
        "aloha.worker.cleanup.appDataTtl=3600",
    ];
    let worker = Daemon::worker_with(&master.rpc, &work, &settings);
    master.wait_for_line("worker registered");
    let [old, older, young] = [(); 3].map(|()| {
        let id = master.submit("echo done");
        assert_eq!(master.ask(&["wait", &id]).code, Some(0));
        settle(&work, &id);
        id
    });
    let [running, unreported] = ["running", "unreported"].map(|name| {
        let pipe = Pipe::new(home.path(), name);
        let id = master.submit(&format!("echo on > {0}; read < {0}", pipe.path()));
        assert_eq!(pipe.read(), "on\n");
        (id, pipe)
    });
    // Its end is told to nobody.
    master.signal(Signal::KILL);
    master.wait();
    worker.wait_for_line("connection to the master ended");
    fs::write(&unreported.1.0, "go\n").expect("it reads");
    worker.wait_for_line(&format!("attempt ended app={}", unreported.0));
    for id in [&running.0, &unreported.0] {
        age(&work, id);
    }

    age(&work, &older);
    wait_until_removed(&worker, &work, &older);
    // The cleaning that removes this one began after all of the above.
    age(&work, &old);
    wait_until_removed(&worker, &work, &old);
    for id in [&running.0, &unreported.0, &young] {
        assert!(work.join(id).join("stdout").exists(), "{id}");
    }
    fs::write(&running.1.0, "go\n").expect("it reads");
    worker.wait_for_line(&format!("attempt ended app={}", running.0));
}

#[test]
fn the_oldest_go_when_all_take_too_much_but_not_of_what_runs() {
    let home = tempdir().expect("a directory");
    let work = home.path().join("work");
    let settings = [
        "-D",
        "aloha.worker.cleanup.interval=1",
        "-D",
        "aloha.worker.cleanup.bytesMax=1m",
    ];
    let cluster = Daemon::local_with(&work, &settings);
    let pipe = Pipe::new(home.path(), "pipe");
    let script = format!(
        "head -c 3000000 /dev/zero; echo on > {0}; read < {0}",
        pipe.path()
    );
    let running = cluster.submit(&script);
    assert_eq!(pipe.read(), "on\n");
    let ended = || {
        let id = cluster.submit("head -c 600000 /dev/zero");
        assert_eq!(cluster.ask(&["wait", &id]).code, Some(0));
        settle(&work, &id);
        id
    };
    // Two do not fit, so that each drives out the one before.
    let mut last = ended();
    for _ in 0..3 {
        let next = ended();
        wait_until_removed(&cluster, &work, &last);
        assert!(work.join(&next).exists());
        last = next;
    }
    assert!(work.join(&running).join("stdout").exists());
    fs::write(&pipe.0, "go\n").expect("it reads");
    assert_eq!(cluster.ask(&["wait", &running]).code, Some(0));
}
