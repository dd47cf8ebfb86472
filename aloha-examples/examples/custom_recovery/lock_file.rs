//! An election by a file: who has locked it leads.

use std::fs::{OpenOptions, TryLockError};
use std::path::PathBuf;
use std::time::Duration;

use aloha_scheduler::election::{
    ElectionError, LeaderElectionAgent, Leadership, MasterAddress, Standing,
};
use async_trait::async_trait;
use tokio::sync::watch;

/// How soon the end of a leader is noticed.
const INTERVAL: Duration = Duration::from_millis(50);

/// Takes part in the election that this file decides.
#[derive(Debug)]
pub(crate) struct LockFile {
    pub(crate) path: PathBuf,
}

#[async_trait]
impl LeaderElectionAgent for LockFile {
    async fn campaign(&self, _: &MasterAddress) -> Result<Leadership, ElectionError> {
        let failed = |error: std::io::Error| ElectionError {
            reason: format!("{}: {error}", self.path.display()),
        };
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let file = options.open(&self.path).map_err(failed)?;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => tokio::time::sleep(INTERVAL).await,
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        let (standing, seen) = watch::channel(Standing::Held);
        tokio::spawn(async move {
            // When nobody looks at the leadership any more, it is given up. The system does the same for a process
            // that ends.
            standing.closed().await;
            drop(file);
        });
        // The store counts the epochs.
        Ok(Leadership {
            epoch: 0,
            standing: seen,
        })
    }
}
