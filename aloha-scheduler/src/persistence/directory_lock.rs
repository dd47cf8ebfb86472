//! Keeps a second process out of a directory, and tells it who is in there.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use tracing::warn;

/// How often a lock that is taken is tried, and the pause between two tries: what a master that was killed had just
/// forked has it until it executes its program.
const LOCK_TRIES: u32 = 50;
const LOCK_INTERVAL: Duration = Duration::from_millis(20);

/// Why a directory is not locked.
pub(super) enum Unlocked {
    /// By this, in words.
    Taken(String),
    Failed(io::Error),
}

/// Takes the lock of a directory, and notes in it who has it.
pub(super) fn lock(directory: &Path) -> Result<File, Unlocked> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    let mut file = options
        .open(directory.join("recovery.lock"))
        .map_err(Unlocked::Failed)?;
    match lock_soon(&file) {
        Ok(()) => {}
        Err(TryLockError::Error(error)) => return Err(Unlocked::Failed(error)),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Who it is helps, and is not needed.
            let _ = file.read_to_string(&mut holder);
            let holder = match holder.trim() {
                "" => String::new(),
                pid => format!(" (process {pid} has it)"),
            };
            let directory = directory.display();
            return Err(Unlocked::Taken(format!(
                "recovery directory {directory}{holder}"
            )));
        }
    }
    let noted = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    if let Err(error) = noted {
        // The lock holds all the same; that the disk is full is told where it matters.
        warn!(%error, "cannot note who has the lock of the recovery directory");
    }
    Ok(file)
}

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
