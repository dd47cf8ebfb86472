//! Which hierarchy is used for what.

use std::fs;
use std::io;
use std::path::Path;

use super::CgroupVersion;
use super::hierarchy::Hierarchy;
use crate::resources::Resources;
use crate::runner::{CpuEnforcement, Enforcement};

/// The period in which a quota of processor time is given out, in microseconds: the kernel's own default.
const CPU_PERIOD_MICROS: u64 = 100_000;
/// What one core weighs: the kernel's default for a group, of v2 and of v1.
const WEIGHT_OF_A_CORE: u64 = 100;
const SHARES_OF_A_CORE: u64 = 1024;
/// The largest weights the kernel takes.
const WEIGHT_MAX: u64 = 10_000;
const SHARES_MAX: u64 = 262_144;

/// Where memory and processors are limited and processes tracked, or why not.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) memory: Result<&'a Hierarchy, String>,
    pub(super) cpu: Result<&'a Hierarchy, String>,
    pub(super) tracking: Result<&'a Hierarchy, String>,
}

impl<'a> Plan<'a> {
    /// Decides by what is mounted and wanted, not by what is permitted.
    pub(super) fn new(hierarchies: &'a [Hierarchy], enforcement: &Enforcement) -> Self {
        if !enforcement.cgroups {
            return Self::nothing("aloha.worker.cgroup.enabled is false");
        }
        if hierarchies.is_empty() {
            return Self::nothing(
                "no cgroup hierarchy is mounted where this worker runs; mount one at /sys/fs/cgroup",
            );
        }
        let memory = match enforcement.memory {
            true => limiting(hierarchies, "memory"),
            false => Err("aloha.worker.limits.memory is false".to_owned()),
        };
        let cpu = match enforcement.cpu {
            CpuEnforcement::Off => Err("aloha.worker.limits.cpu is off".to_owned()),
            CpuEnforcement::Share | CpuEnforcement::Quota => limiting(hierarchies, "cpu"),
        };
        // Each further hierarchy is paid for at each start: one that limits knows the processes as well.
        let limits = memory.as_ref().or(cpu.as_ref()).ok().copied();
        Self {
            tracking: limits.map_or_else(|| tracking(hierarchies), Ok),
            memory,
            cpu,
        }
    }

    fn nothing(reason: &str) -> Self {
        Self {
            memory: Err(reason.to_owned()),
            cpu: Err(reason.to_owned()),
            tracking: Err(reason.to_owned()),
        }
    }

    /// The hierarchies in use, each once.
    pub(super) fn hierarchies(&self) -> Vec<&'a Hierarchy> {
        let mut used: Vec<&Hierarchy> = Vec::new();
        for part in [&self.tracking, &self.memory, &self.cpu] {
            if let Ok(hierarchy) = part
                && !used.contains(hierarchy)
            {
                used.push(hierarchy);
            }
        }
        used
    }
}

/// The hierarchy whose groups limit something.
fn limiting<'a>(hierarchies: &'a [Hierarchy], controller: &str) -> Result<&'a Hierarchy, String> {
    let with: Vec<&Hierarchy> = hierarchies.iter().filter(|h| h.has(controller)).collect();
    if let Some(gives) = with.iter().find(|h| h.gives(controller)) {
        return Ok(gives);
    }
    Err(match with.first() {
        Some(hierarchy) => format!(
            "{} does not hand the {controller} controller down and holds other processes too; start the worker in a \
             cgroup of its own (systemd: Delegate=yes)",
            hierarchy.base().display()
        ),
        None => format!(
            "no cgroup hierarchy has the {controller} controller here; enable it in cgroup.subtree_control of the \
             groups above the worker's (systemd: Delegate=yes)"
        ),
    })
}

/// The hierarchy that ends processes best: v2 does it in one step, v1's freezer holds them still meanwhile.
fn tracking(hierarchies: &[Hierarchy]) -> Result<&Hierarchy, String> {
    let v2 = hierarchies.iter().find(|h| h.version == CgroupVersion::V2);
    let freezer = || hierarchies.iter().find(|h| h.has("freezer"));
    let any = || {
        let mut known = ["pids", "memory", "cpu"].into_iter();
        known.find_map(|controller| hierarchies.iter().find(|h| h.has(controller)))
    };
    v2.or_else(freezer).or_else(any).ok_or_else(|| {
        "no cgroup hierarchy here can hold processes; mount one at /sys/fs/cgroup".to_owned()
    })
}

/// Limits the memory of a group; 0 is no limit.
pub(super) fn limit_memory(group: &Path, version: CgroupVersion, mib: u64) -> io::Result<()> {
    let Some(bytes) = mib.checked_mul(1 << 20).filter(|bytes| *bytes > 0) else {
        return Ok(());
    };
    let bytes = bytes.to_string();
    // Swap is none of an application's memory: it would make a limit that is met silently slow. Not every kernel
    // counts it.
    match version {
        CgroupVersion::V1 => {
            set(group, "memory.limit_in_bytes", &bytes)?;
            let _ = set(group, "memory.memsw.limit_in_bytes", &bytes);
        }
        CgroupVersion::V2 => {
            set(group, "memory.max", &bytes)?;
            let _ = set(group, "memory.swap.max", "0");
        }
    }
    Ok(())
}

/// Shares or limits the processors of a group.
pub(super) fn limit_cpu(
    group: &Path,
    version: CgroupVersion,
    how: CpuEnforcement,
    cores: u32,
) -> io::Result<()> {
    let cores = u64::from(cores.max(1));
    match (how, version) {
        (CpuEnforcement::Off, _) => Ok(()),
        (CpuEnforcement::Share, CgroupVersion::V1) => {
            let shares = (cores * SHARES_OF_A_CORE).min(SHARES_MAX);
            set(group, "cpu.shares", &shares.to_string())
        }
        (CpuEnforcement::Share, CgroupVersion::V2) => {
            let weight = (cores * WEIGHT_OF_A_CORE).min(WEIGHT_MAX);
            set(group, "cpu.weight", &weight.to_string())
        }
        (CpuEnforcement::Quota, CgroupVersion::V1) => {
            set(group, "cpu.cfs_period_us", &CPU_PERIOD_MICROS.to_string())?;
            let quota = cores * CPU_PERIOD_MICROS;
            set(group, "cpu.cfs_quota_us", &quota.to_string())
        }
        (CpuEnforcement::Quota, CgroupVersion::V2) => {
            let quota = cores * CPU_PERIOD_MICROS;
            set(group, "cpu.max", &format!("{quota} {CPU_PERIOD_MICROS}"))
        }
    }
}

/// Writes to a file of a group; the kernel made it or it is not there.
pub(super) fn set(group: &Path, file: &str, value: &str) -> io::Result<()> {
    use std::io::Write as _;

    let mut file = fs::OpenOptions::new().write(true).open(group.join(file))?;
    // In one call: each is a command to the kernel.
    file.write_all(value.as_bytes())
}

/// Sets what an application may have in one of its groups. Of parts for which `plan` has another hierarchy, nothing.
pub(super) fn limit(
    group: &Path,
    hierarchy: &Hierarchy,
    plan: &Plan<'_>,
    enforcement: &Enforcement,
    needs: Resources,
) -> [Option<io::Result<()>>; 2] {
    let is_here = |part: &Result<&Hierarchy, String>| part.as_ref() == Ok(&hierarchy);
    let version = hierarchy.version;
    [
        is_here(&plan.memory).then(|| limit_memory(group, version, needs.memory_mib)),
        is_here(&plan.cpu).then(|| limit_cpu(group, version, enforcement.cpu, needs.cores)),
    ]
}

/// Whether an error says that something is not given here, rather than that it went wrong.
pub(super) fn is_not_given(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::NotFound
            | io::ErrorKind::Unsupported
    )
}
