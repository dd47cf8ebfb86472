//! Idempotency keys: a client that does not know whether its submission arrived sends it again under the same key, and
//! gets the application it already has.
//!
//! A key is stored with its application. Once that is no longer listed it is stored by itself, until its time is over:
//! an application may be forgotten within seconds of its end, when its client still asks.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::apps::AppRecord;
#[cfg(any(test, feature = "testing"))]
use super::apps::Apps;
use super::table::FixedHasher;
use crate::app::{AppDescription, DescriptionError};
use crate::ids::AppId;
use crate::persistence::digest_of;

/// The longest key.
const LENGTH_MAX: usize = 128;

/// Why a submission is refused; names the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmissionError {
    /// The description is no good.
    #[error(transparent)]
    Description(#[from] DescriptionError),
    /// No key looks like this.
    #[error("the idempotency key must be 1 to {LENGTH_MAX} visible ASCII characters")]
    Key,
}

/// What is stored of the key of an application that is no longer listed. Moments are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// The key.
    pub key: Arc<str>,
    /// Whose it is.
    pub app: AppId,
    /// Tells its submission from others.
    pub digest: u32,
    /// Until when it is known.
    pub until: u64,
}

/// Whose a key is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Nobody's yet.
    Nobody,
    /// The same submission's, which became this application.
    Same(AppId),
    /// Another submission's.
    Other(AppId),
}

#[derive(Debug)]
struct Known {
    app: AppId,
    digest: u32,
    until: u64,
}

/// The keys that are known.
#[derive(Debug)]
pub(super) struct Keys {
    ttl_millis: u64,
    count_max: usize,
    keys: HashMap<Arc<str>, Known, FixedHasher>,
    /// Those of applications that are no longer listed, the first to go first.
    alone: BTreeSet<(u64, AppId, Arc<str>)>,
}

/// Whether a text can be a key.
pub(super) fn is_key(text: &str) -> bool {
    (1..=LENGTH_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

impl Keys {
    pub(super) fn new(ttl: Duration, count_max: usize) -> Self {
        Self {
            ttl_millis: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
            count_max,
            keys: HashMap::default(),
            alone: BTreeSet::new(),
        }
    }

    pub(super) fn owner(&self, key: &str, description: &AppDescription) -> Owner {
        match self.keys.get(key) {
            None => Owner::Nobody,
            Some(known) if known.digest == digest_of(description) => Owner::Same(known.app.clone()),
            Some(known) => Owner::Other(known.app.clone()),
        }
    }

    /// Learns the key of an application that is listed, if it has one.
    pub(super) fn insert(&mut self, app: &AppRecord) {
        if let Some(key) = &app.key
            && !self.keys.contains_key(key)
        {
            let known = Known {
                app: app.id.clone(),
                digest: digest_of(&app.description),
                until: app.submitted_at.saturating_add(self.ttl_millis),
            };
            self.keys.insert(Arc::clone(key), known);
        }
    }

    /// Whose a key is, and whether that is no longer listed. Taken out, it is nobody's.
    pub(super) fn take(&mut self, key: &str) -> Option<(AppId, bool)> {
        let (key, known) = self.keys.remove_entry(key)?;
        let is_alone = self.alone.remove(&(known.until, known.app.clone(), key));
        Some((known.app, is_alone))
    }

    /// Learns a key that was stored by itself; says whether it is to stay so. It is not where a listed application has
    /// the key: the master before ended between the two records.
    pub(super) fn restore(&mut self, record: KeyRecord) -> bool {
        if let Some(known) = self.keys.get(&record.key) {
            let alone = (known.until, known.app.clone(), Arc::clone(&record.key));
            return known.app == record.app && self.alone.contains(&alone);
        }
        let KeyRecord {
            key,
            app,
            digest,
            until,
        } = record;
        self.alone.insert((until, app.clone(), Arc::clone(&key)));
        self.keys.insert(key, Known { app, digest, until });
        true
    }

    /// Forgets a key together with its application, which nobody was told of.
    pub(super) fn withdraw(&mut self, app: &AppRecord) {
        if let Some(key) = app.key.as_ref().filter(|key| self.is_of(key, &app.id)) {
            self.keys.remove(key);
        }
    }

    /// As [`withdraw`](Self::withdraw), of an application that is no longer listed; says whether it had a key.
    pub(super) fn withdraw_alone(&mut self, app: &AppId) -> bool {
        let found = self.alone.iter().find(|(_, owner, _)| owner == app);
        let Some(found) = found.cloned() else {
            return false;
        };
        self.alone.remove(&found);
        self.keys.remove(&found.2);
        true
    }

    /// Its application is no longer listed: what is to be stored of the key, if it is still to be known.
    pub(super) fn outlive(&mut self, app: &AppRecord, now_millis: u64) -> Option<KeyRecord> {
        let key = app.key.as_ref().filter(|key| self.is_of(key, &app.id))?;
        let known = self.keys.get(key)?;
        if known.until <= now_millis || self.count_max == 0 {
            self.keys.remove(key);
            return None;
        }
        let record = KeyRecord {
            key: Arc::clone(key),
            app: known.app.clone(),
            digest: known.digest,
            until: known.until,
        };
        self.alone
            .insert((record.until, record.app.clone(), Arc::clone(key)));
        Some(record)
    }

    fn is_of(&self, key: &str, app: &AppId) -> bool {
        self.keys.get(key).is_some_and(|known| known.app == *app)
    }

    /// Forgets a key whose time is over, or the first to go where there are too many; tells whose it was.
    pub(super) fn take_expired(&mut self, now_millis: u64) -> Option<AppId> {
        let (until, ..) = self.alone.first()?;
        if *until > now_millis && self.alone.len() <= self.count_max {
            return None;
        }
        let (_, app, key) = self.alone.pop_first()?;
        self.keys.remove(&key);
        Some(app)
    }

    #[cfg(any(test, feature = "testing"))]
    pub(super) fn check_invariants(&self, apps: &Apps) {
        for (key, known) in &self.keys {
            let alone = (known.until, known.app.clone(), Arc::clone(key));
            let is_listed = apps
                .get(&known.app)
                .is_some_and(|app| app.key.as_ref() == Some(key));
            assert!(
                is_listed != self.alone.contains(&alone),
                "the key {key} of {} is nobody's, or kept twice",
                known.app
            );
        }
        for (_, app, key) in &self.alone {
            assert!(self.keys.get(key).is_some_and(|known| known.app == *app));
        }
    }
}
