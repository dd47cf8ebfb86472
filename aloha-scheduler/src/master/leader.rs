//! A master that leads: its core, who waits for its answers, and what waits for the store.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aloha_rpc::{EndpointContext, RpcAddress, RpcCallContext, RpcEndpointRef};
use tokio_util::sync::DropGuard;
use tracing::{debug, trace, warn};

use super::callers::{Caller, Callers, RefusedWorker};
use super::effect::{Effect, Record, Reply, WorkerCommand};
use super::endpoint::watch_standing;
use super::event::Event;
use super::held::Held;
use super::store_writer::{Progress, StoreWriter, Trouble};
use super::{MasterCore, MasterSettings, Stored};
use crate::app::{AppDescription, AppStatus};
use crate::attempt::AttemptReport;
use crate::clock;
use crate::election::{Leadership, Standing};
use crate::ids::{AppId, WorkerId};
use crate::listeners::EventBus;
use crate::messages::{
    LogAnswer, LogRequest, MasterMessage, RegisterAnswer, SubmitAnswer, WorkerMessage,
};
use crate::now::Now;
use crate::persistence::{PersistenceEngine, SETTLED_BYTES_MAX};
use crate::worker::WorkerRegistration;

/// Submissions that may wait for the store, and their bytes; more are refused.
const SUBMISSIONS_WAITING_MAX: usize = 16_384;
const SUBMISSION_BYTES_WAITING_MAX: usize = 64 << 20;

/// Where a leader keeps its state.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) engine: Arc<dyn PersistenceEngine>,
    pub(super) stored: Stored,
    /// How long submissions may wait for it before more are refused.
    pub(super) slow_after: Duration,
}

/// A master that leads.
#[derive(Debug)]
pub(super) struct Leader {
    core: MasterCore,
    callers: Callers,
    workers: HashMap<WorkerId, RpcEndpointRef<WorkerMessage>>,
    events: EventBus,
    /// The address of this master, as workers know it.
    address: String,
    writer: Option<StoreWriter>,
    held: Held,
    /// The records up to which all is durable, and the last that is to be.
    stored: u64,
    pushed: u64,
    /// Why nothing can be stored, if it cannot.
    trouble: Option<String>,
    slow_after: Duration,
    /// Dropped, it is given up.
    leadership: Leadership,
    _watching: DropGuard,
    is_suspended: bool,
}

/// Why a leadership ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Deposed(pub(super) String);

impl Leader {
    /// Takes over.
    pub(super) fn new(
        settings: MasterSettings,
        leadership: Leadership,
        store: Option<Store>,
        events: EventBus,
        ctx: &EndpointContext<MasterMessage>,
    ) -> Self {
        let (now, epoch) = (now(ctx), settings.epoch);
        let (core, effects, writer, slow_after) = match store {
            None => (
                MasterCore::new(settings, now),
                Vec::new(),
                None,
                Duration::MAX,
            ),
            Some(Store {
                engine,
                stored,
                slow_after,
            }) => {
                let (core, effects) = MasterCore::recover(settings, stored, now);
                let runtime = &**ctx.env().runtime();
                let writer = StoreWriter::start(runtime, engine, epoch, ctx.self_ref().clone());
                (core, effects, Some(writer), slow_after)
            }
        };
        let address = ctx.env().address().map(ToString::to_string);
        let mut this = Self {
            core,
            callers: Callers::default(),
            workers: HashMap::new(),
            events,
            address: address.unwrap_or_default(),
            writer,
            held: Held::default(),
            stored: 0,
            pushed: 0,
            trouble: None,
            slow_after,
            _watching: watch_standing(leadership.standing.clone(), ctx),
            leadership,
            is_suspended: false,
        };
        this.perform_all(effects, now);
        this
    }

    pub(super) fn core(&self) -> &MasterCore {
        &self.core
    }

    /// Looks whether it still leads, and lets out what is stored by now.
    ///
    /// # Errors
    ///
    /// It does not lead any more: nothing it holds may be done.
    pub(super) fn look_around(
        &mut self,
        ctx: &EndpointContext<MasterMessage>,
    ) -> Result<(), Deposed> {
        let standing = *self.leadership.standing.borrow();
        // A sender that is gone says nothing more, and has nothing left to say of a leadership.
        let is_lost = standing == Standing::Lost || self.leadership.standing.has_changed().is_err();
        if is_lost {
            return Err(Deposed("another master may lead now".to_owned()));
        }
        let is_suspended = standing == Standing::Suspended;
        if is_suspended != self.is_suspended {
            warn!(is_suspended, "the election is uncertain, or certain again");
            self.is_suspended = is_suspended;
            self.release();
        }
        if self
            .writer
            .as_ref()
            .is_some_and(StoreWriter::has_progressed)
        {
            self.on_store_progress(ctx)?;
        }
        Ok(())
    }

    /// The store is further than it was, or in trouble.
    pub(super) fn on_store_progress(
        &mut self,
        ctx: &EndpointContext<MasterMessage>,
    ) -> Result<(), Deposed> {
        let Some(writer) = &mut self.writer else {
            return Ok(());
        };
        let Progress { stored, trouble } = writer.progress();
        self.stored = stored;
        // What is stored is acknowledged, whatever became of the rest.
        self.release();
        match trouble {
            None => self.trouble = None,
            Some(Trouble::Fenced(reason)) => return Err(Deposed(reason)),
            Some(Trouble::Failing(reason)) => self.on_trouble(reason, ctx),
        }
        self.release();
        Ok(())
    }

    /// What is not stored yet may never be: whoever submitted it is told so, and must not find it running after all.
    fn on_trouble(&mut self, reason: String, ctx: &EndpointContext<MasterMessage>) {
        let refusal = format!("the master cannot store submissions: {reason}");
        self.trouble = Some(reason);
        let refused = self.held.take_submissions();
        for (to, app) in &refused {
            self.callers.refuse_submission(*to, refusal.clone());
            self.tell(Event::SubmissionWithdrawn { app: app.clone() }, ctx);
        }
        // The room of one may have been given to the next.
        self.held.drop_all_of(&refused);
        for kill in self.held.take_kills() {
            self.perform(kill);
        }
        let callers = &self.callers;
        self.held.prune(|to| callers.is_waiting(to));
    }

    /// Tells the core what happened, and does what it says.
    pub(super) fn tell(&mut self, event: Event, ctx: &EndpointContext<MasterMessage>) {
        let now = now(ctx);
        let effects = self.core.handle(event, now);
        self.perform_all(effects, now);
    }

    fn perform_all(&mut self, effects: Vec<Effect>, now: Now) {
        let mut records = Vec::new();
        // Records are numbered as they come, and handed over together.
        let mut last = self.pushed;
        for effect in effects {
            match effect {
                Effect::Persist(record) => {
                    if let Record::WorkerForgotten(id) = &record {
                        self.workers.remove(id);
                    }
                    if self.writer.is_some() {
                        records.push(record);
                        last += 1;
                    } else {
                        trace!(?record, "not stored: recovery mode NONE");
                    }
                }
                effect if self.may_go(&effect, last) => self.perform(effect),
                effect => self.held.push(effect, last, now.instant),
            }
        }
        if let Some(writer) = &mut self.writer {
            self.pushed = writer.push(records);
        }
    }

    fn may_go(&self, effect: &Effect, rests_on: u64) -> bool {
        if self.is_suspended {
            return false;
        }
        let is_kill = matches!(effect, Effect::Reply(_, Reply::Kill { .. }));
        effect.goes_ahead()
            || (self.held.is_empty() && rests_on <= self.stored)
            || (is_kill && self.trouble.is_some())
    }

    /// Lets out what may go by now.
    fn release(&mut self) {
        while !self.is_suspended
            && let Some(effect) = self.held.pop(self.stored)
        {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Persist(_) => unreachable!("records go to the writer"),
            Effect::Send(worker, command) => self.send(&worker, command),
            Effect::Publish(event) => self.events.publish(&event),
            Effect::Reply(to, reply) => {
                let reply = self.with_a_word_of_trouble(reply);
                if let Some(RefusedWorker { id, before }) = self.callers.answer(to, reply) {
                    match before {
                        Some(before) => drop(self.workers.insert(id, before)),
                        None => drop(self.workers.remove(&id)),
                    }
                }
            }
        }
    }

    fn with_a_word_of_trouble(&self, reply: Reply) -> Reply {
        match (reply, &self.trouble) {
            (
                Reply::Kill {
                    app,
                    success: true,
                    message,
                },
                Some(trouble),
            ) => Reply::Kill {
                app,
                success: true,
                message: format!(
                    "{message}; that is not stored, and a master that is restarted before it is knows nothing of it: \
                     {trouble}"
                ),
            },
            (reply, _) => reply,
        }
    }

    fn send(&self, id: &WorkerId, command: WorkerCommand) {
        let Some(worker) = self.workers.get(id) else {
            return debug!(worker = %id, "no way to a worker");
        };
        let master = self.address.clone();
        if let Err(error) = worker.send(WorkerMessage::Command { master, command }) {
            // It will register again, and is then told.
            warn!(worker = %id, %error, "cannot tell a worker");
        }
    }

    /// Waits until all is stored that is to be, and lets out what rests on it: the last thing a leader does.
    pub(super) async fn settle(&mut self) {
        if let Some(writer) = &mut self.writer
            && writer.settled().await
        {
            self.stored = self.pushed;
            self.release();
        }
    }

    // ---- what workers say ----------------------------------------------------------------------

    pub(super) fn on_register(
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

    pub(super) fn on_heartbeat(
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
        let worker = id.clone();
        self.tell(Event::Heartbeat { worker, reply }, ctx);
        // Not answered by now, it is not to be: an answer that is held back would be one of before.
        self.callers.remove(reply);
        if is_stranger {
            self.workers.remove(&id);
        }
    }

    pub(super) fn on_report(
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

    pub(super) fn on_disconnected(
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

    pub(super) fn on_submit(
        &mut self,
        description: AppDescription,
        call: RpcCallContext<SubmitAnswer>,
        ctx: &EndpointContext<MasterMessage>,
    ) {
        let bytes = description.text_bytes();
        if let Some(reason) = self.objection(bytes, now(ctx)) {
            return call.reply(SubmitAnswer::Refused { reason });
        }
        let reply = self.callers.keep(Caller::Submit { call, bytes });
        self.tell(Event::Submitted { description, reply }, ctx);
    }

    /// Why nothing so large can be taken on now, if it cannot.
    fn objection(&self, bytes: usize, now: Now) -> Option<String> {
        if self.is_suspended {
            return Some("this master is not sure that it still leads; try again".to_owned());
        }
        if let Some(trouble) = &self.trouble {
            return Some(format!("the master cannot store submissions: {trouble}"));
        }
        self.writer.as_ref()?;
        if bytes > SETTLED_BYTES_MAX {
            return Some(format!(
                "its description has {bytes} bytes, and the master stores at most {SETTLED_BYTES_MAX}"
            ));
        }
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

    pub(super) fn on_kill(
        &mut self,
        app: AppId,
        call: RpcCallContext<crate::messages::KillAnswer>,
        ctx: &EndpointContext<MasterMessage>,
    ) {
        let reply = self.callers.keep(Caller::Kill(call));
        self.tell(Event::KillRequested { app, reply }, ctx);
    }

    pub(super) fn on_wait(
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

    /// Passes the question on to the worker, who answers the client itself.
    pub(super) fn on_read_log(
        &self,
        app: AppId,
        request: LogRequest,
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
}

fn now(ctx: &EndpointContext<MasterMessage>) -> Now {
    clock::now(&**ctx.env().runtime())
}
