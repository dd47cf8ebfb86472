//! Whose idempotency keys are, while it is only known what is stored.
//!
//! A key that several have is nobody's until it must be: which of them it is follows from all of them, in whatever order
//! they came. Such are those of a master that ended between two records, and of damaged stores.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::apps::AppRecord;
use super::core::MasterCore;
use super::keys::KeyRecord;
use crate::ids::AppId;

/// The keys that are stored by themselves, and those that several have.
#[derive(Debug, Default)]
pub(super) struct Claims {
    alone: BTreeMap<AppId, KeyRecord>,
    contested: BTreeMap<Arc<str>, BTreeSet<Claim>>,
}

/// Who has a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    /// An application that is listed.
    Listed(AppId),
    /// One that is not any more.
    Alone(AppId),
}

impl Claims {
    /// An application is listed.
    pub(super) fn add(&mut self, app: &AppRecord, core: &mut MasterCore) {
        if let Some(key) = &app.key {
            self.claim(key, Claim::Listed(app.id.clone()), core);
        }
    }

    /// It is no longer listed.
    pub(super) fn remove(&mut self, app: &AppRecord, core: &mut MasterCore) {
        if let Some(key) = &app.key {
            self.unclaim(key, &Claim::Listed(app.id.clone()), core);
        }
    }

    /// A key is stored by itself.
    pub(super) fn add_alone(&mut self, record: KeyRecord, core: &mut MasterCore) {
        self.remove_alone(&record.app, core);
        let (app, key) = (record.app.clone(), Arc::clone(&record.key));
        self.alone.insert(app.clone(), record);
        self.claim(&key, Claim::Alone(app), core);
    }

    /// It is not any more.
    pub(super) fn remove_alone(&mut self, app: &AppId, core: &mut MasterCore) {
        if let Some(record) = self.alone.remove(app) {
            self.unclaim(&record.key, &Claim::Alone(app.clone()), core);
        }
    }

    fn claim(&mut self, key: &Arc<str>, claim: Claim, core: &mut MasterCore) {
        if let Some(claims) = self.contested.get_mut(key) {
            claims.insert(claim);
            return;
        }
        match core.keys.take(key) {
            None => self.give(claim, core),
            Some((holder, is_alone)) => {
                let holder = if is_alone {
                    Claim::Alone(holder)
                } else {
                    Claim::Listed(holder)
                };
                let claims = BTreeSet::from([holder, claim]);
                self.contested.insert(Arc::clone(key), claims);
            }
        }
    }

    fn unclaim(&mut self, key: &Arc<str>, claim: &Claim, core: &mut MasterCore) {
        let Some(claims) = self.contested.get_mut(key) else {
            core.keys.take(key);
            return;
        };
        claims.remove(claim);
        if claims.len() < 2 {
            let claims = self.contested.remove(key).unwrap_or_default();
            for last in claims {
                self.give(last, core);
            }
        }
    }

    fn give(&self, claim: Claim, core: &mut MasterCore) {
        match claim {
            Claim::Listed(app) => {
                if let Some(app) = core.apps.get(&app) {
                    core.keys.insert(app);
                }
            }
            Claim::Alone(app) => {
                if let Some(record) = self.alone.get(&app) {
                    core.keys.restore(record.clone());
                }
            }
        }
    }

    /// The listed applications that have a key with others, and the keys stored by themselves that others have too.
    pub(super) fn into_contested(mut self) -> (Vec<AppId>, Vec<KeyRecord>) {
        let (mut listed, mut alone) = (Vec::new(), Vec::new());
        for claim in self.contested.into_values().flatten() {
            match claim {
                Claim::Listed(app) => listed.push(app),
                Claim::Alone(app) => alone.extend(self.alone.remove(&app)),
            }
        }
        (listed, alone)
    }
}
