//! Decisions on made-up machines.

mod kernel;

use std::fs;
use std::path::{Path, PathBuf};

use super::hierarchy::Hierarchy;
use super::plan::Plan;
use super::*;
use crate::resources::Resources;
use crate::runner::{CpuEnforcement, Enforcement};

/// What `/proc/self/mountinfo`, `/proc/self/cgroup` and files of groups say on a machine.
pub(super) type Files = &'static [(&'static str, &'static str)];

pub(super) const V1_AND_V2: Files = &[
    (
        "proc/self/mountinfo",
        "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
         32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
         35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
         41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
    ),
    (
        "proc/self/cgroup",
        "4:memory:/jobs/7\n1:cpu,cpuacct:/\n0::/\n",
    ),
];

/// All in one hierarchy, and the worker's group hands nothing down.
const V2: Files = &[
    (
        "proc/self/mountinfo",
        "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n",
    ),
    ("proc/self/cgroup", "0::/s/aloha.service\n"),
    (
        "sys/fs/cgroup/s/aloha.service/cgroup.controllers",
        "cpu memory pids\n",
    ),
    (
        "sys/fs/cgroup/s/aloha.service/cgroup.subtree_control",
        "pids\n",
    ),
];

const NO_CGROUPS: Files = &[
    (
        "proc/self/mountinfo",
        "31 23 0:28 / /sys rw,relatime - sysfs sysfs rw\n",
    ),
    ("proc/self/cgroup", "0::/\n"),
];

/// A made-up machine.
pub(super) struct Machine(tempfile::TempDir);

impl Machine {
    pub(super) fn new(files: Files) -> Self {
        let this = Self(tempfile::tempdir().expect("a directory"));
        for (path, text) in files {
            this.write(path, text);
        }
        this
    }

    pub(super) fn root(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn hierarchies(&self) -> Vec<Hierarchy> {
        Hierarchy::all(self.root()).expect("its files are there")
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).expect("written before")
    }
}

const ALL: Enforcement = Enforcement {
    cgroups: true,
    memory: true,
    cpu: CpuEnforcement::Share,
};

/// Processes are kept together and nothing is limited.
const UNLIMITED: Enforcement = Enforcement {
    memory: false,
    cpu: CpuEnforcement::Off,
    ..ALL
};

/// By which hierarchy memory and processors are limited and processes tracked, as their mount points are named.
fn decided(machine: &Machine, enforcement: &Enforcement) -> [Result<String, String>; 3] {
    let hierarchies = machine.hierarchies();
    let plan = Plan::new(&hierarchies, enforcement);
    let name = |hierarchy: &Hierarchy| {
        let name = hierarchy.mount.file_name().expect("not the root");
        name.to_string_lossy().into_owned()
    };
    [plan.memory, plan.cpu, plan.tracking].map(|part| part.map(name))
}

#[test]
fn controllers_are_used_where_they_are_and_one_that_limits_ends_processes_too() {
    let machine = Machine::new(V1_AND_V2);
    let expected = ["memory", "cpu", "memory"].map(|name| Ok(name.to_owned()));
    assert_eq!(decided(&machine, &ALL), expected);
}

#[test]
fn without_v2_the_freezer_ends_processes_else_any_group_does() {
    let machine = Machine::new(V1_AND_V2);
    let mounts = machine.read("proc/self/mountinfo");
    let v1: String = mounts
        .lines()
        .take(3)
        .map(|line| format!("{line}\n"))
        .collect();
    machine.write("proc/self/mountinfo", &v1);
    assert_eq!(decided(&machine, &UNLIMITED)[2], Ok("memory".to_owned()));
    let freezer = "37 31 0:34 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n";
    machine.write("proc/self/mountinfo", &format!("{v1}{freezer}"));
    machine.write(
        "proc/self/cgroup",
        "6:freezer:/\n4:memory:/\n1:cpu,cpuacct:/\n",
    );
    assert_eq!(decided(&machine, &UNLIMITED)[2], Ok("freezer".to_owned()));
}

#[test]
fn what_is_switched_off_is_not_used_and_the_key_is_named() {
    let machine = Machine::new(V1_AND_V2);
    let [memory, cpu, tracking] = decided(&machine, &UNLIMITED);
    assert_eq!(memory, Err("aloha.worker.limits.memory is false".into()));
    assert_eq!(cpu, Err("aloha.worker.limits.cpu is off".into()));
    assert_eq!(tracking, Ok("unified".into()));

    let off = Enforcement {
        cgroups: false,
        ..ALL
    };
    let support = CgroupSupport::detect_below(machine.root(), &off);
    assert_eq!(
        support,
        CgroupSupport::none("aloha.worker.cgroup.enabled is false")
    );
    assert_eq!(support.summary(), "none");
}

#[test]
fn where_nothing_is_mounted_nothing_is_enforced() {
    let machine = Machine::new(NO_CGROUPS);
    let support = CgroupSupport::detect_below(machine.root(), &ALL);
    let reason =
        "no cgroup hierarchy is mounted where this worker runs; mount one at /sys/fs/cgroup";
    assert_eq!(support, CgroupSupport::none(reason));
    let [named] = &support.reasons()[..] else {
        panic!("{:?}", support.reasons());
    };
    assert_eq!(named, &("memory, cpu, tracking".to_owned(), reason));
}

#[test]
fn a_controller_of_v2_counts_only_where_it_is_handed_down() {
    let machine = Machine::new(V2);
    let [memory, _, tracking] = decided(&machine, &ALL);
    let reason = memory.expect_err("not handed down");
    assert!(
        reason.contains("aloha.service does not hand the memory controller down"),
        "{reason}"
    );
    assert_eq!(tracking, Ok("cgroup".into()));
    let control = "sys/fs/cgroup/s/aloha.service/cgroup.subtree_control";
    machine.write(control, "cpu memory\n");
    let [memory, cpu, _] = decided(&machine, &ALL);
    assert_eq!((memory, cpu), (Ok("cgroup".into()), Ok("cgroup".into())));
}

#[test]
fn a_worker_has_its_group_hand_down_what_is_wanted_and_not_yet_there() {
    let machine = Machine::new(V2);
    CgroupSupport::detect_below(machine.root(), &ALL);
    let control = "sys/fs/cgroup/s/aloha.service/cgroup.subtree_control";
    assert_eq!(machine.read(control), "+memory +cpu");
    machine.write(control, "pids memory\n");
    CgroupSupport::detect_below(machine.root(), &ALL);
    assert_eq!(machine.read(control).trim_end(), "+cpu memory");
}

#[test]
fn a_group_that_cannot_be_used_is_told_with_what_to_do() {
    // No kernel makes the files of a group here.
    let machine = Machine::new(V1_AND_V2);
    let support = CgroupSupport::detect_below(machine.root(), &ALL);
    let Enforced::Not(reason) = &support.memory else {
        panic!("a made-up kernel enforces nothing");
    };
    assert!(reason.starts_with("the cgroup "), "{reason}");
    assert!(reason.contains("memory/jobs/7"), "{reason}");
    assert!(reason.contains("Delegate=yes"), "{reason}");
}

#[test]
fn support_reads_back_from_its_text() {
    let texts = [
        ("enforced by cgroup v1", Enforced::By(CgroupVersion::V1)),
        ("enforced by cgroup v2", Enforced::By(CgroupVersion::V2)),
        ("not enforced: no", Enforced::Not("no".into())),
    ];
    for (text, enforced) in texts {
        assert_eq!(enforced.to_string(), text);
        assert_eq!(Enforced::from(text.to_owned()), enforced);
        let json = serde_json::to_string(&enforced).unwrap();
        assert_eq!(json, format!("{text:?}"));
    }
    let strange = Enforced::from("enforced by magic".to_owned());
    assert_eq!(strange, Enforced::Not("enforced by magic".into()));
}

#[test]
fn only_groups_of_ours_are_opened_again() {
    let machine = Machine::new(V1_AND_V2);
    let hierarchies = machine.hierarchies();
    let mount = machine.root().join("sys/fs/cgroup");
    let ours = mount.join("memory/jobs/7/aloha-app-1-77");
    fs::create_dir_all(&ours).unwrap();
    let open = |directory: PathBuf| AppCgroup::open_among(&hierarchies, "app-1", &[directory]);
    let found = open(ours.clone()).unwrap().expect("it exists");
    assert_eq!(found.directories(), [ours]);
    let gone = open(mount.join("memory/aloha-app-1-78")).unwrap();
    assert!(gone.is_none());
    for other in [
        mount.join("memory/jobs/7"),
        mount.join("memory/aloha-app-2-77"),
        mount.join("memory/aloha-app-1-"),
        mount.join("memory/aloha-app-1-7x"),
        mount.join("memory/x/../aloha-app-1-77"),
        mount.join("elsewhere/aloha-app-1-77"),
        machine.root().join("aloha-app-1-77"),
        "/aloha-app-1-77".into(),
        "memory/aloha-app-1-77".into(),
    ] {
        let error = open(other).expect_err("refused").to_string();
        assert!(
            error.ends_with("is no cgroup of app-1; it is left alone"),
            "{error}"
        );
    }
    // Nor the one that this process is in.
    machine.write("proc/self/cgroup", "4:memory:/aloha-app-1-77/x\n");
    let inside = machine.hierarchies();
    let own = mount.join("memory/aloha-app-1-77");
    AppCgroup::open_among(&inside, "app-1", &[own]).expect_err("refused");
}

#[test]
fn a_name_that_is_no_component_of_a_path_is_refused() {
    for name in ["", "a/b", "a b", "a\n", "ä", &"x".repeat(201)] {
        let nothing = Resources::default();
        let error = AppCgroup::create(name, &ALL, nothing).expect_err(name);
        assert_eq!(error.to_string(), format!("{name:?} cannot name a cgroup"));
    }
    let off = Enforcement {
        cgroups: false,
        ..ALL
    };
    assert!(
        AppCgroup::create("x", &off, Resources::default())
            .unwrap()
            .is_none()
    );
}
