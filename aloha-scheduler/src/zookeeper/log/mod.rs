//! The store: a log of batches, for ZooKeeper writes one node as fast as a thousand records and keeps all in memory.
//!
//! ```text
//!   <dir>/store                        {"format":1}
//!   <dir>/store/epoch                  {"epoch":7,"by":"…"}: the newest epoch, raised by compare-and-set
//!   <dir>/store/log                    the number of the oldest segment
//!   <dir>/store/log/0000000000000042   a segment
//! ```
//!
//! - A write is one request: check that `epoch` is still at the version at which we set it, create the next segment.
//!   ZooKeeper itself refuses it once a newer epoch has begun.
//! - Numbers rise by one, are never given twice, and leave no gap: the count of the nodes below `log` says which is the
//!   newest, and nobody ever lists them. Where the answer to a write was lost it is sent again; a segment that is there
//!   already and is the same is durable.
//! - Who reads knows of each key where its valid record lies (the ledger), so that the next leader compacts and writes
//!   without reading anything again.

mod compaction;
mod epoch;
mod follower;
mod ledger;
mod segment;
mod writer;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::{OnceCell, oneshot};
use zookeeper_client::{Client, CreateMode, Error, MultiWriteError, MultiWriter};

use self::follower::Follower;
use self::ledger::{Ledger, Limits};
use self::segment::BadSegment;
use self::writer::Writer;
use super::latch::OwnLatch;
use super::session::Session;
use super::trouble::Trouble;
use crate::persistence::{
    Change, PersistenceEngine, PersistenceError, StoreFollower, StoredRecord,
};

const FORMAT: &[u8] = br#"{"format":1}"#;
/// How many segments are asked for at once.
const READ_AHEAD: u64 = 64;

/// A store of records on a ZooKeeper.
#[derive(Debug)]
pub struct ZooKeeperStore {
    log: Arc<Log>,
    writer: Arc<tokio::sync::Mutex<Writer>>,
}

impl ZooKeeperStore {
    pub(super) fn new(session: Session, own: OwnLatch, limits: Option<(u64, u64)>) -> Self {
        let limits = limits.map_or_else(Limits::default, |(bytes, segments)| Limits {
            bytes,
            segments,
        });
        Self {
            log: Arc::new(Log::new(session, own, limits)),
            writer: Arc::default(),
        }
    }
}

#[async_trait]
impl PersistenceEngine for ZooKeeperStore {
    async fn begin_epoch(&self, at_least: u64) -> Result<u64, PersistenceError> {
        self.log.ensure().await?;
        let fence = self.log.begin_epoch(at_least).await?;
        let mut writer = self.writer.lock().await;
        writer.begin(fence);
        Ok(fence.epoch)
    }

    async fn read_all(&self) -> Result<Vec<StoredRecord>, PersistenceError> {
        let mut follower = Follower::new(Arc::clone(&self.log));
        let mut stored = BTreeMap::new();
        for change in follower.catch_up().await? {
            match change {
                Change::Put(record) => stored.insert(record.key, record.value),
                Change::Delete { key } => stored.remove(&key),
            };
        }
        let records = stored
            .into_iter()
            .map(|(key, value)| StoredRecord { key, value });
        Ok(records.collect())
    }

    async fn write(&self, epoch: u64, changes: Vec<Change>) -> Result<(), PersistenceError> {
        if changes.is_empty() {
            return Ok(());
        }
        // A caller that goes away leaves no batch half written.
        let (answer, answered) = oneshot::channel();
        let (log, writer) = (Arc::clone(&self.log), Arc::clone(&self.writer));
        let unfinished = self
            .log
            .unavailable("the write was not finished".to_owned());
        tokio::spawn(async move {
            let mut writer = writer.lock_owned().await;
            let written = writer.write(&log, epoch, changes).await;
            let compaction = written.as_ref().map(|written| *written).ok();
            // Whoever asked may have gone away.
            let _gone = answer.send(written.map(|_| ()));
            if let Some(written) = compaction {
                writer.compact(&log, written).await;
            }
        });
        answered.await.unwrap_or(Err(unfinished))
    }

    async fn follow(&self) -> Result<Option<Box<dyn StoreFollower>>, PersistenceError> {
        Ok(Some(Box::new(Follower::new(Arc::clone(&self.log)))))
    }
}

/// The log as all ends of it see it.
#[derive(Debug)]
struct Log {
    session: Session,
    own: OwnLatch,
    limits: Limits,
    root: String,
    /// Where it lies, for messages.
    name: String,
    is_there: OnceCell<()>,
    /// What the latest reader knows, until a writer takes it.
    known: Mutex<Option<Arc<Mutex<Option<Ledger>>>>>,
}

/// How far the log goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ends {
    /// The number of the oldest segment.
    oldest: u64,
    /// The number of the next one.
    next: u64,
}

/// What came of a request that is done as a whole or not at all.
type Done = Result<(), (usize, Error)>;

impl Log {
    fn new(session: Session, own: OwnLatch, limits: Limits) -> Self {
        let settings = session.settings();
        let root = format!("{}/store", settings.root);
        Self {
            name: format!("the store {root} on ZooKeeper {}", settings.servers),
            root,
            session: session.clone(),
            own,
            limits,
            is_there: OnceCell::new(),
            known: Mutex::default(),
        }
    }

    fn path(&self) -> String {
        format!("{}/log", self.root)
    }

    fn segment(&self, number: u64) -> String {
        format!("{}/log/{number:016}", self.root)
    }

    fn epoch_path(&self) -> String {
        format!("{}/epoch", self.root)
    }

    fn unavailable(&self, reason: String) -> PersistenceError {
        PersistenceError::Unavailable {
            store: self.name.clone(),
            reason,
        }
    }

    fn unreadable(&self, reason: &str) -> PersistenceError {
        PersistenceError::Unreadable {
            store: self.name.clone(),
            reason: reason.to_owned(),
        }
    }

    fn trouble(&self, trouble: &Trouble) -> PersistenceError {
        match trouble {
            Trouble::Refused(Error::NoNode) => PersistenceError::Damaged {
                store: self.name.clone(),
                reason: "some of its nodes are gone".to_owned(),
            },
            trouble => self.unavailable(trouble.to_string()),
        }
    }

    fn bad_segment(&self, number: u64, bad: &BadSegment) -> PersistenceError {
        match bad {
            BadSegment::Newer => self.unreadable(
                "a newer version of Aloha has written to it; start that one, or give this one a directory of its own \
                 (aloha.deploy.zookeeper.dir)",
            ),
            BadSegment::Damaged => PersistenceError::Damaged {
                store: self.name.clone(),
                reason: format!("segment {number} fails its checksum"),
            },
        }
    }

    /// Makes the store where there is none, and looks whether it is one of ours.
    async fn ensure(&self) -> Result<(), PersistenceError> {
        let ensured = self.is_there.get_or_try_init(|| self.look_or_create());
        ensured.await.copied()
    }

    async fn look_or_create(&self) -> Result<(), PersistenceError> {
        let found = self
            .session
            .run(|client| async move { client.get_data(&self.root).await });
        let format = match found.await {
            Ok((format, _)) => format,
            Err(Trouble::Refused(Error::NoNode)) => {
                self.create().await?;
                let found = self
                    .session
                    .run(|client| async move { client.get_data(&self.root).await });
                found.await.map_err(|trouble| self.trouble(&trouble))?.0
            }
            Err(trouble) => return Err(self.trouble(&trouble)),
        };
        if format == FORMAT {
            return Ok(());
        }
        Err(self.unreadable(
            "it is of another version of Aloha, or not of Aloha; start that version, or give this one a directory of \
             its own (aloha.deploy.zookeeper.dir)",
        ))
    }

    async fn create(&self) -> Result<(), PersistenceError> {
        let options = CreateMode::Persistent.with_acls(self.session.settings().acls());
        let done = self.multi(|writer| {
            writer.add_create(&self.root, FORMAT, &options)?;
            writer.add_create(&self.epoch_path(), &epoch::NONE.encode(), &options)?;
            writer.add_create(&self.path(), b"1", &options)
        });
        match done.await? {
            // Somebody else did, or we did and were not told.
            Ok(()) | Err((_, Error::NodeExists)) => Ok(()),
            Err((_, error)) => Err(self.trouble(&Trouble::Refused(error))),
        }
    }

    /// Has this done as a whole or not at all. Sent again where the answer was lost: it may have been done before.
    async fn multi(
        &self,
        fill: impl Fn(&mut MultiWriter<'_>) -> Result<(), Error>,
    ) -> Result<Done, PersistenceError> {
        let fill = &fill;
        let done = self.session.run(|client| async move {
            let committed = {
                let mut writer = client.new_multi_writer();
                fill(&mut writer)?;
                writer.commit()
            };
            match committed.await {
                Ok(_) => Ok(Ok(())),
                Err(MultiWriteError::OperationFailed { index, source }) => Ok(Err((index, source))),
                Err(MultiWriteError::RequestFailed { source }) => Err(source),
            }
        });
        done.await.map_err(|trouble| self.trouble(&trouble))
    }

    /// Sees to it that what was durable when this was called is seen by what is read next.
    async fn sync(&self) -> Result<(), PersistenceError> {
        let path = self.path();
        let path = &path;
        let synced = self
            .session
            .run(|client| async move { client.sync(path).await });
        synced.await.map_err(|trouble| self.trouble(&trouble))
    }

    async fn ends(&self) -> Result<Ends, PersistenceError> {
        let path = self.path();
        let path = &path;
        let found = self
            .session
            .run(|client| async move { client.get_data(path).await });
        let (data, stat) = found.await.map_err(|trouble| self.trouble(&trouble))?;
        self.ends_of(&data, stat.num_children)
    }

    fn ends_of(&self, data: &[u8], segments: i32) -> Result<Ends, PersistenceError> {
        let oldest = std::str::from_utf8(data)
            .ok()
            .and_then(|text| text.parse().ok());
        let segments = u64::try_from(segments).ok();
        match (oldest, segments) {
            (Some(oldest), Some(segments)) => Ok(Ends {
                oldest,
                next: oldest + segments,
            }),
            _ => Err(PersistenceError::Damaged {
                store: self.name.clone(),
                reason: "the number of its oldest segment is none".to_owned(),
            }),
        }
    }

    /// Segments from the first of these numbers on, as many as are there and are read at once.
    async fn read(&self, numbers: std::ops::Range<u64>) -> Result<Vec<Vec<u8>>, PersistenceError> {
        let end = numbers.end.min(numbers.start + READ_AHEAD);
        let read = self.session.run(|client: Client| {
            // All are sent before the first is awaited.
            let asked = (numbers.start..end).map(|number| client.get_data(&self.segment(number)));
            let asked: Vec<_> = asked.collect();
            async move {
                let mut segments = Vec::new();
                for segment in asked {
                    match segment.await {
                        Ok((data, _)) => segments.push(data),
                        Err(Error::NoNode) => break,
                        Err(error) => return Err(error),
                    }
                }
                Ok(segments)
            }
        });
        read.await.map_err(|trouble| self.trouble(&trouble))
    }

    fn share(&self, ledger: &Arc<Mutex<Option<Ledger>>>) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(ledger));
    }

    fn take_known(&self) -> Option<Ledger> {
        let known = self
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()?;
        known.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
