//! A master that leads: its core, who waits for its answers, and what waits for the store.
//!
//! It may cease to lead at any moment without knowing it: the network may part it from the election, or its process may
//! be stopped for as long as somebody likes. While the election says that it is uncertain, or since the process stood
//! still until the store has taken a record of this epoch, it is *silent*: it decides and stores, and lets nothing out.
//! What it lets out in the moments between, when it should be silent and cannot know, does no harm, each for its reason:
//!
//! - **Records** carry the epoch, and a store refuses them once a newer one has begun.
//! - **Launches**, acceptances, acknowledged reports, and ends that are told, rest on records that were stored. A launch
//!   that is only repeated is of an attempt that the newer leader finds stored, on the same worker.
//! - **Kills and calls to register** carry the epoch, and a worker refuses them once it has heard of a newer one. One
//!   that has not is still registered here, and the attempt was not wanted when it was last known whose it is.
//! - **Heartbeats** that are acknowledged renew the worker's lease, on which the newer leader counts. It counts from when
//!   it began itself, and lets a whole timeout pass; the lease is counted from when the heartbeat was sent, and is a
//!   quarter shorter. So an acknowledgement may be wrong by that quarter. Nobody is silent for longer unnoticed: an
//!   election suspends who may have lost it before another may win it, and who stood still looks first.
//! - **Silence of workers** that this process could not hear for it stood still itself counts for nothing.
//! - **Answers that promise nothing**, as what runs, may be old: as old as the moment in which it ceased to lead.

mod calls;
mod pulse;
mod requests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aloha_rpc::{EndpointContext, RpcAddress, RpcEndpointRef};
use tokio_util::sync::DropGuard;
use tracing::{debug, info, trace, warn};

use crate::clock;
use crate::election::{Leadership, Standing};
use crate::ids::WorkerId;
use crate::listeners::EventBus;
use crate::master::callers::{Callers, RefusedWorker};
use crate::master::effect::{Effect, Record, Reply, WorkerCommand};
use crate::master::endpoint::watch_standing;
use crate::master::event::Event;
use crate::master::held::Held;
use crate::master::standby::Heir;
use crate::master::store_writer::{Progress, StoreWriter, Trouble};
use crate::master::{MasterCore, MasterSettings};
use crate::messages::{MasterMessage, SubmitAnswer, WORKER, WorkerMessage};
use crate::now::Now;
use crate::persistence::PersistenceEngine;

use self::calls::Calls;
use self::pulse::Pulse;

/// When somebody whose submission could not be taken should try again: by then the store was tried again too.
const RETRY_AFTER_MILLIS: u64 = 1_000;

/// Where a leader keeps its state.
#[derive(Debug)]
pub(in crate::master) struct Store {
    pub(in crate::master) engine: Arc<dyn PersistenceEngine>,
    /// How long submissions may wait for it before more are refused.
    pub(in crate::master) slow_after: Duration,
}

/// A master that leads.
#[derive(Debug)]
pub(in crate::master) struct Leader {
    core: MasterCore,
    callers: Callers,
    workers: BTreeMap<WorkerId, RpcEndpointRef<WorkerMessage>>,
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
    /// It stood still, and does not know whether it leads until this record is stored.
    doubtful_until: Option<u64>,
    pulse: Pulse,
    calls: Calls,
}

/// Why a leadership ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::master) struct Deposed(pub(in crate::master) String);

impl Leader {
    /// Takes over, with a store where the heir has a shadow.
    pub(in crate::master) fn new(
        settings: MasterSettings,
        heir: Heir,
        store: Option<Store>,
        events: EventBus,
        ctx: &EndpointContext<MasterMessage>,
    ) -> Self {
        let Heir {
            leadership,
            epoch,
            since,
            shadow,
        } = heir;
        let now = now(ctx);
        let (core, effects) = match shadow {
            None => (MasterCore::new(settings, now), Vec::new()),
            Some(shadow) => shadow.take_over(epoch, now),
        };
        let slow_after = store
            .as_ref()
            .map_or(Duration::MAX, |store| store.slow_after);
        let writer = store.map(|store| {
            let runtime = &**ctx.env().runtime();
            StoreWriter::start(runtime, store.engine, epoch, ctx.self_ref().clone())
        });
        let awaited = core.awaited().map(|worker| worker.id.clone());
        let calls = Calls::new(awaited, now.instant);
        let address = ctx.env().address().map(ToString::to_string);
        let mut this = Self {
            core,
            callers: Callers::default(),
            workers: BTreeMap::new(),
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
            doubtful_until: None,
            // It may have stood still since it began its epoch.
            pulse: Pulse::new(since),
            calls,
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
            if is_suspended {
                warn!(
                    "is not sure that it still leads: nothing is acknowledged or launched until it is"
                );
            } else {
                info!("is sure again that it leads");
            }
            self.is_suspended = is_suspended;
            self.release();
        }
        if self.writer.is_some()
            && let Some(gap) = self.pulse.beat(now(ctx).instant)
        {
            self.on_stood_still(gap, ctx);
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

    /// Another may lead by now. The store knows.
    fn on_stood_still(&mut self, gap: Duration, ctx: &EndpointContext<MasterMessage>) {
        warn!(?gap, "this master stood still");
        if let Some(writer) = &mut self.writer {
            self.pushed = writer.push([self.core.proof()]);
            self.doubtful_until = Some(self.pushed);
        }
        self.tell(Event::StoodStill { gap }, ctx);
    }

    /// Whether nothing may be let out for now.
    fn is_silent(&self) -> bool {
        self.is_suspended || self.doubtful_until.is_some()
    }

    /// When it wants to be [woken](Self::on_tick).
    pub(in crate::master) fn next_deadline(&self) -> Option<Instant> {
        // Without a store nobody else can lead, nor know better.
        let pulse = self.writer.as_ref().map(|_| self.pulse.next_deadline());
        // Who may let nothing out calls nobody, and would be woken for that over and over.
        let calls = self.calls.next_deadline().filter(|_| !self.is_silent());
        let deadlines = [self.core.next_deadline(), calls, pulse];
        deadlines.into_iter().flatten().min()
    }

    pub(in crate::master) fn on_tick(&mut self, ctx: &EndpointContext<MasterMessage>) {
        self.tell(Event::Tick, ctx);
        if !self.is_silent() {
            self.call_workers(ctx);
        }
    }

    /// Tells those workers to register that are due. One that does not hear it looks for a master by itself, later.
    fn call_workers(&mut self, ctx: &EndpointContext<MasterMessage>) {
        let core = &self.core;
        let awaited = || core.awaited().map(|worker| worker.id.clone());
        let due = self.calls.take_due(now(ctx).instant, awaited, |id| {
            core.awaited_worker(id).is_some()
        });
        let epoch = core.epoch();
        for worker in due.iter().filter_map(|id| core.awaited_worker(id)) {
            let (id, to) = (
                worker.id.clone(),
                RpcAddress::new(&worker.host, worker.port),
            );
            let (env, master) = (ctx.env().clone(), self.address.clone());
            ctx.spawn(async move {
                let command = WorkerCommand::Reregister { epoch };
                let command = WorkerMessage::Command { master, command };
                let called = match env.retrieve_endpoint_ref(&to, WORKER).await {
                    Ok(found) => found.send(command).map_err(|error| error.to_string()),
                    Err(error) => Err(error.to_string()),
                };
                if let Err(error) = called {
                    debug!(worker = %id, error, "a worker does not hear that there is a new leader");
                }
            });
        }
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
        if self.doubtful_until.is_some_and(|proof| proof <= stored) {
            warn!("this master still leads");
            self.doubtful_until = None;
        }
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
        if self.is_silent() {
            return false;
        }
        let is_kill = matches!(effect, Effect::Reply(_, Reply::Kill { .. }));
        effect.goes_ahead()
            || (self.held.is_empty() && rests_on <= self.stored)
            || (is_kill && self.trouble.is_some())
    }

    /// Lets out what may go by now.
    fn release(&mut self) {
        if self.is_silent() {
            return;
        }
        while let Some(effect) = self.held.pop(self.stored) {
            self.perform(effect);
        }
        if self.trouble.is_some() {
            // They go out, and are answered, whatever becomes of the store.
            for kill in self.held.take_kills() {
                self.perform(kill);
            }
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
        if let WorkerCommand::LaunchApp { app, attempt, .. } = &command
            && !self.core.is_placed_on(id, app, *attempt)
        {
            // It waited for the store, and was given up meanwhile: another may run elsewhere.
            return debug!(worker = %id, %app, attempt, "a launch came too late");
        }
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
            self.doubtful_until = None;
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
