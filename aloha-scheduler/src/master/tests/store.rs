use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ids::{AppId, WorkerId};
use crate::master::{AppRecord, KeyRecord, Record, Stored, WorkerRecord};

/// Holds exactly what was persisted, and objects to what must not be.
#[derive(Debug, Default)]
pub(super) struct Store {
    apps: BTreeMap<AppId, Arc<AppRecord>>,
    workers: BTreeMap<WorkerId, WorkerRecord>,
    keys: BTreeMap<AppId, KeyRecord>,
    next_number: u64,
    pub(super) forgotten: BTreeSet<AppId>,
    pub(super) complaints: Vec<String>,
}

impl Store {
    pub(super) fn put(&mut self, record: Record) {
        match record {
            Record::App(app) => {
                let before = self.apps.get(&app.id);
                if let Some(before) = before {
                    let (from, to) = (before.phase(), app.phase());
                    let changed = from.is_final() && before.state != app.state;
                    if changed || app.attempt < before.attempt {
                        self.complaints
                            .push(format!("{} went from {from} to {to}", app.id));
                    }
                }
                if app.number >= self.next_number {
                    self.complaints
                        .push(format!("{} has a number that is not reserved", app.id));
                }
                self.apps.insert(app.id.clone(), app);
            }
            Record::AppForgotten(id) => {
                if let Some(app) = self.apps.remove(&id)
                    && !app.phase().is_final()
                {
                    self.complaints
                        .push(format!("{id} was forgotten while {}", app.phase()));
                }
                self.forgotten.insert(id);
            }
            Record::Worker(worker) => {
                self.workers.insert(worker.id.clone(), worker);
            }
            Record::WorkerForgotten(id) => {
                self.workers.remove(&id);
            }
            Record::Key(key) => {
                self.keys.insert(key.app.clone(), key);
            }
            Record::KeyForgotten(app) => {
                self.keys.remove(&app);
            }
            Record::NextNumber(number) => self.next_number = number,
        }
    }

    /// Whether it is stored, or was.
    pub(super) fn knows(&self, id: &AppId) -> bool {
        self.apps.contains_key(id) || self.forgotten.contains(id)
    }

    pub(super) fn is_placed(&self, id: &AppId, attempt: u32) -> bool {
        let app = self.apps.get(id).filter(|app| app.attempt == attempt);
        app.is_some_and(|app| app.phase().is_placed())
    }

    /// What a master that is started now finds.
    pub(super) fn read(&self) -> Stored {
        Stored {
            apps: self.apps.values().map(|app| (**app).clone()).collect(),
            workers: self.workers.values().cloned().collect(),
            next_number: self.next_number,
            set_aside: BTreeSet::new(),
            keys: self.keys.values().cloned().collect(),
        }
    }
}
