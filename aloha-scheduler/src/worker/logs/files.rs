//! The files of one output, looked at while a writer may roll, remove or set them aside.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::{AtFlags, statat};
use rustix::io::Errno;

use super::{LogChunk, LogStream};
use crate::log_files::{rolled_name, rolled_starts};
use crate::worker::app_directory::{
    attempt_directory, latest_attempt, open_directory, open_plain, unfinished_attempt_directory,
};

/// What is asked for.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) stream: LogStream,
    pub(super) offset: u64,
    pub(super) bytes_max: usize,
}

/// Why a look at the files gave nothing.
pub(super) enum Miss {
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
pub(super) fn look(
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
    let moving = exists(&app, &unfinished_attempt_directory(attempt))?;
    // While it is not set aside, what lies here is of this attempt.
    if exists(&app, &aside)? {
        return Err(Miss::Moved);
    }
    match found {
        Err(Miss::Failed(error)) if moving && error.kind() == io::ErrorKind::NotFound => {
            Err(Miss::Moved)
        }
        found => found,
    }
}

fn exists(directory: &OwnedFd, name: &str) -> io::Result<bool> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
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
        // Without one, several may have been begun and rolled in between.
        if opened.is_none() && rolled_starts(directory, stream)? != rolled {
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
