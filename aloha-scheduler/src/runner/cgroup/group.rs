use std::fs;
use std::io;
#[cfg(test)]
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

#[cfg(test)]
use rustix::process::Pid;
use tracing::{debug, warn};

use super::hierarchy::Hierarchy;
use super::listed::{self, is_gone};
use super::plan::{Plan, is_not_given, limit, set};
use crate::resources::Resources;
use crate::runner::Enforcement;

/// What the names of our groups begin with.
const PREFIX: &str = "aloha-";
const NAME_BYTES_MAX: usize = 200;

/// The groups of one attempt, one in each hierarchy in use. Dropped, they stay.
#[derive(Debug)]
pub(crate) struct AppCgroup {
    directories: Vec<PathBuf>,
    /// For each directory, the group that this process is in otherwise.
    homes: Vec<PathBuf>,
}

/// The groups of an attempt before they are made.
#[derive(Debug)]
pub(crate) struct PlannedCgroup {
    name: String,
    enforcement: Enforcement,
    /// Those that are mounted; none where no groups are wanted.
    hierarchies: Vec<Hierarchy>,
}

impl PlannedCgroup {
    /// Plans groups. `name` is of letters, digits, `.`, `_` and `-`, and names no other attempt.
    ///
    /// # Errors
    ///
    /// What is mounted cannot be read, or `name` is none.
    pub(crate) fn new(name: &str, enforcement: &Enforcement) -> io::Result<Self> {
        check_name(name)?;
        Ok(Self {
            name: name.to_owned(),
            enforcement: *enforcement,
            hierarchies: match enforcement.cgroups {
                true => Hierarchy::all(Path::new("/"))?,
                false => Vec::new(),
            },
        })
    }

    /// Where they will be: recorded before, none is forgotten, whenever this process is killed. Not all of them need to
    /// be given.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        let used = Plan::new(&self.hierarchies, &self.enforcement).hierarchies();
        let directory = |hierarchy: &Hierarchy| hierarchy.base().join(directory_name(&self.name));
        used.into_iter().map(directory).collect()
    }

    /// Makes them and sets what the attempt may have; `None` where the kernel gives none, or none are wanted.
    ///
    /// What is not permitted is left out: [`CgroupSupport`](super::CgroupSupport) has said so.
    ///
    /// # Errors
    ///
    /// A group could not be made for another reason. Nothing is left then.
    pub(crate) fn make(&self, needs: Resources) -> io::Result<Option<AppCgroup>> {
        let plan = Plan::new(&self.hierarchies, &self.enforcement);
        let mut this = AppCgroup::empty();
        for hierarchy in plan.hierarchies() {
            let directory = hierarchy.base().join(directory_name(&self.name));
            match make(&directory) {
                Ok(()) => this.add(directory.clone(), hierarchy),
                Err(error) if is_not_given(&error) => {
                    debug!(directory = %directory.display(), %error, "no cgroup");
                    continue;
                }
                Err(error) => return Err(this.undone(with_path(&directory, &error))),
            }
            for limited in limit(&directory, hierarchy, &plan, &self.enforcement, needs) {
                match limited {
                    Some(Err(error)) if !is_not_given(&error) => {
                        return Err(this.undone(with_path(&directory, &error)));
                    }
                    Some(Err(error)) => {
                        debug!(directory = %directory.display(), %error, "no limit");
                    }
                    Some(Ok(())) | None => {}
                }
            }
        }
        Ok((!this.directories.is_empty()).then_some(this))
    }
}

impl AppCgroup {
    /// Plans and makes groups in one.
    #[cfg(test)]
    pub(crate) fn create(
        name: &str,
        enforcement: &Enforcement,
        needs: Resources,
    ) -> io::Result<Option<Self>> {
        PlannedCgroup::new(name, enforcement)?.make(needs)
    }

    /// Finds the groups that [`PlannedCgroup::make`] made under this name, as they were planned; `None` if they are gone.
    ///
    /// # Errors
    ///
    /// A directory is none that `make` could have made: whoever wrote the record wants something else ended.
    pub(crate) fn open(name: &str, directories: &[PathBuf]) -> io::Result<Option<Self>> {
        Self::open_among(&Hierarchy::all(Path::new("/"))?, name, directories)
    }

    /// Where a runner with this pid made groups under this name, for when it could not record them.
    ///
    /// # Errors
    ///
    /// The hierarchies cannot be read, or `name` is none.
    pub(crate) fn made_by(pid: i32, name: &str) -> io::Result<Vec<PathBuf>> {
        check_name(name)?;
        let name = format!("{PREFIX}{name}-{pid}");
        // It was started in the group that this process is in.
        let hierarchies = Hierarchy::all(Path::new("/"))?;
        let could_be = hierarchies.iter().map(|h| h.base().join(&name));
        Ok(could_be.filter(|group| group.is_dir()).collect())
    }

    pub(super) fn open_among(
        hierarchies: &[Hierarchy],
        name: &str,
        directories: &[PathBuf],
    ) -> io::Result<Option<Self>> {
        check_name(name)?;
        let mut this = Self::empty();
        for directory in directories {
            let hierarchy = hierarchies
                .iter()
                .find(|hierarchy| could_be_made(directory, name, hierarchy))
                .ok_or_else(|| {
                    invalid(format!(
                        "{} is no cgroup of {name}; it is left alone",
                        directory.display()
                    ))
                })?;
            if directory.is_dir() {
                this.add(directory.clone(), hierarchy);
            }
        }
        Ok((!this.directories.is_empty()).then_some(this))
    }

    /// Where the groups are.
    #[cfg(test)]
    pub(crate) fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    /// Does something with this process in the groups: what `spawn` starts is born there. This process must have one
    /// thread.
    ///
    /// # Errors
    ///
    /// The process could not be moved there; `spawn` was not called then.
    pub(crate) fn spawn_inside<T>(&self, spawn: impl FnOnce() -> T) -> io::Result<T> {
        let mut inside = Inside {
            group: self,
            moved: 0,
        };
        for directory in &self.directories {
            set(directory, "cgroup.procs", "0").map_err(|error| with_path(directory, &error))?;
            inside.moved += 1;
        }
        Ok(spawn())
    }

    /// The processes in the groups, opened: to wait for their end.
    #[cfg(test)]
    pub(crate) fn processes(&self) -> io::Result<Vec<(Pid, OwnedFd)>> {
        match self.tracker() {
            Some(tracker) => listed::open(tracker),
            None => Ok(Vec::new()),
        }
    }

    /// Kills every process in the groups. They vanish soon after.
    pub(crate) fn kill(&self) -> io::Result<()> {
        let Some(tracker) = self.tracker() else {
            return Ok(());
        };
        match set(tracker, "cgroup.kill", "1") {
            Ok(()) => Ok(()),
            Err(error) if is_not_given(&error) => listed::kill(tracker),
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(with_path(tracker, &error)),
        }
    }

    /// Whether no process is left in the groups.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> io::Result<bool> {
        for directory in &self.directories {
            if !listed::pids(&listed::tree(directory)?)?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes the groups, and those that the application made below them.
    ///
    /// # Errors
    ///
    /// A process is still there, be it vanishing; what could be removed is.
    pub(crate) fn remove(&self) -> io::Result<()> {
        let mut result = Ok(());
        for directory in &self.directories {
            for group in listed::tree(directory)? {
                match fs::remove_dir(&group) {
                    Err(error) if !is_gone(&error) => result = Err(with_path(&group, &error)),
                    _ => {}
                }
            }
        }
        result
    }

    /// Whether the kernel killed one of its processes because they used more memory than the group has.
    pub(crate) fn out_of_memory(&self) -> bool {
        self.directories.iter().any(|directory| {
            ["memory.events", "memory.oom_control"]
                .iter()
                .filter_map(|file| fs::read_to_string(directory.join(file)).ok())
                .any(|text| kills(&text) > 0)
        })
    }

    /// The group that ends processes best: the first, as the plan has it.
    fn tracker(&self) -> Option<&Path> {
        self.directories.first().map(PathBuf::as_path)
    }

    pub(super) fn empty() -> Self {
        Self {
            directories: Vec::new(),
            homes: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, directory: PathBuf, hierarchy: &Hierarchy) {
        self.directories.push(directory);
        self.homes.push(hierarchy.own.clone());
    }

    /// Removes what was made before an error.
    fn undone(&self, error: io::Error) -> io::Error {
        if let Err(error) = self.remove() {
            warn!(%error, "a cgroup is left behind");
        }
        error
    }
}

/// This process, while it is in the groups of an application; dropped, it is back where it was.
struct Inside<'a> {
    group: &'a AppCgroup,
    moved: usize,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        for home in &self.group.homes[..self.moved] {
            if let Err(error) = set(home, "cgroup.procs", "0") {
                warn!(group = %home.display(), %error, "the runner stays in the cgroup of its application");
            }
        }
    }
}

/// The number of processes that were killed, as `memory.events` and `memory.oom_control` tell it.
fn kills(text: &str) -> u64 {
    let counts = text
        .lines()
        .filter_map(|line| line.strip_prefix("oom_kill "));
    counts
        .filter_map(|count| count.trim().parse::<u64>().ok())
        .sum()
}

/// Makes a group. One of this name can only be left from a process that had our pid.
pub(super) fn make(directory: &Path) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_dir(directory)?;
            fs::create_dir(directory)
        }
        made => made,
    }
}

/// The pid makes the name unique where two clusters on one machine count alike.
pub(super) fn directory_name(name: &str) -> String {
    format!("{PREFIX}{name}-{}", std::process::id())
}

fn check_name(name: &str) -> io::Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(allowed) {
        true => Ok(()),
        false => Err(invalid(format!("{name:?} cannot name a cgroup"))),
    }
}

/// Whether a directory is where [`PlannedCgroup::make`] makes the group of this name, in some process of ours.
fn could_be_made(directory: &Path, name: &str, hierarchy: &Hierarchy) -> bool {
    let Ok(below) = directory.strip_prefix(&hierarchy.mount) else {
        return false;
    };
    let plain = below
        .components()
        .all(|c| matches!(c, Component::Normal(_)));
    let last = directory.file_name().and_then(|name| name.to_str());
    let pid = last
        .and_then(|last| {
            last.strip_prefix(PREFIX)?
                .strip_prefix(name)?
                .strip_prefix('-')
        })
        .unwrap_or_default();
    let named = !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
    // Whoever is in it must not end itself.
    plain && named && !hierarchy.own.starts_with(directory)
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// The error with the group it is about.
fn with_path(group: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", group.display()))
}
