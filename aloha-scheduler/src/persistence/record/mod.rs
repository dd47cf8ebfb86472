//! What a stored record looks like, and what can be read of what was stored.
//!
//! ```text
//! key:    app/app-20190311221731-0000
//! value:  {"kind":"app","version":1,"crc32":"1a2b3c4d","body":{…}}
//! ```
//!
//! The checksum is that of the key, the kind, the version and the body, byte by byte, with a line feed behind each of
//! the first three. So a record under a wrong key, a torn one and one whose bits fell over are all told from one that a
//! newer version wrote.

mod compact;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use self::compact::{CompactApp, CompactDescription};
use super::{Change, PersistenceError, StoredRecord};
use crate::app::AppDescription;
use crate::ids::{AppId, WorkerId};
use crate::master::{AppRecord, KeyRecord, Record, WorkerRecord};

/// The version that is written, and the newest that is read. Fields with a default may be added without a new one.
const VERSION: u32 = 1;
/// What one record may hold of what a user sent: other stores than a file take little more.
pub(crate) const DESCRIPTION_BYTES_MAX: usize = 1 << 20;
const NEXT_NUMBER: &str = "meta/next-number";
const SET_ASIDE: &str = "set-aside/";
const KEY_LENGTH_MAX: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    App,
    Worker,
    NextNumber,
    Key,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Worker => "worker",
            Self::NextNumber => "next-number",
            Self::Key => "key",
        }
    }
}

#[derive(Debug, Deserialize)]
struct Envelope<'a> {
    kind: Kind,
    version: u32,
    crc32: String,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// A record that cannot be read, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DamagedRecord {
    pub(crate) record: StoredRecord,
    pub(crate) reason: String,
}

/// The change of what is stored that a record of the core's is.
pub(crate) fn change_of(record: &Record) -> Change {
    match record {
        Record::App(app) => put(app_key(&app.id), Kind::App, &CompactApp::from(&**app)),
        Record::AppForgotten(id) => Change::Delete { key: app_key(id) },
        Record::Worker(worker) => put(format!("worker/{}", worker.id), Kind::Worker, worker),
        Record::WorkerForgotten(id) => Change::Delete {
            key: format!("worker/{id}"),
        },
        Record::Key(record) => put(key_key(&record.app), Kind::Key, record),
        Record::KeyForgotten(app) => Change::Delete { key: key_key(app) },
        Record::NextNumber(number) => put(NEXT_NUMBER.to_owned(), Kind::NextNumber, number),
    }
}

fn app_key(id: &AppId) -> String {
    format!("app/{id}")
}

/// By the application, which has no more than one: a key may hold what no store takes in a name.
fn key_key(app: &AppId) -> String {
    format!("key/{app}")
}

/// Tells descriptions apart. What is as it is by default counts for nothing, so that later versions come to the same.
pub(crate) fn digest_of(description: &AppDescription) -> u32 {
    let compact = CompactDescription::from(description);
    crc32fast::hash(&serde_json::to_vec(&compact).expect("descriptions are always JSON"))
}

fn put(key: String, kind: Kind, body: &impl Serialize) -> Change {
    let body = serde_json::to_string(body).expect("records are always JSON");
    let crc32 = checksum(&key, kind, VERSION, &body);
    let kind = kind.as_str();
    // An Envelope, written by hand: the body is copied once.
    let value =
        format!(r#"{{"kind":"{kind}","version":{VERSION},"crc32":"{crc32}","body":{body}}}"#);
    Change::Put(StoredRecord {
        key,
        value: value.into_bytes(),
    })
}

fn checksum(key: &str, kind: Kind, version: u32, body: &str) -> String {
    let mut hasher = crc32fast::Hasher::new();
    for part in [key, kind.as_str(), &version.to_string()] {
        hasher.update(part.as_bytes());
        hasher.update(b"\n");
    }
    hasher.update(body.as_bytes());
    format!("{:08x}", hasher.finalize())
}

/// Says that a newer version wrote this.
pub(crate) fn newer(store: &str, key: &str, version: u32) -> PersistenceError {
    let reason = format!(
        "{key} was written by a newer version of Aloha (records of version {version}, this one reads {VERSION}); \
         start that version again"
    );
    let store = store.to_owned();
    PersistenceError::Unreadable { store, reason }
}

/// Whether this is a record as it was written under this key.
pub(super) fn is_whole(key: &str, value: &[u8]) -> bool {
    let record = StoredRecord {
        key: key.to_owned(),
        value: value.to_vec(),
    };
    matches!(read_body(&record), Ok(_) | Err(Unread::Newer(_)))
}

/// The changes that set a damaged record aside, byte by byte, by the leadership of this epoch.
pub(crate) fn set_aside(epoch: u64, record: &StoredRecord) -> [Change; 2] {
    let mut key = format!("{SET_ASIDE}{epoch}/{}", record.key);
    key.truncate(KEY_LENGTH_MAX); // Only a stranger's is so long; keys are ASCII.
    let StoredRecord { key: old, value } = record.clone();
    [
        Change::Put(StoredRecord { key, value }),
        Change::Delete { key: old },
    ]
}

/// What to keep of a record of which a later version is lost: that of an application is set aside, for what it says may
/// have been done already.
pub(super) fn outdated(epoch: u64, mut record: StoredRecord) -> StoredRecord {
    if app_of(&record.key).is_some() {
        tracing::error!(
            key = record.key,
            "the last version of a stored record is lost, the one before it set aside"
        );
        record.key = format!("{SET_ASIDE}{epoch}/{}", record.key);
    }
    record
}

/// The application of a key such as `7/app/app-1`, where it is one.
fn app_set_aside(key: &str) -> Option<AppId> {
    app_of(key.split_once('/')?.1)
}

/// The application whose record has this key.
pub(crate) fn app_of(key: &str) -> Option<AppId> {
    key.strip_prefix("app/")?.parse().ok()
}

/// What a key says of the record under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Named {
    App(AppId),
    Worker(WorkerId),
    Key(AppId),
    NextNumber,
    /// Set aside, or a stranger's.
    Other,
}

/// What this key says of the record under it.
pub(crate) fn named(key: &str) -> Named {
    let (kind, id) = key.split_once('/').unwrap_or((key, ""));
    let named = match kind {
        "app" => id.parse().ok().map(Named::App),
        "worker" => id.parse().ok().map(Named::Worker),
        "key" => id.parse().ok().map(Named::Key),
        _ => (key == NEXT_NUMBER).then_some(Named::NextNumber),
    };
    named.unwrap_or(Named::Other)
}

/// A record that can be read.
#[derive(Debug)]
pub(crate) enum Readable {
    App(AppRecord),
    Worker(WorkerRecord),
    Key(KeyRecord),
    NextNumber(u64),
    /// A damaged one that was set aside, of this application if it was one's.
    SetAside(Option<AppId>),
}

/// Why a record cannot be read.
#[derive(Debug)]
pub(crate) enum Unread {
    Damaged(String),
    /// It was written by a newer version.
    Newer(u32),
}

/// Reads one record.
pub(crate) fn read(record: &StoredRecord) -> Result<Readable, Unread> {
    match record.key.strip_prefix(SET_ASIDE) {
        Some(set_aside) => Ok(Readable::SetAside(app_set_aside(set_aside))),
        None => read_body(record),
    }
}

fn read_body(record: &StoredRecord) -> Result<Readable, Unread> {
    let StoredRecord { key, value } = record;
    let damaged = |reason: String| Unread::Damaged(reason);
    if value.is_empty() {
        return Err(damaged("it is empty".to_owned()));
    }
    let envelope: Envelope<'_> =
        serde_json::from_slice(value).map_err(|error| damaged(format!("no record: {error}")))?;
    let Envelope {
        kind,
        version,
        crc32,
        body,
    } = envelope;
    let body = body.get();
    let expected = checksum(key, kind, version, body);
    if crc32 != expected {
        let reason = format!("its checksum is {crc32}, but that of what it holds is {expected}");
        return Err(damaged(reason));
    }
    if version > VERSION {
        return Err(Unread::Newer(version));
    }
    let unexpected = |error: serde_json::Error| damaged(format!("no {}: {error}", kind.as_str()));
    match kind {
        Kind::App => {
            let app: AppRecord = serde_json::from_str(body).map_err(unexpected)?;
            if *key != app_key(&app.id) {
                return Err(damaged(format!("it is that of {}", app.id)));
            }
            Ok(Readable::App(app))
        }
        Kind::Worker => {
            let worker: WorkerRecord = serde_json::from_str(body).map_err(unexpected)?;
            if key.strip_prefix("worker/") != Some(worker.id.as_str()) {
                return Err(damaged(format!("it is that of {}", worker.id)));
            }
            Ok(Readable::Worker(worker))
        }
        Kind::Key => {
            let record: KeyRecord = serde_json::from_str(body).map_err(unexpected)?;
            if *key != key_key(&record.app) {
                return Err(damaged(format!("it is that of {}", record.app)));
            }
            Ok(Readable::Key(record))
        }
        Kind::NextNumber => {
            let number = serde_json::from_str(body).map_err(unexpected)?;
            Ok(Readable::NextNumber(number))
        }
    }
}

#[cfg(test)]
mod tests;
