use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{Access, access};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tracing::info;

use super::group::{directory_name, make};
use super::hierarchy::{Hierarchy, SUPERVISOR};
use super::plan::{Plan, limit, set};
use crate::resources::Resources;
use crate::runner::{CpuEnforcement, Enforcement};

/// What of an application's resources a worker enforces; found out once, at its start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupSupport {
    /// Whether processes of an application are killed when it uses more memory than it asked for.
    pub memory: Enforced,
    /// Whether it has its share of the processors, or is kept to its cores.
    pub cpu: Enforced,
    /// Whether everything it started is found and ended with it, by the kernel's account.
    pub tracking: Enforced,
}

/// Whether something is enforced.
///
/// Its text, also in JSON and on the wire, is `enforced by cgroup v2` or `not enforced: REASON`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Enforced {
    /// By the kernel, through this version of its control groups.
    By(CgroupVersion),
    /// Not at all; says why, and what to do about it.
    Not(String),
}

/// A version of the kernel's control groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupVersion {
    /// One hierarchy for each controller.
    V1,
    /// One hierarchy for all.
    V2,
}

impl CgroupSupport {
    /// Finds out what is possible in this process, by doing it once. In a group of its own that it must leave to its
    /// applications, the process moves to one beside them. Blocks, for as long as a few files in memory take.
    pub fn detect(enforcement: &Enforcement) -> Self {
        Self::detect_below(Path::new("/"), enforcement)
    }

    /// Nothing is enforced, for this reason.
    pub fn none(reason: &str) -> Self {
        let not = Enforced::Not(reason.to_owned());
        Self {
            memory: not.clone(),
            cpu: not.clone(),
            tracking: not,
        }
    }

    pub(super) fn detect_below(root: &Path, enforcement: &Enforcement) -> Self {
        let hierarchies = || {
            Hierarchy::all(root).map_err(|error| {
                format!("this process's cgroups cannot be read in /proc: {error}; mount /proc")
            })
        };
        let mut found = match hierarchies() {
            Ok(found) => found,
            Err(reason) if enforcement.cgroups => return Self::none(&reason),
            Err(_) => Vec::new(),
        };
        let mut refused = None;
        if let Some((hierarchy, controllers)) = missing(&found, enforcement) {
            match hand_down(hierarchy, &controllers) {
                Ok(()) => found = hierarchies().unwrap_or(found),
                Err(reason) => refused = Some((controllers, reason)),
            }
        }
        let plan = Plan::new(&found, enforcement);
        let mut this = Self {
            memory: planned(&plan.memory),
            cpu: planned(&plan.cpu),
            tracking: planned(&plan.tracking),
        };
        if let Some((controllers, reason)) = refused {
            let parts = [("memory", &mut this.memory), ("cpu", &mut this.cpu)];
            for (name, part) in parts {
                // Another hierarchy may have it.
                if controllers.contains(&name) && matches!(part, Enforced::Not(_)) {
                    *part = Enforced::Not(reason.clone());
                }
            }
        }
        for hierarchy in plan.hierarchies() {
            this.try_out(hierarchy, &plan, enforcement);
        }
        this
    }

    /// Writes it to the log, with the reasons.
    pub(crate) fn log(&self) {
        let Self {
            memory,
            cpu,
            tracking,
        } = self;
        info!(%memory, %cpu, %tracking, "resources of applications");
    }

    /// What is enforced, in short words: `memory, cpu` or `none`.
    pub fn summary(&self) -> String {
        let enforced: Vec<&str> = [("memory", &self.memory), ("cpu", &self.cpu)]
            .into_iter()
            .filter(|(_, part)| matches!(part, Enforced::By(_)))
            .map(|(name, _)| name)
            .collect();
        match enforced.is_empty() {
            true => "none".to_owned(),
            false => enforced.join(", "),
        }
    }

    /// Each reason why something is not enforced, with what that is: `memory, cpu`.
    pub fn reasons(&self) -> Vec<(String, &str)> {
        let parts = [
            ("memory", &self.memory),
            ("cpu", &self.cpu),
            ("tracking", &self.tracking),
        ];
        let mut reasons: Vec<(String, &str)> = Vec::new();
        for (name, part) in parts {
            let Enforced::Not(reason) = part else {
                continue;
            };
            match reasons.iter_mut().find(|(_, known)| known == reason) {
                Some((names, _)) => *names = format!("{names}, {name}"),
                None => reasons.push((name.to_owned(), reason)),
            }
        }
        reasons
    }

    /// Makes a group in a hierarchy, limits it and removes it; what fails is not enforced.
    fn try_out(&mut self, hierarchy: &Hierarchy, plan: &Plan<'_>, enforcement: &Enforcement) {
        let group = hierarchy.base().join(directory_name("probe"));
        let here = |part: &Result<&Hierarchy, String>| part.as_ref() == Ok(&hierarchy);
        let uses = [&plan.memory, &plan.cpu, &plan.tracking].map(here);
        let usable = make(&group)
            .map_err(|error| (hierarchy.base().to_owned(), error))
            .and_then(|()| movable(hierarchy));
        if let Err((path, error)) = usable {
            let reason = format!(
                "the cgroup {} cannot be used: {error}; have it delegated to the worker's user (systemd: \
                 Delegate=yes), or run the worker as root",
                path.display()
            );
            let parts = [&mut self.memory, &mut self.cpu, &mut self.tracking];
            for (part, _) in parts.into_iter().zip(uses).filter(|(_, used)| *used) {
                *part = Enforced::Not(reason.clone());
            }
        } else {
            // The memory is only ever that of an empty group.
            let some = Resources {
                cores: 1,
                memory_mib: 64,
            };
            let [memory, cpu] = limit(&group, hierarchy, plan, enforcement, some);
            for (part, limited) in [(&mut self.memory, memory), (&mut self.cpu, cpu)] {
                if let Some(Err(error)) = limited {
                    *part = Enforced::Not(format!(
                        "the kernel takes no limit in {}: {error}; switch it off with aloha.worker.limits.*, or ask \
                         for it in the kernel's configuration",
                        group.display()
                    ));
                }
            }
        }
        // Never made, or empty.
        let _ = fs::remove_dir(&group);
    }
}

/// Whether processes may be moved out of the group that this one is in, and back.
fn movable(hierarchy: &Hierarchy) -> Result<(), (std::path::PathBuf, io::Error)> {
    [hierarchy.base(), &hierarchy.own]
        .into_iter()
        .try_for_each(|group| {
            let writable = access(group.join("cgroup.procs"), Access::WRITE_OK);
            writable.map_err(|error| (group.to_owned(), error.into()))
        })
}

fn planned(part: &Result<&Hierarchy, String>) -> Enforced {
    match part {
        Ok(hierarchy) => Enforced::By(hierarchy.version),
        Err(reason) => Enforced::Not(reason.clone()),
    }
}

/// The controllers of v2 that are wanted and there, but not handed down to our applications.
fn missing<'a>(
    hierarchies: &'a [Hierarchy],
    enforcement: &Enforcement,
) -> Option<(&'a Hierarchy, Vec<&'static str>)> {
    let v2 = hierarchies
        .iter()
        .find(|h| h.version == CgroupVersion::V2)?;
    let wanted = [
        ("memory", enforcement.memory),
        ("cpu", enforcement.cpu != CpuEnforcement::Off),
    ];
    let missing: Vec<_> = wanted
        .into_iter()
        .filter(|(name, wanted)| enforcement.cgroups && *wanted && v2.has(name) && !v2.gives(name))
        .map(|(name, _)| name)
        .collect();
    (!missing.is_empty()).then_some((v2, missing))
}

/// Has the group above the applications hand controllers down. A group that holds processes may not (unless it is the
/// topmost): then this one moves out of the way, which helps if it is the only one.
pub(super) fn hand_down(hierarchy: &Hierarchy, controllers: &[&str]) -> Result<(), String> {
    let base = hierarchy.base();
    let plus: Vec<String> = controllers.iter().map(|name| format!("+{name}")).collect();
    let enable = || set(base, "cgroup.subtree_control", &plus.join(" "));
    let enabled = match enable() {
        Err(error) if is_busy(&error) && hierarchy.own == base => {
            let aside = base.join(SUPERVISOR);
            make_way(base, &aside).and_then(|()| {
                enable().inspect_err(|_| {
                    // Back, for nothing is won.
                    let _ = set(base, "cgroup.procs", "0");
                    let _ = fs::remove_dir(&aside);
                })
            })
        }
        enabled => enabled,
    };
    match enabled {
        Ok(()) => {
            info!(group = %base.display(), ?controllers, "cgroup controllers handed down to applications");
            Ok(())
        }
        Err(error) if is_busy(&error) => Err(format!(
            "the worker shares its cgroup {} with other processes; start it in one of its own (systemd: \
             Delegate=yes, or systemd-run --user --scope -p Delegate=yes aloha worker ...)",
            base.display()
        )),
        Err(error) => Err(format!(
            "the cgroup {} cannot hand {} down: {error}; have it delegated to the worker's user (systemd: \
             Delegate=yes), or run the worker as root",
            base.display(),
            controllers.join(" and ")
        )),
    }
}

/// Moves this process to a group beside its applications.
pub(super) fn make_way(base: &Path, aside: &Path) -> io::Result<()> {
    match fs::create_dir(aside) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    set(base, &format!("{SUPERVISOR}/cgroup.procs"), "0")
}

fn is_busy(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::BUSY)
}

impl fmt::Display for CgroupVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
}

impl fmt::Display for Enforced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::By(version) => write!(f, "enforced by cgroup {version}"),
            Self::Not(reason) => write!(f, "not enforced: {reason}"),
        }
    }
}

impl From<Enforced> for String {
    fn from(enforced: Enforced) -> Self {
        enforced.to_string()
    }
}

/// Whatever cannot be read is not relied on.
impl From<String> for Enforced {
    fn from(text: String) -> Self {
        match text.as_str() {
            "enforced by cgroup v1" => Self::By(CgroupVersion::V1),
            "enforced by cgroup v2" => Self::By(CgroupVersion::V2),
            other => Self::Not(
                other
                    .strip_prefix("not enforced: ")
                    .unwrap_or(other)
                    .to_owned(),
            ),
        }
    }
}

/// Nobody said anything.
impl Default for CgroupSupport {
    fn default() -> Self {
        Self::none("the worker does not say what it enforces")
    }
}
