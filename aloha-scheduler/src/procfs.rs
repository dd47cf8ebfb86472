//! What `/proc` knows of processes.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The part of `/proc/PID/stat` that tells processes apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Dead with all of its threads, but not yet waited for by its parent.
    pub(crate) is_zombie: bool,
    /// Its parent, or whoever took its place.
    pub(crate) parent: i32,
    /// The id of its session: the pid of the process that began it.
    pub(crate) session: i32,
    /// When it started, in clock ticks since the machine did. With the pid, this names a process for good.
    pub(crate) start_ticks: u64,
}

/// Looks a process up; `None` if there is none with this pid.
pub(crate) fn stat(pid: Pid) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?)
}

/// The second field, the name, may hold blanks and parentheses: counting starts behind its end.
fn parse(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(Stat {
        // The first thread of a process may end before the others, and is a zombie until they have.
        is_zombie: matches!(*fields.first()?, "Z" | "X")
            && fields.get(17)?.parse::<u32>().ok()? <= 1,
        parent: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
    })
}

/// The id of this run of the machine: pids and start times mean nothing in another one.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// Whether a process was started with all of these variables (`NAME=value`). Of a stranger's process nothing can be
/// seen.
pub(crate) fn has_variables(pid: Pid, wanted: &[String]) -> bool {
    fs::read(format!("/proc/{}/environ", pid.as_raw_pid())).is_ok_and(|environment| {
        wanted.iter().all(|wanted| {
            environment
                .split(|byte| *byte == 0)
                .any(|variable| variable == wanted.as_bytes())
        })
    })
}

/// The program's name and the arguments that a process was started with; none where it is gone.
pub(crate) fn arguments(pid: Pid) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{}/cmdline", pid.as_raw_pid())).unwrap_or_default();
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    let arguments = bytes.split(|byte| *byte == 0);
    arguments
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect()
}

/// The working directory of a process, under the name that it has now; none where that cannot be seen.
pub(crate) fn working_directory(pid: Pid) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{}/cwd", pid.as_raw_pid())).ok()
}

/// Every live process that `belongs`.
pub(crate) fn find(belongs: impl Fn(Pid, &Stat) -> bool) -> io::Result<Vec<(Pid, Stat)>> {
    let found = live()?.into_iter();
    Ok(found.filter(|(pid, stat)| belongs(*pid, stat)).collect())
}

/// Every live process below `ancestor`.
pub(crate) fn descendants(ancestor: Pid) -> io::Result<Vec<(Pid, Stat)>> {
    let mut children: HashMap<i32, Vec<(Pid, Stat)>> = HashMap::new();
    for (pid, stat) in live()? {
        children.entry(stat.parent).or_default().push((pid, stat));
    }
    let mut found = children.remove(&ancestor.as_raw_pid()).unwrap_or_default();
    let mut next = 0;
    while let Some((pid, _)) = found.get(next) {
        let below = children.remove(&pid.as_raw_pid());
        found.extend(below.into_iter().flatten());
        next += 1;
    }
    Ok(found)
}

fn live() -> io::Result<Vec<(Pid, Stat)>> {
    let mut live = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            continue;
        };
        if let Some(stat) = stat(pid).filter(|stat| !stat.is_zombie) {
            live.push((pid, stat));
        }
    }
    Ok(live)
}

/// Opens a process that was seen; `None` if it is gone. A pid may be reused between the two, hence the second look.
pub(crate) fn open(pid: Pid, start_ticks: u64) -> io::Result<Option<OwnedFd>> {
    match pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(fd) => Ok(stat(pid)
            .filter(|stat| stat.start_ticks == start_ticks)
            .map(|_| fd)),
        Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Signals a process that was seen, and no other; nothing if it is gone.
pub(crate) fn signal(pid: Pid, stat: &Stat, signal: Signal) -> io::Result<()> {
    let Some(fd) = open(pid, stat.start_ticks)? else {
        return Ok(());
    };
    match pidfd_send_signal(fd, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Waits until the process has ended: its descriptor turns readable while it is still a zombie.
#[expect(
    deprecated,
    reason = "its successor is unsafe; what may break the old one, a descriptor that changes, `OwnedFd` cannot do"
)]
pub(crate) async fn ended(pidfd: OwnedFd) -> io::Result<()> {
    let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
    pidfd.readable().await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_does_not_shift_the_fields() {
        let text = "7 (a ) S 9) Z 1 42 43 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 12345 0 0";
        let expected = Stat {
            is_zombie: true,
            parent: 1,
            session: 43,
            start_ticks: 12345,
        };
        assert_eq!(parse(text), Some(expected));
        assert_eq!(parse("7 (x) R 1"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn a_process_whose_first_thread_has_ended_lives_for_as_long_as_the_others() {
        let text = |threads: u32| {
            format!("7 (x) Z 1 42 43 0 -1 4 0 0 0 0 0 0 0 0 20 0 {threads} 0 12345 0 0")
        };
        let is_zombie = |threads| parse(&text(threads)).map(|stat| stat.is_zombie);
        assert_eq!([0, 1, 2].map(is_zombie), [true, true, false].map(Some));
    }

    #[test]
    fn this_process_is_found_below_its_parent() {
        let me = rustix::process::getpid();
        let parent = rustix::process::getppid().expect("a parent");
        let found = descendants(parent).expect("/proc can be read");
        assert!(found.iter().any(|(pid, _)| *pid == me));
        let found = find(|pid, _| pid == me).expect("/proc can be read");
        assert_eq!(found.len(), 1);
        let (pid, stat) = found[0];
        assert!(open(pid, stat.start_ticks).expect("it is there").is_some());
        assert!(
            open(pid, stat.start_ticks + 1)
                .expect("it is there")
                .is_none()
        );
        assert!(!boot_id().expect("Linux has one").is_empty());
    }
}
