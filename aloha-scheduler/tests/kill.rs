//! `aloha kill` leaves nothing of an application, however it defends itself; with cgroups and without.

mod common;

use std::path::Path;

use common::{Daemon, Pipe, processes_of};
use tempfile::tempdir;

/// Kills an application that writes the pids of its processes into `PIPE`, and asserts that none is left.
fn assert_nothing_survives(script: &str) {
    for cgroups in ["true", "false"] {
        let home = tempdir().expect("a directory");
        let enabled = format!("aloha.worker.cgroup.enabled={cgroups}");
        let settings = ["-D", &enabled, "-D", "aloha.worker.killGrace=1"];
        let cluster = Daemon::local_with(&home.path().join("work"), &settings);
        let pipe = Pipe::new(home.path(), "pipe");
        let id = cluster.submit(&script.replace("PIPE", pipe.path()));
        let pids = pipe.read();
        let live = || {
            let is_there = |pid: &&str| Path::new("/proc").join(pid).exists();
            pids.split_whitespace().filter(is_there).count()
        };
        assert_eq!(live(), pids.split_whitespace().count(), "{pids}");
        assert_eq!(cluster.ask(&["kill", &id]).code, Some(0));
        assert_eq!(cluster.ask(&["wait", &id]).code, Some(137));
        assert_eq!(cluster.status(&id)["phase"], "KILLED");
        assert_eq!(live(), 0, "{pids}, cgroups: {cgroups}");
        assert_eq!(processes_of(&id, &cluster.rpc), Vec::<String>::new());
    }
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
