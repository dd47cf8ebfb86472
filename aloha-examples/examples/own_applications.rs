//! Applications of one's own in one executable: a thread, and a process. Build it, start `aloha local`, and submit one:
//!
//! ```text
//! aloha submit --entry-point me.jrwang.app.SimpleContextThreadApp --lib $PWD/target/debug/examples/own_applications --follow -- 500
//! aloha submit --entry-point com.example.Checksum --lib $PWD/target/debug/examples/own_applications --follow -- /etc/hosts
//! ```
#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::process::{Command, ExitCode};
use std::time::Duration;

use aloha_scheduler::application::{
    Application, ApplicationContext, ApplicationError, ApplicationWithProcess, Applications,
    ExitState, ProcessApplication, ThreadApplication,
};

fn main() -> ExitCode {
    Applications::new()
        .with(
            "me.jrwang.app.SimpleContextThreadApp",
            simple_context_thread_app,
        )
        .with("com.example.Checksum", || ProcessApplication::new(Checksum))
        .run()
}

/// A thread that prints numbered lines with its context until it is told to end. Its argument is the pause between
/// them, in milliseconds.
fn simple_context_thread_app() -> impl Application {
    ThreadApplication::new(|context, stop| {
        let pause = match context.description().args.first() {
            Some(millis) => Duration::from_millis(millis.parse()?),
            None => Duration::from_secs(1),
        };
        let (id, attempt) = (context.app_id(), context.attempt());
        for number in 1_u64.. {
            println!("{number}: {id}, attempt {attempt}, of {}", context.master());
            if let Some(reason) = stop.wait_timeout(pause) {
                println!("told to end: {reason}");
                break;
            }
        }
        Ok(ExitState::SUCCESS)
    })
}

/// A process: `sha256sum` of the files in its arguments.
struct Checksum;

impl ApplicationWithProcess for Checksum {
    fn command(&self, context: &ApplicationContext) -> Result<Command, ApplicationError> {
        let files = &context.description().args;
        if files.is_empty() {
            return Err(ApplicationError::new("name at least one file"));
        }
        let mut command = Command::new("sha256sum");
        command.arg("--").args(files);
        Ok(command)
    }
}
