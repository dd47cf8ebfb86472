//! Workers and runners killed at random moments: nothing is started twice, nothing is lost, nothing is left.
//!
//! `ALOHA_CRASH_ROUNDS` says how often (1 otherwise), `ALOHA_CRASH_SEED` with which moments.
#![expect(clippy::print_stdout, reason = "a seed that fails is to be known")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aloha_rpc::{RpcAddress, RpcEnv};
use aloha_scheduler::{
    AppDescription, AppId, AppPhase, AppStatus, MasterClient, Resources, SubmitAnswer,
};
use common::Daemon;
use common::moments::{Moments, number};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::tempdir;
use tokio::runtime::Runtime;

const APPS: u32 = 200;

/// Lets some time pass, so that what happens next does at any moment.
fn pass(moments: &mut Moments, millis_max: u64) {
    std::thread::sleep(Duration::from_micros(moments.below(millis_max * 1000)));
}

fn seeds() -> impl Iterator<Item = u64> {
    let first = number("ALOHA_CRASH_SEED", 1);
    first..first + number("ALOHA_CRASH_ROUNDS", 1)
}

/// A cluster and its short applications.
struct Ground {
    _directory: tempfile::TempDir,
    work: PathBuf,
    journal: PathBuf,
    master: Daemon,
    runtime: Runtime,
    client: MasterClient,
}

impl Ground {
    fn new() -> Self {
        let directory = tempdir().expect("a directory");
        let master = Daemon::master(&["-D", "aloha.deploy.retainedApplications=1000"]);
        let runtime = Runtime::new().expect("a runtime");
        let client = runtime.block_on(async {
            let env = RpcEnv::client("crash-test").await.expect("started");
            let address: RpcAddress = master
                .rpc
                .strip_prefix("aloha://")
                .and_then(|address| address.parse().ok())
                .expect("an address");
            MasterClient::connect(&env, &[address]).await
        });
        Self {
            work: directory.path().join("work"),
            journal: directory.path().join("journal"),
            client: client.expect("the master answers"),
            _directory: directory,
            master,
            runtime,
        }
    }

    fn worker(&self) -> Daemon {
        let room = ["-D", "aloha.worker.killGrace=1"];
        Daemon::worker_offering(&self.master.rpc, &self.work, "8", "8G", &room)
    }

    /// Submits applications that note their start, take a while, and exit with a code of their own.
    fn submit(&self, millis: u64) -> Vec<(AppId, i32)> {
        let submit = async |n: u32| {
            let code = i32::try_from(n % 5).expect("small");
            let (journal, seconds) = (self.journal.display(), millis as f64 / 1000.0);
            let script = format!(
                "echo $ALOHA_APP_ID $ALOHA_ATTEMPT >> {journal}; sleep {seconds}; exit {code}"
            );
            let description = AppDescription {
                name: format!("short-{n}"),
                entry_point: "SimpleProcess".into(),
                args: vec![script],
                cores: 1,
                memory_mib: 64,
                ..AppDescription::default()
            };
            let answer = self.client.submit(description).await.expect("an answer");
            (answer.accepted().expect("accepted"), code)
        };
        self.runtime.block_on(async {
            let mut apps = Vec::new();
            for n in 0..APPS {
                apps.push(submit(n).await);
            }
            apps
        })
    }

    /// Whether all have ended.
    fn is_over(&self) -> bool {
        let apps = self.runtime.block_on(self.client.apps());
        let apps = apps.expect("an answer");
        apps.iter().all(|app| app.phase.is_final())
    }

    fn wait(&self, app: &AppId) -> AppStatus {
        let status = self.runtime.block_on(self.client.wait(app));
        status.expect("an answer").expect("it is known")
    }

    /// How often each application was started.
    fn starts(&self) -> BTreeMap<String, u32> {
        let mut starts = BTreeMap::new();
        for line in fs::read_to_string(&self.journal).expect("written").lines() {
            *starts.entry(line.to_owned()).or_default() += 1;
        }
        starts
    }

    /// Asserts that no process of an application, and no runner, is left.
    #[track_caller]
    fn assert_nothing_is_left(&self) {
        let wanted = format!("ALOHA_MASTER={}", self.master.rpc).into_bytes();
        let left: Vec<_> = processes()
            .filter(|path| {
                let environment = fs::read(path.join("environ")).unwrap_or_default();
                environment
                    .split(|byte| *byte == 0)
                    .any(|text| text == wanted)
            })
            .collect();
        assert_eq!(left, Vec::<PathBuf>::new());
        assert_eq!(runners(&self.work), []);
    }
}

fn processes() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir("/proc").expect("a system with /proc");
    entries.map_while(Result::ok).map(|entry| entry.path())
}

/// The runners of a work directory. Between fork and exec an application looks like one, but leads no session.
fn runners(work: &Path) -> Vec<Pid> {
    let work = work.canonicalize().expect("it is there");
    let is_runner = |path: &PathBuf| {
        let arguments = fs::read(path.join("cmdline")).unwrap_or_default();
        let marked = arguments.split(|byte| *byte == 0).nth(1) == Some(b"aloha-runner");
        let stat = fs::read_to_string(path.join("stat")).unwrap_or_default();
        let session = stat
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().nth(3));
        marked
            && session == path.file_name().and_then(|pid| pid.to_str())
            && fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(&work))
    };
    processes()
        .filter(is_runner)
        .filter_map(|path| Pid::from_raw(path.file_name()?.to_str()?.parse().ok()?))
        .collect()
}

#[test]
fn a_worker_that_is_killed_at_any_moment_starts_nothing_twice_and_loses_no_exit_code() {
    for seed in seeds() {
        println!("seed {seed}");
        let mut moments = Moments(seed);
        let ground = Ground::new();
        let apps = ground.submit(20);
        let mut kills = 0;
        let mut worker = ground.worker();
        while !ground.is_over() {
            pass(&mut moments, 250);
            worker.signal(Signal::KILL);
            worker.wait();
            kills += 1;
            pass(&mut moments, 60);
            worker = ground.worker();
            // Else it might be killed before it has done anything, for ever.
            if kills % 3 == 0 {
                ground.master.wait_for_line("worker registered");
            }
        }
        for (app, code) in &apps {
            let status = ground.wait(app);
            assert_eq!(
                (status.exit_code, status.attempt),
                (Some(*code), 1),
                "{app}: {status:?}"
            );
        }
        let expected: BTreeMap<_, _> = apps
            .iter()
            .map(|(app, _)| (format!("{app} 1"), 1))
            .collect();
        assert_eq!(ground.starts(), expected);
        ground.assert_nothing_is_left();
        println!("{kills} workers killed");
        assert!(kills > 3, "only {kills} workers were killed");
        // The next has nothing left to tell.
        worker.signal(Signal::KILL);
        worker.wait();
        let last = ground.worker();
        drop(last);
    }
}

#[test]
fn runners_that_are_killed_are_told_as_errors_and_the_others_are_not_concerned() {
    for seed in seeds() {
        println!("seed {seed}");
        let mut moments = Moments(seed);
        let ground = Ground::new();
        let apps = ground.submit(150);
        let worker = ground.worker();
        let mut killed = Vec::new();
        while !ground.is_over() {
            pass(&mut moments, 60);
            let running = runners(&ground.work);
            if running.is_empty() {
                continue;
            }
            let place = moments.below(running.len() as u64);
            let victim = running[usize::try_from(place).expect("small")];
            // It may have ended this moment.
            if kill_process(victim, Signal::KILL).is_ok() {
                killed.push(victim);
            }
        }
        let mut errors = 0;
        for (app, code) in &apps {
            let status = ground.wait(app);
            match status.phase {
                AppPhase::Error => {
                    errors += 1;
                    let message = status.message.as_deref().unwrap_or_default();
                    assert!(
                        message.contains("its runner was killed by signal 9")
                            || message.contains("cannot start a runner"),
                        "{status:?}"
                    );
                }
                _ => assert_eq!(status.exit_code, Some(*code), "{status:?}"),
            }
        }
        let kills = killed.len();
        println!("{kills} runners killed, {errors} errors");
        assert!(
            0 < errors && errors <= kills,
            "{errors} errors of {kills} kills"
        );
        assert!(ground.starts().values().all(|starts| *starts == 1));
        ground.assert_nothing_is_left();
        // A cgroup is named after its application and its runner.
        let ids: BTreeSet<_> = apps.iter().map(|(app, _)| app.to_string()).collect();
        let ends = killed.iter().map(|pid| pid.as_raw_pid().to_string());
        let ends: BTreeSet<_> = ends.collect();
        let is_of_these = |name: &str| {
            let parts = name
                .strip_prefix("aloha-")
                .and_then(|name| name.split_once("-1-"));
            parts.is_some_and(|(app, runner)| ids.contains(app) && ends.contains(runner))
        };
        assert_eq!(common::cgroups(is_of_these), Vec::<PathBuf>::new());
        drop(worker);
    }
}

#[test]
fn what_a_worker_occupies_is_counted_after_a_restart() {
    let ground = Ground::new();
    let needs = Resources {
        cores: 3,
        memory_mib: 100,
    };
    let mut worker = ground.worker();
    let pipe = common::Pipe::new(ground.journal.parent().expect("it has one"), "pipe");
    let description = AppDescription {
        name: "long".into(),
        entry_point: "SimpleProcess".into(),
        args: vec![format!("echo on > {0}; read < {0}", pipe.path())],
        cores: needs.cores,
        memory_mib: needs.memory_mib,
        ..AppDescription::default()
    };
    let submitted = ground.runtime.block_on(ground.client.submit(description));
    let SubmitAnswer::Accepted { app } = submitted.expect("an answer") else {
        panic!("refused")
    };
    assert_eq!(pipe.read(), "on\n");
    ground.master.wait_for_line("worker registered");
    worker.signal(Signal::KILL);
    worker.wait();
    let _next = ground.worker();
    ground.master.wait_for_line("worker registered");
    let workers = ground.runtime.block_on(ground.client.workers());
    let workers = workers.expect("an answer");
    let [worker] = workers.as_slice() else {
        panic!("one worker, not {workers:?}")
    };
    assert_eq!(
        (worker.cores_used, worker.memory_mib_used),
        (needs.cores, needs.memory_mib)
    );
    fs::write(&pipe.0, "go\n").expect("it reads");
    assert_eq!(ground.wait(&app).exit_code, Some(0));
}
