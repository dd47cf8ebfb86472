//! The output of an application, copied from its pipes into files that roll.
//!
//! Whatever happens to the files, the pipe is read to its end: an application never waits for a disk that is full, and
//! never ends of it. What cannot be written is dropped, and once there is room again a line in the output says how much.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::time::Sleep;
use tracing::warn;

use super::LogSettings;
use crate::blocking::blocking;
use crate::log_files::{rolled_name, rolled_starts};
use crate::worker::LogStream;

/// What is read at once: as much as a pipe holds.
const BUFFER_BYTES: usize = 64 << 10;
/// The most files of one output that are kept, however small they are.
const FILES_MAX: usize = 1000;

/// Writes one output of one attempt into files that roll by size and age.
#[derive(Debug)]
pub(crate) struct RollingOutput {
    files: Files,
    roll_interval: Duration,
}

impl RollingOutput {
    /// Makes the current file, empty, in place of whatever has its name; blocks. Rolled files that were not set aside
    /// are removed.
    pub(crate) fn create(
        directory: &Path,
        stream: LogStream,
        settings: LogSettings,
    ) -> io::Result<Self> {
        Ok(Self {
            files: Files::create(directory, stream, settings)?,
            roll_interval: settings.roll_interval,
        })
    }

    /// Copies what comes out of the pipe until nobody can write into it any more. Needs a tokio runtime with IO and time.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it loses at most the 64 KiB it has just read.
    pub(crate) async fn copy(self, mut pipe: pipe::Receiver) {
        let Self {
            mut files,
            roll_interval,
        } = self;
        let mut buffer = vec![0; BUFFER_BYTES];
        // Runs from the first byte in the current file on.
        let mut age: Option<Pin<Box<Sleep>>> = None;
        loop {
            let read = tokio::select! {
                biased;
                () = due(&mut age) => None,
                read = pipe.read(&mut buffer) => Some(read),
            };
            let filled = match read {
                None => 0,
                Some(Ok(0)) => return,
                Some(Ok(filled)) => filled,
                Some(Err(error)) => {
                    warn!(stream = files.stream.name(), %error, "cannot read the output any more");
                    return;
                }
            };
            let start = files.start;
            // A disk may take its time, and the other tasks of this thread shall not wait for it.
            (files, buffer) = blocking(move || {
                match filled {
                    0 => files.roll_old(),
                    _ => files.write(&buffer[..filled]),
                }
                (files, buffer)
            })
            .await;
            if files.length == 0 || roll_interval.is_zero() {
                age = None;
            } else if age.is_none() || files.start != start || filled == 0 {
                age = Some(Box::pin(tokio::time::sleep(roll_interval)));
            }
        }
    }
}

/// Waits until the current file is old enough; for ever if it is empty.
async fn due(age: &mut Option<Pin<Box<Sleep>>>) {
    match age {
        Some(age) => age.await,
        None => std::future::pending().await,
    }
}

/// The files of one output; everything here blocks.
#[derive(Debug)]
struct Files {
    directory: OwnedFd,
    stream: LogStream,
    roll_bytes: u64,
    total_bytes_max: u64,
    /// Starts and lengths, the oldest first.
    rolled: VecDeque<(u64, u64)>,
    rolled_bytes: u64,
    /// None if a file was rolled and the next could not be made yet.
    current: Option<File>,
    start: u64,
    length: u64,
    at_line_start: bool,
    /// Bytes dropped since the last that could be written.
    lost: u64,
}

/// Writing got stuck behind so many bytes.
struct Stuck {
    written: usize,
    cause: io::Error,
}

impl Files {
    fn create(directory: &Path, stream: LogStream, settings: LogSettings) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(directory, flags, Mode::empty())?;
        for start in rolled_starts(&directory, stream)? {
            remove(&directory, &rolled_name(stream, start))?;
        }
        let total_bytes_max = settings.total_bytes_max.max(2);
        let mut files = Self {
            directory,
            stream,
            // Then the last rolled file and a full current one fit, and the last is never removed.
            roll_bytes: settings.roll_bytes.clamp(1, total_bytes_max / 2),
            total_bytes_max,
            rolled: VecDeque::new(),
            rolled_bytes: 0,
            current: None,
            start: 0,
            length: 0,
            at_line_start: true,
            lost: 0,
        };
        files.begin()?;
        Ok(files)
    }

    /// Writes, or drops what cannot be written.
    fn write(&mut self, bytes: &[u8]) {
        if self.lost > 0 {
            let line_end = if self.at_line_start { "" } else { "\n" };
            let notice = format!(
                "{line_end}[aloha: {} bytes of output were lost here: they could not be written]\n",
                self.lost
            );
            if self.append(notice.as_bytes()).is_err() {
                self.lost += bytes.len() as u64;
                return;
            }
            warn!(
                stream = self.stream.name(),
                bytes = self.lost,
                "output was lost"
            );
            self.lost = 0;
        }
        if let Err(Stuck { written, cause }) = self.append(bytes) {
            warn!(stream = self.stream.name(), error = %cause, "cannot write output, dropping it");
            self.lost = (bytes.len() - written) as u64;
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Stuck> {
        let mut written = 0;
        while written < bytes.len() {
            match self.append_some(&bytes[written..]) {
                Ok(more) => written += more,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(Stuck { written, cause }),
            }
        }
        Ok(())
    }

    /// Writes what fits into the current file, at least one byte.
    fn append_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.length >= self.roll_bytes {
            self.roll()?;
        }
        if self.current.is_none() {
            self.begin()?;
        }
        let room = self.roll_bytes - self.length;
        let some = usize::try_from(room).map_or(bytes.len(), |room| room.min(bytes.len()));
        self.make_room(some as u64)?;
        let mut file = self.current.as_ref().expect("begun above");
        let written = file.write(&bytes[..some])?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.length += written as u64;
        self.at_line_start = bytes[written - 1] == b'\n';
        Ok(written)
    }

    /// Removes the oldest files until there is room for so many bytes more.
    fn make_room(&mut self, bytes: u64) -> io::Result<()> {
        while self.rolled_bytes + self.length + bytes > self.total_bytes_max
            || self.rolled.len() > FILES_MAX
        {
            let Some((start, length)) = self.rolled.front().copied() else {
                return Ok(());
            };
            remove(&self.directory, &rolled_name(self.stream, start))?;
            self.rolled.pop_front();
            self.rolled_bytes -= length;
        }
        Ok(())
    }

    /// Rolls the current file because of its age.
    fn roll_old(&mut self) {
        if let Err(error) = self.roll() {
            warn!(stream = self.stream.name(), %error, "cannot roll output");
        }
    }

    /// Closes the current file, if it holds something, and begins the next.
    fn roll(&mut self) -> io::Result<()> {
        if self.length == 0 {
            return Ok(());
        }
        let name = rolled_name(self.stream, self.start);
        match renameat(&self.directory, self.stream.name(), &self.directory, name) {
            Ok(()) => {
                self.rolled.push_back((self.start, self.length));
                self.rolled_bytes += self.length;
                self.start += self.length;
            }
            // The application has removed it: readers see that it shrank.
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        self.length = 0;
        self.current = None;
        self.begin()
    }

    /// Makes the current file. What lies there may be a link: it is replaced, never followed.
    fn begin(&mut self) -> io::Result<()> {
        let name = self.stream.name();
        let flags =
            OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let make = || openat(&self.directory, name, flags, Mode::RUSR | Mode::WUSR);
        let made = match make() {
            Err(Errno::EXIST) => {
                remove(&self.directory, name)?;
                make()?
            }
            made => made?,
        };
        self.current = Some(File::from(made));
        Ok(())
    }
}

/// Removes a file that may be gone already.
fn remove(directory: &OwnedFd, name: &str) -> io::Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
