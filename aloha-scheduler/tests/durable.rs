//! Masters with recovery mode FILESYSTEM, as processes on real disks: killed, locked out, damaged, full, read-only.

mod common;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use aloha_scheduler::persistence::{Change, FileEngine, PersistenceEngine, StoredRecord};
use common::ports::free_port;
use common::{Answer, Daemon, Pipe, command, durable_master, processes_of};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tempfile::{TempDir, tempdir};

/// A master that comes back at its address with what it stored.
struct Ground {
    home: TempDir,
    port: u16,
}

impl Ground {
    fn new() -> Self {
        Self {
            home: tempdir().expect("a directory"),
            port: free_port(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn recovery(&self) -> PathBuf {
        self.path("recovery")
    }

    fn arguments(&self) -> Vec<String> {
        durable_master(self.port, &self.recovery())
    }

    fn master(&self) -> Daemon {
        self.master_by(command())
    }

    fn master_by(&self, command: Command) -> Daemon {
        Daemon::start_by(command, &self.arguments())
    }

    /// What a master says that does not start.
    fn refused(&self) -> Answer {
        Answer::of(command().args(self.arguments()))
    }

    fn worker(&self, master: &Daemon, cores: &str) -> Daemon {
        let stops = ["--stop-applications"];
        let work = self.path("work");
        let worker = Daemon::worker_offering(&master.rpc, &work, cores, "1G", &stops);
        master.wait_for_line("worker registered");
        worker
    }
}

fn kill(mut master: Daemon) {
    master.signal(Signal::KILL);
    master.wait();
}

fn epoch(master: &Daemon) -> u64 {
    let line = master.wait_for_line("leads epoch=");
    let epoch = line.rsplit('=').next().and_then(|epoch| epoch.parse().ok());
    epoch.expect("a number")
}

/// Ids and states of all that a master knows, in order.
fn listed(master: &Daemon) -> Vec<(String, String)> {
    let json = master.ask(&["apps", "--json"]).stdout;
    let apps: Vec<serde_json::Value> = serde_json::from_str(&json).expect("JSON");
    let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
    apps.iter()
        .map(|app| (text(&app["id"]), text(&app["phase"])))
        .collect()
}

/// O2 and O4 too: what waited waits on, in its order.
#[test]
fn a_killed_master_comes_back_with_what_waits_what_runs_and_what_has_ended() {
    let ground = Ground::new();
    let master = ground.master();
    let first_epoch = epoch(&master);
    let _worker = ground.worker(&master, "1");
    let ended = master.submit("exit 3");
    assert_eq!(master.ask(&["wait", &ended]).code, Some(3));
    let pipe = Pipe::new(ground.home.path(), "pipe");
    let running = master.submit(&format!("echo on > {0}; read < {0}; exit 4", pipe.path()));
    assert_eq!(pipe.read(), "on\n");
    let waiting: Vec<String> = (0..5)
        .map(|n| master.submit(&format!("exit {n}")))
        .collect();
    kill(master);

    let master = ground.master();
    // Everything is answered at once, whoever is still awaited.
    let known = listed(&master);
    let mut expected = vec![&ended, &running];
    expected.extend(&waiting);
    assert_eq!(known.iter().map(|(id, _)| id).collect::<Vec<_>>(), expected);
    assert_eq!(known[0].1, "FAILED");
    assert!(
        known[2..].iter().all(|(_, phase)| phase == "SUBMITTED"),
        "{known:?}"
    );
    assert_eq!(master.status(&ended)["exit_code"], 3);
    assert!(epoch(&master) > first_epoch);
    master.wait_for_line("recovery is complete");
    assert_eq!(master.status(&running)["phase"], "RUNNING");
    fs::write(&pipe.0, "go\n").expect("it reads");
    assert_eq!(master.ask(&["wait", &running]).code, Some(4));
    let mut starts = Vec::new();
    for (n, id) in waiting.iter().enumerate() {
        let code = i32::try_from(n).expect("small");
        assert_eq!(master.ask(&["wait", id]).code, Some(code));
        let status = master.status(id);
        assert_eq!(status["attempt"], 1);
        starts.push(status["started_at"].as_u64().expect("it ran"));
    }
    assert!(starts.is_sorted(), "{starts:?}");
    kill(master);

    // And once more: what ended stays ended, and ids go on.
    let master = ground.master();
    let known = listed(&master);
    assert!(
        known
            .iter()
            .all(|(_, phase)| phase == "FINISHED" || phase == "FAILED"),
        "{known:?}"
    );
    let new = master.submit("true");
    assert!(known.iter().all(|(id, _)| *id != new));
    let place = |id: &str| -> u64 {
        let number = id.rsplit('-').next().and_then(|number| number.parse().ok());
        number.expect("an id ends with its number")
    };
    assert!(known.iter().all(|(id, _)| place(id) < place(&new)));
}

#[test]
fn a_second_master_is_kept_out_of_the_directory_and_told_by_whom() {
    let ground = Ground::new();
    let master = ground.master();
    let Answer {
        code,
        stdout,
        stderr,
    } = ground.refused();
    let expected = format!(
        "aloha: cannot use the master's store: recovery directory {} (process {} has it) is in use by another master; \
         stop that one, or give this one a store of its own\n",
        ground
            .recovery()
            .canonicalize()
            .expect("it is there")
            .display(),
        master.pid().as_raw_pid()
    );
    assert_eq!((code, &*stdout, &*stderr), (Some(1), "", &*expected));
}

/// A store as the master left it, for a test to spoil.
fn with_store<T>(path: &Path, work: impl AsyncFnOnce(&FileEngine, u64) -> T) -> T {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let engine = FileEngine::open(path).expect("nobody uses it");
        let epoch = engine.begin_epoch(0).await.expect("it can be written");
        work(&engine, epoch).await
    })
}

#[test]
fn o1_torn_and_empty_records_are_told_by_key_and_set_aside_and_all_others_are_served() {
    let ground = Ground::new();
    let master = ground.master();
    let mut ids: Vec<String> = (0..6).map(|_| master.submit("true")).collect();
    kill(master);
    let (empty, torn) = (ids.remove(4), ids.remove(1));
    let spoilt = with_store(&ground.recovery(), async |engine, epoch| {
        let records = engine.read_all().await.expect("it can be read");
        let spoil = |id: &String, length: usize| {
            let key = format!("app/{id}");
            let record = records.iter().find(|record| record.key == key);
            let mut value = record.expect("it is stored").value.clone();
            value.truncate(length);
            StoredRecord { key, value }
        };
        let spoilt = [spoil(&empty, 0), spoil(&torn, 200)];
        let changes = spoilt.clone().map(Change::Put).to_vec();
        engine
            .write(epoch, changes)
            .await
            .expect("it can be written");
        spoilt
    });
    let master = ground.master();
    let told = spoilt
        .iter()
        .map(|record| format!("damaged, set aside key=\"{}\"", record.key));
    master.wait_for_lines(&told.collect::<Vec<_>>());
    let expected: Vec<_> = ids
        .iter()
        .map(|id| (id.clone(), "SUBMITTED".to_owned()))
        .collect();
    assert_eq!(listed(&master), expected);
    let unknown = master.ask(&["status", &torn]);
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    let _worker = ground.worker(&master, "2");
    for id in &ids {
        assert_eq!(master.ask(&["wait", id]).code, Some(0));
    }
    kill(master);
    let aside = with_store(&ground.recovery(), async |engine, _| {
        let mut records = engine.read_all().await.expect("it can be read");
        records.retain(|record| record.key.starts_with("set-aside/"));
        records
    });
    for record in &spoilt {
        let is_it = |aside: &&StoredRecord| aside.key.ends_with(&record.key);
        let kept = aside.iter().find(is_it).expect("it is kept");
        assert_eq!(kept.value, record.value);
    }
}

#[test]
fn a_file_that_is_no_store_stops_the_start_and_is_left_alone() {
    for bytes in [&b""[..], b"what is this?"] {
        let ground = Ground::new();
        fs::create_dir(ground.recovery()).expect("a new directory");
        let path = ground.recovery().join("recovery.redb");
        fs::write(&path, bytes).expect("written");
        let Answer { code, stderr, .. } = ground.refused();
        assert_eq!(code, Some(1));
        assert!(
            stderr.contains("recovery.redb is damaged")
                && stderr.contains("restore it from a copy"),
            "{stderr}"
        );
        assert_eq!(fs::read(&path).expect("it is there"), bytes);
    }
}

#[test]
fn a_directory_that_cannot_be_written_stops_the_start() {
    let ground = Ground::new();
    fs::write(ground.recovery(), "not a directory").expect("written");
    let Answer { code, stderr, .. } = ground.refused();
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains(&ground.recovery().display().to_string())
            && stderr.contains("the recovery directory must be one that this user may write"),
        "{stderr}"
    );
}

/// A command that runs `aloha` after a line for the shell, in a mount namespace of its own; none where the system gives
/// nobody one.
fn with_own_mounts(line: &str) -> Option<Command> {
    let possible = Command::new("unshare").args(["-rm", "true"]).output();
    possible
        .is_ok_and(|output| output.status.success())
        .then(|| {
            let mut own = command_of("unshare");
            own.args(["-rm", "sh", "-c", &format!("{line} && exec \"$0\" \"$@\"")]);
            own.arg(env!("CARGO_BIN_EXE_aloha"));
            own
        })
}

/// Another program with the environment that `aloha` gets.
fn command_of(program: &str) -> Command {
    let mut other = Command::new(program);
    for (name, value) in command().get_envs() {
        match value {
            Some(value) => other.env(name, value),
            None => other.env_remove(name),
        };
    }
    other
}

#[test]
fn a_read_only_file_system_stops_the_start() {
    let ground = Ground::new();
    fs::create_dir(ground.recovery()).expect("a new directory");
    let mount = format!("mount -t tmpfs -o ro tmpfs {}", ground.recovery().display());
    let Some(mut own) = with_own_mounts(&mount) else {
        return; // the test above shows the same with what there is everywhere
    };
    let output = own.args(ground.arguments()).output().expect("it runs");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr.contains("Read-only file system")
            && stderr.contains("must be one that this user may write"),
        "{stderr}"
    );
}

/// Submits an application with this in its environment over REST; gives the whole answer.
fn post(rest: &str, path: &str, padding: &str) -> String {
    let address = rest.strip_prefix("http://").expect("a URL");
    let body = serde_json::json!({
        "action": "CreateSubmissionRequest", "name": "late", "entryPoint": "SimpleProcess", "args": "true",
        "cores": 1, "memory": 64, "environmentVariables": {"PADDING": padding},
    });
    let body = body.to_string();
    let mut stream = TcpStream::connect(address).expect("it listens");
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).expect("taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// Fills the disk of a running master, and what it says then; `free` gives it room again.
fn on_a_full_disk(
    ground: &Ground,
    start: impl FnOnce() -> Daemon,
    fill: impl FnOnce(&Daemon),
    free: impl FnOnce(&Daemon),
    complaint: &str,
) {
    let master = start();
    let worker = ground.worker(&master, "1");
    let pipe = Pipe::new(ground.home.path(), "pipe");
    let running = master.submit(&format!("echo on > {}; exec sleep 1000", pipe.path()));
    assert_eq!(pipe.read(), "on\n");
    let mut accepted = vec![master.submit("true")];
    fill(&master);
    // A page of its own may still have room.
    let padding = "x".repeat(60_000);
    let refused = loop {
        let environment = format!("PADDING={padding}");
        let answer = master.ask(&["submit", "--env", &environment, "--", "true"]);
        if answer.code != Some(0) {
            break answer;
        }
        accepted.push(answer.stdout.trim().to_owned());
        assert!(accepted.len() < 200, "the disk is not full");
    };
    assert_eq!((refused.code, &*refused.stdout), (Some(1), ""));
    let cannot = "the master cannot store submissions: ";
    assert!(
        refused.stderr.contains(cannot)
            && refused.stderr.contains("recovery.redb")
            && refused.stderr.contains(complaint),
        "{refused:?}"
    );
    for path in ["/v1/submissions/create", "/v1/applications"] {
        let answer = post(master.rest(), path, &padding);
        assert!(answer.starts_with("HTTP/1.1 503"), "{path}: {answer}");
        assert!(
            answer.contains("\r\nretry-after: 1\r\n"),
            "{path}: {answer}"
        );
        assert!(
            answer.contains(cannot) && answer.contains(complaint),
            "{path}: {answer}"
        );
    }
    // Whoever has enough of waiting is told that nobody knows, and what to do.
    let waiting = command()
        .env("ALOHA_MASTER", &master.rpc)
        .args(["submit", "--key", "k", "--env"])
        .args([&format!("PADDING={padding}"), "--", "true"])
        .stderr(Stdio::piped())
        .spawn();
    let mut waiting = waiting.expect("the binary is built");
    let mut said = BufReader::new(waiting.stderr.take().expect("piped")).lines();
    let first = said.next().expect("a line").expect("UTF-8");
    assert!(first.starts_with("aloha: trying again: "), "{first}");
    let pid = Pid::from_child(&waiting);
    kill_process(pid, Signal::INT).expect("it waits");
    let last = said.next().expect("a line").expect("UTF-8");
    let expected =
        "aloha: it may have been submitted; repeat the command with --key k, and it runs once";
    let code = waiting.wait().expect("it ends").code();
    assert_eq!((code, &*last), (Some(130), expected));
    // What runs goes on, can be asked for and ended; only that this is not stored is said.
    assert_eq!(master.status(&running)["phase"], "RUNNING");
    let killed = master.ask(&["kill", &running]);
    assert!(killed.code == Some(0), "{killed:?}");
    assert!(format!("{killed:?}").contains("not stored"), "{killed:?}");
    worker.wait_for_line("attempt ended");
    assert_eq!(processes_of(&running, &master.rpc), Vec::<String>::new());
    let known: Vec<_> = listed(&master).into_iter().map(|(id, _)| id).collect();
    let mut expected = vec![running.clone()];
    expected.extend(accepted.iter().cloned());
    assert_eq!(known, expected);

    free(&master);
    // While there was little room the store may have worked now and then; the client tries until it does for good.
    let healed = master.ask(&["submit", "--", "true"]);
    assert_eq!(healed.code, Some(0), "{healed:?}");
    accepted.push(healed.stdout.trim().to_owned());
    master.wait_for_line("the store works again");
    assert_eq!(master.ask(&["wait", &running]).code, Some(137));
    for id in &accepted {
        assert_eq!(master.ask(&["wait", id]).code, Some(0), "{id}");
    }
}

#[test]
fn a_full_disk_refuses_submissions_and_nothing_else_and_heals_without_a_restart() {
    let ground = Ground::new();
    fs::create_dir(ground.recovery()).expect("a new directory");
    let mount = format!(
        "mount -t tmpfs -o size=3m tmpfs {}",
        ground.recovery().display()
    );
    let Some(own) = with_own_mounts(&mount) else {
        return; // the test below shows the same with what there is everywhere
    };
    let filler = |master: &Daemon| {
        let root = format!("/proc/{}/root", master.pid().as_raw_pid());
        PathBuf::from(format!("{root}{}/filler", ground.recovery().display()))
    };
    let fill = |master: &Daemon| {
        let mut file = File::create(filler(master)).expect("there is room for a name");
        while file.write_all(&[0; 4096]).is_ok() {}
    };
    let free = |master: &Daemon| fs::remove_file(filler(master)).expect("it is there");
    on_a_full_disk(
        &ground,
        || ground.master_by(own),
        fill,
        free,
        "No space left on device",
    );
}

#[test]
fn a_file_that_may_not_grow_refuses_submissions_until_it_may() {
    let ground = Ground::new();
    let limit = |master: &Daemon, current| {
        let pid: Pid = master.pid();
        let limits = Rlimit {
            current,
            maximum: None,
        };
        prlimit(Some(pid), Resource::Fsize, limits).expect("it is ours");
    };
    let fill = |master: &Daemon| {
        let file = fs::metadata(ground.recovery().join("recovery.redb"));
        limit(master, Some(file.expect("it is there").len()));
    };
    let free = |master: &Daemon| limit(master, None);
    let mut own = command_of("sh");
    // Past the limit a signal would come, which ends who does not ignore it.
    own.args([
        "-c",
        "trap '' XFSZ && exec \"$0\" \"$@\"",
        env!("CARGO_BIN_EXE_aloha"),
    ]);
    on_a_full_disk(
        &ground,
        || ground.master_by(own),
        fill,
        free,
        "File too large",
    );
}
