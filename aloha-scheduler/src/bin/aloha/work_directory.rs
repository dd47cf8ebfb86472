//! A worker's directory: its lock, and who its workers are.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aloha_scheduler::WorkerId;

use crate::Failure;

/// How often a lock that is taken is tried, and the pause between two tries.
const LOCK_TRIES: u32 = 50;
const LOCK_INTERVAL: Duration = Duration::from_millis(20);

/// A directory that no other worker uses meanwhile.
#[derive(Debug)]
pub(crate) struct WorkDirectory {
    path: PathBuf,
    _lock: File,
}

impl WorkDirectory {
    /// Makes the directory if need be, and takes it.
    pub(crate) fn take(path: &Path) -> Result<Self, Failure> {
        let failed = |error| Failure::at("cannot use the work directory", path, &error);
        fs::create_dir_all(path).map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        let lock = File::create(path.join(".lock")).map_err(failed)?;
        match lock_soon(&lock) {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Failure::new(format_args!(
                "another worker uses the work directory {}; give this one its own with -d",
                path.display()
            ))),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The id of a worker of this directory: the same at each start, so that it is known as the one that started what
    /// still runs here. The first time it is `new`.
    pub(crate) fn worker_id(&self, place: u32, new: &WorkerId) -> Result<WorkerId, Failure> {
        let path = self.path.join(format!(".worker-{place}"));
        let failed = |error| Failure::at("cannot use the id of this worker in", &path, &error);
        match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|error| {
                let error = io::Error::new(io::ErrorKind::InvalidData, error);
                failed(error)
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let unfinished = path.with_extension("new");
                let written = File::create(&unfinished)
                    .and_then(|mut file| {
                        writeln!(file, "{new}")?;
                        file.sync_all()
                    })
                    .and_then(|()| fs::rename(&unfinished, &path));
                written.map_err(failed)?;
                Ok(new.clone())
            }
            Err(error) => Err(failed(error)),
        }
    }
}

/// Takes a lock. What a worker that was killed had just forked may have it for a moment longer, until it executes its
/// program.
fn lock_soon(file: &File) -> Result<(), TryLockError> {
    let mut tries = 1;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if tries < LOCK_TRIES => {
                tries += 1;
                std::thread::sleep(LOCK_INTERVAL);
            }
            locked => return locked,
        }
    }
}
