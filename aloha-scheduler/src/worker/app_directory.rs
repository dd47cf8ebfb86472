//! The directory of one application: its name, and the output of earlier attempts in it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, openat};
use serde::Deserialize;

use super::logs::LogStream;
use crate::log_files::{rolled_name, rolled_starts};

/// A record of what was started is far below this.
const RECORD_BYTES_MAX: u64 = 16 << 20;

/// The directories that may be of applications; links and hidden ones are not.
pub(super) fn app_directories(work_directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(work_directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut directories = Vec::new();
    for entry in entries {
        let entry = entry?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if entry.file_type()?.is_dir() && !hidden {
            directories.push(entry.path());
        }
    }
    Ok(directories)
}

/// Whether an id names a file in its directory and nothing else.
pub(super) fn is_component(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= 255
        && id != "."
        && id != ".."
        && !id.contains(['/', '\\'])
        && !id.contains(char::is_control)
}

/// The directory in which the output of an earlier attempt lies.
pub(super) fn attempt_directory(attempt: u32) -> String {
    format!("attempt-{attempt}")
}

/// The directory in which it lies while it is moved there.
pub(super) fn unfinished_attempt_directory(attempt: u32) -> String {
    format!(".attempt-{attempt}")
}

/// Makes the directory, which only its owner can enter: output may hold secrets.
pub(super) fn create(directory: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

/// Moves the output of an earlier attempt out of the way.
///
/// It appears in `attempt-N/` at once and whole. A reader meanwhile finds less of it in the old place, but nothing
/// at a wrong offset: the current file goes first, then the rolled ones from the last to the oldest. Interrupted, it is
/// finished by the next call. What was set aside before is kept: what lies beside it then is of an attempt that
/// never ran.
pub(super) fn set_aside(directory: &Path, attempt: u32) -> io::Result<()> {
    let aside = directory.join(attempt_directory(attempt));
    if fs::symlink_metadata(&aside).is_ok() {
        return Ok(());
    }
    let unfinished = directory.join(unfinished_attempt_directory(attempt));
    let mut found = fs::symlink_metadata(&unfinished).is_ok();
    for stream in [LogStream::Stdout, LogStream::Stderr] {
        let rolled = rolled_starts(File::open(directory)?, stream)?;
        let rolled = rolled.iter().rev().map(|start| rolled_name(stream, *start));
        for name in std::iter::once(stream.name().to_owned()).chain(rolled) {
            let from = directory.join(&name);
            if fs::symlink_metadata(&from).is_ok() {
                create(&unfinished)?;
                found = true;
                fs::rename(from, unfinished.join(name))?;
            }
        }
    }
    if found {
        fs::rename(unfinished, aside)?;
    }
    Ok(())
}

/// Opens a directory in another one, if it is one and no link to one.
pub(super) fn open_directory(at: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(at, name, flags, Mode::empty())?)
}

/// Opens a file in a directory; none if it is there and no plain one.
pub(super) fn open_plain(at: impl AsFd, name: &str) -> io::Result<Option<File>> {
    // Without NONBLOCK, opening a pipe would wait for its writer.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(at, name, flags, Mode::empty())?);
    Ok(file.metadata()?.is_file().then_some(file))
}

/// The latest attempt that was launched in the directory of an application, by the record there.
pub(super) fn latest_attempt(directory: BorrowedFd<'_>) -> Option<u32> {
    #[derive(Deserialize)]
    struct Attempt {
        attempt: u32,
    }
    #[derive(Deserialize)]
    struct Launch {
        spec: Attempt,
    }
    let bytes = read_plain(open_directory(directory, ".aloha").ok()?, "launch.json")?;
    let launch: Launch = serde_json::from_slice(&bytes).ok()?;
    Some(launch.spec.attempt)
}

fn read_plain(at: impl AsFd, name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = open_plain(at, name).ok()??;
    file.take(RECORD_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_component_of_a_path() {
        for good in ["app-20190311221731-0000", "a b", "..."] {
            assert!(is_component(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "/a", "../a", "a\0b", "a\nb"] {
            assert!(!is_component(bad), "{bad}");
        }
    }

    pub(in crate::worker) fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("a directory");
        let names = entries.map(|entry| entry.expect("readable").file_name());
        let mut names: Vec<_> = names
            .map(|name| name.into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn an_attempt_is_set_aside_with_its_rolled_files_and_nothing_else() {
        let work = tempfile::tempdir().expect("a directory");
        let rolled = rolled_name(LogStream::Stdout, 0);
        for name in ["stdout", "stderr", &rolled, "stdout.txt", "data"] {
            fs::write(work.path().join(name), name).expect("written");
        }
        // An interrupted call left this.
        let later = rolled_name(LogStream::Stdout, 5);
        create(&work.path().join(".attempt-1")).expect("created");
        fs::write(work.path().join(".attempt-1").join(&later), "x").expect("written");

        set_aside(work.path(), 1).expect("moved");
        assert_eq!(names(work.path()), ["attempt-1", "data", "stdout.txt"]);
        let aside = work.path().join("attempt-1");
        assert_eq!(names(&aside), ["stderr", "stdout", &rolled, &later]);

        fs::write(work.path().join("stdout"), "never ran").expect("written");
        set_aside(work.path(), 1).expect("nothing to do");
        let kept = fs::read_to_string(aside.join("stdout"));
        assert_eq!(kept.expect("kept"), "stdout");
        set_aside(work.path(), 7).expect("moved");
        assert_eq!(names(&work.path().join("attempt-7")), ["stdout"]);
        set_aside(work.path(), 8).expect("nothing to do");
        assert_eq!(
            names(work.path()),
            ["attempt-1", "attempt-7", "data", "stdout.txt"]
        );
    }

    #[test]
    fn the_latest_attempt_is_the_one_of_the_records() {
        let work = tempfile::tempdir().expect("a directory");
        let latest = || latest_attempt(File::open(work.path()).expect("open").as_fd());
        assert_eq!(latest(), None);
        fs::create_dir(work.path().join(".aloha")).expect("created");
        let launch = work.path().join(".aloha/launch.json");
        fs::write(&launch, "{").expect("written");
        assert_eq!(latest(), None);
        fs::write(&launch, r#"{"spec":{"attempt":3,"x":[]},"y":1}"#).expect("written");
        assert_eq!(latest(), Some(3));
    }
}
