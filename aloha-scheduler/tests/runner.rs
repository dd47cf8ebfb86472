//! Applications under real runners: started, asked to end, ended without leaving anything, found after a worker's crash.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use aloha_scheduler::application::ShutdownReason;
use aloha_scheduler::runner::RunnerSettings;
use aloha_scheduler::worker::{
    Adopted, LaunchError, LaunchSpec, Launcher, RunnerLauncher, RunningApp, Signal,
};
use aloha_scheduler::{AppDescription, Outcome, StopSignal};
use rustix::process::{Pid, kill_process};
use tokio::runtime::Runtime;

const STOP: Signal = Signal::Stop(ShutdownReason::Killed);
const KILL: Signal = Signal::Kill(ShutdownReason::Killed);

/// A work directory, and a pipe through which applications say how far they are.
struct Ground {
    work: tempfile::TempDir,
    pipe: PathBuf,
    /// Processes that were left behind are known by it: no two tests may have the same.
    worker: String,
}

impl Ground {
    fn new() -> Self {
        let work = tempfile::tempdir().expect("a directory");
        let pipe = work.path().join("pipe");
        let made = Command::new("mkfifo").arg(&pipe).status();
        assert!(made.expect("mkfifo runs").success());
        let name = work.path().file_name().expect("it has one");
        let worker = format!("worker{}", name.display());
        Self { work, pipe, worker }
    }

    fn script(&self, script: &str) -> LaunchSpec {
        self.spec("me.jrwang.app.SimpleProcess", &[script])
    }

    fn spec(&self, entry_point: &str, args: &[&str]) -> LaunchSpec {
        let description = AppDescription {
            name: "test".into(),
            entry_point: entry_point.into(),
            args: args.iter().map(|text| (*text).to_owned()).collect(),
            environment: [("PIPE".to_owned(), self.pipe.display().to_string())].into(),
            cores: 1,
            ..AppDescription::default()
        };
        LaunchSpec {
            app_id: "app-1".into(),
            attempt: 1,
            description: Arc::new(description),
            work_directory: self.work.path().to_owned(),
            master: "aloha://127.0.0.1:7077".into(),
            worker_id: self.worker.clone(),
            alone_max: None,
        }
    }

    fn directory(&self) -> PathBuf {
        self.work.path().join("app-1")
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.directory().join(file)).expect("readable")
    }

    fn record(&self, name: &str) -> serde_json::Value {
        serde_json::from_str(&self.text(&format!(".aloha/{name}"))).expect("JSON")
    }

    fn rewrite(&self, name: &str, record: &serde_json::Value) {
        let path = self.directory().join(".aloha").join(name);
        fs::write(path, record.to_string()).expect("written");
    }

    fn runner(&self) -> Pid {
        let pid = self.record("run.json")["pid"].as_i64().expect("a number");
        Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid")
    }

    /// Waits until an application has written to the pipe and closed it.
    async fn hear(&self) -> String {
        let pipe = self.pipe.clone();
        let read = move || {
            let mut text = String::new();
            let mut pipe = fs::File::open(pipe).expect("opened");
            pipe.read_to_string(&mut text).expect("read");
            text.trim().to_owned()
        };
        tokio::task::spawn_blocking(read).await.expect("heard")
    }
}

fn settings() -> RunnerSettings {
    RunnerSettings {
        kill_grace: Duration::from_secs(30),
        ..RunnerSettings::default()
    }
}

async fn launcher_with(settings: RunnerSettings) -> RunnerLauncher {
    let launcher = RunnerLauncher::new(settings).await.expect("started");
    launcher.program(env!("CARGO_BIN_EXE_aloha").into())
}

async fn launcher() -> RunnerLauncher {
    launcher_with(settings()).await
}

async fn start(spec: LaunchSpec) -> Box<dyn RunningApp> {
    launcher().await.start(spec).await.expect("started")
}

async fn refusal(spec: LaunchSpec) -> LaunchError {
    launcher().await.start(spec).await.expect_err("refused")
}

async fn adopt(ground: &Ground) -> Adopted {
    let launcher = launcher().await;
    let adopted = launcher.adopt(&ground.directory(), &ground.worker).await;
    adopted.expect("adopted")
}

async fn ended(ground: &Ground) -> (Outcome, bool) {
    match adopt(ground).await {
        Adopted::Ended {
            outcome, reported, ..
        } => (outcome, reported),
        other => panic!("not ended: {other:?}"),
    }
}

async fn running(ground: &Ground) -> Box<dyn RunningApp> {
    match adopt(ground).await {
        Adopted::Running { spec, app } => {
            assert_eq!((spec.app_id.as_str(), spec.attempt), ("app-1", 1));
            app
        }
        other => panic!("not running: {other:?}"),
    }
}

/// Whether the process runs; a zombie does not.
fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().expect("a part").starts_with(" Z"))
}

/// A worker that is killed once its application has said something: its tasks and connections are gone at once.
fn crash_worker(ground: &Ground, script: &str) -> String {
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        start(ground.script(script)).await;
        ground.hear().await
    })
}

#[tokio::test]
async fn output_environment_directory_and_exit_code_are_the_applications_own() {
    let ground = Ground::new();
    let script = "pwd; echo $ALOHA_APP_ID $ALOHA_ATTEMPT $ALOHA_MASTER $ALOHA_WORKER_ID; cat; echo oops >&2; exit 3";
    let mut spec = ground.script(script);
    let mut description = (*spec.description).clone();
    description
        .environment
        .insert("ALOHA_APP_ID".into(), "x".into());
    spec.description = Arc::new(description);
    let app = start(spec).await;
    assert_eq!((app.app_id(), app.attempt()), ("app-1", 1));
    assert_eq!(app.wait().await, Outcome::Exited(3));
    // The outcome is kept, and a late signal reaches nobody.
    app.signal(KILL).await.expect("nothing to do");
    assert_eq!(app.wait().await, Outcome::Exited(3));
    let directory = ground.directory().canonicalize().expect("exists");
    let expected = format!(
        "{}\napp-1 1 aloha://127.0.0.1:7077 {}\n",
        directory.display(),
        ground.worker
    );
    assert_eq!(ground.text("stdout"), expected);
    assert_eq!(ground.text("stderr"), "oops\n");
    assert_eq!(ground.record("exit.json")["outcome"]["Exited"], 3);
    assert!(!is_alive(&ground.runner().as_raw_pid().to_string()));
    assert_eq!(ground.text(".aloha/runner.log"), "");
}

#[tokio::test]
async fn a_process_gets_its_arguments_as_they_are() {
    let ground = Ground::new();
    let spec = ground.spec("Process", &["/bin/echo", "a b", "$HOME", ";"]);
    assert_eq!(start(spec).await.wait().await, Outcome::Exited(0));
    assert_eq!(ground.text("stdout"), "a b $HOME ;\n");
}

#[tokio::test]
async fn what_cannot_run_is_refused_with_a_reason() {
    let ground = Ground::new();
    let reason = refusal(ground.spec("Flink", &["true"])).await.to_string();
    assert!(
        reason.starts_with("unknown entry point \"Flink\", known are:"),
        "{reason}"
    );
    let mut missing = ground.spec("Process", &["/nonexistent/program"]);
    missing.attempt = 2;
    let reason = refusal(missing).await.to_string();
    assert_eq!(
        reason,
        "cannot execute \"/nonexistent/program\": No such file or directory (os error 2)"
    );
    let mut empty = ground.script("");
    empty.attempt = 3;
    let reason = refusal(empty).await.to_string();
    assert_eq!(
        reason,
        "me.jrwang.app.SimpleProcess needs a command in its arguments"
    );
    // It is recorded as well, for a worker that is killed before it could say so.
    let recorded = Outcome::CouldNotStart(reason);
    assert_eq!(ended(&ground).await, (recorded, false));
}

#[tokio::test]
async fn names_and_links_do_not_lead_out_of_the_work_directory() {
    let ground = Ground::new();
    for id in [
        "../app", "..", ".", "", "/tmp/app", "a/b", ".hidden", "a\0b",
    ] {
        let mut spec = ground.script("true");
        spec.app_id = id.into();
        assert!(
            matches!(refusal(spec).await, LaunchError::BadAppId { .. }),
            "{id:?}"
        );
    }
    let elsewhere = tempfile::tempdir().expect("a directory");
    fs::write(elsewhere.path().join("launch.json"), "mine").expect("written");
    let linked = Ground::new();
    fs::create_dir(linked.directory()).expect("created");
    for (ground, link) in [
        (&ground, ground.directory()),
        (&linked, linked.directory().join(".aloha")),
    ] {
        std::os::unix::fs::symlink(elsewhere.path(), link).expect("linked");
        let refused = refusal(ground.script("true")).await;
        assert!(
            matches!(refused, LaunchError::Directory { .. }),
            "{refused:?}"
        );
        let left = fs::read_dir(elsewhere.path()).expect("readable");
        let left = left.map(|entry| entry.expect("readable").file_name());
        assert_eq!(left.collect::<Vec<_>>(), ["launch.json"]);
    }
}

#[tokio::test]
async fn a_kill_ends_daemons_new_sessions_and_what_ignores_term() {
    let ground = Ground::new();
    let script = "trap '' TERM; setsid sleep 1000 & a=$!; \
                  b=$(setsid bash -c 'sleep 1001 >/dev/null 2>&1 & echo $!'); \
                  env -i setsid sleep 1002 & c=$!; echo $$ $a $b $c >$PIPE; while :; do sleep 1000; done";
    let app = start(ground.script(script)).await;
    let pids = ground.hear().await;
    assert_eq!(pids.split(' ').count(), 4);
    assert!(pids.split(' ').all(is_alive), "{pids}");
    app.signal(KILL).await.expect("killed");
    assert_eq!(app.wait().await, Outcome::Killed);
    assert!(!pids.split(' ').any(is_alive), "{pids}");
}

#[tokio::test]
async fn a_fork_bomb_of_limited_depth_is_gone_after_a_kill() {
    let ground = Ground::new();
    let script = "bomb() { [ $1 -gt 0 ] && for i in 1 2 3; do bomb $(($1 - 1)) & done; sleep 1000; }; \
                  bomb 5 & echo up >$PIPE; wait";
    let app = start(ground.script(script)).await;
    assert_eq!(ground.hear().await, "up");
    app.signal(KILL).await.expect("killed");
    assert_eq!(app.wait().await, Outcome::Killed);
    assert_eq!(processes_of(&ground), 0);
}

/// How many processes have the pipe of this ground in their environment.
fn processes_of(ground: &Ground) -> usize {
    let wanted = format!("PIPE={}", ground.pipe.display()).into_bytes();
    let entries = fs::read_dir("/proc").expect("a system with /proc");
    entries
        .map_while(Result::ok)
        .filter(|entry| {
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|variable| variable == wanted)
        })
        .count()
}

#[tokio::test]
async fn an_application_that_exits_leaves_no_stragglers() {
    let ground = Ground::new();
    let app = start(ground.script("setsid sleep 1000 & echo $! >$PIPE; exit 5")).await;
    let child = ground.hear().await;
    assert_eq!(app.wait().await, Outcome::Exited(5));
    assert!(!is_alive(&child));
}

#[tokio::test]
async fn a_signal_that_nobody_asked_for_is_told_as_such() {
    let ground = Ground::new();
    let app = start(ground.script("kill -SEGV $$")).await;
    assert_eq!(app.wait().await, Outcome::Signaled(11));
}

#[tokio::test]
async fn asked_to_end_the_children_of_a_leader_that_died_may_clean_up_too() {
    let ground = Ground::new();
    // The leader dies of TERM at once; its child waits until its line is read. A process that bash forks after `trap`
    // ignores TERM for a moment, so `sleep` comes before it.
    let script = "bash -c 'sleep 1000 & trap \"echo bye >$PIPE; echo cleaned; exit\" TERM; \
                  echo up >$PIPE; wait' & wait";
    let app = start(ground.script(script)).await;
    assert_eq!(ground.hear().await, "up");
    app.signal(STOP).await.expect("asked");
    assert_eq!(ground.hear().await, "bye");
    assert_eq!(app.wait().await, Outcome::Killed);
    assert_eq!(ground.text("stdout"), "cleaned\n");
}

#[tokio::test]
async fn the_signal_and_the_grace_are_those_of_the_description() {
    let ground = Ground::new();
    let mut spec = ground.script("trap 'echo interrupted; exit 7' INT; trap '' TERM; echo up >$PIPE; while :; do sleep 0.01; done");
    let mut description = (*spec.description).clone();
    description.stop.signal = StopSignal::Int;
    spec.description = Arc::new(description);
    let app = start(spec.clone()).await;
    assert_eq!(ground.hear().await, "up");
    app.signal(STOP).await.expect("asked");
    assert_eq!(app.wait().await, Outcome::Killed);
    assert_eq!(ground.text("stdout"), "interrupted\n");

    let mut description = (*spec.description).clone();
    description.stop.signal = StopSignal::Term;
    description.stop.grace_millis = Some(50);
    spec.description = Arc::new(description);
    spec.attempt = 2;
    let app = start(spec).await;
    assert_eq!(ground.hear().await, "up");
    app.signal(STOP).await.expect("asked");
    assert_eq!(app.wait().await, Outcome::Killed);
    assert_eq!(ground.text("stdout"), "");
}

#[tokio::test]
async fn each_attempt_has_its_own_output_and_no_attempt_runs_twice() {
    let ground = Ground::new();
    let mut spec = ground.script("echo attempt $ALOHA_ATTEMPT");
    start(spec.clone()).await.wait().await;
    let stale = refusal(spec.clone()).await;
    assert!(matches!(
        stale,
        LaunchError::StaleAttempt {
            attempt: 1,
            seen: 1,
            ..
        }
    ));
    // Attempt 2 ran elsewhere.
    spec.attempt = 3;
    start(spec.clone()).await.wait().await;
    spec.attempt = 4;
    start(spec.clone()).await.wait().await;
    assert_eq!(ground.text("attempt-1/stdout"), "attempt 1\n");
    assert_eq!(ground.text("attempt-3/stdout"), "attempt 3\n");
    assert_eq!(ground.text("stdout"), "attempt 4\n");
    assert!(!ground.directory().join("attempt-2").exists());
}

#[tokio::test]
async fn a_second_attempt_does_not_start_beside_a_running_one() {
    let ground = Ground::new();
    let app = start(ground.script("echo up >$PIPE; exec sleep 1000")).await;
    ground.hear().await;
    let mut spec = ground.script("true");
    spec.attempt = 2;
    assert!(matches!(
        refusal(spec).await,
        LaunchError::StillRunning { .. }
    ));
    app.signal(KILL).await.expect("killed");
    app.wait().await;
}

#[tokio::test]
async fn a_runner_is_reached_however_long_the_path_of_its_directory_is() {
    let ground = Ground::new();
    let long = ground
        .work
        .path()
        .join("d".repeat(100))
        .join("e".repeat(100));
    let mut spec =
        ground.script("trap 'echo asked; exit' TERM; echo up >$PIPE; while :; do sleep 0.01; done");
    spec.work_directory.clone_from(&long);
    let app = start(spec).await;
    assert_eq!(ground.hear().await, "up");
    app.signal(STOP).await.expect("asked");
    assert_eq!(app.wait().await, Outcome::Killed);
    let output = fs::read_to_string(long.join("app-1/stdout")).expect("readable");
    assert_eq!(output, "asked\n");
}

#[test]
fn what_a_dead_worker_left_running_is_taken_over_with_its_exit_code() {
    let ground = Ground::new();
    let pid = crash_worker(&ground, "echo $$ >$PIPE; read <$PIPE; exit 4");
    assert!(is_alive(&pid));
    Runtime::new().expect("a runtime").block_on(async {
        let app = running(&ground).await;
        assert!(is_alive(&pid));
        fs::write(&ground.pipe, "go\n").expect("written");
        assert_eq!(app.wait().await, Outcome::Exited(4));
        assert_eq!(ended(&ground).await, (Outcome::Exited(4), false));
    });
}

#[test]
fn what_was_taken_over_can_be_killed() {
    let ground = Ground::new();
    let pid = crash_worker(
        &ground,
        "trap '' TERM; echo $$ >$PIPE; while :; do sleep 1000; done",
    );
    Runtime::new().expect("a runtime").block_on(async {
        let app = running(&ground).await;
        let outcome = app.end(Duration::from_millis(50)).await.expect("killed");
        assert_eq!(outcome, Outcome::Killed);
        assert!(!is_alive(&pid));
    });
}

#[test]
fn what_ended_without_a_worker_is_reported_until_a_master_knows() {
    let ground = Ground::new();
    crash_worker(&ground, "echo up >$PIPE; read <$PIPE; exit 4");
    let runner = ground.runner();
    fs::write(&ground.pipe, "go\n").expect("written");
    // Its parent is this process.
    let waited = rustix::process::waitpid(Some(runner), rustix::process::WaitOptions::empty());
    waited.expect("our child");
    Runtime::new().expect("a runtime").block_on(async {
        assert_eq!(ended(&ground).await, (Outcome::Exited(4), false));
        let launcher = launcher().await;
        // Of another attempt it says nothing.
        launcher
            .settle(&ground.directory(), 2)
            .await
            .expect("noted");
        assert_eq!(ended(&ground).await, (Outcome::Exited(4), false));
        launcher
            .settle(&ground.directory(), 1)
            .await
            .expect("noted");
        assert_eq!(ended(&ground).await, (Outcome::Exited(4), true));
    });
}

#[test]
fn another_workers_applications_are_left_alone() {
    let ground = Ground::new();
    let pid = crash_worker(&ground, "echo $$ >$PIPE; exec sleep 1000");
    Runtime::new().expect("a runtime").block_on(async {
        let adopted = launcher()
            .await
            .adopt(&ground.directory(), "worker-2")
            .await;
        assert!(matches!(adopted, Ok(Adopted::Nothing)), "{adopted:?}");
        assert!(is_alive(&pid));
        running(&ground)
            .await
            .end(Duration::ZERO)
            .await
            .expect("killed");
    });
}

#[tokio::test]
async fn a_runner_that_is_killed_is_told_with_its_reason_and_leaves_nothing() {
    let ground = Ground::new();
    let script = "setsid sleep 1000 & a=$!; env -i sleep 1001 & echo $$ $a $! >$PIPE; wait";
    let app = start(ground.script(script)).await;
    let pids = ground.hear().await;
    assert!(pids.split(' ').all(is_alive), "{pids}");
    kill_process(ground.runner(), rustix::process::Signal::KILL).expect("killed");
    let outcome = Outcome::Lost("its runner was killed by signal 9".into());
    assert_eq!(app.wait().await, outcome);
    assert!(!pids.split(' ').any(is_alive), "{pids}");
    assert_eq!(ended(&ground).await, (outcome, false));
}

#[test]
fn a_runner_that_was_killed_without_a_worker_is_told_and_leaves_nothing() {
    let ground = Ground::new();
    let pids = crash_worker(&ground, "setsid sleep 1000 & echo $$ $! >$PIPE; wait");
    let runner = ground.runner();
    kill_process(runner, rustix::process::Signal::KILL).expect("killed");
    let waited = rustix::process::waitpid(Some(runner), rustix::process::WaitOptions::empty());
    waited.expect("our child");
    let reason = "its runner was killed while no worker was there to see how";
    let lost = Outcome::Lost(reason.into());
    Runtime::new().expect("a runtime").block_on(async {
        assert_eq!(ended(&ground).await, (lost.clone(), false));
        assert!(!pids.split(' ').any(is_alive), "{pids}");
        // Asked again, the answer is the same.
        assert_eq!(ended(&ground).await, (lost, false));
        // And the next attempt may start.
        let mut spec = ground.script("true");
        spec.attempt = 2;
        assert_eq!(start(spec).await.wait().await, Outcome::Exited(0));
    });
}

#[test]
fn after_a_restart_of_the_machine_no_stranger_is_mistaken_for_the_runner() {
    let ground = Ground::new();
    crash_worker(&ground, "echo up >$PIPE; exec sleep 1000");
    let runner = ground.runner();
    kill_process(runner, rustix::process::Signal::KILL).expect("killed");
    let waited = rustix::process::waitpid(Some(runner), rustix::process::WaitOptions::empty());
    waited.expect("our child");
    // The number is a stranger's now, who leads a session of that number.
    let mut stranger = Command::new("setsid")
        .args(["sleep", "1000"])
        .stdin(Stdio::null())
        .spawn()
        .expect("started");
    let truth = ground.record("run.json");
    let mut record = truth.clone();
    record["pid"] = stranger.id().into();
    record["bootId"] = "another".into();
    ground.rewrite("run.json", &record);
    let runtime = Runtime::new().expect("a runtime");
    let lost = |reason: &str| (Outcome::Lost(reason.into()), false);
    let restarted = lost("the machine was restarted");
    assert_eq!(runtime.block_on(ended(&ground)), restarted);

    // The same boot, but the number went round.
    record["bootId"] = truth["bootId"].clone();
    ground.rewrite("run.json", &record);
    fs::remove_file(ground.directory().join(".aloha/exit.json")).expect("removed");
    let killed = lost("its runner was killed while no worker was there to see how");
    assert_eq!(runtime.block_on(ended(&ground)), killed);
    assert!(stranger.try_wait().expect("a child").is_none());
    stranger.kill().expect("killed");
    stranger.wait().expect("reaped");
}

#[tokio::test]
async fn a_launch_that_never_began_may_be_told_again() {
    let ground = Ground::new();
    let spec = ground.script("echo once");
    start(spec.clone()).await.wait().await;
    // As it is when the worker was killed before it could start the runner.
    for name in ["run.json", "exit.json"] {
        fs::remove_file(ground.directory().join(".aloha").join(name)).expect("removed");
    }
    assert!(matches!(adopt(&ground).await, Adopted::Nothing));
    assert_eq!(start(spec).await.wait().await, Outcome::Exited(0));
    assert!(matches!(
        launcher()
            .await
            .adopt(&ground.work.path().join("app-2"), &ground.worker)
            .await,
        Ok(Adopted::Nothing)
    ));
}

#[test]
fn without_its_worker_for_too_long_a_runner_ends_its_application_and_itself() {
    let ground = Ground::new();
    let runtime = Runtime::new().expect("a runtime");
    let pid = runtime.block_on(async {
        let settings = RunnerSettings {
            worker_timeout: Duration::from_millis(300),
            ..settings()
        };
        let launcher = launcher_with(settings).await;
        let script = "setsid sleep 1000 & echo $! >$PIPE; wait";
        launcher
            .start(ground.script(script))
            .await
            .expect("started");
        ground.hear().await
    });
    let runner = ground.runner();
    drop(runtime);
    let waited = rustix::process::waitpid(Some(runner), rustix::process::WaitOptions::empty());
    waited.expect("our child");
    assert!(!is_alive(&pid));
    let outcome = Runtime::new().expect("a runtime").block_on(ended(&ground));
    assert_eq!(
        outcome,
        (Outcome::Lost("its worker did not come back".into()), false)
    );
}

#[tokio::test]
async fn a_runner_that_is_asked_to_end_by_a_signal_ends_its_application_first() {
    let ground = Ground::new();
    let app = start(ground.script("echo $$ >$PIPE; exec sleep 1000")).await;
    let pid = ground.hear().await;
    for signal in [rustix::process::Signal::HUP, rustix::process::Signal::INT] {
        kill_process(ground.runner(), signal).expect("sent");
    }
    kill_process(ground.runner(), rustix::process::Signal::TERM).expect("sent");
    let reason = "its runner was told to end by a signal";
    assert_eq!(app.wait().await, Outcome::Lost(reason.into()));
    assert!(!is_alive(&pid));
}

#[tokio::test]
async fn a_broken_record_is_an_error_and_kills_nobody() {
    let ground = Ground::new();
    start(ground.script("true")).await.wait().await;
    fs::remove_file(ground.directory().join(".aloha/exit.json")).expect("removed");
    let everybody = r#"{"version":1,"pid":1,"startTicks":1,"bootId":"b"}"#;
    let newer = r#"{"version":2,"pid":77,"startTicks":1,"bootId":"b"}"#;
    for text in ["", "{", everybody, newer] {
        fs::write(ground.directory().join(".aloha/run.json"), text).expect("written");
        let launcher = launcher().await;
        let adopted = launcher.adopt(&ground.directory(), &ground.worker).await;
        let error = adopted.expect_err("refused");
        let path = ground.directory().join(".aloha");
        assert_eq!(
            error.to_string(),
            format!("cannot use the record {}", path.display())
        );
    }
}

#[tokio::test]
async fn only_its_owner_can_enter_the_directory_and_reach_the_runner() {
    use std::os::unix::fs::PermissionsExt as _;
    let ground = Ground::new();
    let app = start(ground.script("echo up >$PIPE; exec sleep 1000")).await;
    ground.hear().await;
    let mode = |path: &Path| {
        let mode = fs::metadata(path).expect("there").permissions().mode();
        mode & 0o777
    };
    let directory = ground.directory();
    assert_eq!(mode(&directory), 0o700);
    assert_eq!(mode(&directory.join(".aloha")), 0o700);
    assert_eq!(mode(&directory.join(".aloha/runner.sock")), 0o600);
    app.end(Duration::ZERO).await.expect("killed");
}

#[test]
fn what_runs_in_a_work_directory_that_was_moved_keeps_its_exit_code() {
    let ground = Ground::new();
    crash_worker(&ground, "echo up >$PIPE; read <$PIPE; exit 4");
    let moved = tempfile::tempdir().expect("a directory");
    let directory = moved.path().join("app-1");
    fs::rename(ground.directory(), &directory).expect("moved");
    Runtime::new().expect("a runtime").block_on(async {
        let adopted = launcher().await.adopt(&directory, &ground.worker).await;
        let Ok(Adopted::Running { app, .. }) = adopted else {
            panic!("not running: {adopted:?}");
        };
        fs::write(&ground.pipe, "go\n").expect("written");
        assert_eq!(app.wait().await, Outcome::Exited(4));
    });
}

#[tokio::test]
async fn whatever_an_application_does_to_its_records_nothing_is_left_of_it() {
    for mischief in [
        "rm -rf .aloha",
        "rm .aloha/run.json",
        "echo no >.aloha/run.json",
        r#"sed -i 's/"cgroups":.*/"cgroups":["\/"]}/' .aloha/run.json"#,
        r#"sed -i 's/"pid":[0-9]*/"pid":99999999/' .aloha/run.json"#,
    ] {
        let ground = Ground::new();
        let script = format!("{mischief}; setsid sleep 1000 & echo $$ $! >$PIPE; wait");
        let mut settings = settings();
        // Where there are cgroups, they would do it alone.
        settings.enforcement.cgroups = mischief.contains("cgroups");
        let launcher = launcher_with(settings).await;
        let app = launcher.start(ground.script(&script)).await;
        let app = app.expect("started");
        let pids = ground.hear().await;
        let leader = pids.split(' ').next().expect("a pid");
        let stat = fs::read_to_string(format!("/proc/{leader}/stat")).expect("it runs");
        let parent = stat
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split(' ').nth(2));
        let runner = parent.and_then(|pid| Pid::from_raw(pid.parse().ok()?));
        kill_process(runner.expect("a pid"), rustix::process::Signal::KILL).expect("killed");
        let outcome = Outcome::Lost("its runner was killed by signal 9".into());
        assert_eq!(app.wait().await, outcome, "{mischief}");
        assert!(!pids.split(' ').any(is_alive), "{mischief}: {pids}");
    }
}

#[tokio::test]
async fn a_limit_to_the_size_of_the_workers_files_ends_no_application() {
    let ground = Ground::new();
    let script = ground.work.path().join("aloha");
    let aloha = env!("CARGO_BIN_EXE_aloha");
    let text = format!("#!/bin/bash\nulimit -f 8\nexec -a aloha {aloha} \"$@\"\n");
    fs::write(&script, text).expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(&script, mode).expect("executable");
    let launcher = RunnerLauncher::new(settings()).await.expect("started");
    // That it cannot say so is no reason to end either.
    fs::create_dir_all(ground.directory().join(".aloha")).expect("created");
    let log = ground.directory().join(".aloha/runner.log");
    fs::write(&log, [b'x'; 8 * 1024]).expect("written");
    let spec = ground.script("head -c 100000 /dev/zero | tr '\\0' x; exit 4");
    let app = launcher.program(script).start(spec).await.expect("started");
    assert_eq!(app.wait().await, Outcome::Exited(4));
    assert_eq!(ground.text("stdout").len(), 8 * 1024);
}

#[test]
fn what_a_dead_worker_left_without_its_records_is_ended() {
    let tricks = [
        "rm -rf .aloha",
        "rm -rf $PWD",
        "mv $PWD ${PWD}x",
        "rm .aloha/lock .aloha/run.json",
    ];
    for trick in tricks {
        let ground = Ground::new();
        let script = format!("{trick}; env -i setsid sleep 1000 & echo $$ $! >$PIPE; wait");
        let pids = crash_worker(&ground, &script);
        Runtime::new().expect("a runtime").block_on(async {
            let launcher = launcher().await;
            let known = [("app-1".to_owned(), 1)];
            for (worker, known, ended) in [
                ("worker-2", BTreeSet::new(), vec![]),
                (&*ground.worker, known.clone().into(), vec![]),
                (&*ground.worker, BTreeSet::new(), known.to_vec()),
                (&*ground.worker, BTreeSet::new(), vec![]),
            ] {
                let work = ground.work.path();
                assert!(ended.is_empty() || pids.split(' ').all(is_alive), "{trick}");
                let strays = launcher.end_strays(work, worker, &known).await;
                assert_eq!(strays.expect("ended"), ended, "{trick}");
            }
        });
        assert!(!pids.split(' ').any(is_alive), "{trick}: {pids}");
    }
}

#[tokio::test]
async fn a_runner_that_cannot_start_says_why_in_its_log() {
    let ground = Ground::new();
    fs::create_dir_all(ground.directory().join("stdout")).expect("created");
    let refused = refusal(ground.script("true")).await;
    let LaunchError::Runner { cause, .. } = refused else {
        panic!("another reason: {refused:?}");
    };
    let hint = "see .aloha/runner.log in the directory of the application";
    assert!(cause.to_string().ends_with(hint), "{cause}");
    let log = ground.text(".aloha/runner.log");
    assert!(log.contains("runner ended error=\"Is a directory"), "{log}");
}

#[test]
fn how_an_application_ended_is_on_disk_where_it_removed_its_records_too() {
    let ground = Ground::new();
    let script = "rm -rf .aloha; echo $PPID >$PIPE; read <$PIPE; exit 4";
    let runner = crash_worker(&ground, script).parse().ok();
    fs::write(&ground.pipe, "go\n").expect("written");
    let runner = runner.and_then(Pid::from_raw).expect("a pid");
    let options = rustix::process::WaitOptions::empty();
    let waited = rustix::process::waitpid(Some(runner), options);
    waited.expect("our child");
    assert_eq!(ground.record("exit.json")["outcome"]["Exited"], 4);
}

#[tokio::test]
async fn a_runner_that_is_killed_leaves_no_cgroup_whatever_its_record_says() {
    for mischief in [
        "rm .aloha/run.json",
        r#"sed -i 's/"cgroups":.*/"cgroups":["\/"]}/' .aloha/run.json"#,
    ] {
        let ground = Ground::new();
        let script = format!("{mischief}; echo $PPID >$PIPE; exec sleep 1000");
        let app = start(ground.script(&script)).await;
        let runner = ground.hear().await;
        let pid = Pid::from_raw(runner.parse().expect("a pid")).expect("a pid");
        kill_process(pid, rustix::process::Signal::KILL).expect("killed");
        app.wait().await;
        let name = format!("aloha-app-1-1-{runner}");
        let left = Command::new("find")
            .args(["/sys/fs/cgroup", "-type", "d", "-name", &name])
            .output();
        let left = String::from_utf8(left.expect("it runs").stdout);
        assert_eq!(left.expect("UTF-8"), "", "{mischief}");
    }
}
