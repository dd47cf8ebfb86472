//! Applications as real processes: started, signalled, ended without leaving anything, found after a worker's crash.

use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use aloha_scheduler::Outcome;
use aloha_scheduler::worker::{
    Adopted, LaunchError, LaunchSpec, Launcher, ProcessLauncher, RunningApp, Signal,
};

/// A work directory, and a pipe through which applications say how far they are.
struct Ground {
    work: tempfile::TempDir,
    pipe: PathBuf,
}

impl Ground {
    fn new() -> Self {
        let work = tempfile::tempdir().expect("a directory");
        let pipe = work.path().join("pipe");
        let made = Command::new("mkfifo").arg(&pipe).status();
        assert!(made.expect("mkfifo runs").success());
        Self { work, pipe }
    }

    fn script(&self, script: &str) -> LaunchSpec {
        LaunchSpec {
            app_id: "app-1".into(),
            attempt: 1,
            entry_point: "me.jrwang.app.SimpleProcess".into(),
            libs: Vec::new(),
            args: vec![script.into()],
            environment: [("PIPE".to_owned(), self.pipe.display().to_string())].into(),
            work_directory: self.work.path().to_owned(),
            master: "aloha://127.0.0.1:7077".into(),
            worker_id: "worker-1".into(),
        }
    }

    fn directory(&self) -> PathBuf {
        self.work.path().join("app-1")
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.directory().join(file)).expect("readable")
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

fn launcher() -> ProcessLauncher {
    ProcessLauncher::new(Duration::from_secs(30))
}

async fn start(spec: LaunchSpec) -> Box<dyn RunningApp> {
    launcher().start(spec).await.expect("started")
}

async fn refusal(spec: LaunchSpec) -> LaunchError {
    launcher().start(spec).await.expect_err("refused")
}

/// Whether the process runs; a zombie does not.
fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().expect("a part").starts_with(" Z"))
}

#[tokio::test]
async fn output_environment_directory_and_exit_code_are_the_applications_own() {
    let ground = Ground::new();
    let script = "pwd; echo $ALOHA_APP_ID $ALOHA_ATTEMPT $ALOHA_MASTER $ALOHA_WORKER_ID; cat; echo oops >&2; exit 3";
    let mut spec = ground.script(script);
    spec.environment.insert("ALOHA_APP_ID".into(), "x".into());
    let app = start(spec).await;
    assert_eq!((app.app_id(), app.attempt()), ("app-1", 1));
    assert_eq!(app.wait().await, Outcome::Exited(3));
    // The outcome is kept, and a late signal reaches nobody.
    app.signal(Signal::Kill).await.expect("nothing to do");
    assert_eq!(app.wait().await, Outcome::Exited(3));
    let directory = ground.directory().canonicalize().expect("exists");
    let expected = format!(
        "{}\napp-1 1 aloha://127.0.0.1:7077 worker-1\n",
        directory.display()
    );
    assert_eq!(ground.text("stdout"), expected);
    assert_eq!(ground.text("stderr"), "oops\n");
}

#[tokio::test]
async fn a_process_gets_its_arguments_as_they_are() {
    let ground = Ground::new();
    let mut spec = ground.script("");
    spec.entry_point = "Process".into();
    spec.args = ["/bin/echo", "a b", "$HOME", ";"].map(str::to_owned).into();
    assert_eq!(start(spec).await.wait().await, Outcome::Exited(0));
    assert_eq!(ground.text("stdout"), "a b $HOME ;\n");
}

#[tokio::test]
async fn what_cannot_run_is_refused_with_a_reason() {
    let ground = Ground::new();
    let mut spec = ground.script("true");
    spec.entry_point = "Flink".into();
    assert_eq!(
        refusal(spec).await.to_string(),
        "unknown entry point \"Flink\", known are: SimpleProcess, me.jrwang.app.SimpleProcess, Process"
    );
    let mut spec = ground.script("/nonexistent/program");
    spec.entry_point = "Process".into();
    assert_eq!(
        refusal(spec).await.to_string(),
        "cannot execute \"/nonexistent/program\""
    );
    assert!(matches!(
        refusal(ground.script("")).await,
        LaunchError::NoCommand { .. }
    ));
    let mut spec = ground.script("true");
    spec.app_id = "../app".into();
    assert!(matches!(refusal(spec).await, LaunchError::BadAppId { .. }));
    let mut spec = ground.script("true");
    spec.environment.insert("A=B".into(), "C".into());
    assert!(matches!(refusal(spec).await, LaunchError::BadText { .. }));
}

#[tokio::test]
async fn killing_ends_the_whole_group_and_is_told_apart_from_an_exit_code() {
    let ground = Ground::new();
    let app = start(ground.script("sleep 1000 & echo $! >$PIPE; wait")).await;
    let child = ground.hear().await;
    assert!(is_alive(&child));
    app.signal(Signal::Kill).await.expect("signalled");
    let outcome = app.wait().await;
    assert_eq!(outcome, Outcome::Signaled(9));
    assert_eq!(outcome.exit_code(), Some(137));
    assert!(!is_alive(&child));
}

#[tokio::test]
async fn an_application_that_exits_leaves_no_stragglers() {
    let ground = Ground::new();
    let app = start(ground.script("sleep 1000 & echo $! >$PIPE; exit 5")).await;
    let child = ground.hear().await;
    assert_eq!(app.wait().await, Outcome::Exited(5));
    assert!(!is_alive(&child));
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
    app.signal(Signal::Term).await.expect("signalled");
    assert_eq!(ground.hear().await, "bye");
    assert_eq!(app.wait().await, Outcome::Signaled(15));
    assert_eq!(ground.text("stdout"), "cleaned\n");
}

#[tokio::test]
async fn ending_asks_first_and_kills_what_will_not_listen() {
    let ground = Ground::new();
    let app =
        start(ground.script("trap '' TERM; echo up >$PIPE; while :; do sleep 1000; done")).await;
    assert_eq!(ground.hear().await, "up");
    let outcome = app.end(Duration::from_millis(50)).await.expect("signalled");
    assert_eq!(outcome, Outcome::Signaled(9));

    let mut spec = ground.script("sleep 1000 & trap 'exit 7' TERM; echo up >$PIPE; wait");
    spec.attempt = 2;
    let app = start(spec).await;
    assert_eq!(ground.hear().await, "up");
    let outcome = app.end(Duration::from_secs(30)).await.expect("signalled");
    assert_eq!(outcome, Outcome::Exited(7));
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
        LaunchError::StillRunning { seen: 1, .. }
    ));
    app.signal(Signal::Kill).await.expect("signalled");
    app.wait().await;
}

/// Starts an application on a runtime that dies with its worker's tasks, and gives what it said.
fn crash_worker(ground: &Ground, script: &str) -> String {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        start(ground.script(script)).await;
        ground.hear().await
    })
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(future)
}

fn lost(adopted: Adopted) -> String {
    match adopted {
        Adopted::Ended {
            app_id,
            attempt: 1,
            outcome: Outcome::Lost(reason),
        } if app_id == "app-1" => reason,
        other => panic!("not lost: {other:?}"),
    }
}

fn adopt(directory: &Path) -> Adopted {
    block_on(launcher().adopt(directory)).expect("adopted")
}

#[test]
fn what_a_dead_worker_left_running_is_ended_and_reported_lost() {
    let ground = Ground::new();
    let script = "sleep 1000 & echo $$ $! >$PIPE; wait";
    let pids = crash_worker(&ground, script);
    assert!(pids.split(' ').all(is_alive), "{pids}");
    let reason = lost(adopt(&ground.directory()));
    assert_eq!(
        reason,
        "it was still running when its worker came back, and was ended"
    );
    assert!(!pids.split(' ').any(is_alive), "{pids}");
    // Asked again, the answer is the same.
    assert_eq!(lost(adopt(&ground.directory())), reason);
    // And the next attempt may start.
    let mut spec = ground.script("true");
    spec.attempt = 2;
    let outcome = block_on(async { start(spec).await.wait().await });
    assert_eq!(outcome, Outcome::Exited(0));
}

#[test]
fn children_whose_leader_has_gone_are_known_by_their_environment() {
    let ground = Ground::new();
    let pids = crash_worker(&ground, "sleep 1000 & echo $$ $! >$PIPE; read <$PIPE");
    let (leader, child) = pids.split_once(' ').expect("two pids");
    // The leader ends, and its parent, who stands in for init, reaps it.
    fs::write(&ground.pipe, "go\n").expect("written");
    let leader = rustix::process::Pid::from_raw(leader.parse().expect("a pid"));
    rustix::process::waitpid(leader, rustix::process::WaitOptions::empty()).expect("reaped");
    assert!(is_alive(child));
    lost(adopt(&ground.directory()));
    assert!(!is_alive(child));
}

#[test]
fn a_stranger_with_a_reused_pid_is_left_alone() {
    let ground = Ground::new();
    let mut stranger = Command::new("sleep")
        .arg("1000")
        .process_group(0)
        .stdin(Stdio::null())
        .spawn()
        .expect("started");
    crash_worker(&ground, "echo up >$PIPE; exec sleep 1000");
    let path = ground.directory().join(".aloha-process.json");
    let text = fs::read_to_string(&path).expect("readable");
    let mut record: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let truth = record.clone();

    record["pid"] = stranger.id().into();
    // A pid comes round again in seconds at the soonest; the two here may have started in one tick.
    let ticks = truth["startTicks"].as_u64().expect("a number");
    record["startTicks"] = (ticks - 100).into();
    fs::write(&path, record.to_string()).expect("written");
    let reason = lost(adopt(&ground.directory()));
    assert_eq!(reason, "it ended while no worker was there to see how");

    // The very process, but of another run of the machine.
    let mut other_boot = truth.clone();
    other_boot["bootId"] = "another".into();
    fs::write(&path, other_boot.to_string()).expect("written");
    let reason = lost(adopt(&ground.directory()));
    assert_eq!(reason, "the machine was restarted");
    assert!(is_alive(&truth["pid"].to_string()));

    fs::write(&path, truth.to_string()).expect("written");
    lost(adopt(&ground.directory()));
    assert!(!is_alive(&truth["pid"].to_string()));
    assert!(stranger.try_wait().expect("a child").is_none());
    stranger.kill().expect("killed");
    stranger.wait().expect("reaped");
}

#[test]
fn what_ended_before_the_worker_did_keeps_its_outcome() {
    let ground = Ground::new();
    let ended = block_on(async { start(ground.script("exit 4")).await.wait().await });
    assert_eq!(ended, Outcome::Exited(4));
    let adopted = adopt(&ground.directory());
    assert!(matches!(
        adopted,
        Adopted::Ended {
            outcome: Outcome::Exited(4),
            ..
        }
    ));
    let nothing = adopt(&ground.work.path().join("app-2"));
    assert!(matches!(nothing, Adopted::Nothing));
}

#[test]
fn a_broken_record_is_an_error_and_kills_nobody() {
    let ground = Ground::new();
    fs::create_dir(ground.directory()).expect("created");
    let path = ground.directory().join(".aloha-process.json");
    let everybody = r#"{"version":1,"appId":"a","attempt":1,"pid":1,"startTicks":1,"bootId":"b"}"#;
    for text in ["", "{", everybody] {
        fs::write(&path, text).expect("written");
        let adopted = block_on(launcher().adopt(&ground.directory()));
        let error = adopted.expect_err("refused");
        assert_eq!(
            error.to_string(),
            format!("cannot use the record {}", path.display())
        );
    }
}
