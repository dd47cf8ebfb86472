//! Workers that come back: after the machine was restarted, as several in one process, smaller, in the midst of a kill.

mod common;

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{Daemon, Pipe, command, processes_of, record, runner_of, wait_for_runner};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::tempdir;

fn kill_all(processes: &[String]) {
    for path in processes {
        let pid = path.strip_prefix("/proc/").expect("it is from there");
        let pid = pid.parse().ok().and_then(Pid::from_raw).expect("a pid");
        // It may have gone with another.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// A process that has nothing to do with an application but its marks: the number of its runner, and the variables.
struct Stranger(Child);

impl Stranger {
    fn in_place_of_the_runner(work: &Path, id: &str) -> Self {
        let mut run = record(work, id, "run");
        let worker = record(work, id, "launch")["spec"]["workerId"].clone();
        let stranger = Command::new("setsid")
            .args(["sleep", "1000"])
            .env("ALOHA_APP_ID", id)
            .env("ALOHA_ATTEMPT", "1")
            .env("ALOHA_WORKER_ID", worker.as_str().expect("a text"))
            .stdin(Stdio::null())
            .spawn()
            .expect("started");
        let stat = fs::read_to_string(format!("/proc/{}/stat", stranger.id()));
        let stat = stat.expect("it lives");
        let (_, fields) = stat.rsplit_once(')').expect("a name");
        let ticks = fields.split_whitespace().nth(19).expect("a start time");
        run["pid"] = stranger.id().into();
        run["startTicks"] = ticks.parse::<u64>().expect("a number").into();
        run["bootId"] = "of-the-boot-before".into();
        let path = work.join(id).join(".aloha/run.json");
        fs::write(path, run.to_string()).expect("written");
        Self(stranger)
    }

    #[track_caller]
    fn assert_is_untouched(&mut self) {
        let ended = self.0.try_wait().expect("our child");
        assert_eq!(ended, None);
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        drop(self.0.wait());
    }
}

/// Waits until the runner has some of the application's output on the disk.
fn wait_for_output(master: &Daemon, id: &str) {
    let mut follower = command()
        .args(["logs", "-f", "--master", &master.rpc, id])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary is built");
    let mut output = follower.stdout.take().expect("piped");
    output.read_exact(&mut [0]).expect("some output");
    follower.kill().expect("it is ours");
    follower.wait().expect("it was killed");
}

#[test]
fn after_a_restart_of_the_machine_applications_are_errors_or_relaunched_and_strangers_untouched() {
    let home = tempdir().expect("a directory");
    let work = home.path().join("work");
    let master = Daemon::master(&[]);
    // A restart of the machine would take the cgroups along, and this test cannot.
    let without = ["-D", "aloha.worker.cgroup.enabled=false"];
    let mut worker = Daemon::worker_with(&master.rpc, &work, &without);
    master.wait_for_line("worker registered");
    let pipe = Pipe::new(home.path(), "pipe");
    let script = format!(
        "echo attempt $ALOHA_ATTEMPT | tee {}; [ $ALOHA_ATTEMPT = 2 ] || exec sleep 1000",
        pipe.path()
    );
    let [plain, supervised] = [&[][..], &["--supervise"]].map(|flags| {
        let id = master.submit_with(&script, flags);
        assert_eq!(pipe.read(), "attempt 1\n");
        wait_for_output(&master, &id);
        id
    });
    worker.signal(Signal::KILL);
    worker.wait();
    let mut strangers = [&plain, &supervised].map(|id| {
        kill_process(runner_of(&work, id), Signal::KILL).expect("it runs");
        kill_all(&processes_of(id, &master.rpc));
        Stranger::in_place_of_the_runner(&work, id)
    });

    let _next = Daemon::worker(&master, &work);
    let waited = master.ask(&["wait", &plain]);
    let said = format!("aloha: {plain} ended as ERROR: the machine was restarted\n");
    assert_eq!((waited.code, waited.stderr), (Some(1), said));
    assert_eq!(pipe.read(), "attempt 2\n");
    assert_eq!(master.ask(&["wait", &supervised]).code, Some(0));
    let status = master.status(&supervised);
    assert_eq!(
        (&status["phase"], &status["attempt"]),
        (&"FINISHED".into(), &2.into())
    );
    for attempt in ["1", "2"] {
        let logs = master.ask(&["logs", "--attempt", attempt, &supervised]);
        assert_eq!(logs.stdout, format!("attempt {attempt}\n"));
    }
    for stranger in &mut strangers {
        stranger.assert_is_untouched();
    }
}

#[test]
fn each_of_two_workers_in_a_process_finds_its_own_after_a_restart() {
    let home = tempdir().expect("a directory");
    let work = home.path().join("work");
    let two = ["--workers", "2"];
    let mut cluster = Daemon::local_with(&work, &two);
    cluster.wait_for_line("worker registered");
    let pipe = Pipe::new(home.path(), "pipe");
    // Each fills a worker.
    let script = format!("echo on > {}; exec sleep 1000", pipe.path());
    let ids = [(); 2].map(|()| {
        let id = cluster.submit_with(&script, &["--cores", "2"]);
        assert_eq!(pipe.read(), "on\n");
        id
    });
    let workers = ids
        .each_ref()
        .map(|id| record(&work, id, "launch")["spec"]["workerId"].clone());
    assert_ne!(workers[0], workers[1]);
    cluster.signal(Signal::KILL);
    cluster.wait();
    for id in &ids {
        assert_ne!(processes_of(id, &cluster.rpc), Vec::<String>::new());
    }

    let directory = work.to_str().expect("UTF-8");
    let next = Daemon::start(&[
        "local",
        "--workers",
        "2",
        "-c",
        "2",
        "-m",
        "2G",
        "-p",
        "0",
        "--rest-port",
        "0",
        "-d",
        directory,
    ]);
    // Its master knows both from the workers, and has each ended by the one that had started it, and by no other.
    let taken = |id| format!("took an application on that was forgotten app={id}");
    let mut lines = next.wait_for_lines(&ids.each_ref().map(taken));
    for id in &ids {
        let killed = next.ask(&["kill", id]);
        assert_eq!((killed.code, &*killed.stderr), (Some(0), ""));
    }
    let ends = ids.each_ref().map(|id| format!("attempt ended app={id}"));
    lines.extend(next.wait_for_lines(&ends));
    for id in &ids {
        let found = lines
            .iter()
            .filter(|line| line.contains(&format!("found app={id}")));
        assert_eq!(found.count(), 1, "{lines:#?}");
        assert_eq!(processes_of(id, &cluster.rpc), Vec::<String>::new());
    }
    let json = next.ask(&["workers", "--json"]).stdout;
    let now: Vec<serde_json::Value> = serde_json::from_str(&json).expect("JSON");
    assert_eq!(now.len(), 2);
    for worker in &workers {
        assert!(now.iter().any(|now| now["id"] == *worker), "{json}");
    }
}

#[test]
fn a_worker_with_fewer_cores_than_are_in_use_has_none_left_until_enough_are_given_back() {
    let home = tempdir().expect("a directory");
    let work = home.path().join("work");
    let master = Daemon::master(&[]);
    let mut worker = Daemon::worker_offering(&master.rpc, &work, "4", "1G", &[]);
    master.wait_for_line("worker registered");
    let [one, other] = ["one", "other"].map(|name| {
        let pipe = Pipe::new(home.path(), name);
        let script = format!("echo on > {0}; read < {0}", pipe.path());
        let id = master.submit_with(&script, &["--cores", "2"]);
        assert_eq!(pipe.read(), "on\n");
        (id, pipe)
    });
    worker.signal(Signal::KILL);
    worker.wait();

    let stops = ["--stop-applications"];
    let _next = Daemon::worker_offering(&master.rpc, &work, "3", "200M", &stops);
    master.wait_for_line("worker registered");
    // More than all is never said to be in use.
    let in_use = || {
        let table = master.ask(&["workers"]).stdout;
        let row = table.lines().nth(1).expect("a worker");
        let mut columns = row.split_whitespace().map(str::to_owned).skip(3);
        [columns.next(), columns.next()].map(|column| column.expect("cores, then memory"))
    };
    assert_eq!(in_use(), ["3/3", "200/200"]);
    let submit = |cores: &str| {
        let flags = ["submit", "--memory", "50", "--cores", cores, "--", "true"];
        master.ask(&flags).stdout.trim().to_owned()
    };
    let (small, large) = (submit("1"), submit("2"));
    for id in [&small, &large] {
        assert_eq!(master.status(id)["phase"], "SUBMITTED");
    }
    let end = |(id, pipe): &(String, Pipe)| {
        fs::write(&pipe.0, "go\n").expect("it reads");
        assert_eq!(master.ask(&["wait", id]).code, Some(0));
    };
    end(&one);
    assert_eq!(master.ask(&["wait", &small]).code, Some(0));
    assert_eq!(in_use(), ["2/3", "128/200"]);
    assert_eq!(master.status(&large)["phase"], "SUBMITTED");
    end(&other);
    assert_eq!(master.ask(&["wait", &large]).code, Some(0));
    assert_eq!(in_use(), ["0/3", "0/200"]);
}

/// When an application that is being killed comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    BeforeTheNextWorker,
    UnderTheNextWorker,
}

#[test]
fn what_was_being_killed_when_its_worker_was_ends_as_killed() {
    for ends in [Ends::BeforeTheNextWorker, Ends::UnderTheNextWorker] {
        let home = tempdir().expect("a directory");
        let work = home.path().join("work");
        let master = Daemon::master(&[]);
        let patient = ["--stop-applications", "-D", "aloha.worker.killGrace=600"];
        let mut worker = Daemon::worker_with(&master.rpc, &work, &patient);
        master.wait_for_line("worker registered");
        let pipe = Pipe::new(home.path(), "pipe");
        let script = "trap 'echo asked > PIPE; read < PIPE; exit 7' TERM; echo on > PIPE; while :; do sleep 0.01; done";
        let id = master.submit(&script.replace("PIPE", pipe.path()));
        assert_eq!(pipe.read(), "on\n");
        assert_eq!(master.ask(&["kill", &id]).code, Some(0));
        assert_eq!(pipe.read(), "asked\n");
        worker.signal(Signal::KILL);
        worker.wait();
        let next = || {
            let next = Daemon::worker_with(&master.rpc, &work, &patient);
            master.wait_for_line("worker registered");
            next
        };
        let let_go = || fs::write(&pipe.0, "go\n").expect("it reads");
        let _next = match ends {
            Ends::BeforeTheNextWorker => {
                let_go();
                wait_for_runner(&work, &id);
                next()
            }
            Ends::UnderTheNextWorker => {
                let next = next();
                let_go();
                next
            }
        };
        assert_eq!(master.ask(&["wait", &id]).code, Some(137), "{ends:?}");
        assert_eq!(master.status(&id)["phase"], "KILLED", "{ends:?}");
        assert_eq!(processes_of(&id, &master.rpc), Vec::<String>::new());
    }
}

#[test]
fn what_is_to_be_killed_while_its_worker_is_away_ends_as_killed() {
    let home = tempdir().expect("a directory");
    let work = home.path().join("work");
    let master = Daemon::master(&[]);
    let mut worker = Daemon::worker(&master, &work);
    let pipe = Pipe::new(home.path(), "pipe");
    let id = master.submit(&format!("echo on > {}; exec sleep 1000", pipe.path()));
    assert_eq!(pipe.read(), "on\n");
    worker.signal(Signal::KILL);
    worker.wait();
    master.wait_for_line("worker disconnected");
    assert_eq!(master.ask(&["kill", &id]).code, Some(0));
    let _next = Daemon::worker(&master, &work);
    assert_eq!(master.ask(&["wait", &id]).code, Some(137));
    assert_eq!(master.status(&id)["phase"], "KILLED");
    assert_eq!(processes_of(&id, &master.rpc), Vec::<String>::new());
}

#[test]
fn what_has_no_worker_for_too_long_is_ended_and_the_next_worker_says_so() {
    let home = tempdir().expect("a directory");
    let work = home.path().join("work");
    let master = Daemon::master(&[]);
    let impatient = ["-D", "aloha.worker.runner.timeout=1"];
    let mut worker = Daemon::worker_with(&master.rpc, &work, &impatient);
    master.wait_for_line("worker registered");
    let pipe = Pipe::new(home.path(), "pipe");
    let script =
        "trap 'echo asked > PIPE; exit' TERM; echo on > PIPE; while :; do sleep 0.01; done";
    let id = master.submit(&script.replace("PIPE", pipe.path()));
    assert_eq!(pipe.read(), "on\n");
    worker.signal(Signal::KILL);
    worker.wait();
    assert_eq!(pipe.read(), "asked\n");
    let _next = Daemon::worker(&master, &work);
    let waited = master.ask(&["wait", &id]);
    let said = format!("aloha: {id} ended as ERROR: its worker did not come back\n");
    assert_eq!((waited.code, waited.stderr), (Some(1), said));
    assert_eq!(processes_of(&id, &master.rpc), Vec::<String>::new());
}
