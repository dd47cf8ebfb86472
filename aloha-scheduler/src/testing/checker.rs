//! What must hold of a cluster whatever befalls it, checked against what is known beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::cluster::SimCluster;
use super::coordinator::Batch;
use super::ledger::Run;
use crate::app::{AppPhase, AppStatus};
use crate::attempt::Outcome;
use crate::ids::{AppId, WorkerId};
use crate::master::AppRecord;
use crate::persistence::{Change, Named, Readable, named, read};

/// Something a client was told, or asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Promise {
    /// A submission was accepted.
    Accepted {
        /// As this application.
        app: AppId,
        /// Its name, which is nobody else's.
        name: String,
        /// How many batches the store had when that was known.
        batches: usize,
    },
    /// A submission was refused for certain, and not repeated.
    Refused {
        /// The name of what was submitted.
        name: String,
    },
    /// A kill was asked for, whatever came of it.
    KillAsked {
        /// Which application.
        app: AppId,
    },
    /// A kill was promised.
    Killed {
        /// Which application.
        app: AppId,
        /// How many batches the store had when that was known.
        batches: usize,
    },
}

/// Checks a cluster at rest: what its store took, what its applications did, and what its clients were told must agree.
///
/// - **One leader's commands take effect**: the store takes no batch of an older epoch after one of a newer; each attempt
///   that runs was stored first, on the worker that it runs on; a worker that was told something by a newer leader begins
///   nothing that an older one told it and that was given up since.
/// - **Nothing acknowledged is lost**: it was stored when it was acknowledged, it is known, it has ended, and as it did.
/// - **No second live attempt**: none beside another on one worker, none at all where workers stop what may be started
///   elsewhere or nothing may be, and else none before the worker of the first was given up for a full timeout.
/// - **A worker that is drained takes nothing**: nothing is launched there once that is stored.
/// - **A name is one application**, unless it was withdrawn and never ran; a kill is stored when it is promised, and obeyed;
///   among equals who came first is launched first.
#[derive(Debug)]
pub struct Checker<'a> {
    cluster: &'a SimCluster,
    batches: Vec<Batch>,
    runs: Vec<Run>,
    /// What was stored of each application, in order, with the number of the batch.
    apps: BTreeMap<AppId, Vec<(usize, AppRecord)>>,
    /// What was removed before it ended: submissions that the store was too slow for, which were refused.
    withdrawn: BTreeSet<AppId>,
    wrong: Vec<String>,
}

impl<'a> Checker<'a> {
    /// Reads what there is by now.
    #[must_use]
    pub fn new(cluster: &'a SimCluster) -> Self {
        let batches = cluster.disk().batches();
        let mut apps: BTreeMap<AppId, Vec<(usize, AppRecord)>> = BTreeMap::new();
        let mut withdrawn = BTreeSet::new();
        for (number, batch) in batches.iter().enumerate() {
            for change in &batch.changes {
                match change {
                    Change::Put(record) => {
                        if let Ok(Readable::App(app)) = read(record) {
                            apps.entry(app.id.clone()).or_default().push((number, app));
                        }
                    }
                    Change::Delete { key } => {
                        let is_it = |id: &&AppId| key.ends_with(&format!("/{id}"));
                        let last = apps.keys().find(is_it).and_then(|id| apps[id].last());
                        if let Some((_, app)) = last.filter(|(_, app)| !app.phase().is_final()) {
                            withdrawn.insert(app.id.clone());
                        }
                    }
                }
            }
        }
        Self {
            cluster,
            batches,
            runs: cluster.ledger().runs(),
            apps,
            withdrawn,
            wrong: Vec::new(),
        }
    }

    /// What is wrong, in words. `statuses` is what the leader says of all applications, once all have ended.
    #[must_use]
    pub fn check(mut self, promises: &[Promise], statuses: &[AppStatus]) -> Vec<String> {
        self.check_epochs();
        self.check_launches();
        self.check_attempts();
        self.check_names();
        self.check_order();
        self.check_drains();
        for promise in promises {
            self.check_promise(promise, promises, statuses);
        }
        self.wrong
    }

    fn check_epochs(&mut self) {
        for (number, pair) in self.batches.windows(2).enumerate() {
            if pair[1].epoch < pair[0].epoch {
                self.wrong.push(format!(
                    "batch {} of epoch {} was stored after one of epoch {}",
                    number + 1,
                    pair[1].epoch,
                    pair[0].epoch
                ));
            }
        }
    }

    /// The batch that stored the launch of an attempt, and on which host.
    fn launch_of(&self, run: &Run) -> Option<usize> {
        let stored = self.apps.get(&run.app)?.iter();
        let mut launches = stored.filter(|(_, app)| {
            let on = app.state.placement();
            let is_there =
                |host: &str| on.is_some_and(|on| on.address.starts_with(&format!("{host}:")));
            app.attempt == run.attempt && is_there(&run.host)
        });
        launches.next().map(|(number, _)| *number)
    }

    /// The batch that stored that an attempt was given up, or what came after it.
    fn loss_of(&self, run: &Run) -> Option<usize> {
        let launched = self.launch_of(run)?;
        let stored = self.apps.get(&run.app)?.iter();
        let mut later = stored.filter(|(number, _)| *number >= launched);
        let is_over = |app: &AppRecord| {
            app.attempt > run.attempt
                || (app.attempt == run.attempt && app.phase() == AppPhase::Relaunching)
        };
        let lost = later.find(|(_, app)| is_over(app))?;
        Some(lost.0)
    }

    /// Whether an attempt had been given up, or its application had ended, when it began.
    fn was_over(&self, run: &Run) -> bool {
        let stored = self.apps.get(&run.app).into_iter().flatten();
        let mut before = stored.filter(|(number, _)| *number < run.batches);
        before.any(|(_, app)| {
            let is_again = app.attempt == run.attempt && app.phase() == AppPhase::Relaunching;
            app.attempt > run.attempt || is_again || app.phase().is_final()
        })
    }

    fn check_launches(&mut self) {
        let mut newest: BTreeMap<&str, (u64, &Run)> = BTreeMap::new();
        let mut wrong = Vec::new();
        let mut runs: Vec<_> = self.runs.iter().collect();
        runs.sort_by_key(|run| run.launch);
        for run in runs {
            let Some(stored) = self.launch_of(run) else {
                wrong.push(format!("{} runs, and was never stored: {run:?}", run.name));
                continue;
            };
            if self.withdrawn.contains(&run.app) {
                wrong.push(format!("{} was withdrawn, and runs: {run:?}", run.name));
            }
            if stored >= run.batches {
                wrong.push(format!("{} ran before it was stored: {run:?}", run.name));
            }
            let epoch = self.batches[stored].epoch;
            // One that waited for the end of an attempt before it was launched earlier than it began. A newer leader says
            // again what an older one said, for as long as it is wanted.
            let is_late = run.attempt == 1 && self.was_over(run);
            match newest.get(&*run.host) {
                Some((newer, by)) if *newer > epoch && is_late => wrong.push(format!(
                    "{} launched {run:?} of epoch {epoch} after {by:?} of epoch {newer}",
                    run.host
                )),
                Some((newer, _)) if *newer > epoch => {}
                _ => drop(newest.insert(&run.host, (epoch, run))),
            }
        }
        self.wrong.extend(wrong);
    }

    fn check_attempts(&mut self) {
        let mut by_app: BTreeMap<&AppId, Vec<&Run>> = BTreeMap::new();
        for run in &self.runs {
            by_app.entry(&run.app).or_default().push(run);
        }
        let mut wrong = Vec::new();
        for runs in by_app.values_mut() {
            runs.sort_by_key(|run| run.attempt);
            for (place, later) in runs.iter().enumerate() {
                for earlier in &runs[..place] {
                    wrong.extend(self.wrong_of_two(earlier, later));
                }
            }
        }
        self.wrong.extend(wrong);
    }

    /// What is wrong with two attempts of one application, if anything is.
    fn wrong_of_two(&self, earlier: &Run, later: &Run) -> Option<String> {
        let settings = self.cluster.settings();
        if earlier.attempt == later.attempt {
            return Some(format!("an attempt ran twice: {earlier:?}, {later:?}"));
        }
        let ends = |run: &Run| run.ended.as_ref().map(|(at, _)| *at);
        let before = |end: Option<Instant>, begin: Instant| end.is_some_and(|end| end <= begin);
        if before(ends(earlier), later.began) || before(ends(later), earlier.began) {
            return None;
        }
        if earlier.host == later.host || !later.is_supervised || settings.stop_when_cut_off {
            return Some(format!("two attempts ran at once: {earlier:?}, {later:?}"));
        }
        let batch = &self.batches[self.loss_of(earlier)?];
        let epochs = self.cluster.disk().epochs();
        let (began, _) = epochs.iter().find(|(_, epoch)| *epoch == batch.epoch)?;
        let waited = batch.at - *began;
        (waited + Duration::from_millis(1) < settings.worker_timeout).then(|| {
            format!(
                "the worker of {earlier:?} was given up after {waited:?} at the most, and {later:?} began beside it"
            )
        })
    }

    fn check_names(&mut self) {
        let mut names: BTreeMap<&str, BTreeSet<&AppId>> = BTreeMap::new();
        for (id, stored) in &self.apps {
            if self.withdrawn.contains(id) {
                continue;
            }
            let name = &stored[0].1.description.name;
            names.entry(name).or_default().insert(id);
        }
        for (name, apps) in names {
            if apps.len() > 1 {
                self.wrong.push(format!("{name} became {apps:?}"));
            }
        }
    }

    /// Among equals, who came first is launched first.
    fn check_order(&mut self) {
        let is_meant = |(id, _): &(&AppId, _)| !self.withdrawn.contains(*id);
        let apps = self.apps.iter().filter(is_meant);
        let mut apps: Vec<_> = apps.map(|(_, stored)| stored).collect();
        apps.sort_by_key(|stored| stored[0].1.number);
        let mut latest: BTreeMap<(i32, u32, u64), (usize, &AppId)> = BTreeMap::new();
        let mut wrong = Vec::new();
        for stored in apps {
            let is_launch = |(_, app): &&(usize, AppRecord)| app.phase() == AppPhase::Launching;
            let Some((launched, app)) = stored.iter().find(is_launch) else {
                continue;
            };
            // When one was launched first whose first launch came to nothing before it was stored, nobody can tell.
            if app.attempt > 1 {
                continue;
            }
            let needs = app.description.needs();
            let equals = (app.description.priority, needs.cores, needs.memory_mib);
            match latest.get(&equals) {
                Some((later, other)) if later > launched => {
                    wrong.push(format!(
                        "{} was launched before {other}, which came first",
                        app.id
                    ));
                }
                _ => drop(latest.insert(equals, (*launched, &app.id))),
            }
        }
        self.wrong.extend(wrong);
    }

    /// Nothing is launched on a worker that is drained.
    fn check_drains(&mut self) {
        let mut drained: BTreeSet<WorkerId> = BTreeSet::new();
        let mut latest: BTreeMap<AppId, u32> = BTreeMap::new();
        for (number, batch) in self.batches.iter().enumerate() {
            // Of one batch nobody knows what was decided first.
            let before = drained.clone();
            for change in &batch.changes {
                match change {
                    Change::Delete { key } => {
                        if let Named::Worker(worker) = named(key) {
                            drained.remove(&worker);
                        }
                    }
                    Change::Put(record) => match read(record) {
                        Ok(Readable::Worker(worker)) if worker.drain.is_some() => {
                            drained.insert(worker.id);
                        }
                        Ok(Readable::Worker(worker)) => drop(drained.remove(&worker.id)),
                        Ok(Readable::App(app)) => {
                            let on = app.state.placement().map(|on| &on.worker);
                            let is_new =
                                latest.insert(app.id.clone(), app.attempt) < Some(app.attempt);
                            let is_there =
                                |on: &&WorkerId| before.contains(on) && drained.contains(on);
                            if let Some(worker) = on.filter(is_there).filter(|_| is_new) {
                                self.wrong.push(format!(
                                    "batch {number} launches attempt {} of {} on {worker}, which is drained",
                                    app.attempt, app.id
                                ));
                            }
                        }
                        Ok(_) | Err(_) => {}
                    },
                }
            }
        }
    }

    fn check_promise(&mut self, promise: &Promise, all: &[Promise], statuses: &[AppStatus]) {
        match promise {
            Promise::Accepted { app, name, batches } => {
                let stored = self.apps.get(app).and_then(|stored| stored.first());
                if stored.is_none_or(|(number, _)| number >= batches) {
                    self.wrong.push(format!(
                        "{name} was acknowledged as {app} before it was stored"
                    ));
                }
                match statuses.iter().find(|status| status.id == *app) {
                    None => self
                        .wrong
                        .push(format!("{name} was acknowledged and lost: {app}")),
                    Some(status) => {
                        let wrong = self.wrong_of_end(status, all);
                        self.wrong.extend(wrong);
                    }
                }
            }
            Promise::Refused { name } => {
                if let Some(run) = self.runs.iter().find(|run| run.name == *name) {
                    self.wrong
                        .push(format!("{name} was refused, and ran: {run:?}"));
                }
            }
            Promise::KillAsked { .. } => {}
            Promise::Killed { app, batches } => {
                let mut stored = self.apps.get(app).into_iter().flatten();
                let before = stored.rfind(|(number, _)| number < batches);
                if before.is_none_or(|(_, it)| !it.kill_requested && !it.phase().is_final()) {
                    self.wrong
                        .push(format!("a kill of {app} was promised before it was stored"));
                }
                // An attempt whose worker comes back is where it was, as its first launch was stored before.
                let attempt = before.map_or(0, |(_, it)| it.attempt);
                let stored = self.apps.get(app).into_iter().flatten();
                let mut later = stored.filter(|(number, _)| number >= batches);
                let launch = later.find(|(_, it)| it.attempt > attempt);
                if let Some((number, _)) = launch {
                    self.wrong.push(format!(
                        "a kill of {app} was promised, and batch {number} launched it"
                    ));
                }
            }
        }
    }

    /// What is wrong with how an application is said to have ended.
    fn wrong_of_end(&self, status: &AppStatus, all: &[Promise]) -> Option<String> {
        let (id, phase) = (&status.id, status.phase);
        if !phase.is_final() {
            return Some(format!(
                "{id} is {phase} for ever: {:?}",
                status.waiting_for
            ));
        }
        let runs = || self.runs.iter().filter(|run| run.app == *id);
        if let Some(run) = runs().find(|run| run.ended.is_none()) {
            return Some(format!("{id} is {phase}, and runs: {run:?}"));
        }
        if let Some(run) = runs().find(|run| run.attempt > status.attempt) {
            let attempt = status.attempt;
            return Some(format!(
                "{id} is said to have had {attempt} attempts: {run:?}"
            ));
        }
        let last = runs().find(|run| run.attempt == status.attempt);
        let outcome = last.and_then(|run| run.ended.as_ref()).map(|(_, how)| how);
        let was_asked =
            |promise: &Promise| matches!(promise, Promise::KillAsked { app } if app == id);
        let bears_out = match (phase, outcome) {
            (AppPhase::Finished, Some(Outcome::Exited(0))) => true,
            (AppPhase::Failed, Some(outcome)) => outcome.exit_code() == status.exit_code,
            (AppPhase::Killed, _) => all.iter().any(was_asked),
            // Nobody starts it elsewhere, and nobody heard how it ended in time.
            (AppPhase::Error, _) => !status.supervise,
            _ => false,
        };
        (!bears_out).then(|| {
            format!(
                "{id} is {phase} ({:?}), and its last attempt ended {outcome:?}",
                status.message
            )
        })
    }
}
