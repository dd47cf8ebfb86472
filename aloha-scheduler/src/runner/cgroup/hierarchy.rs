//! Where the kernel's cgroup hierarchies are mounted, and where this process is in each.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::CgroupVersion;

/// The group to which a worker moves itself where it must leave its own to its applications.
pub(super) const SUPERVISOR: &str = "aloha-supervisor";

/// One mounted hierarchy of groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) version: CgroupVersion,
    /// Those bound to it, of v1; of v2, those that the group of this process has.
    pub(super) controllers: Vec<String>,
    /// Where it is mounted.
    pub(super) mount: PathBuf,
    /// The group that this process is in.
    pub(super) own: PathBuf,
}

impl Hierarchy {
    /// All hierarchies in which this process can be found, as `proc` below `root` tells.
    pub(super) fn all(root: &Path) -> io::Result<Vec<Self>> {
        let mounts = fs::read_to_string(root.join("proc/self/mountinfo"))?;
        let places = fs::read_to_string(root.join("proc/self/cgroup"))?;
        let mut found: Vec<Self> = Vec::new();
        for mount in mounts.lines().filter_map(Mount::parse) {
            let Some(own) = mount.place(&places) else {
                continue;
            };
            let below_root = mount.point.strip_prefix("/").unwrap_or(&mount.point);
            let point = root.join(below_root);
            let own = match own.as_os_str().is_empty() {
                true => point.clone(),
                false => point.join(own),
            };
            let controllers = match mount.version {
                CgroupVersion::V1 => mount.controllers,
                CgroupVersion::V2 => words(&base(&own).join("cgroup.controllers")),
            };
            let same =
                |other: &Self| other.version == mount.version && other.controllers == controllers;
            if !found.iter().any(same) {
                found.push(Self {
                    version: mount.version,
                    controllers,
                    mount: point,
                    own,
                });
            }
        }
        Ok(found)
    }

    /// The group below which those of applications are made.
    pub(super) fn base(&self) -> &Path {
        base(&self.own)
    }

    /// Whether groups made below [`Hierarchy::base`] have this controller.
    pub(super) fn gives(&self, controller: &str) -> bool {
        self.has(controller)
            && (self.version == CgroupVersion::V1
                || words(&self.base().join("cgroup.subtree_control"))
                    .iter()
                    .any(|word| word == controller))
    }

    /// Whether this controller belongs to it at all.
    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|known| known == controller)
    }
}

/// A worker that moved itself out of the way still has its applications beside it.
fn base(own: &Path) -> &Path {
    match own.parent() {
        Some(parent) if own.ends_with(SUPERVISOR) => parent,
        _ => own,
    }
}

/// The words of a file; none where it cannot be read.
pub(super) fn words(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

/// A line of `mountinfo` that is about cgroups.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    version: CgroupVersion,
    /// Of v1: controllers, and `name=…` of a hierarchy without any.
    controllers: Vec<String>,
    /// The group that shows up at `point`.
    top: PathBuf,
    point: PathBuf,
}

impl Mount {
    /// `31 23 0:28 TOP POINT OPTIONS [TAGS...] - TYPE SOURCE SUPER_OPTIONS`
    fn parse(line: &str) -> Option<Self> {
        let (front, back) = line.split_once(" - ")?;
        let mut front = front.split(' ').skip(3);
        let (top, point) = (unescape(front.next()?), unescape(front.next()?));
        let mut back = back.split(' ');
        let (version, controllers) = match (back.next()?, back.nth(1)?) {
            ("cgroup2", _) => (CgroupVersion::V2, Vec::new()),
            ("cgroup", options) => {
                let options = options.split(',').filter(|o| !matches!(*o, "rw" | "ro"));
                (CgroupVersion::V1, options.map(str::to_owned).collect())
            }
            _ => return None,
        };
        Some(Self {
            version,
            controllers,
            top,
            point,
        })
    }

    /// The group of this process below the mount point, as the lines `ID:CONTROLLERS:PATH` of `/proc/self/cgroup` tell.
    fn place(&self, lines: &str) -> Option<PathBuf> {
        lines.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (names, path) = (parts.next()?, Path::new(parts.next()?));
            let is_here = match self.version {
                CgroupVersion::V1 => names
                    .split(',')
                    .any(|name| !name.is_empty() && self.controllers.iter().any(|c| c == name)),
                CgroupVersion::V2 => names.is_empty(),
            };
            let below = path.strip_prefix(&self.top).ok().filter(|_| is_here)?;
            // `/../x`: outside of what this mount shows.
            let plain = below
                .components()
                .all(|c| matches!(c, Component::Normal(_)));
            plain.then(|| below.to_owned())
        })
    }
}

/// Undoes the kernel's `\040` for a blank.
fn unescape(text: &str) -> PathBuf {
    let mut path = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        path.push_str(before);
        let code = after
            .get(..3)
            .and_then(|code| u8::from_str_radix(code, 8).ok());
        match code {
            Some(code) => {
                path.push(char::from(code));
                rest = &after[3..];
            }
            None => {
                path.push('\\');
                rest = after;
            }
        }
    }
    path.push_str(rest);
    path.into()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Machine, V1_AND_V2};
    use super::*;

    #[test]
    fn each_hierarchy_is_found_with_the_group_of_this_process() {
        let machine = Machine::new(V1_AND_V2);
        let found = machine.hierarchies();
        let at = |path: &str| machine.root().join(path);
        let expected = [
            (CgroupVersion::V1, "cpu,cpuacct", "cpu", "cpu"),
            (CgroupVersion::V1, "memory", "memory", "memory/jobs/7"),
            (CgroupVersion::V2, "", "unified", "unified"),
        ];
        let expected = expected.map(|(version, controllers, mount, own)| Hierarchy {
            version,
            controllers: controllers
                .split(',')
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
            mount: at("sys/fs/cgroup").join(mount),
            own: at("sys/fs/cgroup").join(own),
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn a_mount_that_shows_only_a_part_is_looked_into_from_there() {
        let line = "40 31 0:35 /docker/ab /sys/fs/my\\040cgroup ro,nosuid shared:9 - cgroup cgroup rw,memory";
        let mount = Mount::parse(line).expect("a mount of cgroups");
        assert_eq!(mount.point, Path::new("/sys/fs/my cgroup"));
        assert_eq!(mount.controllers, ["memory"]);
        let place = |lines| mount.place(lines);
        assert_eq!(place("4:memory:/docker/ab/x"), Some("x".into()));
        assert_eq!(place("4:memory:/docker/ab"), Some("".into()));
        assert_eq!(place("4:memory:/elsewhere\n3:cpu:/docker/ab"), None);
        assert_eq!(place("4:memory:/docker/ab/../cd"), None);
        assert_eq!(place("0::/docker/ab"), None);
    }

    #[test]
    fn what_is_no_mount_of_cgroups_is_passed_over() {
        for line in [
            "",
            "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755",
            "31 23",
            "a b c d e f - cgroup",
        ] {
            assert_eq!(Mount::parse(line), None, "{line}");
        }
        assert_eq!(unescape("a\\134b\\9"), Path::new("a\\b\\9"));
    }

    #[test]
    fn a_worker_that_made_room_has_its_applications_beside_it() {
        let own = Path::new("/s/aloha.service");
        assert_eq!(base(own), own);
        assert_eq!(base(&own.join(SUPERVISOR)), own);
    }
}
