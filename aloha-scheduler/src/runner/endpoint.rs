//! The shell around [`RunnerCore`]: messages, signals, the ends of processes and the timer in, effects out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aloha_rpc::{EndpointContext, EndpointError, RpcAddress, RpcCallContext, RpcEndpoint};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::children::{Children, Left};
use super::core::{Effect, Event, RunnerCore};
use super::record::ExitFile;
use crate::application::{Application, ApplicationContext, ExitState, ShutdownReason};
use crate::attempt::Outcome;
use crate::clock::{self, Alarm};
use crate::messages::LocalOnly;

/// The name of a runner's endpoint, in an environment of its own.
pub(crate) const RUNNER: &str = "Runner";
/// How long an application may take to clean up.
const CLEAN_TIMEOUT: Duration = Duration::from_secs(10);

/// What a runner is told.
///
/// Runners outlive the upgrade of their worker, and a look-up wants equal types at both ends: this never changes. What
/// is new gets an endpoint of its own.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum RunnerMessage {
    /// Worker: I am here. Answered when the application has ended and that is on disk.
    Attach {
        /// Which attempt it means.
        attempt: u32,
        /// How it ended.
        call: RpcCallContext<Outcome>,
    },
    /// Worker: ask it to end, and end it when its grace is over.
    Stop {
        /// Why.
        reason: ShutdownReason,
        /// It was heard.
        call: RpcCallContext<()>,
    },
    /// Worker: end it at once.
    Kill {
        /// Why.
        reason: ShutdownReason,
        /// It was heard.
        call: RpcCallContext<()>,
    },
    /// The runner to itself.
    Own(LocalOnly<OwnEvent>),
}

/// What the runner's own tasks tell it.
#[derive(Debug)]
pub(crate) enum OwnEvent {
    /// The application returned.
    Returned(Result<ExitState, String>),
    /// Some process ended.
    ChildEnded,
    /// All of its output is written.
    OutputWritten,
    /// Somebody asks this process to end.
    Terminated,
    /// It has cleaned up.
    Cleaned(Outcome),
    /// The time has come.
    Tick,
}

pub(super) fn own(event: OwnEvent) -> RunnerMessage {
    RunnerMessage::Own(LocalOnly(event))
}

/// The runner's endpoint.
pub(super) struct Runner {
    core: RunnerCore,
    application: Arc<dyn Application>,
    context: ApplicationContext,
    children: Arc<Children>,
    exit: ExitFile,
    /// The workers that are there.
    workers: BTreeSet<RpcAddress>,
    /// Those who wait for the end.
    waiting: Vec<RpcCallContext<Outcome>>,
    /// Whether the application returned and all of its output is written.
    returned: bool,
    written: bool,
    alarm: Option<Alarm>,
    /// Told when all is over.
    over: Option<oneshot::Sender<()>>,
}

impl Runner {
    pub(super) fn new(
        core: RunnerCore,
        application: Arc<dyn Application>,
        context: ApplicationContext,
        children: Arc<Children>,
        exit: ExitFile,
        over: oneshot::Sender<()>,
    ) -> Self {
        Self {
            core,
            application,
            context,
            children,
            exit,
            workers: BTreeSet::new(),
            waiting: Vec::new(),
            returned: false,
            written: false,
            alarm: None,
            over: Some(over),
        }
    }

    /// Tells the core what happened, and does what it says.
    fn tell(&mut self, event: Event, ctx: &EndpointContext<RunnerMessage>) {
        for effect in self.core.handle(event, clock::now(&**ctx.env().runtime())) {
            match effect {
                Effect::Shutdown(reason) => {
                    let (application, context) =
                        (Arc::clone(&self.application), self.context.clone());
                    ctx.env().runtime().spawn(Box::pin(async move {
                        application.shutdown(&context, &reason).await;
                    }));
                }
                Effect::KillAll => {
                    if let Err(error) = self.children.kill() {
                        warn!(%error, "cannot kill some process of the application");
                    }
                }
                Effect::Finish(outcome) => self.finish(outcome, ctx),
            }
        }
        if let Some(alarm) = &self.alarm {
            alarm.set(self.core.next_deadline());
        }
    }

    /// Lets the application clean up; then its end is recorded.
    fn finish(&self, mut outcome: Outcome, ctx: &EndpointContext<RunnerMessage>) {
        let (application, context) = (Arc::clone(&self.application), self.context.clone());
        let me = ctx.self_ref().clone();
        let killed = matches!(outcome, Outcome::Signaled(9) | Outcome::Exited(137));
        if killed && self.children.ran_out_of_memory() {
            let limit_mib = self.context.description().memory_mib;
            outcome = Outcome::OutOfMemory { limit_mib };
        }
        self.children.leave_cgroup();
        ctx.env().runtime().spawn(Box::pin(async move {
            let cleaned = application.clean(&context);
            if tokio::time::timeout(CLEAN_TIMEOUT, cleaned).await.is_err() {
                warn!("the application took too long to clean up");
            }
            // A runner that is being shut down has no use for it.
            drop(me.send(own(OwnEvent::Cleaned(outcome))));
        }));
    }

    fn on_own(&mut self, event: OwnEvent, ctx: &EndpointContext<RunnerMessage>) {
        match event {
            OwnEvent::Returned(seen) => {
                self.returned = true;
                self.children.close_output();
                let leftovers = self.children.reap() == Left::Some;
                self.tell(Event::Returned { seen, leftovers }, ctx);
                self.look_whether_all_is_gone(ctx);
            }
            OwnEvent::ChildEnded => self.look_whether_all_is_gone(ctx),
            OwnEvent::OutputWritten => {
                self.written = true;
                self.look_whether_all_is_gone(ctx);
            }
            OwnEvent::Terminated => {
                self.tell(Event::StopRequested(ShutdownReason::RunnerStops), ctx)
            }
            OwnEvent::Cleaned(outcome) => self.on_cleaned(outcome, ctx),
            OwnEvent::Tick => self.tell(Event::Tick, ctx),
        }
    }

    fn look_whether_all_is_gone(&mut self, ctx: &EndpointContext<RunnerMessage>) {
        // Reaped in any case: it may be what the application waits for.
        let left = self.children.reap();
        if self.returned && self.written && left == Left::Nothing {
            self.tell(Event::AllGone, ctx);
        }
    }

    fn on_cleaned(&mut self, outcome: Outcome, ctx: &EndpointContext<RunnerMessage>) {
        info!(%outcome, "application ended");
        if let Err(error) = self.exit.write(&outcome) {
            error!(%error, %outcome, "cannot record how the application ended");
        }
        for call in self.waiting.drain(..) {
            call.reply(outcome.clone());
        }
        if let Some(over) = self.over.take() {
            // Who does not wait has gone already.
            let _ = over.send(());
        }
        ctx.stop();
    }
}

impl RpcEndpoint for Runner {
    type Message = RunnerMessage;

    async fn on_start(
        &mut self,
        ctx: &EndpointContext<RunnerMessage>,
    ) -> Result<(), EndpointError> {
        let me = ctx.self_ref().clone();
        let alarm = Alarm::new(&**ctx.env().runtime(), move || {
            drop(me.send(own(OwnEvent::Tick)));
        });
        alarm.set(self.core.next_deadline());
        self.alarm = Some(alarm);
        Ok(())
    }

    async fn receive(
        &mut self,
        message: RunnerMessage,
        ctx: &EndpointContext<RunnerMessage>,
    ) -> Result<(), EndpointError> {
        match message {
            RunnerMessage::Attach { attempt, call } => {
                if attempt != self.context.attempt() {
                    let mine = self.context.attempt();
                    call.send_failure(EndpointError::new(
                        "another attempt",
                        format!("this is attempt {mine}"),
                    ));
                    return Ok(());
                }
                self.workers.extend(call.sender_address());
                self.waiting.push(call);
                self.tell(Event::WorkerAttached, ctx);
            }
            RunnerMessage::Stop { reason, call } => {
                call.reply(());
                self.tell(Event::StopRequested(reason), ctx);
            }
            RunnerMessage::Kill { reason, call } => {
                call.reply(());
                self.tell(Event::KillRequested(reason), ctx);
            }
            RunnerMessage::Own(LocalOnly(event)) => self.on_own(event, ctx),
        }
        Ok(())
    }

    async fn on_disconnected(
        &mut self,
        remote: &RpcAddress,
        ctx: &EndpointContext<RunnerMessage>,
    ) -> Result<(), EndpointError> {
        if self.workers.remove(remote) && self.workers.is_empty() {
            info!("the worker is gone");
            self.tell(Event::WorkerDetached, ctx);
        }
        Ok(())
    }
}
