//! A worker that is drained takes nothing new, what it has ends or moves, and then it leaves.
//!
//! The drain is stored with the worker, and that an attempt is ended for it with its application: whoever leads next
//! goes on. What is moved was reported ended before it is placed elsewhere, so it never lives twice, and that it was
//! stopped counts for nothing. A worker shows as LEAVING meanwhile, which clients of any version know.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tracing::info;

use super::apps::AppRecord;
use super::core::MasterCore;
use super::effect::{Effect, Record, Reply, WorkerCommand};
use super::event::ReplyTo;
use super::workers::{Worker, WorkerState};
use crate::app::{AppPhase, AppState};
use crate::drain::{
    Drain, DrainAnswer, DrainFate, DrainMode, DrainPhase, DrainRequest, DrainStatus, LeftApp,
};
use crate::events::AlohaEvent;
use crate::ids::{AppId, WorkerId};
use crate::now::Now;

/// When what is left on workers is ended or moved. A drain that has such a time and none here is past it.
pub(super) type DrainTimeouts = BTreeMap<WorkerId, Instant>;

impl MasterCore {
    /// The worker that a user means: by its id, or else by where it is reached. One that is dead is meant only where no
    /// other is.
    ///
    /// # Errors
    ///
    /// There is none, or more than one.
    pub fn find_worker(&self, text: &str) -> Result<WorkerId, String> {
        if let Some((_, worker)) = self
            .workers
            .iter()
            .find(|(_, w)| w.record.id.as_str() == text)
        {
            return Ok(worker.record.id.clone());
        }
        let there = self
            .workers
            .iter()
            .filter(|(_, w)| w.record.address() == text);
        let (dead, alive): (Vec<_>, Vec<_>) = there.map(|(_, w)| w).partition(|w| w.is_dead());
        let mut found: Vec<_> = if alive.is_empty() { dead } else { alive }
            .into_iter()
            .map(|worker| worker.record.id.clone())
            .collect();
        found.sort_unstable();
        match found.as_slice() {
            [] => Err(format!("there is no worker {text}")),
            [one] => Ok(one.clone()),
            several => {
                let ids: Vec<_> = several.iter().map(WorkerId::as_str).collect();
                let ids = ids.join(", ");
                Err(format!("there is more than one worker at {text}: {ids}"))
            }
        }
    }

    pub(super) fn on_drain_requested(
        &mut self,
        id: &WorkerId,
        request: DrainRequest,
        reply: ReplyTo,
        now: Now,
    ) {
        match request {
            DrainRequest::Begin {
                mode,
                timeout_millis,
            } => self.begin_drain(id, mode, timeout_millis, now),
            DrainRequest::Cancel => self.cancel_drain(id),
            DrainRequest::Look => {}
        }
        let answer = self.drain_answer(id);
        self.reply(reply, Reply::Drain(answer));
    }

    /// How the drain of a worker stands.
    pub fn drain_answer(&self, id: &WorkerId) -> DrainAnswer {
        match self.workers.get(id) {
            Some(worker) => DrainAnswer::Drain(self.drain_status(worker)),
            None => DrainAnswer::NoSuchWorker {
                reason: format!("there is no worker {id}"),
            },
        }
    }

    fn begin_drain(
        &mut self,
        id: &WorkerId,
        mode: DrainMode,
        timeout_millis: Option<u64>,
        now: Now,
    ) {
        let is_open = |w: &Worker| !w.is_dead() && !w.leaves_by_itself;
        if !self.workers.get(id).is_some_and(is_open) {
            return; // there is nothing to drain, and the answer says so
        }
        info!(worker = %id, %mode, ?timeout_millis, "worker is drained");
        let drain = Drain {
            mode,
            since: now.unix_millis(),
            timeout_millis,
        };
        self.set_drain_timeout(id, &drain, now);
        let reason = match (mode, timeout_millis) {
            (mode, None) => format!("{mode}, without a timeout"),
            (mode, Some(millis)) => format!("{mode}, within {:?}", Duration::from_millis(millis)),
        };
        self.store_drain(id, Some(drain), DrainPhase::Draining, reason);
        if self.workers.state(id) == Some(WorkerState::Alive) {
            let from = self.workers.set_state(id, WorkerState::Leaving);
            self.publish_worker(id, from, "is drained");
        }
        self.go_on_draining(id, now);
    }

    /// What was moved, or is being, stays so.
    fn cancel_drain(&mut self, id: &WorkerId) {
        let is_drained = |w: &Worker| w.record.drain.is_some();
        if !self.workers.get(id).is_some_and(is_drained) {
            return;
        }
        info!(worker = %id, "worker is drained no more");
        self.drain_timeouts.remove(id);
        self.store_drain(id, None, DrainPhase::None, "called off".to_owned());
        let comes_back = |w: &Worker| w.state == WorkerState::Leaving && !w.leaves_by_itself;
        if self.workers.get(id).is_some_and(comes_back) {
            let from = self.workers.set_state(id, WorkerState::Alive);
            self.publish_worker(id, from, "is drained no more");
        }
    }

    fn store_drain(&mut self, id: &WorkerId, drain: Option<Drain>, to: DrainPhase, reason: String) {
        self.workers.set_drain(id, drain);
        if let Some(worker) = self.workers.get(id) {
            let record = Record::Worker(worker.record.clone());
            self.effects.push(Effect::Persist(record));
        }
        self.publish_drain(id, to, reason);
    }

    fn publish_drain(&mut self, id: &WorkerId, to: DrainPhase, reason: String) {
        let id = id.clone();
        let event = AlohaEvent::WorkerDrainChanged { id, to, reason };
        self.effects.push(Effect::Publish(event));
    }

    /// A drain that was stored goes on, for no longer than it was meant to take.
    pub(super) fn set_drain_timeout(&mut self, id: &WorkerId, drain: &Drain, now: Now) {
        let until = drain.until().zip(drain.timeout_millis);
        let at = until.and_then(|(until, nominal)| {
            let left = until.saturating_sub(now.unix_millis()).min(nominal);
            now.instant.checked_add(Duration::from_millis(left))
        });
        match at {
            Some(at) => self.drain_timeouts.insert(id.clone(), at),
            None => self.drain_timeouts.remove(id),
        };
    }

    /// Ends what was to be over by now.
    pub(super) fn on_drain_timeouts(&mut self, now: Now) {
        let due = self
            .drain_timeouts
            .iter()
            .filter(|(_, at)| **at <= now.instant);
        let due: Vec<_> = due.map(|(id, _)| id.clone()).collect();
        for id in due {
            self.drain_timeouts.remove(&id);
            info!(worker = %id, "the drain of a worker is at its timeout");
            self.go_on_draining(&id, now);
        }
    }

    /// Whether what is left on a worker is ended or moved, for its time is over.
    fn is_overdue(&self, worker: &Worker) -> bool {
        let drain = worker.record.drain.as_ref();
        drain.is_some_and(|drain| drain.timeout_millis.is_some())
            && !self.drain_timeouts.contains_key(&worker.record.id)
    }

    /// Stops what is to go from a worker that is drained, and lets it leave once nothing is left. A worker that is away is
    /// told when it is back.
    pub(super) fn go_on_draining(&mut self, id: &WorkerId, now: Now) {
        let Some(worker) = self.workers.get(id) else {
            return;
        };
        let Some(drain) = worker.record.drain.as_ref() else {
            return;
        };
        if worker.state != WorkerState::Leaving {
            return;
        }
        let (mode, overdue) = (drain.mode, self.is_overdue(worker));
        let goes = |app: &AppRecord| {
            let moves = app.description.survives_its_worker() && mode == DrainMode::Move;
            let is_there = matches!(app.phase(), AppPhase::Launching | AppPhase::Running);
            is_there && (overdue || moves) && !app.kill_requested && !app.evicted
        };
        for app in self.apps_on(id) {
            let Some(attempt) = self
                .apps
                .get(&app)
                .filter(|app| goes(app))
                .map(|app| app.attempt)
            else {
                continue;
            };
            self.apps.update(&app, |app| app.evicted = true);
            self.persist_app(&app);
            self.send_kill(id, &app, attempt);
        }
        self.let_go_if_done(id, now);
    }

    /// Tells a worker to leave on which nothing is left. One of an earlier version does not understand that, and stays
    /// until it is stopped.
    pub(super) fn tell_to_leave(&mut self, id: &WorkerId) {
        let epoch = self.settings.epoch;
        let command = WorkerCommand::Leave { epoch };
        self.effects.push(Effect::Send(id.clone(), command));
        if self.workers.note_told_to_leave(id) {
            info!(worker = %id, "nothing is left on a worker, told it to leave");
            self.publish_drain(id, DrainPhase::Drained, "nothing is left".to_owned());
        }
    }

    fn drain_status(&self, worker: &Worker) -> DrainStatus {
        let (record, drain) = (&worker.record, worker.record.drain.as_ref());
        let phase = match (worker.state, drain) {
            (WorkerState::Dead, _) => DrainPhase::Gone,
            (_, None) => DrainPhase::None,
            (WorkerState::Leaving, Some(_)) if worker.is_idle() => DrainPhase::Drained,
            (_, Some(_)) => DrainPhase::Draining,
        };
        let mut left: Vec<_> = worker
            .attempts()
            .map(|(app, attempt)| LeftApp {
                id: app.clone(),
                fate: self.fate_of(app, *attempt),
            })
            .collect();
        left.dedup_by(|one, two| one.id == two.id);
        let reason = moved_from(&record.id);
        let was_moved = |app: &&AppRecord| matches!(&app.state, AppState::Relaunching { reason: why, .. } if *why == reason);
        let waiting = match phase {
            DrainPhase::None => Vec::new(),
            _ => self
                .apps
                .iter()
                .filter(was_moved)
                .map(|app| app.id.clone())
                .collect(),
        };
        let mut status = DrainStatus {
            worker: record.id.clone(),
            address: record.address(),
            state: worker.state,
            phase,
            mode: drain.map(|drain| drain.mode),
            until: drain.and_then(Drain::until),
            left,
            waiting,
            message: String::new(),
        };
        status.waiting.sort_unstable();
        status.message = self.drain_message(&status, worker.leaves_by_itself);
        status
    }

    fn drain_message(&self, status: &DrainStatus, leaves_by_itself: bool) -> String {
        let id = &status.worker;
        let count = |count: usize| match count {
            1 => "1 application".to_owned(),
            count => format!("{count} applications"),
        };
        let mut text = match (status.phase, status.state) {
            (DrainPhase::Gone, _) => format!("{id} is gone; nothing is left on it"),
            (DrainPhase::None, _) if leaves_by_itself => {
                format!("{id} is being stopped, and leaves by itself")
            }
            (DrainPhase::None, _) => format!("{id} is not being drained"),
            (DrainPhase::Draining, WorkerState::Disconnected) => format!(
                "{id} is disconnected; its drain goes on when it is back, and if it is lost its applications go \
                 elsewhere or end as with any worker that is lost"
            ),
            (DrainPhase::Draining, _) => format!("{} left on {id}", count(status.left.len())),
            (DrainPhase::Drained, _) => format!("nothing is left on {id}, which was told to leave"),
        };
        if let Some(first) = status.waiting.first() {
            let verb = if status.waiting.len() == 1 {
                "waits"
            } else {
                "wait"
            };
            let apps = count(status.waiting.len());
            text += &format!("; {apps} {verb} for room elsewhere");
            let why = self.apps.get(first).and_then(|app| self.why_waiting(app));
            if let Some(why) = why {
                text += &format!(" ({first}: {why})");
            }
        }
        text
    }

    fn fate_of(&self, app: &AppId, attempt: u32) -> DrainFate {
        match self.apps.get(app) {
            Some(app) if app.attempt == attempt && !app.phase().is_final() => {
                match (app.evicted, app.description.survives_its_worker()) {
                    (_, _) if app.kill_requested => DrainFate::Ending,
                    (true, true) => DrainFate::Moving,
                    (true, false) => DrainFate::Ending,
                    (false, _) => DrainFate::RunsOn,
                }
            }
            // What is not wanted any more is being ended.
            Some(_) | None => DrainFate::Ending,
        }
    }
}

/// Why an application runs again that was moved.
pub(super) fn moved_from(worker: &WorkerId) -> String {
    format!("moved off {worker}, which is drained")
}
