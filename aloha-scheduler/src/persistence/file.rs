//! The store of one machine: a [redb](https://docs.rs/redb) database in a directory of its own.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use tracing::{debug, error};

use super::directory_lock::{Unlocked, lock};
use super::salvage::{Salvaged, salvage};
use super::{Change, PersistenceEngine, PersistenceError, StoredRecord};
use crate::blocking::blocking;

const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const EPOCH: &str = "epoch";
/// How many batches were written, the last one included.
const BATCH: &str = "batch";
/// The bit in byte 9 of a file by which redb says that it was not closed.
const REPAIR_NEEDED: u8 = 2;

/// What redb may keep in memory. A master keeps all it needs itself, and reads the file at its start alone.
const CACHE_BYTES: usize = 8 << 20;
/// Keeps records in the file `recovery.redb` of a directory that no other process uses meanwhile.
///
/// A batch is one transaction and one fsync. Each page has a checksum, and a page in use is never overwritten, so that
/// the file as of the last batch survives the end of the process or of the machine at any moment. After an error the
/// file is opened anew with the next try.
///
/// To redb a last batch that was damaged later looks like one that was never finished, which it takes back without a
/// word. So the number of the last finished one is noted beside it, in `recovery.batch`: a file that has gone back
/// behind it is damaged.
///
/// A file with damaged pages is read record by record into a new one, and stays beside it as `recovery.redb.damaged-1`.
#[derive(Debug)]
pub struct FileEngine {
    store: Arc<Store>,
}

#[derive(Debug)]
struct Store {
    path: PathBuf,
    state: Mutex<State>,
    /// Held for as long as this lives.
    _lock: File,
}

#[derive(Debug)]
struct State {
    /// `None` after an error, until the next try.
    database: Option<Database>,
    counts: Counts,
}

/// What is counted in the file. Nobody else has it.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    /// The newest epoch that began here.
    epoch: u64,
    /// The number of the last batch.
    batch: u64,
}

impl FileEngine {
    /// Opens the store in this directory, which is made, for its owner alone, where it is missing. Blocks.
    ///
    /// # Errors
    ///
    /// The directory cannot be written, is in use by another process, or holds a file that is damaged.
    pub fn open(directory: &Path) -> Result<Self, PersistenceError> {
        let unusable = |error: io::Error| PersistenceError::Unavailable {
            store: directory.display().to_string(),
            reason: format!("{error}; the recovery directory must be one that this user may write"),
        };
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory);
        made.map_err(unusable)?;
        let directory = directory.canonicalize().map_err(unusable)?;
        let lock = lock(&directory).map_err(|error| match error {
            Unlocked::Taken(store) => PersistenceError::InUse { store },
            Unlocked::Failed(error) => unusable(error),
        })?;
        let path = directory.join("recovery.redb");
        if !path.try_exists().map_err(unusable)? {
            create(&path, &Salvaged::default())?;
        }
        let mut state = State {
            database: None,
            counts: Counts::default(),
        };
        let mut load = || {
            state.database = None;
            let (database, counts) = attempt(&path, || {
                let database = open(&path)?;
                let table = database.begin_read()?.open_table(META)?;
                let count = |name| -> Result<u64, redb::Error> {
                    Ok(table.get(name)?.map_or(0, |count| count.value()))
                };
                let (epoch, batch) = (count(EPOCH)?, count(BATCH)?);
                Ok((database, Counts { epoch, batch }))
            })?;
            if counts.batch < noted_batch(&path) {
                return Err(PersistenceError::Damaged {
                    store: path.display().to_string(),
                    reason: "its last batch cannot be read".to_owned(),
                });
            }
            state.counts = counts;
            state.database = Some(database);
            Ok(())
        };
        // Opening it, redb writes to a file that was not closed, and may take its last batch back.
        let before = was_closed(&path).map_err(unusable)?;
        let before = match before {
            true => None,
            false => Some(fs::read(&path).map_err(unusable)?),
        };
        match load() {
            Err(damage @ PersistenceError::Damaged { .. }) => {
                salvage_file(&path, before, damage)?;
                load()?;
            }
            loaded => loaded?,
        }
        let store = Store {
            path,
            state: Mutex::new(state),
            _lock: lock,
        };
        Ok(Self {
            store: Arc::new(store),
        })
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, PersistenceError> + Send + 'static,
    ) -> Result<T, PersistenceError> {
        let store = Arc::clone(&self.store);
        blocking(move || work(&store)).await
    }
}

#[async_trait]
impl PersistenceEngine for FileEngine {
    async fn begin_epoch(&self, at_least: u64) -> Result<u64, PersistenceError> {
        self.run(move |store| {
            store.with(|database, counts| {
                let next = at_least.max(counts.epoch + 1);
                let transaction = database.begin_write()?;
                transaction.open_table(META)?.insert(EPOCH, next)?;
                transaction.commit()?;
                counts.epoch = next;
                Ok(next)
            })
        })
        .await
    }

    async fn read_all(&self) -> Result<Vec<StoredRecord>, PersistenceError> {
        self.run(|store| {
            store.with(|database, _| {
                let table = database.begin_read()?.open_table(RECORDS)?;
                let mut records = Vec::new();
                for entry in table.iter()? {
                    let (key, value) = entry?;
                    records.push(StoredRecord {
                        key: key.value().to_owned(),
                        value: value.value().to_vec(),
                    });
                }
                Ok(records)
            })
        })
        .await
    }

    async fn write(&self, epoch: u64, changes: Vec<Change>) -> Result<(), PersistenceError> {
        let written = self.run(move |store| {
            let written = store.with(|database, counts| {
                if epoch < counts.epoch {
                    return Ok(Err(counts.epoch));
                }
                if changes.is_empty() {
                    return Ok(Ok(()));
                }
                let transaction = database.begin_write()?;
                let mut table = transaction.open_table(RECORDS)?;
                for change in &changes {
                    match change {
                        Change::Put(StoredRecord { key, value }) => {
                            table.insert(key.as_str(), value.as_slice())?;
                        }
                        Change::Delete { key } => {
                            table.remove(key.as_str())?;
                        }
                    }
                }
                drop(table);
                let batch = counts.batch + 1;
                transaction.open_table(META)?.insert(BATCH, batch)?;
                transaction.commit()?;
                counts.batch = batch;
                Ok(Ok(()))
            })?;
            if written.is_ok() {
                store.note_batch();
            }
            Ok(written)
        });
        written.await?.map_err(|newest| PersistenceError::Fenced {
            ours: epoch,
            newest,
        })
    }
}

impl Store {
    /// Works on the database, which is opened if need be, and closes it if that fails: after an error redb does
    /// nothing more.
    fn with<T>(
        &self,
        work: impl FnOnce(&Database, &mut Counts) -> Result<T, redb::Error>,
    ) -> Result<T, PersistenceError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { database, counts } = &mut *state;
        let worked = attempt(&self.path, || {
            let database = match database {
                Some(database) => database,
                None => database.insert(open(&self.path)?),
            };
            work(database, counts)
        });
        if worked.is_err() {
            *database = None;
        }
        worked
    }

    /// Notes beside the file which batch was finished. Not synced: what is noted is never ahead of the file.
    fn note_batch(&self) {
        let batch = self
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .counts
            .batch;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let noted = options
            .open(beside(&self.path))
            .and_then(|mut file| writeln!(file, "{batch:020}"));
        if let Err(error) = noted {
            // Without it all is as safe, but for damage to the last batch.
            debug!(%error, "cannot note the last batch");
        }
    }
}

fn beside(path: &Path) -> PathBuf {
    path.with_extension("batch")
}

/// The batch that is known to have been finished; 0 where nothing says so.
fn noted_batch(path: &Path) -> u64 {
    let noted = fs::read_to_string(beside(path)).unwrap_or_default();
    let digits = noted.strip_suffix('\n').filter(|digits| digits.len() == 20);
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder
        .set_cache_size(CACHE_BYTES)
        // Every page is looked at before anything in it is believed.
        .set_check_integrity_on_open(true)
        .set_repair_callback(|_| {});
    builder
}

fn open(path: &Path) -> Result<Database, redb::Error> {
    Ok(builder().open(path)?)
}

/// Makes a database of this that is there in whole or not at all, also where there is one already.
fn create(path: &Path, contents: &Salvaged) -> Result<(), PersistenceError> {
    let unfinished = path.with_extension("redb.new");
    attempt(path, || {
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        options.open(&unfinished)?;
        let database = builder().create(&unfinished)?;
        let transaction = database.begin_write()?;
        let mut records = transaction.open_table(RECORDS)?;
        for StoredRecord { key, value } in &contents.records {
            records.insert(key.as_str(), value.as_slice())?;
        }
        drop(records);
        transaction
            .open_table(META)?
            .insert(EPOCH, contents.epoch)?;
        transaction.commit()?;
        drop(database);
        fs::rename(&unfinished, path)?;
        let directory = path.parent().unwrap_or(path);
        File::open(directory)?.sync_all()?;
        Ok(())
    })
}

/// Replaces a damaged file by a new one with all that can be read of it, and keeps it beside that. Where there is
/// nothing to be read, it stays where it is.
fn salvage_file(
    path: &Path,
    before: Option<Vec<u8>>,
    damage: PersistenceError,
) -> Result<(), PersistenceError> {
    let unavailable = |error: io::Error| PersistenceError::Unavailable {
        store: path.display().to_string(),
        reason: error.to_string(),
    };
    let bytes = match before {
        Some(bytes) => bytes,
        None => fs::read(path).map_err(unavailable)?,
    };
    let Some(salvaged) = salvage(&bytes) else {
        return Err(damage);
    };
    let kept = keep(path, &bytes).map_err(unavailable)?;
    create(path, &salvaged)?;
    match fs::remove_file(beside(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unavailable(error)),
        _ => {}
    }
    error!(
        %damage,
        kept = %kept.display(),
        read = salvaged.records.len(),
        "the recovery file is damaged: all that can be read of it is in a new file, the old one is kept"
    );
    for gap in &salvaged.gaps {
        error!(keys = %gap, "records are lost with a damaged page, or are those of one batch earlier");
    }
    Ok(())
}

/// Keeps what stood in a file beside it.
fn keep(path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let mut number = 1;
    loop {
        let kept = path.with_extension(format!("redb.damaged-{number}"));
        let mut options = OpenOptions::new();
        match options.write(true).create_new(true).mode(0o600).open(&kept) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            opened => {
                let mut file = opened?;
                file.write_all(bytes)?;
                file.sync_all()?;
                return Ok(kept);
            }
        }
    }
}

/// Whether redb closed this file: it then needs no repair.
fn was_closed(path: &Path) -> io::Result<bool> {
    let mut header = [0; 10];
    let read = File::open(path)?.read_exact(&mut header);
    Ok(read.is_ok() && header[9] & REPAIR_NEEDED == 0)
}

/// Does something with the file at `path`. redb may panic where a file was altered behind its back.
fn attempt<T>(
    path: &Path,
    work: impl FnOnce() -> Result<T, redb::Error>,
) -> Result<T, PersistenceError> {
    let store = path.display().to_string();
    let damaged = |store, reason| PersistenceError::Damaged { store, reason };
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(match error {
            redb::Error::Corrupted(reason) => damaged(store, reason),
            redb::Error::Io(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
                ) =>
            {
                damaged(store, error.to_string())
            }
            redb::Error::UpgradeRequired(version) => damaged(
                store,
                format!("it has the format {version} of an older redb"),
            ),
            redb::Error::TableTypeMismatch { .. } | redb::Error::TableDoesNotExist(_) => {
                damaged(store, format!("it is no recovery file: {error}"))
            }
            redb::Error::DatabaseAlreadyOpen => PersistenceError::InUse { store },
            redb::Error::Io(error) => PersistenceError::Unavailable {
                store,
                reason: error.to_string(),
            },
            other => PersistenceError::Unavailable {
                store,
                reason: other.to_string(),
            },
        }),
        Err(_) => Err(damaged(store, "reading it led astray".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tempfile::tempdir;

    use super::*;

    #[tokio::test]
    async fn the_file_engine_keeps_the_contract() {
        let home = tempdir().unwrap();
        let path = home.path().join("recovery");
        super::super::contract::check(async || FileEngine::open(&path).unwrap()).await;
    }

    #[test]
    fn the_directory_and_its_files_are_their_owners_alone() {
        let home = tempdir().unwrap();
        let path = home.path().join("a/recovery");
        let _engine = FileEngine::open(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        for name in ["recovery.redb", "recovery.lock"] {
            assert_eq!(mode(&path.join(name)), 0o600, "{name}");
        }
    }

    #[test]
    fn a_second_engine_is_kept_out_and_told_by_whom() {
        let home = tempdir().unwrap();
        let first = FileEngine::open(home.path()).unwrap();
        let refused = FileEngine::open(home.path()).unwrap_err().to_string();
        let expected = format!(
            "recovery directory {} (process {} has it) is in use by another master; \
             stop that one, or give this one a store of its own",
            home.path().canonicalize().unwrap().display(),
            std::process::id()
        );
        assert_eq!(refused, expected);
        drop(first);
        FileEngine::open(home.path()).unwrap();
    }

    #[test]
    fn a_file_that_is_no_store_is_damage_and_stays_as_it_is() {
        for bytes in [&b""[..], b"garbage", &[0; 8192], &[0xff; 100_000]] {
            let home = tempdir().unwrap();
            let path = home.path().join("recovery.redb");
            fs::write(&path, bytes).unwrap();
            let error = FileEngine::open(home.path()).unwrap_err();
            assert!(matches!(error, PersistenceError::Damaged { .. }), "{error}");
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
    }

    #[tokio::test]
    async fn a_creation_that_was_cut_short_is_begun_anew() {
        let home = tempdir().unwrap();
        fs::write(home.path().join("recovery.redb.new"), b"half").unwrap();
        let engine = FileEngine::open(home.path()).unwrap();
        assert_eq!(engine.begin_epoch(0).await.unwrap(), 1);
    }
}
