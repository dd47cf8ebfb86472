use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use super::{Change, PersistenceEngine, PersistenceError, StoreFollower, StoredRecord};

/// How many batches are kept for a follower that is slow.
const BATCHES_KEPT: usize = 1024;

/// A store that lasts as long as this process: for tests, and as a model for other engines.
///
/// Clones share what is stored, as masters on several machines share a server.
#[derive(Debug, Clone, Default)]
pub struct MemoryEngine {
    stored: Arc<Mutex<Stored>>,
}

#[derive(Debug, Default)]
struct Stored {
    epoch: u64,
    records: BTreeMap<String, Vec<u8>>,
    followers: Vec<mpsc::Sender<Vec<Change>>>,
}

impl MemoryEngine {
    /// Nothing is stored yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn with<R>(&self, run: impl FnOnce(&mut Stored) -> R) -> R {
        run(&mut self.stored.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Stored {
    fn records(&self) -> impl Iterator<Item = StoredRecord> {
        let record = |(key, value): (&String, &Vec<u8>)| StoredRecord {
            key: key.clone(),
            value: value.clone(),
        };
        self.records.iter().map(record)
    }

    fn apply(&mut self, changes: Vec<Change>) {
        self.followers
            .retain(|follower| follower.try_send(changes.clone()).is_ok());
        for change in changes {
            match change {
                Change::Put(StoredRecord { key, value }) => self.records.insert(key, value),
                Change::Delete { key } => self.records.remove(&key),
            };
        }
    }
}

#[async_trait]
impl PersistenceEngine for MemoryEngine {
    async fn begin_epoch(&self, at_least: u64) -> Result<u64, PersistenceError> {
        Ok(self.with(|stored| {
            stored.epoch = at_least.max(stored.epoch + 1);
            stored.epoch
        }))
    }

    async fn read_all(&self) -> Result<Vec<StoredRecord>, PersistenceError> {
        Ok(self.with(|stored| stored.records().collect()))
    }

    async fn write(&self, epoch: u64, changes: Vec<Change>) -> Result<(), PersistenceError> {
        self.with(|stored| {
            if epoch < stored.epoch {
                let newest = stored.epoch;
                return Err(PersistenceError::Fenced {
                    ours: epoch,
                    newest,
                });
            }
            stored.apply(changes);
            Ok(())
        })
    }

    async fn follow(&self) -> Result<Option<Box<dyn StoreFollower>>, PersistenceError> {
        Ok(Some(self.with(|stored| {
            let (sender, changes) = mpsc::channel(BATCHES_KEPT);
            let all: Vec<_> = stored.records().map(Change::Put).collect();
            sender.try_send(all).expect("it is empty yet");
            stored.followers.push(sender);
            let store = self.clone();
            Box::new(MemoryFollower { store, changes }) as _
        })))
    }
}

/// Whoever falls further behind than [`BATCHES_KEPT`] is left behind.
#[derive(Debug)]
struct MemoryFollower {
    store: MemoryEngine,
    changes: mpsc::Receiver<Vec<Change>>,
}

#[async_trait]
impl StoreFollower for MemoryFollower {
    async fn next(&mut self) -> Result<Vec<Change>, PersistenceError> {
        self.changes.recv().await.ok_or_else(left_behind)
    }

    async fn catch_up(&mut self) -> Result<Vec<Change>, PersistenceError> {
        let mut changes = Vec::new();
        // A batch is sent under the lock that it is written under.
        self.store.with(|_| {
            loop {
                match self.changes.try_recv() {
                    Ok(batch) => changes.extend(batch),
                    Err(TryRecvError::Empty) => return Ok(changes),
                    Err(TryRecvError::Disconnected) => return Err(left_behind()),
                }
            }
        })
    }
}

fn left_behind() -> PersistenceError {
    PersistenceError::Unavailable {
        store: "the store in memory".to_owned(),
        reason: format!("more than {BATCHES_KEPT} batches were written and not read"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_memory_engine_keeps_the_contract() {
        let store = MemoryEngine::new();
        super::super::contract::check(async || store.clone()).await;
    }
}
