//! What workers say to a leader, and what clients ask of it.

use std::sync::Arc;
use std::time::Duration;

use aloha_rpc::{EndpointContext, RpcAddress, RpcCallContext, RpcEndpointRef};
use tracing::warn;

use super::{Leader, busy, now};
use crate::app::{AppDescription, AppStatus};
use crate::attempt::AttemptReport;
use crate::clock;
use crate::cluster_status::ClusterStatus;
use crate::drain::{DrainAnswer, DrainRequest};
use crate::ids::{AppId, WorkerId};
use crate::master::callers::Caller;
use crate::master::{Effect, Event, WorkerCommand};
use crate::messages::{
    KillAnswer, LogAnswer, LogRequest, MasterMessage, RegisterAnswer, SubmitAnswer, WorkerMessage,
};
use crate::now::Now;
use crate::persistence::DESCRIPTION_BYTES_MAX;
use crate::worker::WorkerRegistration;

/// The longest a caller may wait for the end of an application before it must ask again.
const PATIENCE_MAX: Duration = Duration::from_secs(60);
/// Submissions that may wait for the store, and their bytes; more are refused.
const SUBMISSIONS_WAITING_MAX: usize = 16_384;
const SUBMISSION_BYTES_WAITING_MAX: usize = 64 << 20;

impl Leader {
    pub(in crate::master) fn on_message(
        &mut self,
        message: MasterMessage,
        ctx: &EndpointContext<MasterMessage>,
    ) {
        match message {
            MasterMessage::RegisterWorker {
                registration,
                worker,
                call,
            } => self.on_register(registration, worker, call, ctx),
            MasterMessage::Heartbeat { id, worker, call } => {
                self.on_heartbeat(id, worker, call, ctx);
            }
            MasterMessage::WorkerLeaving { id } => {
                self.tell(Event::WorkerLeaving { worker: id }, ctx);
            }
            MasterMessage::Report { id, report, call } => self.on_report(id, report, call, ctx),
            MasterMessage::Submit {
                description,
                key,
                call,
            } => self.on_submit(description, key, call, ctx),
            MasterMessage::Kill { app, call } => self.on_kill(app, call, ctx),
            MasterMessage::Status { app, call } => call.reply(self.core().status(&app)),
            MasterMessage::Wait {
                app,
                patience_millis,
                call,
            } => {
                let patience = Duration::from_millis(patience_millis).min(PATIENCE_MAX);
                self.on_wait(app, patience, call, ctx);
            }
            MasterMessage::Apps { query, call } => call.reply(self.core().apps_page(&query)),
            MasterMessage::Cluster { call } => call.reply(self.cluster()),
            MasterMessage::KillAll { call } => {
                let reply = self.callers.keep(Caller::Count(call));
                self.tell(Event::KillAllRequested { reply }, ctx);
            }
            MasterMessage::Clear { call } => {
                let reply = self.callers.keep(Caller::Count(call));
                self.tell(Event::ClearRequested { reply }, ctx);
            }
            MasterMessage::Forget { app, call } => {
                let reply = self.callers.keep(Caller::Forget(call));
                self.tell(Event::ForgetRequested { app, reply }, ctx);
            }
            MasterMessage::Workers { call } => {
                let now = clock::now(&**ctx.env().runtime());
                call.reply(self.core().workers(now));
            }
            MasterMessage::ReadLog { app, request, call } => self.on_read_log(app, request, call),
            MasterMessage::Drain {
                worker,
                request,
                call,
            } => self.on_drain(&worker, request, call, ctx),
            MasterMessage::Own(_) | MasterMessage::AwaitLeader { .. } => {
                unreachable!("handled before")
            }
        }
    }

    // ---- what workers say ----------------------------------------------------------------------

    fn on_register(
        &mut self,
        registration: WorkerRegistration,
        worker: RpcEndpointRef<WorkerMessage>,
        call: RpcCallContext<RegisterAnswer>,
        ctx: &EndpointContext<MasterMessage>,
    ) {
        let id = registration.id.clone();
        let before = self.workers.insert(id.clone(), worker);
        let reply = self.callers.keep(Caller::Register { call, id, before });
        let event = Event::WorkerRegistered {
            registration,
            reply,
        };
        self.tell(event, ctx);
    }

    fn on_heartbeat(
        &mut self,
        id: WorkerId,
        worker: RpcEndpointRef<WorkerMessage>,
        call: RpcCallContext<()>,
        ctx: &EndpointContext<MasterMessage>,
    ) {
        let reply = self.callers.keep(Caller::Heartbeat(call));
        let is_stranger = !self.workers.contains_key(&id);
        if is_stranger {
            // Only for as long as it takes to tell it to register.
            self.workers.insert(id.clone(), worker);
        }
        let (worker, now) = (id.clone(), now(ctx));
        let mut effects = self.core.handle(Event::Heartbeat { worker, reply }, now);
        if !self.held.is_empty() {
            // What is said again with each heartbeat must not pile up where nothing gets out.
            effects.retain(|it| !matches!(it, Effect::Send(_, WorkerCommand::LaunchApp { .. })));
        }
        self.perform_all(effects, now);
        // Not answered by now, it is not to be: an answer that is held back would be one of before.
        self.callers.remove(reply);
        if is_stranger {
            self.workers.remove(&id);
        }
    }

    fn on_report(
        &mut self,
        worker: WorkerId,
        report: AttemptReport,
        call: RpcCallContext<()>,
        ctx: &EndpointContext<MasterMessage>,
    ) {
        let reply = self.callers.keep(Caller::Report(call));
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

    pub(in crate::master) fn on_disconnected(
        &mut self,
        remote: &RpcAddress,
        ctx: &EndpointContext<MasterMessage>,
    ) {
        let found = self
            .workers
            .iter()
            .find(|(_, worker)| worker.address().as_ref() == Some(remote));
        if let Some((id, _)) = found {
            let worker = id.clone();
            self.tell(Event::WorkerDisconnected { worker }, ctx);
        }
    }

    // ---- what clients ask ----------------------------------------------------------------------

    fn on_submit(
        &mut self,
        description: AppDescription,
        key: Option<String>,
        call: RpcCallContext<SubmitAnswer>,
        ctx: &EndpointContext<MasterMessage>,
    ) {
        let bytes = description.text_bytes();
        if self.writer.is_some() && bytes > DESCRIPTION_BYTES_MAX {
            let reason = format!(
                "its description has {bytes} bytes, and the master stores at most {DESCRIPTION_BYTES_MAX}"
            );
            return call.reply(SubmitAnswer::Refused { reason });
        }
        if let Some(reason) = self.objection(bytes, now(ctx)) {
            return call.reply(busy(reason));
        }
        let reply = self.callers.keep(Caller::Submit { call, bytes });
        let event = Event::Submitted {
            description: Arc::new(description),
            key,
            reply,
        };
        self.tell(event, ctx);
    }

    /// Why nothing of so many bytes can be taken on now, if it cannot.
    fn objection(&self, bytes: usize, now: Now) -> Option<String> {
        if let Some(doubt) = self.doubt() {
            return Some(format!("{doubt}; try again"));
        }
        if let Some(trouble) = &self.trouble {
            return Some(format!("the master cannot store submissions: {trouble}"));
        }
        self.writer.as_ref()?;
        let waited = self
            .held
            .since()
            .map(|since| now.instant.saturating_duration_since(since));
        if let Some(waited) = waited.filter(|waited| *waited > self.slow_after) {
            let waited = waited.as_secs_f64();
            return Some(format!(
                "the master's disk is slow: what came before has waited {waited:.1} s to be stored; try again later"
            ));
        }
        let (count, waiting) = self.callers.submissions();
        if count >= SUBMISSIONS_WAITING_MAX || waiting + bytes > SUBMISSION_BYTES_WAITING_MAX {
            return Some(format!(
                "the master's disk is behind: {count} submissions with {waiting} bytes wait to be stored; try again later"
            ));
        }
        None
    }

    fn on_kill(
        &mut self,
        app: AppId,
        call: RpcCallContext<KillAnswer>,
        ctx: &EndpointContext<MasterMessage>,
    ) {
        let reply = self.callers.keep(Caller::Kill(call));
        self.tell(Event::KillRequested { app, reply }, ctx);
    }

    fn on_drain(
        &mut self,
        worker: &str,
        request: DrainRequest,
        call: RpcCallContext<DrainAnswer>,
        ctx: &EndpointContext<MasterMessage>,
    ) {
        let worker = match self.core().find_worker(worker) {
            Ok(worker) => worker,
            Err(reason) => return call.reply(DrainAnswer::NoSuchWorker { reason }),
        };
        if request == DrainRequest::Look {
            // It promises nothing, and need not wait for the store.
            return call.reply(self.core().drain_answer(&worker));
        }
        let reply = self.callers.keep(Caller::Drain(call));
        let event = Event::DrainRequested {
            worker,
            request,
            reply,
        };
        self.tell(event, ctx);
    }

    fn on_wait(
        &mut self,
        app: AppId,
        patience: Duration,
        call: RpcCallContext<Option<AppStatus>>,
        ctx: &EndpointContext<MasterMessage>,
    ) {
        let deadline = now(ctx).instant + patience;
        let reply = self.callers.keep(Caller::Wait(call));
        let event = Event::WaitRequested {
            app,
            reply,
            deadline,
        };
        self.tell(event, ctx);
    }

    /// Why it may let nothing out for now, if so.
    fn doubt(&self) -> Option<&'static str> {
        self.is_silent()
            .then_some("this master is not sure that it still leads")
    }

    fn cluster(&self) -> ClusterStatus {
        // What is the matter with the store says more.
        let doubt = || self.doubt().map(str::to_owned);
        ClusterStatus {
            master: self.address.clone(),
            leading_since: self.leading_since,
            store_trouble: self.trouble.clone().or_else(doubt),
            ..self.core.cluster()
        }
    }

    /// Passes the question on to the worker, who answers the client itself.
    fn on_read_log(&self, app: AppId, request: LogRequest, call: RpcCallContext<LogAnswer>) {
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
}
