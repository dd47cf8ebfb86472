//! The output of applications, read piece by piece.
//!
//! Offsets count the bytes of the whole output of an attempt, over all the files it was rolled into. The files may be
//! rolled, removed and set aside while they are read: a look at them that such a move crossed is taken again.
//!
//! The application owns its directory and may put anything there. So nothing is followed that could lead elsewhere: every
//! step below the work directory refuses symbolic links, and only plain files are read.

mod files;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use self::files::{Miss, Wanted, look};
use super::app_directory::is_component;
use crate::blocking::blocking;
use crate::ids::AppId;
use crate::messages::{LogAnswer, LogRequest};

/// Which of its two outputs an application wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl LogStream {
    /// The name of the stream and of its file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// A piece of an application's output.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogChunk {
    /// The piece; empty at the end of what there is.
    pub bytes: Vec<u8>,
    /// Where the next piece starts. Below the offset asked for, if there is not that much.
    pub next_offset: u64,
    /// Where the output ends now.
    pub length: u64,
    /// Whether nothing will be added any more: a later attempt has begun.
    pub is_complete: bool,
}

/// Why no output could be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// There is no such application, attempt or file here.
    #[error("no {} of {app_id} here", stream.name())]
    NotFound {
        /// The application.
        app_id: String,
        /// The output.
        stream: LogStream,
    },
    /// There is something, but it is no plain file in the application's own directory.
    #[error("the {} of {app_id} is no plain file", stream.name())]
    NoPlainFile {
        /// The application.
        app_id: String,
        /// The output.
        stream: LogStream,
    },
    /// The system refused.
    #[error("cannot read the {} of {app_id}", stream.name())]
    Unreadable {
        /// The application.
        app_id: String,
        /// The output.
        stream: LogStream,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
}

/// The longest a reader may wait for more before it must ask again.
const PATIENCE_MAX: Duration = Duration::from_secs(30);
/// How often the files are looked at while a reader waits for more.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// The largest piece, in bytes.
const PIECE_BYTES_MAX: u32 = 1 << 20;
/// How often the files are looked at anew because they were moved meanwhile: far more often than a writer, who has
/// more to do, can move them in that time.
const LOOKS_MAX: usize = 64;

/// Answers a reader: at once if there is something, else when there is, or its patience is over.
///
/// # Cancel safety
///
/// Cancel safe: nothing is changed.
pub(super) async fn answer_log(
    work_directory: PathBuf,
    app: AppId,
    request: LogRequest,
    patience: Duration,
) -> LogAnswer {
    let LogRequest {
        stream,
        attempt,
        offset,
        bytes_max,
        ..
    } = request;
    let bytes_max = usize::try_from(bytes_max.min(PIECE_BYTES_MAX)).expect("32 bits fit");
    let read = async || {
        let (work, app) = (work_directory.clone(), app.clone());
        blocking(move || read_log(&work, app.as_str(), attempt, stream, offset, bytes_max)).await
    };
    // One led back to the end is told so first.
    let is_news = |chunk: &LogChunk| !chunk.bytes.is_empty() || chunk.next_offset != offset;
    let mut overdue = pin!(tokio::time::sleep(patience.min(PATIENCE_MAX)));
    loop {
        match read().await {
            Ok(chunk)
                if is_news(&chunk)
                    || chunk.is_complete
                    || overdue.is_elapsed()
                    || bytes_max == 0 =>
            {
                return LogAnswer::Chunk {
                    bytes: chunk.bytes,
                    next_offset: chunk.next_offset,
                };
            }
            Ok(_) => tokio::select! {
                biased;
                () = &mut overdue => {}
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            },
            Err(error) => {
                return LogAnswer::Unavailable {
                    reason: error.to_string(),
                };
            }
        }
    }
}

/// Reads at most `bytes_max` bytes of an application's output from `offset` on; blocks.
///
/// `attempt` names an attempt; without it, the latest one is read. A piece comes from one file, so it may be shorter
/// although there is more. Where the output at `offset` was removed, the piece begins with the oldest that is kept:
/// it always begins at `next_offset - bytes.len()`.
///
/// # Errors
///
/// There is no such output here, or it cannot be read.
pub fn read_log(
    work_directory: &Path,
    app_id: &str,
    attempt: Option<u32>,
    stream: LogStream,
    offset: u64,
    bytes_max: usize,
) -> Result<LogChunk, LogError> {
    let not_plain = || LogError::NoPlainFile {
        app_id: app_id.to_owned(),
        stream,
    };
    let refused = |cause: io::Error| {
        let app_id = app_id.to_owned();
        match Errno::from_io_error(&cause) {
            Some(Errno::NOENT) => LogError::NotFound { app_id, stream },
            Some(Errno::LOOP | Errno::NOTDIR | Errno::NXIO) => not_plain(),
            _ => LogError::Unreadable {
                app_id,
                stream,
                cause,
            },
        }
    };
    if !is_component(app_id) {
        return Err(refused(Errno::NOENT.into()));
    }
    let wanted = Wanted {
        stream,
        offset,
        bytes_max,
    };
    for _ in 0..LOOKS_MAX {
        match look(work_directory, app_id, attempt, wanted) {
            Ok(chunk) => return Ok(chunk),
            Err(Miss::Moved) => {}
            Err(Miss::NoPlainFile) => return Err(not_plain()),
            Err(Miss::Failed(cause)) => return Err(refused(cause)),
        }
    }
    Err(refused(io::Error::other(
        "its files are moved faster than they can be read",
    )))
}
