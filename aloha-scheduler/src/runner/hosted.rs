//! An application of the user's own type, in the user's own executable.

use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aloha_rpc::{EndpointContext, EndpointError, RpcEndpoint, RpcEnv};
use async_trait::async_trait;
use tokio::sync::watch;

use super::executable::find_executable;
use super::host_protocol::{Assignment, HOST, HostMessage, RUNNER_VARIABLE, address_for_others};
use crate::application::{
    AppProcess, Application, ApplicationContext, ApplicationError, ExitState, ShutdownReason,
    ask_to_end,
};

/// An [`Application`] whose type is in an executable among its libs, which runs as a process of the application: what it
/// does wrong ends that process, and not the one that hosts this.
///
/// The executable finds its way back through `ALOHA_RUNNER` in its environment, asks what it is to run, and hears of a
/// shutdown and the reason. One that never connects is a program like any other: it gets the signal of the description.
#[derive(Debug)]
pub struct HostedApplication {
    env: RpcEnv,
    host: Arc<Host>,
}

impl HostedApplication {
    /// Talks to the executable through `env`, which listens at a Unix domain socket. There it takes the name `Host`, so
    /// that one environment serves one such application.
    #[must_use]
    pub fn new(env: RpcEnv) -> Self {
        let host = Arc::default();
        Self { env, host }
    }
}

#[async_trait]
impl Application for HostedApplication {
    async fn start(&self, context: &ApplicationContext) -> Result<ExitState, ApplicationError> {
        let executable = find_executable(&context.description().libs)?;
        let Some(address) = address_for_others(&self.env) else {
            return Err(ApplicationError::new(
                "the environment of the runner does not listen",
            ));
        };
        let desk = Desk {
            assignment: Assignment::of(context).to_json()?,
            host: Arc::clone(&self.host),
        };
        let desk = self.env.setup_endpoint(HOST, desk)?;
        let mut command = Command::new(&executable);
        command.env(RUNNER_VARIABLE, address.to_string());
        let ended = match context.spawn(command).await {
            Ok(process) => {
                self.host.started(process.clone(), context);
                Ok(process.wait().await)
            }
            Err(cause) => Err(ApplicationError::new(format!(
                "cannot execute {}: {cause}",
                executable.display()
            ))),
        };
        self.env.stop(&desk);
        match self.host.lock().refusal.take() {
            Some(reason) => Err(ApplicationError::new(reason)),
            None => ended,
        }
    }

    async fn shutdown(&self, context: &ApplicationContext, reason: &ShutdownReason) {
        self.host.shut_down(reason, context);
    }
}

/// What is known of the executable.
#[derive(Debug, Default)]
struct Host {
    state: Mutex<State>,
    shutdown: watch::Sender<Option<ShutdownReason>>,
}

#[derive(Debug, Default)]
struct State {
    /// The process while only a signal reaches it.
    process: Option<AppProcess>,
    /// Whether it has asked for its assignment: from then on it hears the reason of a shutdown.
    is_connected: bool,
    /// Why it cannot run what it was given.
    refusal: Option<String>,
}

impl Host {
    fn started(&self, process: AppProcess, context: &ApplicationContext) {
        let mut state = self.lock();
        if !state.is_connected {
            state.process = Some(process);
        }
        if self.shutdown.borrow().is_some() {
            state.signal(context);
        }
    }

    fn connected(&self) {
        let mut state = self.lock();
        state.is_connected = true;
        state.process = None;
    }

    fn shut_down(&self, reason: &ShutdownReason, context: &ApplicationContext) {
        self.shutdown.send_replace(Some(reason.clone()));
        self.lock().signal(context);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Asks a process that does not hear of a shutdown otherwise; once.
    fn signal(&mut self, context: &ApplicationContext) {
        if let Some(process) = self.process.take() {
            ask_to_end(&process, context);
        }
    }
}

/// Answers the executable.
struct Desk {
    assignment: String,
    host: Arc<Host>,
}

impl RpcEndpoint for Desk {
    type Message = HostMessage;

    async fn receive(
        &mut self,
        message: HostMessage,
        context: &EndpointContext<HostMessage>,
    ) -> Result<(), EndpointError> {
        match message {
            HostMessage::Assignment(call) => {
                self.host.connected();
                call.reply(self.assignment.clone());
            }
            HostMessage::AwaitShutdown(call) => {
                let mut shutdown = self.host.shutdown.subscribe();
                context.spawn(async move {
                    tokio::select! {
                        biased;
                        reason = shutdown.wait_for(Option::is_some) => {
                            if let Some(reason) = reason.ok().and_then(|reason| reason.clone()) {
                                call.reply(reason);
                            }
                        }
                        () = call.cancelled() => {}
                    }
                });
            }
            HostMessage::CannotRun { reason, call } => {
                self.host.lock().refusal = Some(reason);
                call.reply(());
            }
        }
        Ok(())
    }
}
