//! What `/proc` knows of processes and their groups.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The part of `/proc/PID/stat` that tells processes apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// Dead, but not yet waited for by its parent.
    pub(super) is_zombie: bool,
    /// The id of its group.
    pub(super) group: i32,
    /// When it started, in clock ticks since the machine did. With the pid, this names a process for good.
    pub(super) start_ticks: u64,
}

/// Looks a process up; `None` if there is none with this pid.
pub(super) fn stat(pid: Pid) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?)
}

/// The second field, the name, may hold blanks and parentheses: counting starts behind its end.
fn parse(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(Stat {
        is_zombie: matches!(*fields.first()?, "Z" | "X"),
        group: fields.get(2)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
    })
}

/// The id of this run of the machine: pids and start times mean nothing in another one.
pub(super) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// Whether a process was started with this variable. Of a stranger's process nothing can be seen.
pub(super) fn has_variable(pid: Pid, name: &str, value: &str) -> bool {
    let wanted = format!("{name}={value}");
    fs::read(format!("/proc/{}/environ", pid.as_raw_pid())).is_ok_and(|environment| {
        environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == wanted.as_bytes())
    })
}

/// Opens every live process of a group that `belongs`.
///
/// A pid may be reused between its listing and its opening, hence the second look: what is opened is what was meant.
pub(super) fn open_group(
    group: Pid,
    belongs: impl Fn(Pid) -> bool,
) -> io::Result<Vec<(Pid, OwnedFd)>> {
    let is_member = |pid| {
        stat(pid).is_some_and(|stat| !stat.is_zombie && stat.group == group.as_raw_pid())
            && belongs(pid)
    };
    let mut members = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw).filter(|pid| is_member(*pid)) else {
            continue;
        };
        match pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(fd) if is_member(pid) => members.push((pid, fd)),
            Ok(_) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(members)
}

/// Waits until no live process of the group `belongs` any more.
pub(super) async fn group_gone(
    group: Pid,
    belongs: impl Fn(Pid) -> bool + Clone + Send + 'static,
) -> io::Result<()> {
    loop {
        let belongs = belongs.clone();
        let members = blocking(move || open_group(group, belongs)).await?;
        if members.is_empty() {
            return Ok(());
        }
        for (_, fd) in members {
            ended(fd).await?;
        }
    }
}

/// Waits until the process has ended: its descriptor turns readable while it is still a zombie.
#[expect(
    deprecated,
    reason = "its successor is unsafe; what may break the old one, a descriptor that changes, `OwnedFd` cannot do"
)]
pub(super) async fn ended(pidfd: OwnedFd) -> io::Result<()> {
    let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
    pidfd.readable().await.map(drop)
}

/// Runs what blocks on a thread that may; a panic in there goes on here.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that shuts down refuses work, and it drops this future anyway.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_does_not_shift_the_fields() {
        let text = "7 (a ) S 9) Z 1 42 42 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 12345 0 0";
        let expected = Stat {
            is_zombie: true,
            group: 42,
            start_ticks: 12345,
        };
        assert_eq!(parse(text), Some(expected));
        assert_eq!(parse("7 (x) R 1"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn this_process_is_found_in_its_group() {
        let me = rustix::process::getpid();
        let stat = stat(me).expect("this process exists");
        let group = Pid::from_raw(stat.group).expect("a group");
        let members = open_group(group, |pid| pid == me).expect("/proc can be read");
        assert_eq!(members.len(), 1);
        assert!(!boot_id().expect("Linux has one").is_empty());
    }
}
