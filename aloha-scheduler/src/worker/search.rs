//! How a worker finds the master that leads, and what it says there.

use std::time::Instant;

use aloha_rpc::RpcAddress;
use tracing::{info, warn};

use super::core::{WorkerCore, WorkerSettings};
use super::effect::{Effect, ExitReason};
use super::event::RegistrationAnswer;
use super::registration::{Registration, WorkerRegistration};

/// How many masters are remembered that called, besides those it was told of at its start.
const LEARNT_MAX: usize = 8;

impl WorkerCore {
    pub(super) fn on_registration_answered(
        &mut self,
        master: String,
        answer: RegistrationAnswer,
        sent: Instant,
        now: Instant,
    ) {
        match answer {
            RegistrationAnswer::Registered {
                epoch,
                heartbeat_interval,
            } => {
                let newer = match &self.registration {
                    Registration::Registered { epoch: ours, .. } => epoch > *ours,
                    Registration::Idle | Registration::Searching { .. } => true,
                    Registration::GaveUp { .. } => false,
                };
                if epoch < self.epoch {
                    warn!(
                        master,
                        epoch,
                        newest = self.epoch,
                        "a master with an older epoch took us"
                    );
                    self.ask_next_after(&master, now);
                } else if newer {
                    info!(master, epoch, "registered");
                    self.epoch = epoch;
                    self.registration =
                        Registration::registered(master.clone(), epoch, heartbeat_interval, now);
                    if self.stopping.is_some() {
                        let master = master.clone();
                        self.effects.push(Effect::Leave { master });
                    }
                    self.send_started();
                    self.attempts.forget_sent();
                    self.send_reports(None, now);
                }
                if epoch >= self.epoch && self.registration.master() == Some(&master) {
                    self.renew_lease(sent);
                }
            }
            RegistrationAnswer::Standby | RegistrationAnswer::Unreachable => {
                self.ask_next_after(&master, now)
            }
            RegistrationAnswer::Refused { reason } => {
                if matches!(self.registration, Registration::Searching { .. }) {
                    warn!(master, reason, "refused for good");
                    self.registration = Registration::GaveUp {
                        reason: reason.clone(),
                    };
                    self.stop(ExitReason::Refused(reason), now);
                }
            }
        }
    }

    pub(super) fn on_master_disconnected(&mut self, master: &str, now: Instant) {
        if self.registration.master() == Some(master) {
            warn!(master, "lost the master");
            self.search(self.place_of(master), now);
        }
    }

    /// The master that took us leads no more: another does, or soon will, and perhaps calls us.
    pub(super) fn on_master_stepped_down(&mut self, master: &str, now: Instant) {
        if self.registration.master() == Some(master) {
            warn!(master, "the master leads no more");
            let next = self.place_of(master) + 1;
            self.search(next % self.settings.masters.len().max(1), now);
        }
    }

    /// A master wants us to register. It is known by the address under which it is advertised, which need not be the one
    /// we were told of; that it is the one that took us its epoch says.
    pub(super) fn on_called(&mut self, master: &str, epoch: u64, now: Instant) {
        if self.asked() == Some(master) {
            return;
        }
        info!(master, epoch, "told to register");
        let ours = match &self.registration {
            Registration::Registered {
                master: ours,
                epoch: of_ours,
                ..
            } if *of_ours == epoch => Some(ours.clone()),
            Registration::Registered { .. }
            | Registration::Idle
            | Registration::Searching { .. }
            | Registration::GaveUp { .. } => None,
        };
        let place = match ours {
            Some(ours) => self.place_of(&ours),
            None => self.learn(master),
        };
        self.search(place, now);
    }

    /// The place of a master, which is looked for along with the others from now on.
    fn learn(&mut self, master: &str) -> usize {
        let masters = &mut self.settings.masters;
        if let Some(place) = masters.iter().position(|known| known == master) {
            return place;
        }
        if master.parse::<RpcAddress>().is_err() {
            warn!(master, "a master that has no address calls");
            return 0;
        }
        // The oldest makes room.
        let place = self.configured + self.learnt % LEARNT_MAX;
        self.learnt += 1;
        match masters.get_mut(place) {
            Some(oldest) => *oldest = master.to_owned(),
            None => masters.push(master.to_owned()),
        }
        place.min(self.settings.masters.len() - 1)
    }

    /// Whether this master is looked for, or has taken us.
    pub(super) fn knows(&self, master: &str) -> bool {
        self.registration.master() == Some(master)
            || self.settings.masters.iter().any(|known| known == master)
    }

    /// Begins to look for a master, with this one.
    pub(super) fn search(&mut self, master: usize, now: Instant) {
        if matches!(self.registration, Registration::GaveUp { .. })
            || self.settings.masters.is_empty()
        {
            return;
        }
        self.registration = Registration::asking(master, &self.settings.backoff, now);
        self.register_with(master, now);
    }

    pub(super) fn place_of(&self, master: &str) -> usize {
        self.settings
            .masters
            .iter()
            .position(|known| known == master)
            .unwrap_or(0)
    }

    /// A master said no; that matters if it is the one being asked.
    fn ask_next_after(&mut self, said_no: &str, now: Instant) {
        if self.asked() == Some(said_no) {
            self.ask_next(now);
        }
    }

    /// The master that was asked to take us and may still answer.
    pub(super) fn asked(&self) -> Option<&str> {
        match self.registration {
            Registration::Searching {
                master,
                asking: true,
                ..
            } => self.settings.masters.get(master).map(String::as_str),
            Registration::Idle
            | Registration::Searching { .. }
            | Registration::Registered { .. }
            | Registration::GaveUp { .. } => None,
        }
    }

    pub(super) fn ask_next(&mut self, now: Instant) {
        if let Some(master) =
            self.registration
                .ask_next(self.settings.masters.len(), &self.settings.backoff, now)
        {
            self.register_with(master, now);
        }
    }

    fn register_with(&mut self, master: usize, now: Instant) {
        let Some(master) = self.settings.masters.get(master).cloned() else {
            return;
        };
        let WorkerSettings {
            id,
            host,
            port,
            offers,
            enforces,
            attributes,
            ..
        } = &self.settings;
        let attempts = self.attempts.to_held_attempts();
        let registration = WorkerRegistration {
            id: id.clone(),
            host: host.clone(),
            port: *port,
            offers: *offers,
            attempts,
            enforces: enforces.clone(),
            attributes: attributes.clone(),
            epoch: self.epoch,
        };
        self.effects.push(Effect::Register {
            master,
            registration,
            sent: now,
        });
    }
}
