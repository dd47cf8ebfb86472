//! Applications that are a process.

use std::process::Command;

use async_trait::async_trait;
use tokio::sync::OnceCell;
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
    process: OnceCell<AppProcess>,
}

impl<T> ProcessApplication<T> {
    /// Runs what `command` says.
    pub fn new(command: T) -> Self {
        let process = OnceCell::new();
        Self { command, process }
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
        let process = self.process.get_or_init(async || process).await;
        Ok(process.wait().await)
    }

    async fn shutdown(&self, context: &ApplicationContext, _: &ShutdownReason) {
        let Some(process) = self.process.get() else {
            return;
        };
        if let Err(error) = process.signal(context.description().stop.signal) {
            warn!(app = context.app_id(), %error, "cannot ask the application to end");
        }
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
