//! A store with a file for each record, as one may have it on a file system that several machines share.
//!
//! A batch is all or nothing: it is written to a journal first, in one file, and that file's name is what makes it
//! durable. Whoever opens the store applies a journal that is still there.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aloha_scheduler::persistence::{Change, PersistenceEngine, PersistenceError, StoredRecord};
use async_trait::async_trait;

/// Keeps each record in a file of a directory.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    directory: Arc<PathBuf>,
}

/// The number of the newest leadership, in a file that is locked while somebody writes.
struct Epoch {
    file: File,
    newest: u64,
}

impl Files {
    /// Opens the store in this directory, which is made if need be.
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let directory = Arc::new(directory.to_owned());
        Ok(Self { directory })
    }

    /// Runs what blocks where it may.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self, Epoch) -> io::Result<Result<T, PersistenceError>> + Send + 'static,
    ) -> Result<T, PersistenceError> {
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let epoch = this.lock()?;
            this.apply_journal()?;
            work(&this, epoch)
        });
        match done.await {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => Err(self.unavailable(error.to_string())),
            Err(error) => Err(self.unavailable(error.to_string())),
        }
    }

    fn unavailable(&self, reason: String) -> PersistenceError {
        PersistenceError::Unavailable {
            store: self.directory.display().to_string(),
            reason,
        }
    }

    fn lock(&self) -> io::Result<Epoch> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(self.directory.join("epoch"))?;
        file.lock()?; // until it is dropped
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let newest = match text.trim() {
            "" => 0,
            number => number.parse().map_err(io::Error::other)?,
        };
        Ok(Epoch { file, newest })
    }

    /// Keys have `/` and no `%`, names of files the reverse.
    fn path(&self, key: &str) -> PathBuf {
        let name = format!("{}.record", key.replace('/', "%"));
        self.directory.join(name)
    }

    /// Makes a file that is there in whole or not at all: a new one under another name, durable before it is renamed.
    fn replace(&self, path: &Path, contents: &[u8]) -> io::Result<()> {
        let unfinished = path.with_extension("new");
        let mut file = File::create(&unfinished)?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    }

    /// Makes the names in the directory durable.
    fn sync(&self) -> io::Result<()> {
        File::open(&*self.directory)?.sync_all()
    }

    fn write(&self, changes: Vec<Change>) -> io::Result<()> {
        // What a key is in the end.
        let changes: BTreeMap<String, Option<Vec<u8>>> = changes
            .into_iter()
            .map(|change| match change {
                Change::Put(StoredRecord { key, value }) => (key, Some(value)),
                Change::Delete { key } => (key, None),
            })
            .collect();
        let journal = serde_json::to_vec(&changes)?;
        self.replace(&self.directory.join("journal"), &journal)?;
        self.sync()?; // from here on, it is done
        self.apply_journal()
    }

    /// Doing it twice does no harm.
    fn apply_journal(&self) -> io::Result<()> {
        let journal = self.directory.join("journal");
        let changes = match fs::read(&journal) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let changes: BTreeMap<String, Option<Vec<u8>>> = serde_json::from_slice(&changes)?;
        for (key, value) in changes {
            let path = self.path(&key);
            match value {
                Some(value) => self.replace(&path, &value)?,
                None => match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                },
            }
        }
        self.sync()?;
        fs::remove_file(&journal)?;
        self.sync()
    }

    fn read(&self) -> io::Result<Vec<StoredRecord>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&*self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let key = name.to_str().and_then(|name| name.strip_suffix(".record"));
            if let Some(key) = key {
                records.push(StoredRecord {
                    key: key.replace('%', "/"),
                    value: fs::read(entry.path())?,
                });
            }
        }
        Ok(records)
    }
}

#[async_trait]
impl PersistenceEngine for Files {
    async fn begin_epoch(&self, at_least: u64) -> Result<u64, PersistenceError> {
        self.run(move |_, mut epoch| {
            let next = at_least.max(epoch.newest + 1);
            // Of a fixed length, so that it never takes a byte more than the file has.
            epoch.file.rewind()?;
            write!(epoch.file, "{next:020}")?;
            epoch.file.sync_all()?;
            Ok(Ok(next))
        })
        .await
    }

    async fn read_all(&self) -> Result<Vec<StoredRecord>, PersistenceError> {
        self.run(|this, _epoch| this.read().map(Ok)).await
    }

    async fn write(&self, epoch: u64, changes: Vec<Change>) -> Result<(), PersistenceError> {
        self.run(move |this, locked| {
            // Nobody begins an epoch between the look and the write: the file is locked.
            if epoch < locked.newest {
                let newest = locked.newest;
                return Ok(Err(PersistenceError::Fenced {
                    ours: epoch,
                    newest,
                }));
            }
            Self::write(this, changes).map(Ok)
        })
        .await
    }
}
