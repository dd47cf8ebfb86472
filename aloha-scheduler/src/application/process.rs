//! Applications that are a process.

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tracing::warn;

use super::{
    AppProcess, Application, ApplicationContext, ApplicationError, ExitState, ShutdownReason,
};

/// An application that is a process: only its command is to be said.
///
/// [`ProcessApplication`] makes an [`Application`] of it: asked to end, its processes get the signal of the description.
pub trait ApplicationWithProcess: Send + Sync + 'static {
    /// The program and its arguments.
    ///
    /// # Errors
    ///
    /// The description makes no command.
    fn command(&self, context: &ApplicationContext) -> Result<Command, ApplicationError>;
}

/// An [`Application`] around the command of an [`ApplicationWithProcess`].
#[derive(Debug, Default)]
pub struct ProcessApplication<T> {
    command: T,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    process: Option<AppProcess>,
    is_asked: bool,
}

impl<T> ProcessApplication<T> {
    /// Runs what `command` says.
    pub fn new(command: T) -> Self {
        let state = Mutex::default();
        Self { command, state }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl<T: ApplicationWithProcess> Application for ProcessApplication<T> {
    async fn start(&self, context: &ApplicationContext) -> Result<ExitState, ApplicationError> {
        let command = self.command.command(context)?;
        let program = command.get_program().to_owned();
        let spawned = context.spawn(command).await;
        let process = spawned.map_err(|cause| {
            ApplicationError::new(format!("cannot execute {program:?}: {cause}"))
        })?;
        {
            let mut state = self.lock();
            state.process = Some(process.clone());
            if state.is_asked {
                // It was asked to end while the process was being started.
                ask_to_end(&process, context);
            }
        }
        Ok(process.wait().await)
    }

    async fn shutdown(&self, context: &ApplicationContext, _: &ShutdownReason) {
        let mut state = self.lock();
        state.is_asked = true;
        if let Some(process) = &state.process {
            ask_to_end(process, context);
        }
    }
}

/// Asks the processes of an application to end.
pub(crate) fn ask_to_end(process: &AppProcess, context: &ApplicationContext) {
    if let Err(error) = process.signal(context.description().stop.signal) {
        warn!(app = context.app_id(), %error, "cannot ask the application to end");
    }
}

/// The arguments, joined by blanks, as a script for `/bin/bash -c`.
#[derive(Debug, Clone, Copy, Default)]
pub struct SimpleProcess;

impl ApplicationWithProcess for SimpleProcess {
    fn command(&self, context: &ApplicationContext) -> Result<Command, ApplicationError> {
        let script = arguments(context)?.join(" ");
        let mut command = Command::new("/bin/bash");
        command.arg("-c").arg(script);
        Ok(command)
    }
}

/// The first argument is a program, the others are for it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Process;

impl ApplicationWithProcess for Process {
    fn command(&self, context: &ApplicationContext) -> Result<Command, ApplicationError> {
        let arguments = arguments(context)?;
        let mut command = Command::new(&arguments[0]);
        command.args(&arguments[1..]);
        Ok(command)
    }
}

/// The arguments of a description; the first is not empty.
fn arguments(context: &ApplicationContext) -> Result<&[String], ApplicationError> {
    let arguments = &context.description().args;
    match arguments.first() {
        Some(first) if !first.is_empty() => Ok(arguments),
        _ => Err(ApplicationError::new(format!(
            "{} needs a command in its arguments",
            context.description().entry_point
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::AppDescription;
    use crate::application::children::Children;

    #[tokio::test]
    async fn a_process_that_is_asked_to_end_before_it_runs_is_asked_when_it_does() {
        let description = AppDescription {
            args: vec!["tail".to_owned(), "-f".to_owned(), "/dev/null".to_owned()],
            ..AppDescription::default()
        };
        let host = Arc::new(Children::inheriting());
        let context = ApplicationContext::of_test(description, "/".into(), host);
        let application = ProcessApplication::new(Process);
        application
            .shutdown(&context, &ShutdownReason::Killed)
            .await;
        let ended = application.start(&context).await.expect("it runs");
        assert_eq!(ended, ExitState::Signal(15));
    }
}
