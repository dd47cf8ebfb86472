//! A master that leads: its core, who waits for its answers, and what waits for the store.

mod requests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aloha_rpc::{EndpointContext, RpcEndpointRef};
use tokio_util::sync::DropGuard;
use tracing::{debug, trace, warn};

use crate::clock;
use crate::election::{Leadership, Standing};
use crate::ids::WorkerId;
use crate::listeners::EventBus;
use crate::master::callers::{Callers, RefusedWorker};
use crate::master::effect::{Effect, Record, Reply, WorkerCommand};
use crate::master::endpoint::watch_standing;
use crate::master::event::Event;
use crate::master::held::Held;
use crate::master::store_writer::{Progress, StoreWriter, Trouble};
use crate::master::{MasterCore, MasterSettings, Stored};
use crate::messages::{MasterMessage, SubmitAnswer, WorkerMessage};
use crate::now::Now;
use crate::persistence::PersistenceEngine;

/// When somebody whose submission could not be taken should try again: by then the store was tried again too.
const RETRY_AFTER_MILLIS: u64 = 1_000;

/// Where a leader keeps its state.
#[derive(Debug)]
pub(in crate::master) struct Store {
    pub(in crate::master) engine: Arc<dyn PersistenceEngine>,
    pub(in crate::master) stored: Stored,
    /// How long submissions may wait for it before more are refused.
    pub(in crate::master) slow_after: Duration,
}

/// A master that leads.
#[derive(Debug)]
pub(in crate::master) struct Leader {
    core: MasterCore,
    callers: Callers,
    workers: HashMap<WorkerId, RpcEndpointRef<WorkerMessage>>,
    events: EventBus,
    /// The address of this master, as workers know it.
    address: String,
    /// In milliseconds since 1970.
    leading_since: u64,
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
pub(in crate::master) struct Deposed(pub(in crate::master) String);

impl Leader {
    /// Takes over.
    pub(in crate::master) fn new(
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
            leading_since: now.unix_millis(),
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

    pub(in crate::master) fn core(&self) -> &MasterCore {
        &self.core
    }

    /// Looks whether it still leads, and lets out what is stored by now.
    ///
    /// # Errors
    ///
    /// It does not lead any more: nothing it holds may be done.
    pub(in crate::master) fn look_around(
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
    pub(in crate::master) fn on_store_progress(
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
            self.callers.refuse_submission(*to, busy(refusal.clone()));
            if let Some(app) = app.clone() {
                self.tell(Event::SubmissionWithdrawn { app }, ctx);
            }
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
    pub(in crate::master) fn tell(&mut self, event: Event, ctx: &EndpointContext<MasterMessage>) {
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
    pub(in crate::master) async fn settle(&mut self) {
        if let Some(writer) = &mut self.writer
            && writer.settled().await
        {
            self.stored = self.pushed;
            self.release();
        }
    }
}

fn busy(reason: String) -> SubmitAnswer {
    SubmitAnswer::Busy {
        reason,
        retry_after_millis: RETRY_AFTER_MILLIS,
    }
}

fn now(ctx: &EndpointContext<MasterMessage>) -> Now {
    clock::now(&**ctx.env().runtime())
}
