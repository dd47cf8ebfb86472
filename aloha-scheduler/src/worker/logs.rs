//! The output of applications, read piece by piece.
//!
//! The application owns its directory and may put anything there. So nothing is followed that could lead elsewhere: every
//! step below the work directory refuses symbolic links, and only plain files are read.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, openat};
use serde::{Deserialize, Serialize};

use super::app_directory::{attempt_directory, is_component};

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
    /// The piece; empty at the end of the file.
    pub bytes: Vec<u8>,
    /// Where the next piece starts. Below the offset asked for, if the file has shrunk.
    pub next_offset: u64,
    /// How long the file is now.
    pub length: u64,
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

/// Reads at most `bytes_max` bytes of an application's output from `offset` on; blocks.
///
/// `attempt` names an earlier attempt; without it, the latest one is read.
pub fn read_log(
    work_directory: &Path,
    app_id: &str,
    attempt: Option<u32>,
    stream: LogStream,
    offset: u64,
    bytes_max: usize,
) -> Result<LogChunk, LogError> {
    let refused = |cause: io::Error| {
        let app_id = app_id.to_owned();
        match rustix::io::Errno::from_io_error(&cause) {
            Some(rustix::io::Errno::NOENT) => LogError::NotFound { app_id, stream },
            Some(rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR | rustix::io::Errno::NXIO) => {
                LogError::NoPlainFile { app_id, stream }
            }
            _ => LogError::Unreadable {
                app_id,
                stream,
                cause,
            },
        }
    };
    if !is_component(app_id) {
        return Err(LogError::NotFound {
            app_id: app_id.to_owned(),
            stream,
        });
    }
    let Some(file) = open(work_directory, app_id, attempt, stream).map_err(refused)? else {
        return Err(LogError::NoPlainFile {
            app_id: app_id.to_owned(),
            stream,
        });
    };
    read_at(&file, offset, bytes_max).map_err(refused)
}

/// Opens the file, link by link; `None` if it is no plain one.
fn open(
    work_directory: &Path,
    app_id: &str,
    attempt: Option<u32>,
    stream: LogStream,
) -> io::Result<Option<File>> {
    let directory = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let work = File::open(work_directory)?;
    let mut at = openat(work.as_fd(), app_id, directory, Mode::empty())?;
    if let Some(attempt) = attempt {
        at = openat(&at, attempt_directory(attempt), directory, Mode::empty())?;
    }
    // Without NONBLOCK, opening a pipe would wait for its writer.
    let plain = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(&at, stream.name(), plain, Mode::empty())?);
    Ok(file.metadata()?.is_file().then_some(file))
}

fn read_at(file: &File, offset: u64, bytes_max: usize) -> io::Result<LogChunk> {
    let length = file.metadata()?.len();
    let offset = offset.min(length);
    // Reserve what is there, not what a caller dreams of.
    let room = usize::try_from(length - offset).map_or(bytes_max, |rest| rest.min(bytes_max));
    let mut bytes = vec![0; room];
    let mut filled = 0;
    while filled < room {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
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
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

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
        assert_eq!(earlier.expect("readable").bytes, b"before");
        let missing = read_log(work.path(), "app-1", Some(2), LogStream::Stdout, 0, 100);
        assert!(matches!(missing, Err(LogError::NotFound { .. })));
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
