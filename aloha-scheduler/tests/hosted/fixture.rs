//! An executable with applications of one's own, which do what their first argument says.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use aloha_scheduler::application::{
    Application, ApplicationContext, ApplicationError, Applications, ExitState, ProcessApplication,
    ShutdownReason, SimpleProcess, StopFlag, TaskApplication,
};
use async_trait::async_trait;

fn main() -> ExitCode {
    Applications::new()
        .with("test.Subject", Subject::default)
        .with("test.Other", || {
            TaskApplication::new(|_, _| async { Ok(ExitState::Code(42)) })
        })
        .with("test.Shell", || ProcessApplication::new(SimpleProcess))
        .with("test.Unmade", unmade)
        .run()
}

fn unmade() -> Subject {
    panic!("not today")
}

/// Tells what happens to it on a socket in its directory.
#[derive(Debug, Default)]
struct Subject {
    stop: StopFlag,
}

fn tell(context: &ApplicationContext, text: &str) {
    let socket = context.directory().join("told.sock");
    let mut socket = UnixStream::connect(socket).expect("the test listens");
    writeln!(socket, "{text}").expect("the test reads");
}

fn behaviour(context: &ApplicationContext) -> &str {
    context
        .description()
        .args
        .first()
        .map_or("", String::as_str)
}

#[async_trait]
impl Application for Subject {
    async fn start(&self, context: &ApplicationContext) -> Result<ExitState, ApplicationError> {
        let (id, attempt) = (context.app_id(), context.attempt());
        let (master, worker) = (context.master(), context.worker_id());
        tell(context, &format!("start {id} {attempt} {master} {worker}"));
        match behaviour(context) {
            "exit" => Ok(ExitState::Code(7)),
            "signal" => Ok(ExitState::Signal(9)),
            "error" => Err(ApplicationError::new("no luck")),
            "panic" => panic!("boom"),
            "abort" => std::process::abort(),
            "block" => {
                for _ in 0..256 {
                    tokio::spawn(async { block() });
                }
                block()
            }
            _ => {
                self.stop.raised().await;
                Ok(ExitState::SUCCESS)
            }
        }
    }

    async fn shutdown(&self, context: &ApplicationContext, reason: &ShutdownReason) {
        tell(context, &format!("shutdown: {reason}"));
        self.stop.raise(reason.clone());
        match behaviour(context) {
            "panic in shutdown" => panic!("boom"),
            "hang in shutdown" => std::future::pending().await,
            _ => {}
        }
    }

    async fn clean(&self, context: &ApplicationContext) {
        tell(context, "clean");
        if behaviour(context) == "panic in clean" {
            panic!("boom");
        }
    }
}

fn block() -> ! {
    loop {
        std::thread::park();
    }
}
