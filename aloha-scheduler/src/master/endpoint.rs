//! The shell around [`MasterCore`]: messages and the timer in, effects out. All state has one writer, this endpoint.

use std::collections::HashMap;
use std::time::Duration;

use aloha_rpc::{
    EndpointContext, EndpointError, RpcAddress, RpcCallContext, RpcEndpoint, RpcEndpointRef,
    RpcEnv, SetupError,
};
use tokio::sync::broadcast;
use tracing::{debug, info, trace, warn};

use super::{Effect, Event, MasterCore, MasterSettings, Record, ReplyTo};
use crate::app::AppStatus;
use crate::attempt::AttemptReport;
use crate::client::MasterClient;
use crate::clock::{self, Alarm};
use crate::events::AlohaEvent;
use crate::ids::WorkerId;
use crate::messages::{
    KillAnswer, LocalOnly, LogAnswer, MASTER, MasterMessage, RegisterAnswer, SubmitAnswer,
    WorkerMessage,
};

/// The longest a caller may wait for the end of an application before it must ask again.
const PATIENCE_MAX: Duration = Duration::from_secs(60);
/// Events that a listener may fall behind before it misses some.
const EVENTS_BEHIND_MAX: usize = 1024;

/// The master's endpoint.
#[derive(Debug)]
pub struct Master {
    core: MasterCore,
    /// Callers who wait for an answer.
    callers: HashMap<ReplyTo, Caller>,
    next_caller: u64,
    workers: HashMap<WorkerId, RpcEndpointRef<WorkerMessage>>,
    events: broadcast::Sender<AlohaEvent>,
    alarm: Option<Alarm>,
}

#[derive(Debug)]
enum Caller {
    Register {
        call: RpcCallContext<RegisterAnswer>,
        id: WorkerId,
        /// How the worker was reached before, if it was.
        before: Option<RpcEndpointRef<WorkerMessage>>,
    },
    Heartbeat(RpcCallContext<()>),
    Report(RpcCallContext<()>),
    Submit(RpcCallContext<SubmitAnswer>),
    Kill(RpcCallContext<KillAnswer>),
    Wait(RpcCallContext<Option<AppStatus>>),
}

/// A master that runs in an environment of this process.
#[derive(Debug, Clone)]
pub struct MasterHandle {
    client: MasterClient,
    events: broadcast::Sender<AlohaEvent>,
}

impl MasterHandle {
    /// Asks the master, as clients elsewhere do.
    #[must_use]
    pub fn client(&self) -> &MasterClient {
        &self.client
    }

    /// What happens in the cluster from now on. A listener that falls 1,024 events behind misses some, and is
    /// told how many.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<AlohaEvent> {
        self.events.subscribe()
    }
}

impl Master {
    /// The usual settings. Without a store the epoch is the time in milliseconds: a later master has a higher one.
    #[must_use]
    pub fn default_settings(env: &RpcEnv) -> MasterSettings {
        MasterSettings::new(clock::now(&**env.runtime()).unix_millis())
    }

    /// Sets a master up in `env`, under the name [`MASTER`].
    ///
    /// # Errors
    ///
    /// The environment has a master already, or is shut down.
    pub fn start(env: &RpcEnv, settings: MasterSettings) -> Result<MasterHandle, SetupError> {
        let (events, _) = broadcast::channel(EVENTS_BEHIND_MAX);
        let master = Self {
            core: MasterCore::new(settings, clock::now(&**env.runtime())),
            callers: HashMap::new(),
            next_caller: 0,
            workers: HashMap::new(),
            events: events.clone(),
            alarm: None,
        };
        let client = MasterClient::new(env.setup_endpoint(MASTER, master)?);
        Ok(MasterHandle { client, events })
    }

    fn keep(&mut self, caller: Caller) -> ReplyTo {
        self.next_caller += 1;
        let token = ReplyTo(self.next_caller);
        self.callers.insert(token, caller);
        token
    }

    /// Tells the core what happened, and does what it says.
    fn tell(&mut self, event: Event, ctx: &EndpointContext<MasterMessage>) {
        for effect in self.core.handle(event, clock::now(&**ctx.env().runtime())) {
            match effect {
                // Recovery mode NONE, so far the only one, stores nothing.
                Effect::Persist(record) => {
                    if let Record::WorkerForgotten(id) = &record {
                        self.workers.remove(id);
                    }
                    trace!(?record, "not stored: recovery mode NONE");
                }
                Effect::Reply(to, reply) => self.reply(to, reply),
                Effect::Send(worker, command) => self.send(&worker, command, ctx),
                // Nobody listening is no error.
                Effect::Publish(event) => {
                    log_event(&event);
                    drop(self.events.send(event));
                }
            }
        }
        if let Some(alarm) = &self.alarm {
            alarm.set(self.core.next_deadline());
        }
    }

    fn send(
        &self,
        id: &WorkerId,
        command: super::WorkerCommand,
        ctx: &EndpointContext<MasterMessage>,
    ) {
        let Some(worker) = self.workers.get(id) else {
            return debug!(worker = %id, "no way to a worker");
        };
        let master = ctx
            .env()
            .address()
            .map(ToString::to_string)
            .unwrap_or_default();
        if let Err(error) = worker.send(WorkerMessage::Command { master, command }) {
            // It will register again, and is then told.
            warn!(worker = %id, %error, "cannot tell a worker");
        }
    }

    fn reply(&mut self, to: ReplyTo, reply: super::Reply) {
        use super::Reply;

        let Some(caller) = self.callers.remove(&to) else {
            return debug!(?to, "an answer that nobody waits for");
        };
        match (caller, reply) {
            (
                Caller::Register { call, .. },
                Reply::Registered {
                    epoch,
                    heartbeat_interval,
                },
            ) => {
                let heartbeat_millis =
                    u64::try_from(heartbeat_interval.as_millis()).unwrap_or(u64::MAX);
                call.reply(RegisterAnswer::Registered {
                    epoch,
                    heartbeat_millis,
                });
            }
            (Caller::Register { call, id, before }, Reply::Refused { reason }) => {
                match before {
                    Some(before) => drop(self.workers.insert(id, before)),
                    None => drop(self.workers.remove(&id)),
                }
                call.reply(RegisterAnswer::Refused { reason });
            }
            (Caller::Report(call), Reply::Acknowledged)
            | (Caller::Heartbeat(call), Reply::HeartbeatNoted) => call.reply(()),
            (Caller::Report(call), Reply::Refused { reason }) => {
                debug!(reason, "a report was refused");
                call.reply(());
            }
            (Caller::Submit(call), Reply::Submitted { app }) => {
                call.reply(SubmitAnswer::Accepted { app })
            }
            (Caller::Submit(call), Reply::SubmissionRefused(error)) => {
                call.reply(SubmitAnswer::Refused {
                    reason: error.to_string(),
                });
            }
            (
                Caller::Kill(call),
                Reply::Kill {
                    success, message, ..
                },
            ) => call.reply(KillAnswer { success, message }),
            (Caller::Wait(call), Reply::Status(status)) => call.reply(Some(*status)),
            (Caller::Wait(call), Reply::NoSuchApp(_)) => call.reply(None),
            (caller, reply) => warn!(?caller, ?reply, "an answer of the wrong kind"),
        }
    }

    fn on_report(
        &mut self,
        worker: WorkerId,
        report: AttemptReport,
        call: RpcCallContext<()>,
        ctx: &EndpointContext<MasterMessage>,
    ) {
        let reply = self.keep(Caller::Report(call));
        let event = match report {
            AttemptReport::Started { app, attempt } => Event::AttemptStarted {
                worker,
                app,
                attempt,
                reply,
            },
            AttemptReport::Ended {
                app,
                attempt,
                outcome,
            } => Event::AttemptEnded {
                worker,
                app,
                attempt,
                outcome,
                reply,
            },
        };
        self.tell(event, ctx);
    }

    /// Passes the question on to the worker, who answers the client itself.
    fn on_read_log(
        &self,
        app: crate::ids::AppId,
        request: crate::messages::LogRequest,
        call: RpcCallContext<LogAnswer>,
    ) {
        let Some(status) = self.core.status(&app) else {
            let reason = format!("there is no application {app}");
            return call.reply(LogAnswer::Unavailable { reason });
        };
        let Some(placement) = status.worker else {
            return call.reply(LogAnswer::Chunk {
                bytes: Vec::new(),
                next_offset: request.offset,
            });
        };
        let Some(worker) = self.workers.get(&placement.worker) else {
            let reason = format!(
                "{} is gone, and the output of {app} with it",
                placement.worker
            );
            return call.reply(LogAnswer::Unavailable { reason });
        };
        if let Err(error) = worker.forward(WorkerMessage::ReadLog { app, request, call }) {
            warn!(%error, "cannot pass a question about output on");
        }
    }

    fn worker_at(&self, address: &RpcAddress) -> Option<WorkerId> {
        let found = self
            .workers
            .iter()
            .find(|(_, worker)| worker.address().as_ref() == Some(address));
        found.map(|(id, _)| id.clone())
    }
}

impl RpcEndpoint for Master {
    type Message = MasterMessage;

    async fn on_start(
        &mut self,
        ctx: &EndpointContext<MasterMessage>,
    ) -> Result<(), EndpointError> {
        let me = ctx.self_ref().clone();
        self.alarm = Some(Alarm::new(&**ctx.env().runtime(), move || {
            // A master that is stopped needs no time.
            drop(me.send(MasterMessage::Own(LocalOnly(Event::Tick))));
        }));
        Ok(())
    }

    async fn receive(
        &mut self,
        message: MasterMessage,
        ctx: &EndpointContext<MasterMessage>,
    ) -> Result<(), EndpointError> {
        match message {
            MasterMessage::RegisterWorker {
                registration,
                worker,
                call,
            } => {
                let id = registration.id.clone();
                let before = self.workers.insert(id.clone(), worker);
                let reply = self.keep(Caller::Register { call, id, before });
                self.tell(
                    Event::WorkerRegistered {
                        registration,
                        reply,
                    },
                    ctx,
                );
            }
            MasterMessage::Heartbeat { id, worker, call } => {
                let reply = self.keep(Caller::Heartbeat(call));
                let stranger = !self.workers.contains_key(&id);
                if stranger {
                    // Only for as long as it takes to tell it to register.
                    self.workers.insert(id.clone(), worker);
                }
                let worker = id.clone();
                self.tell(Event::Heartbeat { worker, reply }, ctx);
                self.callers.remove(&reply);
                if stranger {
                    self.workers.remove(&id);
                }
            }
            MasterMessage::WorkerLeaving { id } => {
                self.tell(Event::WorkerLeaving { worker: id }, ctx)
            }
            MasterMessage::Report { id, report, call } => self.on_report(id, report, call, ctx),
            MasterMessage::Submit { description, call } => {
                let reply = self.keep(Caller::Submit(call));
                self.tell(Event::Submitted { description, reply }, ctx);
            }
            MasterMessage::Kill { app, call } => {
                let reply = self.keep(Caller::Kill(call));
                self.tell(Event::KillRequested { app, reply }, ctx);
            }
            MasterMessage::Status { app, call } => call.reply(self.core.status(&app)),
            MasterMessage::Wait {
                app,
                patience_millis,
                call,
            } => {
                let patience = Duration::from_millis(patience_millis).min(PATIENCE_MAX);
                let deadline = clock::now(&**ctx.env().runtime()).instant + patience;
                let reply = self.keep(Caller::Wait(call));
                self.tell(
                    Event::WaitRequested {
                        app,
                        reply,
                        deadline,
                    },
                    ctx,
                );
            }
            MasterMessage::Apps { call } => call.reply(self.core.apps()),
            MasterMessage::Workers { call } => {
                call.reply(self.core.workers(clock::now(&**ctx.env().runtime())))
            }
            MasterMessage::ReadLog { app, request, call } => self.on_read_log(app, request, call),
            MasterMessage::Own(LocalOnly(event)) => self.tell(event, ctx),
        }
        Ok(())
    }

    async fn on_disconnected(
        &mut self,
        remote: &RpcAddress,
        ctx: &EndpointContext<MasterMessage>,
    ) -> Result<(), EndpointError> {
        if let Some(worker) = self.worker_at(remote) {
            self.tell(Event::WorkerDisconnected { worker }, ctx);
        }
        Ok(())
    }
}

fn log_event(event: &AlohaEvent) {
    match event {
        AlohaEvent::AppStateChanged { id, to, status, .. } => {
            let message = status.message.as_deref();
            info!(app = %id, state = %to, attempt = status.attempt, message, "application");
        }
        AlohaEvent::AppRelaunched {
            id,
            attempt,
            reason,
        } => {
            info!(app = %id, attempt, reason, "application to be relaunched");
        }
        AlohaEvent::WorkerStateChanged { id, to, reason, .. } => {
            info!(worker = %id, state = %to, reason, "worker");
        }
    }
}
