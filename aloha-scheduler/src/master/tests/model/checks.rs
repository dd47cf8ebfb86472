use std::collections::BTreeMap;
use std::time::Duration;

use super::worker::{SimWorker, total};
use super::world::{Caller, World};
use crate::app::{AppPhase, AppState};
use crate::attempt::Outcome;
use crate::events::AlohaEvent;
use crate::ids::AppId;
use crate::master::{Effect, Event, Record};
use crate::resources::Resources;
use crate::restart::RestartCondition;

impl World {
    /// Among equals, none is placed before one that came first.
    pub(super) fn check_order(&mut self, effects: &[Effect]) {
        let placed = effects.iter().filter_map(|effect| match effect {
            Effect::Publish(AlohaEvent::AppStateChanged {
                id,
                from: Some(AppPhase::Submitted | AppPhase::Relaunching),
                to: AppPhase::Launching,
                ..
            }) => self.master.apps.get(id),
            _ => None,
        });
        let mut complaints = Vec::new();
        for app in placed {
            let waits = |state: &AppState| match state {
                AppState::Submitted => true,
                AppState::Relaunching { not_before, .. } => not_before.is_none(),
                _ => false,
            };
            let (needs, priority) = (app.description.needs(), app.description.priority);
            let passed = self.master.apps.iter().find(|other| {
                waits(&other.state)
                    && other.description.needs() == needs
                    && other.description.priority == priority
                    && other.number < app.number
            });
            if let Some(passed) = passed {
                complaints.push(format!("{} passed {}", app.id, passed.id));
            }
        }
        self.complaints.append(&mut complaints);
    }

    /// What must hold after every step.
    pub(super) fn check(&mut self) -> Result<(), String> {
        let mut living: BTreeMap<&AppId, (usize, u32)> = BTreeMap::new();
        for (n, worker) in self.workers.iter().enumerate() {
            for key in worker
                .live()
                .filter(|key| !self.buried.contains(&(n, (*key).clone())))
            {
                if let Some((other, attempt)) = living.insert(&key.0, (n, key.1)) {
                    return Err(format!(
                        "{} lives twice: #{attempt} on w{other} and #{} on w{n}",
                        key.0, key.1
                    ));
                }
            }
        }
        let mut promised = vec![Resources::default(); self.workers.len()];
        for app in self
            .master
            .apps
            .iter()
            .filter(|app| app.phase().is_placed())
        {
            let on = app.state.placement().expect("it is placed");
            let n = self
                .workers
                .iter()
                .position(|worker| worker.id == on.worker);
            let n = n.expect("it is one of ours");
            promised[n] = promised[n].plus(app.description.needs());
            if !promised[n].fits_in(&self.workers[n].offers) {
                return Err(format!("w{n} is promised {}", promised[n]));
            }
        }
        for app in &self.acknowledged {
            if self.master.apps.get(app).is_none() && !self.store.forgotten.contains(app) {
                let waits = self.held_back.iter().any(
                    |effect| matches!(effect, Effect::Persist(Record::AppForgotten(id)) if id == app),
                );
                if !waits {
                    return Err(format!("{app} was acknowledged and is lost"));
                }
            }
        }
        for (n, worker) in self.workers.iter_mut().enumerate() {
            for held in worker.refused.drain(..) {
                // A launch may arrive after its worker was given up and taken on again.
                let known = held
                    .iter()
                    .filter(|(key, _)| !self.buried.contains(&(n, key.clone())));
                if !total(known).fits_in(&worker.offers) {
                    return Err(format!("w{n} is to hold {held:?} of {}", worker.offers));
                }
            }
        }
        self.complaints.append(&mut self.store.complaints);
        self.complaints.pop().map_or(Ok(()), Err)
    }

    /// Nothing fails any more: everything must come to rest.
    pub(super) fn heal(&mut self) -> Result<(), String> {
        for app in self.submitted.clone() {
            let forever =
                self.master.apps.get(&app).is_some_and(|app| {
                    app.description.restart_condition() == RestartCondition::Always
                });
            if forever {
                let reply = self.keep(Caller::Kill);
                self.tell(Event::KillRequested { app, reply });
            }
        }
        for n in 0..self.workers.len() {
            self.cancel_drain(n);
            self.on_worker(n, |worker, _| {
                worker.stay();
                worker.register();
            });
        }
        for _ in 0..60 {
            self.settle()?;
            if self.is_at_rest() {
                return self.check_rest();
            }
            for n in 0..self.workers.len() {
                self.on_worker(n, |worker, _| worker.end(0, Outcome::Exited(0)));
                self.on_worker(n, |worker, _| worker.heartbeat());
                // One that was told to leave is started anew.
                self.on_worker(n, |worker, _| worker.come_back());
            }
            self.advance(Duration::from_secs(5));
        }
        Err(format!("no rest: {:?}", self.master.apps()))
    }

    /// Delivers, stores and starts all there is.
    fn settle(&mut self) -> Result<(), String> {
        loop {
            self.commit(usize::MAX);
            for n in 0..self.workers.len() {
                self.on_worker(n, |worker, _| worker.begin(0));
            }
            self.check()?;
            if self.to_master.is_empty() && self.to_worker.is_empty() {
                return Ok(());
            }
            self.deliver(0, false);
        }
    }

    fn is_at_rest(&self) -> bool {
        let fits = |needs: Resources| self.workers.iter().any(|w| needs.fits_in(&w.offers));
        let rests = |app: &crate::master::AppRecord| match app.state {
            AppState::Ended { .. } => true,
            AppState::Submitted
            | AppState::Relaunching {
                not_before: None, ..
            } => !fits(app.description.needs()),
            _ => false,
        };
        self.workers.iter().all(SimWorker::is_idle) && self.master.apps.iter().all(rests)
    }

    fn check_rest(&mut self) -> Result<(), String> {
        self.master.check_invariants();
        for status in self.master.workers(self.now) {
            if status.cores_used > 0 || !status.apps.is_empty() {
                return Err(format!("{} is still counted as busy", status.id));
            }
        }
        for app in self.master.apps.iter() {
            let unsupervised = !app.description.survives_its_worker();
            if unsupervised && app.attempt > 1 && app.evicted && !app.phase().is_final() {
                return Err(format!("{} was moved, and may not be", app.id));
            }
        }
        for app in &self.to_be_killed {
            if self
                .master
                .status(app)
                .is_some_and(|status| !status.phase.is_final())
            {
                return Err(format!("{app} was to be killed"));
            }
        }
        if self.master.is_recovering() {
            return Err("it still recovers".to_owned());
        }
        Ok(())
    }
}
