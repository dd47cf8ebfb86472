use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::{Change, PersistenceEngine, PersistenceError, StoredRecord};

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

#[async_trait]
impl PersistenceEngine for MemoryEngine {
    async fn begin_epoch(&self, at_least: u64) -> Result<u64, PersistenceError> {
        Ok(self.with(|stored| {
            stored.epoch = at_least.max(stored.epoch + 1);
            stored.epoch
        }))
    }

    async fn read_all(&self) -> Result<Vec<StoredRecord>, PersistenceError> {
        let record = |(key, value): (&String, &Vec<u8>)| StoredRecord {
            key: key.clone(),
            value: value.clone(),
        };
        Ok(self.with(|stored| stored.records.iter().map(record).collect()))
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
            for change in changes {
                match change {
                    Change::Put(StoredRecord { key, value }) => stored.records.insert(key, value),
                    Change::Delete { key } => stored.records.remove(&key),
                };
            }
            Ok(())
        })
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
