//! What is left where a runner was killed, and runners that no record leads to.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal as SystemSignal};
use tracing::warn;

use super::{Identity, RETRY_INTERVAL};
use crate::blocking::blocking;
use crate::procfs;
use crate::runner::{self, AppCgroup, Records};
use crate::worker::launcher::{AdoptError, LaunchSpec};

/// How long processes that were killed may take to vanish: it needs no cooperation of theirs, only the kernel's.
const VANISH_TIMEOUT: Duration = Duration::from_secs(10);

/// A runner that its records do not lead to.
#[derive(Debug, Clone)]
pub(super) struct Stray {
    pub(super) pid: Pid,
    pub(super) stat: procfs::Stat,
    pub(super) app_id: String,
    pub(super) attempt: u32,
}

/// The runners of a worker in its work directory that are not known, by what they execute.
pub(super) fn strays(
    work_directory: &Path,
    worker_id: &str,
    known: &BTreeSet<(String, u32)>,
) -> io::Result<Vec<Stray>> {
    let work_directory = work_directory.canonicalize()?;
    // What a runner forks looks like it until it executes its program, but leads no session.
    let leaders = procfs::find(|pid, stat| stat.session == pid.as_raw_pid())?;
    let stray = |(pid, stat): (Pid, procfs::Stat)| {
        let arguments = procfs::arguments(pid);
        let [_, what, app_id, attempt, worker] = arguments.as_slice() else {
            return None;
        };
        let is_ours = what == runner::ARGUMENT
            && worker == worker_id
            && procfs::working_directory(pid)?.starts_with(&work_directory);
        let key = (app_id.clone(), attempt.parse().ok()?);
        (is_ours && !known.contains(&key)).then_some(Stray {
            pid,
            stat,
            app_id: key.0,
            attempt: key.1,
        })
    };
    Ok(leaders.into_iter().filter_map(stray).collect())
}

/// Kills everything below a runner, which ends then; if it does not, it is killed as well.
pub(super) async fn end_stray(stray: Stray) -> io::Result<()> {
    for signal in [SystemSignal::TERM, SystemSignal::KILL] {
        let round = move |pid, stat: procfs::Stat| -> io::Result<bool> {
            let is_it = |now: &procfs::Stat| now.start_ticks == stat.start_ticks && !now.is_zombie;
            if !procfs::stat(pid).is_some_and(|now| is_it(&now)) {
                return Ok(true);
            }
            for (below, stat) in procfs::descendants(pid)? {
                procfs::signal(below, &stat, SystemSignal::KILL)?;
            }
            procfs::signal(pid, &stat, signal)?;
            Ok(false)
        };
        let gone = async {
            while !blocking(move || round(stray.pid, stray.stat)).await? {
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            Ok(())
        };
        if let Ok(gone) = tokio::time::timeout(VANISH_TIMEOUT, gone).await {
            return gone;
        }
    }
    let text = format!("the runner of {} cannot be killed", stray.app_id);
    Err(io::Error::new(io::ErrorKind::TimedOut, text))
}

/// The variables that every process of an attempt was started with.
fn marks(spec: &LaunchSpec) -> Vec<String> {
    vec![
        format!("ALOHA_APP_ID={}", spec.app_id),
        format!("ALOHA_ATTEMPT={}", spec.attempt),
        format!("ALOHA_WORKER_ID={}", spec.worker_id),
    ]
}

/// How what a runner that is dead has left behind is known.
pub(super) struct Left {
    pub(super) runner: Identity,
    /// Whether we saw it end ourselves.
    pub(super) saw_it_end: bool,
    /// As it recorded them.
    pub(super) cgroups: Vec<PathBuf>,
}

impl Left {
    /// What our child has left. Where it has no record, or a false one, its cgroups are looked for.
    pub(super) async fn of_child(runner: Identity, spec: &LaunchSpec, records: &Records) -> Self {
        let (records, name) = (records.clone(), spec.cgroup_name());
        let cgroups = blocking(move || match records.run() {
            Ok(Some(run)) if AppCgroup::open(&name, &run.cgroups).is_ok_and(|it| it.is_some()) => {
                Ok(run.cgroups)
            }
            _ => AppCgroup::made_by(runner.pid, &name),
        });
        let cgroups = cgroups.await.unwrap_or_else(|error| {
            warn!(app = %spec.app_id, %error, "cannot look for the cgroups of a runner");
            Vec::new()
        });
        Self {
            runner,
            saw_it_end: true,
            cgroups,
        }
    }
}

/// Kills what a runner that is dead has left behind, and waits until it is gone.
///
/// Such processes are known by their cgroup, and by their variables. That they are of the runner's session counts only
/// where we saw it end ourselves: later its number may be that of a stranger's session.
pub(super) async fn end_leftovers(spec: &LaunchSpec, left: &Left) -> Result<(), AdoptError> {
    let failed = |cause| AdoptError::Processes {
        app_id: spec.app_id.clone(),
        cause,
    };
    let cgroup = AppCgroup::open(&spec.cgroup_name(), &left.cgroups).unwrap_or_else(|error| {
        warn!(app = %spec.app_id, %error, "no cgroup tells what a runner left");
        None
    });
    let (runner, saw_it_end, marks) = (left.runner, left.saw_it_end, marks(spec));
    let belongs = move |pid: Pid, stat: &procfs::Stat| {
        stat.start_ticks >= runner.start_ticks
            && ((saw_it_end && stat.session == runner.pid) || procfs::has_variables(pid, &marks))
    };
    let round = Arc::new(move || -> io::Result<bool> {
        if let Some(cgroup) = &cgroup {
            cgroup.kill()?;
        }
        let found = procfs::find(&belongs)?;
        for (pid, stat) in &found {
            procfs::signal(*pid, stat, SystemSignal::KILL)?;
        }
        Ok(match &cgroup {
            // It can be removed once it is empty, and may have been meanwhile.
            Some(cgroup) => found.is_empty() && cgroup.remove().is_ok(),
            None => found.is_empty(),
        })
    });
    let gone = async {
        loop {
            let round = Arc::clone(&round);
            if blocking(move || round()).await? {
                return Ok(());
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    };
    match tokio::time::timeout(VANISH_TIMEOUT, gone).await {
        Ok(gone) => gone.map_err(failed),
        Err(_) => Err(AdoptError::Unkillable {
            app_id: spec.app_id.clone(),
        }),
    }
}
