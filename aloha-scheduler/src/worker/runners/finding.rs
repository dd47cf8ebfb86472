//! How an application stands whose runner an earlier worker started.

use std::io;

use rustix::process::Pid;

use super::{Identity, Process, RETRY_INTERVAL};
use crate::attempt::Outcome;
use crate::blocking::blocking;
use crate::procfs;
use crate::runner::{Records, Run, Trace};
use crate::worker::launcher::LaunchSpec;

/// What a look at the lock and the records of an application gives.
pub(super) enum Found {
    Nothing,
    Running(LaunchSpec, Process),
    Ended(LaunchSpec, Outcome, bool),
    CutShort(LaunchSpec, Run),
}

/// Looks until it is clear how an application stands.
pub(super) async fn find(records: &Records, worker_id: &str) -> io::Result<Found> {
    loop {
        let (records, worker_id) = (records.clone(), worker_id.to_owned());
        if let Some(found) = blocking(move || look(&records, &worker_id)).await? {
            return Ok(found);
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

/// How an application stands; `None` while somebody holds the lock who does not say who it is: a runner that is not up
/// yet, one that ends this moment, or a process about to be something else (between fork and exec it has all of ours).
pub(super) fn look(records: &Records, worker_id: &str) -> io::Result<Option<Found>> {
    let launch = match records.launch()? {
        Some(launch) if launch.spec.worker_id == worker_id => launch,
        Some(_) | None => return Ok(Some(Found::Nothing)),
    };
    let Some(_lock) = records.lock()? else {
        let Some(run) = records.run()? else {
            return Ok(None);
        };
        let Some(pid) = Pid::from_raw(run.pid).filter(|_| run.is_of_this_boot().unwrap_or(true))
        else {
            return Ok(None);
        };
        return Ok(procfs::open(pid, run.start_ticks)?.map(|pidfd| {
            let process = Process {
                pidfd,
                identity: Identity::of(&run),
                child: None,
            };
            Found::Running(launch.spec, process)
        }));
    };
    Ok(Some(match records.trace()? {
        Trace::Nothing | Trace::NeverBegan(_) => Found::Nothing,
        Trace::CutShort(launch, run) => Found::CutShort(launch.spec, run),
        Trace::Ended {
            launch,
            outcome,
            reported,
        } => Found::Ended(launch.spec, outcome, reported),
    }))
}
