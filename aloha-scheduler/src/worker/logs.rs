//! The output of applications, read piece by piece.
//!
//! Offsets count the bytes of the whole output of an attempt, over all the files it was rolled into. The files may be
//! rolled, removed and set aside while they are read: a look at them that such a move crossed is taken again.
//!
//! The application owns its directory and may put anything there. So nothing is followed that could lead elsewhere: every
//! step below the work directory refuses symbolic links, and only plain files are read.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use rustix::fs::{AtFlags, statat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::app_directory::{
    attempt_directory, is_component, latest_attempt, open_directory, open_plain,
};
use crate::blocking::blocking;
use crate::ids::AppId;
use crate::log_files::{rolled_name, rolled_starts};
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
/// How often the files are looked at anew because they were moved meanwhile. Each time a writer has rolled in
/// between, which takes it far longer than a look.
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

#[derive(Clone, Copy)]
struct Wanted {
    stream: LogStream,
    offset: u64,
    bytes_max: usize,
}

/// Why a look at the files gave nothing.
enum Miss {
    /// They were rolled, removed or set aside meanwhile: another look tells more.
    Moved,
    NoPlainFile,
    Failed(io::Error),
}

impl<E: Into<io::Error>> From<E> for Miss {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Finds the directory of the attempt and reads there. Directories are opened one by one, and no link is followed.
fn look(
    work_directory: &Path,
    app_id: &str,
    attempt: Option<u32>,
    wanted: Wanted,
) -> Result<LogChunk, Miss> {
    let app = open_directory(File::open(work_directory)?, app_id)?;
    let Some(attempt) = attempt else {
        return Files::find(&app, wanted.stream)?.read(wanted);
    };
    let aside = attempt_directory(attempt);
    match open_directory(&app, &aside) {
        Ok(directory) => {
            let chunk = Files::find(&directory, wanted.stream)?.read(wanted)?;
            return Ok(LogChunk {
                is_complete: true,
                ..chunk
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let found = match latest_attempt(app.as_fd()) {
        Some(latest) if latest == attempt => {
            Files::find(&app, wanted.stream).and_then(|files| files.read(wanted))
        }
        _ => Err(Errno::NOENT.into()),
    };
    // While it is not set aside, what lies here is of this attempt.
    match statat(&app, &aside, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => found,
        Ok(_) => Err(Miss::Moved),
        Err(error) => Err(error.into()),
    }
}

/// The files of one output at one moment.
struct Files<'a> {
    directory: &'a OwnedFd,
    stream: LogStream,
    /// Where the rolled ones start.
    rolled: Vec<u64>,
    /// None between the rolling of one and the beginning of the next.
    current: Option<File>,
    current_start: u64,
}

impl<'a> Files<'a> {
    fn find(directory: &'a OwnedFd, stream: LogStream) -> Result<Self, Miss> {
        let current = match open_plain(directory, stream.name()) {
            Ok(Some(file)) => Some(file),
            Ok(None) => return Err(Miss::NoPlainFile),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        let rolled = rolled_starts(directory, stream)?;
        // If the name still leads to the same file, none was rolled while the others were listed.
        let still = match statat(directory, stream.name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some((stat.st_dev, stat.st_ino)),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(error.into()),
        };
        let opened = match &current {
            Some(file) => Some(file.metadata()?).map(|data| (data.dev(), data.ino())),
            None => None,
        };
        if still != opened {
            return Err(Miss::Moved);
        }
        if current.is_none() && rolled.is_empty() {
            return Err(Errno::NOENT.into());
        }
        let mut files = Self {
            directory,
            stream,
            rolled,
            current,
            current_start: 0,
        };
        if let Some(last) = files.rolled.last().copied() {
            files.current_start = last + files.open_rolled(last)?.metadata()?.len();
        }
        Ok(files)
    }

    fn open_rolled(&self, start: u64) -> Result<File, Miss> {
        match open_plain(self.directory, &rolled_name(self.stream, start)) {
            Ok(Some(file)) => Ok(file),
            Ok(None) => Err(Miss::NoPlainFile),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Miss::Moved),
            Err(error) => Err(error.into()),
        }
    }

    fn read(&self, wanted: Wanted) -> Result<LogChunk, Miss> {
        let length = match &self.current {
            Some(file) => self.current_start + file.metadata()?.len(),
            None => self.current_start,
        };
        let oldest = self.rolled.first().copied().unwrap_or_default();
        let mut offset = wanted.offset.max(oldest);
        let mut next = self.rolled.partition_point(|start| *start <= offset);
        while offset < self.current_start {
            // It starts at the offset or before, for none is older than the oldest.
            let start = self.rolled[next - 1];
            let file = self.open_rolled(start)?;
            if offset - start < file.metadata()?.len() {
                return Ok(read_at(&file, start, offset, length, wanted.bytes_max)?);
            }
            // Somebody removed what lay between.
            offset = self.rolled.get(next).copied().unwrap_or(self.current_start);
            next += 1;
        }
        match &self.current {
            Some(file) => {
                let (start, end) = (self.current_start, offset.min(length));
                Ok(read_at(file, start, end, length, wanted.bytes_max)?)
            }
            // It is not known how far the output goes, so nobody is led back.
            None => Ok(LogChunk {
                bytes: Vec::new(),
                next_offset: offset,
                length,
                is_complete: false,
            }),
        }
    }
}

/// Reads from `offset` on in the file that starts at `start`.
fn read_at(
    file: &File,
    start: u64,
    offset: u64,
    length: u64,
    bytes_max: usize,
) -> io::Result<LogChunk> {
    // Reserve what is there, not what a caller dreams of.
    let rest = (start + file.metadata()?.len()).saturating_sub(offset);
    let room = usize::try_from(rest).map_or(bytes_max, |rest| rest.min(bytes_max));
    let mut bytes = vec![0; room];
    let mut filled = 0;
    while filled < room {
        match file.read_at(&mut bytes[filled..], offset - start + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(LogChunk {
        next_offset: offset + filled as u64,
        bytes,
        length,
        is_complete: false,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use aloha_rpc::{Runtime as _, TokioRuntime};

    use super::*;

    fn work() -> tempfile::TempDir {
        let work = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(work.path().join("app-1/attempt-1")).expect("created");
        fs::write(work.path().join("app-1/stdout"), "hello world").expect("written");
        fs::write(work.path().join("app-1/attempt-1/stdout"), "before").expect("written");
        work
    }

    fn read(work: &tempfile::TempDir, offset: u64, bytes_max: usize) -> LogChunk {
        let stream = LogStream::Stdout;
        read_log(work.path(), "app-1", None, stream, offset, bytes_max).expect("readable")
    }

    fn chunk(bytes: &str, next_offset: u64) -> LogChunk {
        LogChunk {
            bytes: bytes.into(),
            next_offset,
            is_complete: false,
            length: 11,
        }
    }

    #[test]
    fn output_is_read_in_pieces_up_to_its_end() {
        let work = work();
        assert_eq!(read(&work, 0, 5), chunk("hello", 5));
        assert_eq!(read(&work, 5, 100), chunk(" world", 11));
        assert_eq!(read(&work, 11, 100), chunk("", 11));
        assert_eq!(read(&work, 0, 0), chunk("", 0));
        // The file shrank: the reader is led back to its end.
        assert_eq!(read(&work, 99, usize::MAX), chunk("", 11));
    }

    #[test]
    fn an_earlier_attempt_is_read_from_its_own_directory() {
        let work = work();
        let earlier = read_log(work.path(), "app-1", Some(1), LogStream::Stdout, 0, 100);
        let earlier = earlier.expect("readable");
        assert_eq!(
            (&*earlier.bytes, earlier.is_complete),
            (&b"before"[..], true)
        );
        let second = || read_log(work.path(), "app-1", Some(2), LogStream::Stdout, 0, 100);
        assert!(matches!(second(), Err(LogError::NotFound { .. })));
        // Unless it is the one that runs, or ran last.
        let record = work.path().join("app-1/.aloha-process.json");
        fs::write(&record, r#"{"attempt":2}"#).expect("written");
        assert_eq!(second().expect("readable").bytes, b"hello world");
        fs::write(&record, r#"{"attempt":3}"#).expect("written");
        assert!(matches!(second(), Err(LogError::NotFound { .. })));
    }

    #[test]
    fn rolled_files_are_read_as_one_by_their_offsets() {
        let work = work();
        let rolled = |start| {
            work.path()
                .join("app-1")
                .join(rolled_name(LogStream::Stdout, start))
        };
        // 0 to 100 was removed, as was 104 to 106.
        fs::write(rolled(100), "abcd").expect("written");
        fs::write(rolled(106), "gh").expect("written");
        let chunk = |bytes: &str, next_offset| LogChunk {
            bytes: bytes.into(),
            next_offset,
            is_complete: false,
            length: 119,
        };
        assert_eq!(read(&work, 0, 3), chunk("abc", 103));
        assert_eq!(read(&work, 103, 100), chunk("d", 104));
        assert_eq!(read(&work, 104, 100), chunk("gh", 108));
        assert_eq!(read(&work, 105, 1), chunk("g", 107));
        assert_eq!(read(&work, 107, 100), chunk("h", 108));
        assert_eq!(read(&work, 108, 5), chunk("hello", 113));
        assert_eq!(read(&work, 113, 100), chunk(" world", 119));
        assert_eq!(read(&work, 119, 100), chunk("", 119));
        assert_eq!(read(&work, 500, 100), chunk("", 119));
        // Between two files nobody is led back, for the output may go on behind the last.
        fs::remove_file(work.path().join("app-1/stdout")).expect("removed");
        let chunk = |bytes: &str, next_offset| LogChunk {
            bytes: bytes.into(),
            next_offset,
            is_complete: false,
            length: 108,
        };
        assert_eq!(read(&work, 106, 100), chunk("gh", 108));
        assert_eq!(read(&work, 119, 100), chunk("", 119));
    }

    /// What a reader with `patience` is answered, and after how long.
    async fn answered(
        work: &tempfile::TempDir,
        request: LogRequest,
        patience: Duration,
    ) -> (LogAnswer, Duration) {
        let app = "app-1".parse().expect("an id");
        let runtime = TokioRuntime::current();
        let began = runtime.now();
        let answer = answer_log(work.path().to_owned(), app, request, patience).await;
        (answer, runtime.now() - began)
    }

    fn piece(bytes: &str, next_offset: u64) -> LogAnswer {
        LogAnswer::Chunk {
            bytes: bytes.into(),
            next_offset,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_waits_for_news_until_its_patience_is_over() {
        let work = work();
        let at = |offset| LogRequest {
            offset,
            ..LogRequest::new(LogStream::Stdout)
        };
        let patience = Duration::from_secs(5);
        let soon = LOOK_INTERVAL * 2;
        let (answer, after) = answered(&work, at(11), patience).await;
        assert_eq!(answer, piece("", 11));
        assert!((patience..patience + soon).contains(&after), "{after:?}");
        let (answer, after) = answered(&work, at(11), Duration::from_secs(3600)).await;
        assert_eq!(answer, piece("", 11));
        assert!(after < PATIENCE_MAX + soon, "{after:?}");
        // At once: what is there, where the end is, what is over, and what is not there.
        let earlier = LogRequest {
            attempt: Some(1),
            ..at(6)
        };
        for (request, expected) in [
            (at(6), piece("world", 11)),
            (at(99), piece("", 11)),
            (earlier, piece("", 6)),
        ] {
            let (answer, after) = answered(&work, request, patience).await;
            assert_eq!((answer, after < soon), (expected, true));
        }
        fs::remove_file(work.path().join("app-1/stdout")).expect("removed");
        let (answer, after) = answered(&work, at(0), patience).await;
        assert!(matches!(answer, LogAnswer::Unavailable { .. }) && after < soon);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_waits_gets_what_is_written_meanwhile() {
        let work = work();
        let request = LogRequest {
            offset: 11,
            ..LogRequest::new(LogStream::Stdout)
        };
        let path = work.path().join("app-1/stdout");
        let writer = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            fs::write(path, "hello world!").expect("written");
        };
        let patience = Duration::from_secs(20);
        let ((answer, after), ()) = tokio::join!(answered(&work, request, patience), writer);
        assert_eq!(answer, piece("!", 12));
        assert!(
            after < Duration::from_secs(2) + LOOK_INTERVAL * 2,
            "{after:?}"
        );
    }

    #[test]
    fn a_link_in_place_of_a_rolled_file_is_refused() {
        let work = work();
        let rolled = rolled_name(LogStream::Stdout, 0);
        symlink("/etc/passwd", work.path().join("app-1").join(rolled)).expect("linked");
        let refused = read_log(work.path(), "app-1", None, LogStream::Stdout, 0, 100);
        assert!(
            matches!(refused, Err(LogError::NoPlainFile { .. })),
            "{refused:?}"
        );
    }

    #[test]
    fn nothing_outside_the_directory_of_the_application_can_be_read() {
        let work = work();
        let read = |app_id: &str, stream| read_log(work.path(), app_id, None, stream, 0, 100);
        for id in [
            "..",
            ".",
            "",
            "../app-1",
            "app-1/attempt-1",
            "/etc",
            "app-2",
        ] {
            let refused = read(id, LogStream::Stdout);
            assert!(matches!(refused, Err(LogError::NotFound { .. })), "{id}");
        }
        symlink("/etc/passwd", work.path().join("app-1/stderr")).expect("linked");
        let refused = read("app-1", LogStream::Stderr);
        assert!(matches!(refused, Err(LogError::NoPlainFile { .. })));
        symlink("app-1", work.path().join("app-3")).expect("linked");
        let refused = read("app-3", LogStream::Stdout);
        assert!(
            matches!(refused, Err(LogError::NoPlainFile { .. })),
            "{refused:?}"
        );
    }

    #[test]
    fn a_pipe_or_a_directory_in_place_of_the_file_is_refused_without_waiting() {
        let work = work();
        let directory = work.path().join("app-1");
        let path = directory.join("stdout");
        fs::remove_file(&path).expect("removed");
        fs::create_dir(&path).expect("created");
        let read = || read_log(work.path(), "app-1", None, LogStream::Stdout, 0, 100);
        assert!(matches!(read(), Err(LogError::NoPlainFile { .. })));
        fs::remove_dir(&path).expect("removed");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.expect("mkfifo runs").success());
        assert!(matches!(read(), Err(LogError::NoPlainFile { .. })));
    }
}
