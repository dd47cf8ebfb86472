use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::attempts::{AttemptKey, Attempts, Cause, Ending, Held, Stage};
use super::effect::{Effect, ExitReason, Signal};
use super::event::{Event, FoundApp, FoundState};
use super::lease::Lease;
use super::registration::{Backoff, Registration};
use crate::app::AppDescription;
use crate::application::ShutdownReason;
use crate::attempt::{AttemptReport, Outcome};
use crate::constraint::Attributes;
use crate::ids::{AppId, WorkerId};
use crate::master::WorkerCommand;
use crate::now::Now;
use crate::resources::Resources;
use crate::runner::CgroupSupport;

/// However long applications may take to end, a worker that is to stop waits no longer for them.
const GIVE_UP_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What a worker is told at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerSettings {
    /// Its id.
    pub id: WorkerId,
    /// The host it is reached at.
    pub host: String,
    /// The port it is reached at.
    pub port: u16,
    /// What it has for applications.
    pub offers: Resources,
    /// What of their resources it enforces.
    pub enforces: CgroupSupport,
    /// What it is or has besides, for constraints.
    pub attributes: Attributes,
    /// The addresses of the masters, one of which leads.
    pub masters: Vec<String>,
    /// How it goes about finding that one.
    pub backoff: Backoff,
    /// How long an application has to end by itself once asked, before it is killed.
    pub kill_grace: Duration,
    /// How many attempts are remembered after the master acknowledged their end.
    pub retained_apps: usize,
    /// Whether applications that may be started elsewhere are stopped in time where no master answers
    /// (`aloha.worker.stopWhenCutOff`): the timeout that a master is taken to have (`aloha.worker.timeout`) until one
    /// says. `None` for letting them run on.
    pub cut_off_timeout: Option<Duration>,
}

/// A stop that is under way.
#[derive(Debug)]
pub(super) struct Stopping {
    reason: ExitReason,
    /// When to stop waiting for what is left.
    give_up_at: Instant,
}

/// The mind of a worker: events and the time in, effects out.
#[derive(Debug)]
pub struct WorkerCore {
    pub(super) settings: WorkerSettings,
    pub(super) registration: Registration,
    /// How many masters besides those it was told of at its start have called it.
    pub(super) learnt: usize,
    /// How many masters it was told of at its start. The others follow them in the settings.
    pub(super) configured: usize,
    /// The newest epoch any master has shown; what is older is refused.
    pub(super) epoch: u64,
    pub(super) attempts: Attempts,
    /// Until when applications that may be started elsewhere run here, if there is an end to that.
    pub(super) lease: Option<Lease>,
    /// Attempts that began to run while there was no master to tell.
    started_unsaid: BTreeSet<AttemptKey>,
    pub(super) stopping: Option<Stopping>,
    exited: bool,
    pub(super) effects: Vec<Effect>,
}

impl WorkerCore {
    /// A worker that has not yet looked for a master.
    pub fn new(mut settings: WorkerSettings) -> Self {
        if let Some(timeout) = settings.cut_off_timeout {
            // A master that comes back in time is to be found in time.
            let max = timeout / 8;
            let Backoff {
                answer_within,
                pause_max,
                ..
            } = &mut settings.backoff;
            (*answer_within, *pause_max) = (max.min(*answer_within), max.min(*pause_max));
        }
        Self {
            attempts: Attempts::new(settings.offers, settings.retained_apps),
            configured: settings.masters.len(),
            learnt: 0,
            settings,
            registration: Registration::Idle,
            epoch: 0,
            lease: None,
            started_unsaid: BTreeSet::new(),
            stopping: None,
            exited: false,
            effects: Vec::new(),
        }
    }

    /// Applies one event and returns what must follow, in order. After an [`Effect::Exit`] nothing does.
    #[must_use = "effects do nothing until the shell performs them"]
    pub fn handle(&mut self, event: Event, now: Now) -> Vec<Effect> {
        if self.exited {
            return Vec::new();
        }
        let now = now.instant;
        match event {
            Event::AppFound(found) => self.on_app_found(found),
            Event::Started => self.on_started(now),
            Event::RegistrationAnswered {
                master,
                answer,
                sent,
            } => self.on_registration_answered(master, answer, sent, now),
            Event::HeartbeatAcknowledged { master, sent } => {
                if self.registration.master() == Some(&master) {
                    self.renew_lease(sent);
                }
            }
            Event::MasterDisconnected { master } => self.on_master_disconnected(&master, now),
            Event::MasterSteppedDown { master } => self.on_master_stepped_down(&master, now),
            Event::Commanded { master, command } => self.on_commanded(&master, command, now),
            Event::AppStarted { app, attempt } => self.on_app_started(app, attempt),
            Event::AppExited {
                app,
                attempt,
                outcome,
            } => self.on_app_exited((app, attempt), outcome, now),
            Event::ReportAcknowledged { app, attempt } => {
                if self.attempts.acknowledge(&(app.clone(), attempt)) {
                    self.effects.push(Effect::Settle { app, attempt });
                }
            }
            Event::StopRequested { stop_apps } => self.on_stop_requested(stop_apps, now),
            Event::Tick => self.on_tick(now),
        }
        self.exit_when_done();
        std::mem::take(&mut self.effects)
    }

    /// When the shell should send the next [`Event::Tick`], if ever. Changes with every event.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.exited {
            return None;
        }
        let give_up = self.stopping.as_ref().map(|stopping| stopping.give_up_at);
        [
            self.registration.next_deadline(),
            self.attempts.next_deadline(),
            self.lease.and_then(|lease| lease.next_deadline()),
            give_up,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Where it stands with its masters.
    pub fn registration(&self) -> &Registration {
        &self.registration
    }

    /// What its applications occupy.
    pub fn used(&self) -> Resources {
        self.attempts.used()
    }

    fn on_app_found(&mut self, found: FoundApp) {
        let FoundApp {
            app,
            attempt,
            description,
            state,
        } = found;
        let key = (app, attempt);
        if self.attempts.is_known(&key) {
            return;
        }
        match state {
            FoundState::Running => self.attempts.insert(
                key,
                Held {
                    epoch: 0,
                    grace: description.stop.grace(self.settings.kill_grace),
                    stage: Stage::Running,
                    ending: None,
                    description,
                },
            ),
            FoundState::Ended(outcome) => self.attempts.spool(key, outcome),
            FoundState::Settled => self.attempts.settle(key),
        }
    }

    fn on_started(&mut self, now: Instant) {
        if self.registration == Registration::Idle {
            self.settings.enforces.log();
            let timeout = self.settings.cut_off_timeout;
            self.lease = timeout.map(|timeout| Lease::at_start(timeout, now));
            self.search(0, now);
        }
    }

    fn on_commanded(&mut self, master: &str, command: WorkerCommand, now: Instant) {
        match command {
            WorkerCommand::LaunchApp {
                epoch,
                app,
                attempt,
                description,
            } => {
                if self.accepts(master, epoch) {
                    self.on_launch((app, attempt), description, epoch, now);
                }
            }
            WorkerCommand::KillApp {
                epoch,
                app,
                attempt,
            } => {
                if self.accepts(master, epoch) {
                    self.on_kill((app, attempt), now);
                }
            }
            WorkerCommand::Leave { epoch } => {
                if self.accepts(master, epoch) {
                    self.on_told_to_leave(now);
                }
            }
            WorkerCommand::Reregister { epoch } => {
                if self.accepts(master, epoch) {
                    self.on_called(master, epoch, now);
                }
            }
        }
    }

    fn on_launch(
        &mut self,
        key: AttemptKey,
        description: Arc<AppDescription>,
        epoch: u64,
        now: Instant,
    ) {
        if self.attempts.is_known(&key) {
            debug!(app = %key.0, attempt = key.1, "ignored a second launch");
            if self.attempts.get_mut(&key).is_none() && !self.attempts.is_spooled(&key) {
                // A master that launches it knows nothing of its end, or of a later attempt that was ended unheard of.
                let reason = "it, or a later attempt, was here before".to_owned();
                self.conclude(key, Outcome::Lost(reason), now);
            }
            return;
        }
        if self.is_cut_off(now) && description.survives_its_worker() {
            // It may be an old one, whose application was started elsewhere since. A master that wants it says so again.
            return info!(app = %key.0, attempt = key.1, "not launched while cut off");
        }
        let (needs, free) = (description.needs(), self.attempts.free());
        if self.stopping.is_some() {
            self.conclude(key, Outcome::Declined("the worker is stopping".into()), now);
        } else if !needs.fits_in(&free) {
            self.conclude(
                key,
                Outcome::Declined(format!("needs {needs}; the worker has {free} left")),
                now,
            );
        } else {
            info!(app = %key.0, attempt = key.1, "launching");
            let earlier = self.attempts.held_of(&key.0);
            let queued = Held {
                epoch,
                grace: description.stop.grace(self.settings.kill_grace),
                stage: Stage::Queued,
                ending: None,
                description,
            };
            let app = key.0.clone();
            self.attempts.insert(key, queued);
            for earlier in earlier {
                self.ask_to_end(&earlier, Cause::Request, now);
            }
            self.start_next(&app);
        }
    }

    fn on_kill(&mut self, key: AttemptKey, now: Instant) {
        if self.attempts.get_mut(&key).is_some() {
            self.ask_to_end(&key, Cause::Request, now);
        } else if !self.attempts.is_spooled(&key) {
            self.conclude(
                key,
                Outcome::Lost("the worker does not hold it".into()),
                now,
            );
        }
    }

    /// A master that does not know all that is here is told so by the reports of it, and says it again.
    fn on_told_to_leave(&mut self, now: Instant) {
        if !self.attempts.is_empty() {
            warn!("told to leave, and something runs here: staying until that is over");
        } else if self.stopping.is_none() {
            info!("drained: leaving");
            self.stop(ExitReason::Drained, now);
        }
    }

    fn on_app_started(&mut self, app: AppId, attempt: u32) {
        match self.attempts.get_mut(&(app.clone(), attempt)) {
            Some(held) if held.stage == Stage::Starting => held.stage = Stage::Running,
            Some(_) | None => return,
        }
        self.started_unsaid.insert((app, attempt));
        self.send_started();
    }

    fn on_app_exited(&mut self, key: AttemptKey, seen: Outcome, now: Instant) {
        let Some(held) = self.attempts.remove(&key) else {
            warn!(app = %key.0, attempt = key.1, outcome = %seen, "an attempt ended that is not held");
            return;
        };
        self.started_unsaid.remove(&key);
        let outcome = match held.ending.map(|ending| ending.cause) {
            None => seen,
            Some(Cause::Request) => Outcome::Killed,
            Some(_) if matches!(held.stage, Stage::Queued) => seen,
            Some(cause @ (Cause::Shutdown | Cause::CutOff)) => {
                Outcome::Lost(ShutdownReason::from(cause).to_string())
            }
        };
        info!(app = %key.0, attempt = key.1, %outcome, "attempt ended");
        let app = key.0.clone();
        self.conclude(key, outcome, now);
        self.start_next(&app);
    }

    fn on_stop_requested(&mut self, stop_apps: bool, now: Instant) {
        if self.stopping.is_some() {
            self.exit(ExitReason::GaveUpWaiting);
        } else if stop_apps || self.attempts.is_empty() {
            self.stop(ExitReason::Stopped, now);
        } else {
            info!("leaving applications to a successor");
            self.exit(ExitReason::Stopped);
        }
    }

    fn on_tick(&mut self, now: Instant) {
        if let Some(kill_at) = self.lease.as_mut().and_then(|lease| lease.end_if_due(now)) {
            self.on_cut_off(kill_at, now);
        }
        let due = |held: &Held| {
            held.ending
                .and_then(|ending| ending.insist_at)
                .is_some_and(|at| at <= now)
        };
        let due: Vec<_> = self
            .attempts
            .held()
            .filter(|(_, held)| due(held))
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            if let Some(ending) = self
                .attempts
                .get_mut(&key)
                .and_then(|held| held.ending.as_mut())
            {
                ending.insist_at = None;
            }
            let reason = self.reason(&key);
            self.signal(key, Signal::Kill(reason));
        }
        match &mut self.registration {
            Registration::Searching { until, .. } if *until <= now => self.ask_next(now),
            Registration::Registered {
                master,
                heartbeat_interval,
                next_heartbeat,
                ..
            } if *next_heartbeat <= now => {
                *next_heartbeat = now + *heartbeat_interval;
                let (master, interval) = (master.clone(), *heartbeat_interval);
                let sent = now;
                self.effects.push(Effect::SendHeartbeat { master, sent });
                self.send_reports(now.checked_sub(interval), now);
            }
            Registration::Idle
            | Registration::Searching { .. }
            | Registration::Registered { .. }
            | Registration::GaveUp { .. } => {}
        }
        if self
            .stopping
            .as_ref()
            .is_some_and(|stopping| stopping.give_up_at <= now)
        {
            self.exit(ExitReason::GaveUpWaiting);
        }
    }

    /// Whether a command is to be obeyed.
    fn accepts(&mut self, master: &str, epoch: u64) -> bool {
        let accepted = epoch >= self.epoch;
        self.epoch = self.epoch.max(epoch);
        if !accepted {
            warn!(
                master,
                epoch,
                newest = self.epoch,
                "refused a command of an older epoch"
            );
        }
        accepted
    }

    pub(super) fn ask_to_end(&mut self, key: &AttemptKey, cause: Cause, now: Instant) {
        let Some(held) = self.attempts.get_mut(key) else {
            return;
        };
        if let Some(ending) = &mut held.ending {
            // What the master wants is what it will be told, however else the end began.
            if cause == Cause::Request && ending.cause != cause {
                ending.cause = cause;
                self.signal(key.clone(), Signal::Stop(cause.into()));
            }
            return;
        }
        held.ending = Some(Ending {
            cause,
            insist_at: now.checked_add(held.grace),
        });
        if matches!(held.stage, Stage::Queued) {
            self.on_app_exited(
                key.clone(),
                Outcome::Declined("it was not started yet".into()),
                now,
            );
        } else {
            self.signal(key.clone(), Signal::Stop(cause.into()));
        }
    }

    /// Why an attempt is to end.
    fn reason(&mut self, key: &AttemptKey) -> ShutdownReason {
        let ending = self.attempts.get_mut(key).and_then(|held| held.ending);
        ending.map_or(Cause::Request, |ending| ending.cause).into()
    }

    fn signal(&mut self, (app, attempt): AttemptKey, signal: Signal) {
        self.effects.push(Effect::SignalApp {
            app,
            attempt,
            signal,
        });
    }

    /// Starts the latest attempt of an application if no other is in its way, nor that it may be started elsewhere.
    pub(super) fn start_next(&mut self, app: &AppId) {
        let held = self.attempts.held_of(app);
        let [key] = held.as_slice() else { return };
        let Some(held) = self.attempts.get_mut(key) else {
            return;
        };
        if held.stage == Stage::Queued {
            let description = Arc::clone(&held.description);
            held.stage = Stage::Starting;
            let lease = self.lease.filter(|_| description.survives_its_worker());
            self.effects.push(Effect::StartApp {
                app: app.clone(),
                attempt: key.1,
                description,
                alone_max: lease.map(|lease| lease.runner_alone_max()),
            });
        }
    }

    /// Notes that an attempt is over, and says so if there is a master to hear it.
    fn conclude(&mut self, key: AttemptKey, outcome: Outcome, now: Instant) {
        self.attempts.spool(key, outcome);
        self.send_reports(None, now);
    }

    pub(super) fn send_started(&mut self) {
        let Some(master) = self.registration.master() else {
            return;
        };
        for (app, attempt) in std::mem::take(&mut self.started_unsaid) {
            let report = AttemptReport::Started { app, attempt };
            self.effects.push(Effect::Report {
                master: master.to_owned(),
                report,
            });
        }
    }

    pub(super) fn send_reports(&mut self, unless_after: Option<Instant>, now: Instant) {
        let Some(master) = self.registration.master() else {
            return;
        };
        for report in self.attempts.reports_due(unless_after, now) {
            self.effects.push(Effect::Report {
                master: master.to_owned(),
                report,
            });
        }
    }

    /// Begins to stop: applications first.
    pub(super) fn stop(&mut self, reason: ExitReason, now: Instant) {
        info!(?reason, "stopping");
        // Twice the grace: once to end by themselves, once to be killed and to have that acknowledged.
        let graces = self.attempts.held().map(|(_, held)| held.grace);
        let grace = graces.max().unwrap_or(self.settings.kill_grace);
        let give_up_at = now
            + grace
                .saturating_mul(2)
                .clamp(Duration::from_secs(1), GIVE_UP_MAX);
        self.stopping = Some(Stopping { reason, give_up_at });
        if let Some(master) = self.registration.master() {
            self.effects.push(Effect::Leave {
                master: master.to_owned(),
            });
        }
        let held: Vec<_> = self.attempts.held().map(|(key, _)| key.clone()).collect();
        for key in held {
            self.ask_to_end(&key, Cause::Shutdown, now);
        }
    }

    /// Ends when asked to and nothing is left, unacknowledged reports included while somebody may acknowledge them.
    fn exit_when_done(&mut self) {
        let Some(stopping) = &self.stopping else {
            return;
        };
        let heard = self.attempts.all_acknowledged() || self.registration.master().is_none();
        if self.attempts.is_empty() && heard {
            let reason = stopping.reason.clone();
            self.exit(reason);
        }
    }

    fn exit(&mut self, reason: ExitReason) {
        if !self.exited {
            self.exited = true;
            self.effects.push(Effect::Exit(reason));
        }
    }

    /// Panics if the tables contradict one another. For tests, after each event.
    ///
    /// # Panics
    ///
    /// If an invariant does not hold.
    #[cfg(any(test, feature = "testing"))]
    pub fn check_invariants(&self) {
        self.attempts.check_invariants();
        assert!(self.effects.is_empty());
    }
}
