use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tracing::warn;

use super::{AlohaEventListener, ListenerError, ListenerSettings};
use crate::events::AlohaEvent;

/// The listener `command`: runs a program for each event, one at a time.
///
/// The program is executed as it is, without a shell. It gets the event as JSON on its standard input and what
/// matters of it in variables, its standard error is the master's. It runs in a process group of its own, all of
/// which is killed when its time is over.
#[derive(Debug)]
pub(super) struct CommandListener {
    program: PathBuf,
    timeout: Duration,
}

/// What became of one run of the program.
enum Run {
    Ended(ExitStatus),
    TimedOut,
}

impl CommandListener {
    pub(super) fn new(settings: &ListenerSettings) -> Result<Self, ListenerError> {
        let program = settings.command.clone().ok_or(ListenerError::NoCommand)?;
        let executable =
            |found: std::fs::Metadata| found.is_file() && found.permissions().mode() & 0o111 != 0;
        if !std::fs::metadata(&program).is_ok_and(executable) {
            return Err(ListenerError::NotExecutable { program });
        }
        Ok(Self {
            program,
            timeout: settings.command_timeout,
        })
    }

    fn run(&self, event: &AlohaEvent) -> io::Result<Run> {
        let json = serde_json::to_vec(event)?;
        // Of this run alone: the thread waits for nothing else.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let mut child = self.command(event).spawn()?;
            let ended = async {
                if let Some(mut stdin) = child.stdin.take() {
                    // One that does not care to read it may close it.
                    drop(stdin.write_all(&json).await);
                }
                child.wait().await
            };
            match tokio::time::timeout(self.timeout, ended).await {
                Ok(status) => status.map(Run::Ended),
                Err(_) => {
                    kill(&child);
                    child.wait().await.map(|_| Run::TimedOut)
                }
            }
        })
    }

    fn command(&self, event: &AlohaEvent) -> Command {
        let mut command = Command::new(&self.program);
        command
            .envs(variables(event))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        command
    }
}

/// Ends a program and what it started, unless that left its group.
fn kill(child: &Child) {
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    if let Some(group) = group {
        // It may have ended just now.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

impl AlohaEventListener for CommandListener {
    fn on_event(&mut self, event: &AlohaEvent) {
        let program = self.program.display();
        match self.run(event) {
            Ok(Run::Ended(status)) if status.success() => {}
            Ok(Run::Ended(status)) => warn!(%program, %status, "the command of a listener failed"),
            Ok(Run::TimedOut) => {
                let timeout = self.timeout;
                warn!(%program, ?timeout, "the command of a listener was killed, for it took too long");
            }
            Err(error) => warn!(%program, %error, "the command of a listener could not be run"),
        }
    }
}

/// What a script wants to know of an event without reading JSON.
fn variables(event: &AlohaEvent) -> Vec<(&'static str, String)> {
    let mut variables = match event {
        AlohaEvent::AppStateChanged {
            id,
            from,
            to,
            status,
        } => vec![
            ("ALOHA_EVENT", "AppStateChanged".to_owned()),
            ("ALOHA_EVENT_ID", id.to_string()),
            ("ALOHA_EVENT_NAME", status.name.clone()),
            ("ALOHA_EVENT_FROM", text(from.as_ref())),
            ("ALOHA_EVENT_TO", to.to_string()),
            ("ALOHA_EVENT_ATTEMPT", status.attempt.to_string()),
            ("ALOHA_EVENT_REASON", text(status.message.as_ref())),
        ],
        AlohaEvent::AppRelaunched {
            id,
            attempt,
            reason,
        } => vec![
            ("ALOHA_EVENT", "AppRelaunched".to_owned()),
            ("ALOHA_EVENT_ID", id.to_string()),
            ("ALOHA_EVENT_ATTEMPT", attempt.to_string()),
            ("ALOHA_EVENT_REASON", reason.clone()),
        ],
        AlohaEvent::WorkerStateChanged {
            id,
            from,
            to,
            reason,
        } => vec![
            ("ALOHA_EVENT", "WorkerStateChanged".to_owned()),
            ("ALOHA_EVENT_ID", id.to_string()),
            ("ALOHA_EVENT_FROM", text(from.as_ref())),
            ("ALOHA_EVENT_TO", to.to_string()),
            ("ALOHA_EVENT_REASON", reason.clone()),
        ],
        AlohaEvent::WorkerDrainChanged { id, to, reason } => vec![
            ("ALOHA_EVENT", "WorkerDrainChanged".to_owned()),
            ("ALOHA_EVENT_ID", id.to_string()),
            ("ALOHA_EVENT_TO", to.to_string()),
            ("ALOHA_EVENT_REASON", reason.clone()),
        ],
    };
    for (_, value) in &mut variables {
        // A variable cannot hold one.
        value.retain(|c| c != '\0');
    }
    variables
}

fn text(value: Option<&impl ToString>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}
