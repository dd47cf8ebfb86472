//! A worker's directory: its lock, and what an earlier worker left behind in it.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aloha_scheduler::Outcome;
use aloha_scheduler::worker::{Adopted, Launcher as _, ProcessLauncher};
use tracing::{info, warn};

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

    /// Ends what an earlier worker left running. Nobody could learn how it ends, and its master
    /// has counted it as lost.
    pub(crate) async fn clear(&self, kill_grace: Duration) -> Result<(), Failure> {
        let failed = |error| Failure::at("cannot read the work directory", &self.path, &error);
        let launcher = ProcessLauncher::new(kill_grace);
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if !path.is_dir() {
                continue;
            }
            match launcher.adopt(&path).await {
                // One whose end was recorded needs no word.
                Ok(Adopted::Ended {
                    app_id,
                    attempt,
                    outcome: outcome @ Outcome::Lost(_),
                }) => {
                    info!(app = app_id, attempt, %outcome, "left behind by an earlier worker");
                }
                Ok(_) => {}
                Err(error) => warn!(path = %path.display(), %error, "cannot clear up"),
            }
        }
        Ok(())
    }
}
