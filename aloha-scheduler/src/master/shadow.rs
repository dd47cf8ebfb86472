//! What a standby makes of what the leader stores, so that it could go on at any moment.
//!
//! Records come one by one, in whatever order they are stored, and the tables follow: who waits where in the queue, whose
//! the idempotency keys are, who ended when. So [taking over](Shadow::take_over) has only to do with what is placed or
//! pauses, with the workers, and with what must be repaired, however many wait.
//!
//! What a shadow becomes follows from what is stored alone, not from how it came to be so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::apps::AppRecord;
use super::claims::Claims;
use super::core::{MasterCore, MasterSettings};
use super::effect::Record;
use super::recovery::Stored;
use super::workers::WorkerRecord;
use crate::app::AppState;
use crate::ids::{AppId, WorkerId};
use crate::now::Now;
use crate::persistence::{
    self, Change, DamagedRecord, Named, PersistenceError, Readable, StoredRecord, Unread,
};

/// A master that does not lead, and follows what the one that does stores.
#[derive(Debug)]
pub struct Shadow {
    /// Has the applications as they are stored, and their keys; nothing else yet.
    pub(super) core: MasterCore,
    pub(super) claims: Claims,
    /// Those with which taking over has something to do, in the order of their numbers.
    pub(super) unsettled: BTreeSet<(u64, AppId)>,
    /// Those whose number another has, which only a damaged store makes.
    pub(super) crowded: BTreeMap<u64, BTreeMap<AppId, AppRecord>>,
    crowded_numbers: BTreeMap<AppId, u64>,
    pub(super) workers: BTreeMap<WorkerId, WorkerRecord>,
    pub(super) next_number: u64,
    /// The applications of records that were set aside, by their keys in the store.
    set_aside: BTreeMap<String, AppId>,
    damaged: BTreeMap<String, DamagedRecord>,
    /// Records that only a newer version reads, with that version.
    newer: BTreeMap<String, u32>,
}

impl Shadow {
    /// Nothing is stored yet. Which epoch the settings name matters not.
    pub fn new(settings: MasterSettings, now: Now) -> Self {
        Self {
            core: MasterCore::new(settings, now),
            claims: Claims::default(),
            unsettled: BTreeSet::new(),
            crowded: BTreeMap::new(),
            crowded_numbers: BTreeMap::new(),
            workers: BTreeMap::new(),
            next_number: 0,
            set_aside: BTreeMap::new(),
            damaged: BTreeMap::new(),
            newer: BTreeMap::new(),
        }
    }

    /// What this is stored makes.
    pub(super) fn of(settings: MasterSettings, stored: Stored, now: Now) -> Self {
        let mut this = Self::new(settings, now);
        let Stored {
            apps,
            workers,
            next_number,
            set_aside,
            keys,
        } = stored;
        for app in apps {
            if !this.has(&app.id) {
                this.put_app(app);
            }
        }
        for worker in workers {
            this.put_worker(worker);
        }
        for key in keys {
            this.claims.add_alone(key, &mut this.core);
        }
        this.next_number = next_number;
        let aside = set_aside.into_iter().map(|app| (app.to_string(), app));
        this.set_aside.extend(aside);
        this.calm();
        this
    }

    /// Notes what is stored from now on. The order among records of different keys means nothing.
    pub fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Put(record) => self.put(record),
                Change::Delete { key } => {
                    self.unspoil(&key);
                    self.forget(persistence::named(&key));
                }
            }
        }
        self.calm();
    }

    /// Notes one record as a leader says it.
    pub fn note(&mut self, record: Record) {
        match record {
            Record::App(app) => self.put_app(Arc::unwrap_or_clone(app)),
            Record::AppForgotten(app) => self.forget(Named::App(app)),
            Record::Worker(worker) => self.put_worker(worker),
            Record::WorkerForgotten(worker) => self.forget(Named::Worker(worker)),
            Record::NextNumber(number) => self.next_number = number,
            Record::Key(key) => self.claims.add_alone(key, &mut self.core),
            Record::KeyForgotten(app) => self.forget(Named::Key(app)),
        }
        self.calm();
    }

    /// The changes that set what is damaged aside, by the leadership of this epoch, and why each is damaged. They are
    /// to be stored, and then [noted](Self::apply), before it takes over.
    pub(super) fn damages(&self, epoch: u64) -> Vec<(&DamagedRecord, [Change; 2])> {
        let damaged = self.damaged.values();
        let set_aside = damaged.map(|it| (it, persistence::set_aside(epoch, &it.record)));
        set_aside.collect()
    }

    /// Whether it can take over.
    ///
    /// # Errors
    ///
    /// A newer version wrote some of what is stored: what it means is not known, and must not be set aside.
    pub(super) fn check(&self) -> Result<(), PersistenceError> {
        match self.newer.first_key_value() {
            None => Ok(()),
            Some((key, version)) => Err(persistence::newer("the master's store", key, *version)),
        }
    }

    /// How many applications and workers there are.
    pub(super) fn counts(&self) -> (usize, usize) {
        let apps = self.core.apps.len() + self.crowded_numbers.len();
        (apps, self.workers.len())
    }

    /// The applications whose record is damaged, or was.
    pub(super) fn take_set_aside(&mut self) -> BTreeSet<AppId> {
        let damaged = std::mem::take(&mut self.damaged);
        let damaged = damaged
            .into_keys()
            .filter_map(|key| persistence::app_of(&key));
        let set_aside = std::mem::take(&mut self.set_aside);
        set_aside.into_values().chain(damaged).collect()
    }

    fn put(&mut self, record: StoredRecord) {
        self.unspoil(&record.key);
        match persistence::read(&record) {
            Ok(Readable::App(app)) => self.put_app(app),
            Ok(Readable::Worker(worker)) => self.put_worker(worker),
            Ok(Readable::Key(key)) => self.claims.add_alone(key, &mut self.core),
            Ok(Readable::NextNumber(number)) => self.next_number = number,
            Ok(Readable::SetAside(app)) => {
                if let Some(app) = app {
                    self.set_aside.insert(record.key, app);
                }
            }
            Err(Unread::Newer(version)) => {
                self.forget(persistence::named(&record.key));
                self.newer.insert(record.key, version);
            }
            Err(Unread::Damaged(reason)) => {
                self.forget(persistence::named(&record.key));
                let key = record.key.clone();
                self.damaged.insert(key, DamagedRecord { record, reason });
            }
        }
    }

    fn put_worker(&mut self, worker: WorkerRecord) {
        self.workers.insert(worker.id.clone(), worker);
    }

    /// What is under this key is no longer what could not be read.
    fn unspoil(&mut self, key: &str) {
        self.damaged.remove(key);
        self.newer.remove(key);
        self.set_aside.remove(key);
    }

    fn forget(&mut self, named: Named) {
        match named {
            Named::App(app) => self.forget_app(&app),
            Named::Worker(worker) => drop(self.workers.remove(&worker)),
            Named::Key(app) => self.claims.remove_alone(&app, &mut self.core),
            Named::NextNumber => self.next_number = 0,
            Named::Other => {}
        }
    }

    /// Nothing is placed here, so that nobody asks what has become possible.
    fn calm(&mut self) {
        let (queue, _) = self.core.apps.waiting();
        queue.take_fresh();
    }

    // ---- applications --------------------------------------------------------------------------

    fn has(&self, app: &AppId) -> bool {
        self.core.apps.get(app).is_some() || self.crowded_numbers.contains_key(app)
    }

    fn put_app(&mut self, app: AppRecord) {
        if !self.replace(&app) {
            self.forget_app(&app.id);
            self.admit(app);
        }
    }

    /// Most records only say how one that is there goes on: its number, and what its key is known by, stay.
    fn replace(&mut self, app: &AppRecord) -> bool {
        let stays = |before: &AppRecord| {
            before.number == app.number
                && before.submitted_at == app.submitted_at
                && before.key == app.key
                && before.description == app.description
        };
        if !self.core.apps.get(&app.id).is_some_and(stays) {
            return false;
        }
        if let Some(before) = self.core.apps.remove(&app.id) {
            self.unsettled.remove(&(before.number, app.id.clone()));
            // One allocation for all its versions.
            let description = Arc::clone(&before.description);
            self.list(AppRecord {
                description,
                ..app.clone()
            });
        }
        true
    }

    pub(super) fn admit(&mut self, app: AppRecord) {
        if self.core.apps.numbered(app.number).is_some() {
            let id = app.id.clone();
            self.crowded_numbers.insert(id.clone(), app.number);
            let crowd = self.crowded.entry(app.number).or_default();
            crowd.insert(id, app);
            return;
        }
        let id = app.id.clone();
        self.list(app);
        if let Some(app) = self.core.apps.record(&id) {
            self.claims.add(&app, &mut self.core);
        }
    }

    fn list(&mut self, app: AppRecord) {
        let waits_as_it_is = match app.state {
            AppState::Submitted
            | AppState::Relaunching {
                not_before: None, ..
            } => !app.kill_requested,
            AppState::Ended { .. } => true,
            AppState::Relaunching { .. }
            | AppState::Launching { .. }
            | AppState::Running { .. }
            | AppState::Unknown { .. } => false,
        };
        if !waits_as_it_is {
            self.unsettled.insert((app.number, app.id.clone()));
        }
        self.core.apps.insert(app);
    }

    fn forget_app(&mut self, id: &AppId) {
        if let Some(number) = self.crowded_numbers.remove(id) {
            self.take_out(number, id);
        } else if let Some(app) = self.unlist(id)
            && let Some(next) = self.take_crowded(app.number)
        {
            self.admit(next);
        }
    }

    pub(super) fn unlist(&mut self, id: &AppId) -> Option<Arc<AppRecord>> {
        let app = self.core.apps.remove(id)?;
        self.unsettled.remove(&(app.number, id.clone()));
        self.claims.remove(&app, &mut self.core);
        Some(app)
    }

    /// Takes one out whose number this is, and another's.
    pub(super) fn take_crowded(&mut self, number: u64) -> Option<AppRecord> {
        let (id, _) = self.crowded.get(&number)?.first_key_value()?;
        let id = id.clone();
        self.crowded_numbers.remove(&id);
        self.take_out(number, &id)
    }

    fn take_out(&mut self, number: u64, id: &AppId) -> Option<AppRecord> {
        let crowd = self.crowded.get_mut(&number)?;
        let app = crowd.remove(id);
        if crowd.is_empty() {
            self.crowded.remove(&number);
        }
        app
    }
}
