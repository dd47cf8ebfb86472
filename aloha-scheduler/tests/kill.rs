//! `aloha kill` leaves nothing of an application, however it defends itself, nor does a runner that is killed; with
//! cgroups and without.

mod common;

use std::path::Path;

use common::{Daemon, Pipe, processes_of, runner_of};
use rustix::process::{Signal, kill_process};
use tempfile::tempdir;

/// Whether the process runs; a zombie, whose parent takes its time, does not.
fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().expect("a part").starts_with(" Z"))
}

/// Has `end` end an application that writes the pids of its processes into `PIPE`, and asserts that none is left.
fn assert_nothing_survives_when(script: &str, end: impl Fn(&Daemon, &Path, &str)) {
    for cgroups in ["true", "false"] {
        let home = tempdir().expect("a directory");
        let enabled = format!("aloha.worker.cgroup.enabled={cgroups}");
        let settings = ["-D", &enabled, "-D", "aloha.worker.killGrace=1"];
        let work = home.path().join("work");
        let cluster = Daemon::local_with(&work, &settings);
        let pipe = Pipe::new(home.path(), "pipe");
        let id = cluster.submit(&script.replace("PIPE", pipe.path()));
        let pids = pipe.read();
        let live = || pids.split_whitespace().filter(|pid| is_alive(pid)).count();
        assert_eq!(live(), pids.split_whitespace().count(), "{pids}");
        end(&cluster, &work, &id);
        assert_eq!(live(), 0, "{pids}, cgroups: {cgroups}");
        assert_eq!(processes_of(&id, &cluster.rpc), Vec::<String>::new());
    }
}

fn assert_nothing_survives(script: &str) {
    assert_nothing_survives_when(script, |cluster, _, id| {
        assert_eq!(cluster.ask(&["kill", id]).code, Some(0));
        assert_eq!(cluster.ask(&["wait", id]).code, Some(137));
        assert_eq!(cluster.status(id)["phase"], "KILLED");
    });
}

#[test]
fn a_fork_bomb_of_limited_depth() {
    assert_nothing_survives(
        "bomb() { [ $1 -gt 0 ] && for i in 1 2 3; do bomb $(($1 - 1)) & done; sleep 1000; }; \
         bomb 5 & echo $$ $! > PIPE; wait",
    );
}

#[test]
fn a_child_that_ignores_term() {
    assert_nothing_survives(
        "bash -c \"trap '' TERM; echo $$ \\$\\$ > PIPE; while :; do sleep 1000; done\" & wait",
    );
}

#[test]
fn a_daemon_that_forked_twice_without_a_variable_of_the_application() {
    assert_nothing_survives(
        "d=$(env -i setsid bash -c 'setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo $!'); \
         echo $$ $d > PIPE; exec sleep 1001",
    );
}

#[test]
fn what_lost_its_runner() {
    let script = "setsid sleep 1000 & a=$!; env -i sleep 1001 & echo $$ $a $! > PIPE; wait";
    assert_nothing_survives_when(script, |cluster, work, id| {
        // The application may be quicker than the runner, who has still to say that it started.
        cluster.wait_for_line("application started");
        kill_process(runner_of(work, id), Signal::KILL).expect("it runs");
        let waited = cluster.ask(&["wait", id]);
        let said = format!("aloha: {id} ended as ERROR: its runner was killed by signal 9\n");
        assert_eq!((waited.code, waited.stderr), (Some(1), said));
    });
}
