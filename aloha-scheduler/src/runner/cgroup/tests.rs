//! Decisions on made-up machines, and real groups on this one.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Signal, WaitOptions, getpid, set_child_subreaper, wait};

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
fn controllers_are_used_where_they_are_and_v2_ends_processes() {
    let machine = Machine::new(V1_AND_V2);
    let expected = ["memory", "cpu", "unified"].map(|name| Ok(name.to_owned()));
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
    assert_eq!(decided(&machine, &ALL)[2], Ok("memory".to_owned()));
    let freezer = "37 31 0:34 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n";
    machine.write("proc/self/mountinfo", &format!("{v1}{freezer}"));
    machine.write(
        "proc/self/cgroup",
        "6:freezer:/\n4:memory:/\n1:cpu,cpuacct:/\n",
    );
    assert_eq!(decided(&machine, &ALL)[2], Ok("freezer".to_owned()));
}

#[test]
fn what_is_switched_off_is_not_used_and_the_key_is_named() {
    let machine = Machine::new(V1_AND_V2);
    let enforcement = Enforcement {
        memory: false,
        cpu: CpuEnforcement::Off,
        ..ALL
    };
    let [memory, cpu, tracking] = decided(&machine, &enforcement);
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

/// Runs a test in a process of its own: for what it starts in a group must be all that is started meanwhile.
fn alone(name: &str, test: impl FnOnce()) {
    const VARIABLE: &str = "ALOHA_TEST_ALONE";
    if std::env::var_os(VARIABLE).is_some() {
        set_child_subreaper(Some(getpid())).expect("any process may");
        return test();
    }
    let status = Command::new(std::env::current_exe().expect("it runs"))
        .args([
            "--exact",
            &format!("runner::cgroup::tests::{name}"),
            "--nocapture",
        ])
        .env(VARIABLE, "1")
        .status();
    assert!(
        status.expect("it runs").success(),
        "{name} failed, see above"
    );
}

/// The groups of an attempt; removed with all that is in them, however a test ends.
struct Ground(AppCgroup);

impl Ground {
    /// `None` where this machine lacks what is asked for.
    fn new(name: &str, enforcement: &Enforcement, memory_mib: u64, file: &str) -> Option<Self> {
        let needs = Resources {
            cores: 2,
            memory_mib,
        };
        let made = AppCgroup::create(name, enforcement, needs).expect("made or not given");
        let this = made.map(Self);
        let usable = this.filter(|this| this.has(file));
        if usable.is_none() {
            let reasons = CgroupSupport::detect(enforcement);
            skipped(&format!("no {file}: {reasons:?}"));
        }
        usable
    }

    fn has(&self, file: &str) -> bool {
        self.0.directories().iter().any(|d| d.join(file).exists())
    }

    fn read(&self, file: &str) -> String {
        let mut paths = self.0.directories().iter().map(|d| d.join(file));
        let path = paths.find(|path| path.exists()).expect(file);
        fs::read_to_string(path)
            .expect("readable")
            .trim()
            .to_owned()
    }

    fn bash(&self, script: &str) -> Child {
        let mut command = Command::new("bash");
        command.args(["-c", script]).stdout(Stdio::piped());
        let spawned = self.0.spawn_inside(|| command.spawn());
        spawned.expect("moved").expect("bash runs")
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.0.kill().expect("killed");
        reap();
        self.0.remove().expect("nothing is in it");
        let left: Vec<_> = self.0.directories().iter().filter(|d| d.exists()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// Waits for every process that was started here, however it went away from its parents.
fn reap() {
    while wait(WaitOptions::empty()).is_ok() {}
}

#[expect(clippy::print_stderr, reason = "whoever runs the test should know")]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

/// In which groups a process is.
fn place(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it lives")
}

#[test]
fn what_is_spawned_inside_is_born_there_and_this_process_is_back() {
    alone(
        "what_is_spawned_inside_is_born_there_and_this_process_is_back",
        || {
            let before = place(std::process::id());
            let Some(ground) = Ground::new("born", &ALL, 64, "cgroup.procs") else {
                return;
            };
            let child = ground.bash("exec sleep 1000");
            assert_eq!(place(std::process::id()), before);
            let inside = format!("/aloha-born-{}", std::process::id());
            let groups = place(child.id());
            let found = groups
                .lines()
                .filter(|line| line.ends_with(&inside))
                .count();
            assert_eq!(found, ground.0.directories().len(), "{groups}");
            assert!(!ground.0.is_empty().unwrap());
            let processes = ground.0.processes().unwrap();
            let pids: Vec<_> = processes.iter().map(|(pid, _)| pid.as_raw_pid()).collect();
            assert_eq!(pids, [child.id().cast_signed()]);
            ground.0.signal_all(Signal::TERM).unwrap();
            let mut child = child;
            assert_eq!(child.wait().unwrap().signal(), Some(15));
            assert!(ground.0.is_empty().unwrap());
            assert!(!ground.0.out_of_memory());
        },
    );
}

#[test]
fn a_fork_bomb_and_a_daemon_die_by_one_kill() {
    alone("a_fork_bomb_and_a_daemon_die_by_one_kill", || {
        let Some(ground) = Ground::new("bomb", &ALL, 0, "cgroup.procs") else {
            return;
        };
        die_by(&ground, || ground.0.kill().unwrap());
    });
}

#[test]
fn they_die_as_well_where_the_kernel_kills_no_groups() {
    alone("they_die_as_well_where_the_kernel_kills_no_groups", || {
        let Some(ground) = Ground::new("listed", &ALL, 0, "cgroup.procs") else {
            return;
        };
        for directory in ground.0.directories() {
            die_by(&ground, || listed::kill(directory).unwrap());
        }
    });
}

/// Starts a tree of processes and a daemon, and checks that `kill` ends all: then nobody holds the pipe any more.
fn die_by(ground: &Ground, kill: impl FnOnce()) {
    let script =
        "f() { if [ $1 -gt 0 ]; then f $(($1 - 1)) & f $(($1 - 1)) & fi; echo $1; sleep 1000; }
                  setsid bash -c 'echo daemon; sleep 1000' &
                  f 4";
    let mut child = ground.bash(script);
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    let mut said = BTreeSet::new();
    while said.len() < 6 {
        let mut line = String::new();
        output.read_line(&mut line).expect("they speak");
        said.insert(line.trim().to_owned());
    }
    assert!(said.contains("daemon"), "{said:?}");
    kill();
    let mut rest = String::new();
    output.read_to_string(&mut rest).expect("closed by all");
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    reap();
    assert!(ground.0.is_empty().unwrap());
}

#[test]
fn a_process_that_uses_more_than_its_memory_is_killed_and_that_is_told() {
    alone(
        "a_process_that_uses_more_than_its_memory_is_killed_and_that_is_told",
        || {
            let limits = ["memory.limit_in_bytes", "memory.max"];
            let exists = |file: &&str| Ground::new("probe", &ALL, 32, file).is_some();
            let Some(file) = limits.iter().find(|file| exists(file)) else {
                return;
            };
            let ground = Ground::new("memory", &ALL, 32, file).expect("as before");
            assert_eq!(ground.read(file), (32 << 20).to_string());
            assert!(!ground.0.out_of_memory());
            // `tail` keeps what has no line breaks; `head` ends it where nothing is enforced.
            let script = "head -c 200000000 /dev/zero | tail -n 1 | wc -c; exit ${PIPESTATUS[1]}";
            let status = ground.bash(script).wait_with_output().unwrap().status;
            assert_eq!(status.code(), Some(128 + 9));
            assert!(ground.0.out_of_memory());
        },
    );
}

#[test]
fn cores_become_shares_or_a_quota() {
    alone("cores_become_shares_or_a_quota", || {
        let cases = [
            (CpuEnforcement::Share, "cpu.shares", "2048"),
            (CpuEnforcement::Share, "cpu.weight", "200"),
            (CpuEnforcement::Quota, "cpu.cfs_quota_us", "200000"),
            (CpuEnforcement::Quota, "cpu.max", "200000 100000"),
        ];
        for (cpu, file, value) in cases {
            let enforcement = Enforcement { cpu, ..ALL };
            if let Some(ground) = Ground::new("cores", &enforcement, 0, file) {
                assert_eq!(ground.read(file), value);
            }
        }
    });
}

#[test]
fn what_is_said_to_be_enforced_is_so_and_nothing_of_the_trial_is_left() {
    alone(
        "what_is_said_to_be_enforced_is_so_and_nothing_of_the_trial_is_left",
        || {
            let support = CgroupSupport::detect(&ALL);
            let made = AppCgroup::create("said", &ALL, Resources::default()).expect("or not given");
            let ground = made.map(Ground);
            let has = |files: [&str; 2]| {
                ground
                    .as_ref()
                    .is_some_and(|g| files.iter().any(|file| g.has(file)))
            };
            let by = |part: &Enforced| matches!(part, Enforced::By(_));
            assert_eq!(
                by(&support.memory),
                has(["memory.limit_in_bytes", "memory.max"])
            );
            assert_eq!(by(&support.cpu), has(["cpu.shares", "cpu.weight"]));
            assert_eq!(by(&support.tracking), ground.is_some());
            for hierarchy in Hierarchy::all(Path::new("/")).expect("as before") {
                let probe = hierarchy.base().join(group::directory_name("probe"));
                assert!(!probe.exists(), "{}", probe.display());
            }
        },
    );
}
