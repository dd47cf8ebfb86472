//! A user's own types in an executable of their own, beside the runner's side of them.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use aloha_rpc::RpcEnv;
use aloha_scheduler::application::{
    Application, ApplicationContext, ApplicationError, ExitState, ShutdownReason,
};
use aloha_scheduler::runner::HostedApplication;
use aloha_scheduler::{AppDescription, StopPolicy, StopSignal};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;

const FIXTURE: &str = env!("CARGO_BIN_EXE_hosted-fixture");
const WAITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hosted/waits");
const STARTED: &str = "start app-test 1 aloha://127.0.0.1:7077 worker-test";

/// A runner's environment, and a directory in which an application tells what happens to it.
struct Stage {
    directory: TempDir,
    env: RpcEnv,
    told: UnixListener,
    application: Arc<HostedApplication>,
}

impl Stage {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("runner.sock");
        let env = RpcEnv::builder("runner")
            .bind(format!("unix:{}", socket.display()))
            .start()
            .await
            .expect("it listens");
        let told = UnixListener::bind(directory.path().join("told.sock")).expect("it listens");
        let application = Arc::new(HostedApplication::new(env.clone()));
        Self {
            directory,
            env,
            told,
            application,
        }
    }

    fn context(&self, executable: &str, entry_point: &str, arg: &str) -> ApplicationContext {
        let description = AppDescription {
            entry_point: entry_point.to_owned(),
            libs: vec![executable.to_owned()],
            args: vec![arg.to_owned()],
            ..AppDescription::default()
        };
        ApplicationContext::for_tests(description, self.directory.path())
    }

    /// The next thing that the application tells.
    async fn heard(&self) -> String {
        let (mut stream, _) = self.told.accept().await.expect("it tells something");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("UTF-8");
        text.trim_end().to_owned()
    }

    /// Starts `test.Subject` with this behaviour, and hears `told` after its start; gives how it ended.
    async fn run(&self, behaviour: &str, told: &[&str]) -> Result<ExitState, String> {
        self.run_and(behaviour, async |_| {}, told).await
    }

    /// As [`Stage::run`], and does something once it has started.
    async fn run_and(
        &self,
        behaviour: &str,
        act: impl AsyncFnOnce(&ApplicationContext),
        told: &[&str],
    ) -> Result<ExitState, String> {
        let context = self.context(FIXTURE, "test.Subject", behaviour);
        let hears = async {
            assert_eq!(self.heard().await, STARTED);
            act(&context).await;
            for expected in told {
                assert_eq!(self.heard().await, *expected);
            }
        };
        let (ended, ()) = tokio::join!(self.application.start(&context), hears);
        ended.map_err(text)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.path().join(name)).expect("it is written")
    }

    /// Nothing else was told, and nobody is connected any more.
    async fn over(self) {
        self.env.shutdown().await;
        let more = self.told.into_std().expect("a socket").accept();
        assert!(more.is_err(), "something else was told");
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn text(error: ApplicationError) -> String {
    error.to_string()
}

#[tokio::test]
async fn its_exit_code_is_that_of_the_application() {
    for (behaviour, code) in [("exit", 7), ("signal", 137)] {
        let stage = Stage::new().await;
        let ended = stage.run(behaviour, &["clean"]).await;
        assert_eq!(ended, Ok(ExitState::Code(code)));
        assert_eq!(stage.read("stderr"), "");
        stage.over().await;
    }
}

#[tokio::test]
async fn an_error_is_code_1_with_its_text() {
    let stage = Stage::new().await;
    let ended = stage.run("error", &["clean"]).await;
    assert_eq!(ended, Ok(ExitState::Code(1)));
    assert_eq!(stage.read("stderr"), "test.Subject failed: no luck\n");
    stage.over().await;
}

#[tokio::test]
async fn a_panic_is_code_101_after_clean() {
    let stage = Stage::new().await;
    let ended = stage.run("panic", &["clean"]).await;
    assert_eq!(ended, Ok(ExitState::Code(101)));
    let stderr = stage.read("stderr");
    let said = stderr.ends_with("\ntest.Subject panicked in start: boom\n");
    assert!(said, "{stderr}");
    stage.over().await;
}

#[tokio::test]
async fn an_abort_takes_its_executable_alone() {
    let stage = Stage::new().await;
    let ended = stage.run("abort", &[]).await;
    assert_eq!(ended, Ok(ExitState::Signal(6)));
    stage.over().await;
}

#[tokio::test]
async fn a_shutdown_comes_with_its_reason_whatever_it_does() {
    for behaviour in [
        "wait",
        "panic in shutdown",
        "hang in shutdown",
        "panic in clean",
    ] {
        let stage = Stage::new().await;
        let told = ["shutdown: stopped with its worker", "clean"];
        let asks = async |context: &ApplicationContext| {
            let reason = ShutdownReason::WorkerStops;
            stage.application.shutdown(context, &reason).await;
        };
        let ended = stage.run_and(behaviour, asks, &told).await;
        assert_eq!(ended, Ok(ExitState::SUCCESS), "{behaviour}");
        stage.over().await;
    }
}

#[tokio::test]
async fn an_executable_has_several_types() {
    let stage = Stage::new().await;
    let context = stage.context(FIXTURE, "test.Other", "");
    let ended = stage.application.start(&context).await.map_err(text);
    assert_eq!(ended, Ok(ExitState::Code(42)));
    stage.over().await;
}

#[tokio::test]
async fn a_type_that_it_does_not_have_is_an_error_that_names_those_it_has() {
    let stage = Stage::new().await;
    let context = stage.context(FIXTURE, "test.Missing", "");
    let ended = stage.application.start(&context).await.map_err(text);
    let expected = "unknown entry point \"test.Missing\", its executable has test.Other, test.Shell, \
                    test.Subject, test.Unmade";
    assert_eq!(ended, Err(expected.to_owned()));
    stage.over().await;
}

#[tokio::test]
async fn a_type_that_cannot_be_made_is_code_101() {
    let stage = Stage::new().await;
    let context = stage.context(FIXTURE, "test.Unmade", "");
    let ended = stage.application.start(&context).await.map_err(text);
    assert_eq!(ended, Ok(ExitState::Code(101)));
    let stderr = stage.read("stderr");
    let said = stderr.ends_with("\ntest.Unmade panicked in its making: not today\n");
    assert!(said, "{stderr}");
    stage.over().await;
}

#[tokio::test]
async fn without_an_executable_the_error_names_the_libs() {
    let stage = Stage::new().await;
    let context = stage.context("app.jar", "test.Subject", "");
    let ended = stage.application.start(&context).await.map_err(text);
    let expected = "no executable in libs: \"app.jar\" is no absolute path; give the absolute path that it has on \
                    every worker";
    assert_eq!(ended, Err(expected.to_owned()));
    stage.over().await;
}

#[tokio::test]
async fn an_executable_ends_with_its_runner_even_if_it_blocks_every_thread() {
    for behaviour in ["wait", "block"] {
        let stage = Stage::new().await;
        let vanishes = async |_: &ApplicationContext| stage.env.shutdown().await;
        let ended = stage.run_and(behaviour, vanishes, &[]).await;
        assert_eq!(ended, Ok(ExitState::Code(1)), "{behaviour}");
        assert_eq!(
            stage.read("stderr"),
            "the runner is gone, and the application ends with it\n"
        );
        stage.over().await;
    }
}

#[tokio::test]
async fn a_process_of_the_application_belongs_to_it_and_hears_of_the_shutdown() {
    let stage = Stage::new().await;
    let script = "trap 'echo asked; exit 3' USR1; echo $ALOHA_APP_ID ${ALOHA_RUNNER-alone}; \
                  exec 3<>told.fifo; echo up >&3; while :; do read -r _ <&3; done";
    let fifo = stage.directory.path().join("told.fifo");
    let made = Command::new("mkfifo").arg(&fifo).status();
    assert!(made.is_ok_and(|status| status.success()));
    let mut context = stage.context(FIXTURE, "test.Shell", script);
    let description = AppDescription {
        stop: StopPolicy {
            signal: StopSignal::Usr1,
            grace_millis: None,
        },
        ..context.description().clone()
    };
    context = ApplicationContext::for_tests(description, stage.directory.path());
    let asks = async {
        let up = tokio::task::spawn_blocking(move || std::fs::File::open(fifo));
        drop(up.await.expect("no panic").expect("a writer"));
        stage
            .application
            .shutdown(&context, &ShutdownReason::Killed)
            .await;
    };
    let (ended, ()) = tokio::join!(stage.application.start(&context), asks);
    assert_eq!(ended.map_err(text), Ok(ExitState::Code(3)));
    assert_eq!(stage.read("stdout"), "app-test alone\nasked\n");
    stage.over().await;
}

#[tokio::test]
async fn no_variable_of_the_description_cuts_it_off() {
    let stage = Stage::new().await;
    let mut description = stage
        .context(FIXTURE, "test.Other", "")
        .description()
        .clone();
    let environment = &mut description.environment;
    environment.insert("ALOHA_RUNNER".to_owned(), "elsewhere".to_owned());
    let context = ApplicationContext::for_tests(description, stage.directory.path());
    let ended = stage.application.start(&context).await.map_err(text);
    assert_eq!(ended, Ok(ExitState::Code(42)));
    stage.over().await;
}

#[tokio::test]
async fn a_program_that_never_connects_runs_and_gets_the_signal() {
    let stage = Stage::new().await;
    let context = stage.context("/bin/true", "any", "");
    let ended = stage.application.start(&context).await.map_err(text);
    assert_eq!(ended, Ok(ExitState::SUCCESS));
    stage.over().await;

    // Asked when it runs, and before it does.
    for asked_first in [false, true] {
        let stage = Stage::new().await;
        let context = stage.context(WAITS, "any", "");
        let start = stage.application.start(&context);
        let shutdown = stage
            .application
            .shutdown(&context, &ShutdownReason::Killed);
        let ended = if asked_first {
            shutdown.await;
            start.await
        } else {
            tokio::join!(biased; start, shutdown).0
        };
        assert_eq!(ended.map_err(text), Ok(ExitState::Signal(15)));
        stage.over().await;
    }
}

/// Runs the executable without a runner that answers.
fn by_hand(runner: Option<&Path>) -> (Option<i32>, String) {
    let mut command = Command::new(FIXTURE);
    command.env_remove("ALOHA_RUNNER");
    if let Some(runner) = runner {
        command.env("ALOHA_RUNNER", runner);
    }
    let output = command.output().expect("it is built");
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    (output.status.code(), stderr)
}

#[test]
fn started_by_hand_it_says_what_it_is_and_how_it_is_submitted() {
    let expected = format!(
        "{FIXTURE} holds applications of Aloha: test.Other, test.Shell, test.Subject, test.Unmade.\n\
         It is started by the cluster, so submit one of them:\n  \
         aloha submit --entry-point test.Other --lib {FIXTURE} -- ARGUMENTS\n"
    );
    assert_eq!(by_hand(None), (Some(2), expected));
}

#[test]
fn with_a_runner_that_is_not_there_it_says_so() {
    let (code, stderr) = by_hand(Some(Path::new("somewhere")));
    assert_eq!(code, Some(1));
    let expected = "ALOHA_RUNNER does not name a runner: it is set by the cluster alone: ";
    assert!(stderr.starts_with(expected), "{stderr}");
    let (code, stderr) = by_hand(Some(Path::new("unix:/no/such/runner.sock")));
    assert_eq!(code, Some(1));
    assert!(stderr.starts_with("cannot find the runner: "), "{stderr}");
}
