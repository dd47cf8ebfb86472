//! A worker's directory: its lock, and who its workers are.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use aloha_scheduler::WorkerId;

use crate::Failure;

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
        match lock.try_lock() {
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
