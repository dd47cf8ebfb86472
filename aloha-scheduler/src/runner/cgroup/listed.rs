//! The processes in a group and those below it, one by one.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

use super::plan::set;

/// How often a group is looked through for processes that were born meanwhile. A killed process bears none, so that
/// each look ends a generation.
const ROUNDS_MAX: usize = 100;

/// A group and those below it, the deepest first. One that is gone has none.
pub(super) fn tree(group: &Path) -> io::Result<Vec<PathBuf>> {
    let mut groups = Vec::new();
    let mut ahead = vec![group.to_owned()];
    while let Some(group) = ahead.pop() {
        let entries = match fs::read_dir(&group) {
            Ok(entries) => entries,
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                ahead.push(entry.path());
            }
        }
        groups.push(group);
    }
    groups.reverse();
    Ok(groups)
}

/// Whether an error says that the group, or the process, is not there any more.
pub(super) fn is_gone(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::NOENT | Errno::NODEV | Errno::SRCH))
}

/// The processes of these groups.
pub(super) fn pids(groups: &[PathBuf]) -> io::Result<BTreeSet<i32>> {
    let mut pids = BTreeSet::new();
    for group in groups {
        match fs::read_to_string(group.join("cgroup.procs")) {
            // 0: of a pid namespace that cannot be seen from here.
            Ok(text) => pids.extend(text.lines().filter_map(|pid| pid.parse::<i32>().ok())),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(pids)
}

/// Opens the processes of a group and of those below it; never this one.
///
/// A pid may be reused between its listing and its opening, hence the second look: what is opened is what was meant.
pub(super) fn open(group: &Path) -> io::Result<Vec<(Pid, OwnedFd)>> {
    let groups = tree(group)?;
    let mut opened = Vec::new();
    for pid in pids(&groups)? {
        let Some(pid) = Pid::from_raw(pid).filter(|pid| pid.as_raw_pid() > 1 && *pid != getpid())
        else {
            continue;
        };
        match pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(fd) => opened.push((pid, fd)),
            Err(Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let still = pids(&groups)?;
    opened.retain(|(pid, _)| still.contains(&pid.as_raw_pid()));
    Ok(opened)
}

/// Signals each process.
pub(super) fn signal(processes: &[(Pid, OwnedFd)], signal: Signal) -> io::Result<()> {
    for (_, fd) in processes {
        match pidfd_send_signal(fd, signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Kills every process of a group whose kernel cannot do it in one step, held still meanwhile where it can do that.
pub(super) fn kill(group: &Path) -> io::Result<()> {
    let freezers = [
        ("cgroup.freeze", "1", "0"),
        ("freezer.state", "FROZEN", "THAWED"),
    ];
    let freezer = freezers
        .into_iter()
        .find(|(file, freeze, _)| set(group, file, freeze).is_ok());
    let mut result = kill_all(group);
    if let Some((file, _, thaw)) = freezer {
        // What v1 froze dies when it thaws, so that this must be said even after an error, and to what the application
        // froze itself too.
        for group in tree(group)? {
            match set(&group, file, thaw) {
                Err(error) if !is_gone(&error) => result = result.and(Err(error)),
                _ => {}
            }
        }
    }
    result
}

fn kill_all(group: &Path) -> io::Result<()> {
    let mut killed = BTreeSet::new();
    for _ in 0..ROUNDS_MAX {
        let processes = open(group)?;
        signal(&processes, Signal::KILL)?;
        let found = processes.iter().map(|(pid, _)| pid.as_raw_pid());
        let before = killed.len();
        killed.extend(found);
        if killed.len() == before {
            return Ok(());
        }
    }
    Err(io::Error::other(format!(
        "{} bears processes faster than they are killed",
        group.display()
    )))
}
