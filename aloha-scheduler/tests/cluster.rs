//! Clusters of real processes that run real applications.

mod common;

use std::net::TcpListener;
use std::process::Command;

use common::ports::free_port;
use common::{Daemon, Pipe, command, processes_of};
use rustix::process::Signal;
use tempfile::tempdir;

#[test]
fn the_curl_line_of_the_readme_counts_to_ten() {
    let directory = tempdir().expect("a directory");
    let cluster = Daemon::local(directory.path());
    let line = format!(
        r#"curl -sS -X POST -d '{{"action":"CreateSubmissionRequest","name":"test","entryPoint":"me.jrwang.app.SimpleProcess","libs":[],
  "args":"i=0; while [ $i -le 10 ]; do echo $i; ((i++)); sleep 1; done","cores":1,"memory":256}}' {}/v1/submissions/create"#,
        cluster.rest()
    );
    let created = Command::new("bash")
        .args(["-c", &line])
        .output()
        .expect("bash runs");
    let created: serde_json::Value = serde_json::from_slice(&created.stdout).expect("JSON");
    assert_eq!(
        (&created["action"], &created["success"]),
        (&"CreateSubmissionResponse".into(), &true.into())
    );
    let id = created["submissionId"].as_str().expect("an id");
    assert_eq!(cluster.ask(&["wait", id]).code, Some(0));
    let stdout =
        std::fs::read_to_string(directory.path().join(id).join("stdout")).expect("its output");
    assert_eq!(stdout, "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n");
    let status = format!("curl -sS {}/v1/submissions/status/{id}", cluster.rest());
    let status = Command::new("bash")
        .args(["-c", &status])
        .output()
        .expect("bash runs");
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("JSON");
    assert_eq!(
        (&status["driverState"], &status["exitCode"]),
        (&"FINISHED".into(), &0.into())
    );
}

#[test]
fn a_killed_application_leaves_no_process() {
    let directory = tempdir().expect("a directory");
    let cluster = Daemon::local(directory.path());
    let pipe = Pipe::new(directory.path(), "pipe");
    let id = cluster.submit(&format!(
        "sleep 1000 & echo started > {}; wait",
        pipe.path()
    ));
    assert_eq!(pipe.read(), "started\n");
    assert_ne!(processes_of(&id, &cluster.rpc), Vec::<String>::new());
    let killed = cluster.ask(&["kill", &id]);
    assert_eq!((killed.code, &*killed.stderr), (Some(0), ""));
    assert_eq!(cluster.ask(&["wait", &id]).code, Some(137));
    assert_eq!(cluster.status(&id)["phase"], "KILLED");
    assert_eq!(processes_of(&id, &cluster.rpc), Vec::<String>::new());
    let again = cluster.ask(&["kill", &id]);
    assert_eq!(again.code, Some(1), "{again:?}");
}

#[test]
fn an_application_that_ignores_term_is_killed_after_the_grace() {
    let directory = tempdir().expect("a directory");
    let cluster = Daemon::local_with(directory.path(), &["-D", "aloha.worker.killGrace=1"]);
    let pipe = Pipe::new(directory.path(), "pipe");
    let id = cluster.submit(&format!(
        "trap '' TERM; echo deaf > {}; sleep 1000",
        pipe.path()
    ));
    assert_eq!(pipe.read(), "deaf\n");
    assert_eq!(cluster.ask(&["kill", &id]).code, Some(0));
    assert_eq!(cluster.ask(&["wait", &id]).code, Some(137));
    assert_eq!(processes_of(&id, &cluster.rpc), Vec::<String>::new());
}

#[test]
fn an_exit_code_is_the_applications_own() {
    let directory = tempdir().expect("a directory");
    let cluster = Daemon::local(directory.path());
    let id = cluster.submit("exit 3");
    assert_eq!(cluster.ask(&["wait", &id]).code, Some(3));
    let status = cluster.status(&id);
    assert_eq!(
        (&status["phase"], &status["exit_code"]),
        (&"FAILED".into(), &3.into())
    );
    assert_eq!(
        cluster
            .ask(&["submit", "--wait", "--", "sh", "-c", "exit 7"])
            .code,
        Some(7)
    );
    let killed = cluster.ask(&["submit", "--wait", "--", "sh", "-c", "kill -KILL $$"]);
    let id = killed.stdout.trim();
    let said = format!("aloha: {id} FAILED: ended by signal 9\n");
    assert_eq!((killed.code, killed.stderr), (Some(137), said));
    let missing = cluster.ask(&["submit", "--wait", "--", "no-such-program"]);
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.contains("no-such-program"), "{missing:?}");
}

#[test]
fn output_is_printed_and_followed() {
    let directory = tempdir().expect("a directory");
    let cluster = Daemon::local(directory.path());
    let script = "echo out; echo err >&2; pwd; echo $ALOHA_APP_ID $ALOHA_ATTEMPT $ALOHA_MASTER ${ALOHA_WORKER_ID%%-*}";
    let followed = cluster.ask(&["submit", "--wait", "--follow", "--", "sh", "-c", script]);
    // Each of its outputs goes to ours.
    assert_eq!((followed.code, &*followed.stderr), (Some(0), "err\n"));
    let (id, output) = followed
        .stdout
        .split_once('\n')
        .expect("the id, then the output");
    let here = directory.path().canonicalize().expect("it is there");
    let expected = format!(
        "out\n{}\n{id} 1 {} worker\n",
        here.join(id).display(),
        cluster.rpc
    );
    assert_eq!(output, expected);
    assert_eq!(cluster.ask(&["logs", id]).stdout, expected);
    assert_eq!(cluster.ask(&["logs", "--stderr", id]).stdout, "err\n");
    let unknown = cluster.ask(&["logs", "app-0"]);
    assert_eq!(
        (unknown.code, &*unknown.stderr),
        (Some(1), "aloha: there is no application app-0\n")
    );
}

#[test]
fn forty_applications_never_use_more_than_the_four_cores_there_are() {
    let directory = tempdir().expect("a directory");
    let master = Daemon::master(&[]);
    let _one = Daemon::worker(&master, &directory.path().join("one"));
    let _two = Daemon::worker(&master, &directory.path().join("two"));
    let journal = directory.path().join("journal");
    let script = format!("echo + >> {0}; sleep 0.1; echo - >> {0}", journal.display());
    let ids: Vec<String> = (0..40).map(|_| master.submit(&script)).collect();
    for id in &ids {
        assert_eq!(master.ask(&["wait", id]).code, Some(0), "{id}");
    }
    let journal = std::fs::read_to_string(journal).expect("they wrote it");
    let mut running = 0_i32;
    let most = journal.lines().map(|line| {
        running += if line == "+" { 1 } else { -1 };
        running
    });
    assert_eq!(most.max(), Some(4), "all four cores were used, and no more");
    assert_eq!(journal.lines().count(), 80);
}

#[test]
fn memory_is_respected() {
    let directory = tempdir().expect("a directory");
    let master = Daemon::master(&[]);
    let _worker = Daemon::worker(&master, &directory.path().join("work"));
    let (one, two) = (
        Pipe::new(directory.path(), "one"),
        Pipe::new(directory.path(), "two"),
    );
    let gate = Pipe::new(directory.path(), "gate");
    let large = ["--memory", "600"];
    let script = |pipe: &Pipe| format!("echo on > {}; cat {}", pipe.path(), gate.path());
    let submit = |script: &str| {
        let answer = master.ask(
            &[
                &["submit", "--entry-point", "SimpleProcess"][..],
                &large,
                &["--", script],
            ]
            .concat(),
        );
        answer.stdout.trim().to_owned()
    };
    let first = submit(&script(&one));
    let second = submit(&script(&two));
    assert_eq!(one.read(), "on\n");
    let status = master.status(&second);
    assert_eq!(status["phase"], "SUBMITTED");
    assert!(
        status["waiting_for"]
            .as_str()
            .is_some_and(|why| why.contains("600 MiB")),
        "{status}"
    );
    std::fs::write(&gate.0, "go").expect("the first waits");
    assert_eq!(master.ask(&["wait", &first]).code, Some(0));
    assert_eq!(two.read(), "on\n");
    std::fs::write(&gate.0, "go").expect("the second waits");
    assert_eq!(master.ask(&["wait", &second]).code, Some(0));
}

#[test]
fn what_fits_no_worker_waits_and_says_why() {
    let directory = tempdir().expect("a directory");
    let cluster = Daemon::local(directory.path());
    let id = cluster.submit_with("true", &["--cores", "8"]);
    let status = cluster.status(&id);
    assert_eq!(status["phase"], "SUBMITTED");
    assert_eq!(
        status["waiting_for"],
        "needs 8 cores; the largest worker has 2"
    );
    assert_eq!(cluster.ask(&["kill", &id]).code, Some(0));
    assert_eq!(cluster.ask(&["wait", &id]).code, Some(137));
}

#[test]
fn a_worker_that_stays_away_is_noticed_and_its_application_ends_as_error() {
    let directory = tempdir().expect("a directory");
    let master = Daemon::master(&["-D", "aloha.worker.timeout=1"]);
    let work = directory.path().join("work");
    let mut worker = Daemon::worker(&master, &work);
    let pipe = Pipe::new(directory.path(), "pipe");
    let id = master.submit(&format!("echo on > {}; sleep 1000", pipe.path()));
    assert_eq!(pipe.read(), "on\n");
    worker.signal(Signal::KILL);
    worker.wait();
    let waited = master.ask(&["wait", &id]);
    assert_eq!(waited.code, Some(1), "{waited:?}");
    assert!(waited.stderr.contains("ended as ERROR"), "{waited:?}");
    assert_ne!(processes_of(&id, &master.rpc), Vec::<String>::new());
    // The next worker in the same directory finds it, and is told that it is not wanted any more.
    let next = Daemon::worker(&master, &work);
    next.wait_for_line("attempt ended");
    assert_eq!(processes_of(&id, &master.rpc), Vec::<String>::new());
}

#[test]
fn a_worker_that_is_killed_and_comes_back_finds_its_applications_running() {
    let directory = tempdir().expect("a directory");
    let master = Daemon::master(&[]);
    let work = directory.path().join("work");
    let mut worker = Daemon::worker(&master, &work);
    let pipe = Pipe::new(directory.path(), "pipe");
    let id = master.submit(&format!("echo $$ > {0}; read < {0}; exit 6", pipe.path()));
    let pid = pipe.read();
    worker.signal(Signal::KILL);
    worker.wait();
    master.wait_for_line("worker disconnected");
    let status = master.status(&id);
    assert_eq!(status["phase"], "UNKNOWN");
    let away = status["worker"]["worker"].as_str().expect("it ran there");
    let expected =
        format!("aloha: {away} is disconnected; the output of {id} can be read once it is back\n");
    let output = master.ask(&["logs", &id]);
    assert_eq!((output.code, output.stderr), (Some(1), expected));
    let _next = Daemon::worker(&master, &work);
    assert_eq!(master.status(&id)["phase"], "RUNNING");
    assert!(std::path::Path::new(&format!("/proc/{}", pid.trim())).exists());
    std::fs::write(&pipe.0, "go\n").expect("it reads");
    assert_eq!(master.ask(&["wait", &id]).code, Some(6));
    assert_eq!(master.status(&id)["attempt"], 1);
}

#[test]
fn a_worker_that_is_stopped_leaves_its_applications_to_its_successor() {
    let directory = tempdir().expect("a directory");
    let master = Daemon::master(&[]);
    let work = directory.path().join("work");
    let mut worker = Daemon::worker_with(&master.rpc, &work, &[]);
    master.wait_for_line("worker registered");
    let pipe = Pipe::new(directory.path(), "pipe");
    let id = master.submit(&format!("echo on > {0}; read < {0}; exit 6", pipe.path()));
    assert_eq!(pipe.read(), "on\n");
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait().code(), Some(0));
    assert_ne!(processes_of(&id, &master.rpc), Vec::<String>::new());
    std::fs::write(&pipe.0, "go\n").expect("it reads");
    let _next = Daemon::worker(&master, &work);
    assert_eq!(master.ask(&["wait", &id]).code, Some(6));
}

#[test]
fn two_workers_do_not_share_a_directory() {
    let directory = tempdir().expect("a directory");
    let master = Daemon::master(&[]);
    let _worker = Daemon::worker(&master, directory.path());
    let path = directory.path().to_str().expect("UTF-8");
    let second = master.ask(&["worker", "-d", path, &master.rpc]);
    assert_eq!(second.code, Some(1));
    assert!(
        second
            .stderr
            .contains("another worker uses the work directory"),
        "{second:?}"
    );
}

#[test]
fn a_worker_finds_a_master_that_starts_after_it() {
    let directory = tempdir().expect("a directory");
    let port = free_port();
    let worker = Daemon::worker_of(&format!("aloha://127.0.0.1:{port}"), directory.path());
    worker.wait_for_line("master not reached");
    let port = port.to_string();
    let master = Daemon::start(&["master", "-p", &port, "--rest-port", "0"]);
    master.wait_for_line("worker registered");
    let id = master.submit("exit 0");
    assert_eq!(master.ask(&["wait", &id]).code, Some(0));
}

#[test]
fn a_cluster_that_is_stopped_ends_its_applications() {
    let directory = tempdir().expect("a directory");
    let mut cluster = Daemon::local(directory.path());
    let pipe = Pipe::new(directory.path(), "pipe");
    let id = cluster.submit(&format!("echo on > {}; sleep 1000", pipe.path()));
    assert_eq!(pipe.read(), "on\n");
    cluster.signal(Signal::TERM);
    assert_eq!(cluster.wait().code(), Some(0));
    assert_eq!(processes_of(&id, &cluster.rpc), Vec::<String>::new());
}

#[test]
fn a_master_that_is_stopped_leaves_applications_running_and_a_worker_may_end_them() {
    let directory = tempdir().expect("a directory");
    let mut master = Daemon::master(&[]);
    let mut worker = Daemon::worker(&master, &directory.path().join("work"));
    let pipe = Pipe::new(directory.path(), "pipe");
    let id = master.submit(&format!("echo on > {}; sleep 1000", pipe.path()));
    assert_eq!(pipe.read(), "on\n");
    master.signal(Signal::TERM);
    assert_eq!(master.wait().code(), Some(0));
    worker.wait_for_line("connection to the master ended");
    assert_ne!(processes_of(&id, &master.rpc), Vec::<String>::new());
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait().code(), Some(0));
    assert_eq!(processes_of(&id, &master.rpc), Vec::<String>::new());
}

/// Without a store the next master is told by the worker what runs, and goes on with it under its id.
#[test]
fn a_master_without_a_store_that_is_killed_and_started_again_ends_nothing() {
    let directory = tempdir().expect("a directory");
    let mut master = Daemon::master(&["-D", "aloha.extraListeners=log"]);
    let _worker = Daemon::worker(&master, &directory.path().join("work"));
    let id = master.submit("sleep 1000");
    master.wait_for_line("state=RUNNING");
    let port = master.rpc.rsplit(':').next().expect("a port").to_owned();
    master.signal(Signal::KILL);
    let _killed = master.wait();
    let master = Daemon::start(&["master", "-p", &port, "--rest-port", "0"]);
    master.wait_for_line("took an application on that was forgotten");
    let status = master.status(&id);
    assert_eq!(status["phase"], "RUNNING", "{status}");
    assert_eq!(status["attempt"], 1, "{status}");
    assert_eq!(master.ask(&["kill", &id]).code, Some(0));
    assert_eq!(master.ask(&["wait", &id]).code, Some(137));
}

#[test]
fn a_second_signal_ends_at_once() {
    let directory = tempdir().expect("a directory");
    let mut cluster = Daemon::local_with(directory.path(), &["-D", "aloha.worker.killGrace=1"]);
    let pipe = Pipe::new(directory.path(), "pipe");
    let id = cluster.submit(&format!(
        "trap '' TERM; echo deaf > {}; sleep 1000 & wait; wait",
        pipe.path()
    ));
    assert_eq!(pipe.read(), "deaf\n");
    cluster.signal(Signal::INT);
    cluster.wait_for_line("stopping");
    cluster.signal(Signal::INT);
    assert_eq!(cluster.wait().code(), Some(130));
    // What it left behind is taken on by the next one, whose master knows it from the worker, and can be ended there.
    let next = Daemon::local_with(directory.path(), &[]);
    let killed = next.ask(&["kill", &id]);
    assert_eq!((killed.code, &*killed.stderr), (Some(0), ""));
    assert_eq!(next.ask(&["wait", &id]).code, Some(137));
    assert_eq!(processes_of(&id, &cluster.rpc), Vec::<String>::new());
}

#[test]
fn without_a_master_the_error_names_the_address() {
    let answer = command()
        .args(["apps", "--master", "aloha://127.0.0.1:1"])
        .output()
        .expect("the binary is built");
    assert_eq!(answer.status.code(), Some(1));
    let stderr = String::from_utf8(answer.stderr).expect("UTF-8");
    assert!(
        stderr.contains("127.0.0.1:1") && stderr.lines().count() == 1,
        "{stderr}"
    );
}

#[test]
fn a_port_in_use_is_an_error_when_it_was_asked_for_and_else_moves_on() {
    let directory = tempdir().expect("a directory");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let refused = command()
        .args(["master", "-p", &port, "--rest-port", "0"])
        .output()
        .expect("the binary is built");
    assert_eq!(refused.status.code(), Some(1));
    let stderr = String::from_utf8(refused.stderr).expect("UTF-8");
    assert!(
        stderr.contains(&port) && stderr.contains("already in use"),
        "{stderr}"
    );
    let file = directory.path().join("aloha.conf");
    std::fs::write(
        &file,
        format!("aloha.master.port={port}\naloha.master.rest.port=0\n"),
    )
    .expect("a file");
    let moved = Daemon::start(&["master", "--properties-file", file.to_str().expect("UTF-8")]);
    assert_ne!(moved.rpc, format!("aloha://127.0.0.1:{port}"));
}

#[test]
fn daemons_run_in_the_background() {
    let directory = tempdir().expect("a directory");
    let aloha = |arguments: &[&str]| {
        let (pids, logs) = (directory.path().join("run"), directory.path().join("logs"));
        let output = command()
            .env("ALOHA_PID_DIR", pids)
            .env("ALOHA_LOG_DIR", logs)
            .args(arguments)
            .output();
        let output = output.expect("the binary is built");
        (
            output.status.code(),
            String::from_utf8(output.stdout).expect("UTF-8"),
        )
    };
    let (code, ready) = aloha(&["daemon", "start", "master", "-p", "0", "--rest-port", "0"]);
    assert_eq!(code, Some(0), "{ready}");
    let master = ready.split_whitespace().nth(2).expect("its URL").to_owned();
    let work = directory
        .path()
        .join("work")
        .to_str()
        .expect("UTF-8")
        .to_owned();
    let (code, _) = aloha(&[
        "daemon", "start", "worker", "-c", "1", "-m", "1G", "-d", &work, &master,
    ]);
    assert_eq!(code, Some(0));
    assert_eq!(aloha(&["daemon", "status", "worker"]).0, Some(0));
    let (code, _) = aloha(&["submit", "--master", &master, "--wait", "--", "true"]);
    assert_eq!(code, Some(0));
    for role in ["worker", "master"] {
        assert_eq!(aloha(&["daemon", "stop", role]).0, Some(0), "{role}");
        assert_eq!(aloha(&["daemon", "status", role]).0, Some(1), "{role}");
    }
}

#[test]
fn an_application_that_removed_its_records_is_ended_when_its_worker_comes_back() {
    let directory = tempdir().expect("a directory");
    let work = directory.path().join("work");
    let master = Daemon::master(&[]);
    let worker = || Daemon::worker_offering(&master.rpc, &work, "2", "1G", &[]);
    let mut first = worker();
    let pipe = Pipe::new(directory.path(), "pipe");
    let id = master.submit(&format!(
        "rm -rf .aloha; echo up > {}; exec sleep 1000",
        pipe.path()
    ));
    assert_eq!(pipe.read(), "up\n");
    first.signal(Signal::KILL);
    first.wait();
    let _second = worker();
    assert_eq!(master.ask(&["wait", &id]).code, Some(1));
    let message = "its records were gone when its worker came back";
    assert_eq!(master.status(&id)["message"], message);
    assert_eq!(processes_of(&id, &master.rpc), Vec::<String>::new());
}
