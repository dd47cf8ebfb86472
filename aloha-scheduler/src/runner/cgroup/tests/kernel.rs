//! Real groups, as far as this machine lets anybody make some.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Signal, WaitOptions, getpid, set_child_subreaper, wait};

use super::super::hierarchy::{Hierarchy, SUPERVISOR};
use super::super::*;
use super::{ALL, UNLIMITED};
use crate::resources::Resources;
use crate::runner::{CpuEnforcement, Enforcement};

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
            &format!("runner::cgroup::tests::kernel::{name}"),
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
        let plan = PlannedCgroup::new(name, enforcement).expect("a plan");
        let planned = plan.directories();
        let made = plan.make(needs).expect("made or not given");
        let made_at = made.iter().flat_map(AppCgroup::directories);
        let unplanned: Vec<_> = made_at.filter(|made| !planned.contains(made)).collect();
        assert!(unplanned.is_empty(), "{unplanned:?} are in no plan");
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
            listed::signal(&processes, Signal::TERM).unwrap();
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
        let Some(ground) = Ground::new("bomb", &UNLIMITED, 0, "cgroup.procs") else {
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
            // One process, for the kernel chooses among several. It keeps what has no line breaks, up to a GB where
            // nothing else stops it.
            let script = "ulimit -v 1000000; exec tail -n 1 /dev/zero";
            let status = ground.bash(script).wait_with_output().unwrap().status;
            assert_eq!(status.signal(), Some(9));
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

/// A group of v2 with this process in it, as a service has one; left and removed at the end.
struct Service {
    before: Hierarchy,
    group: PathBuf,
}

impl Service {
    /// `None` where this machine does not let us.
    fn new(name: &str) -> Option<Self> {
        let Some(before) = v2() else {
            skipped("no cgroup v2");
            return None;
        };
        let group = before.base().join(group::directory_name(name));
        if let Err(error) = fs::create_dir(&group) {
            skipped(&format!("{}: {error}", group.display()));
            return None;
        }
        let this = Self { before, group };
        plan::set(&this.group, "cgroup.procs", "0").expect("moved");
        Some(this)
    }

    fn aside(&self) -> PathBuf {
        self.group.join(SUPERVISOR)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        plan::set(&self.before.own, "cgroup.procs", "0").expect("moved back");
        for group in listed::tree(&self.group).expect("readable") {
            fs::remove_dir(&group).expect("empty");
        }
    }
}

/// The hierarchy of v2, with the group that this process is in now.
fn v2() -> Option<Hierarchy> {
    let all = Hierarchy::all(Path::new("/")).expect("Linux has them");
    all.into_iter().find(|h| h.version == CgroupVersion::V2)
}

#[test]
fn a_worker_that_leaves_its_group_has_its_applications_beside_it() {
    alone(
        "a_worker_that_leaves_its_group_has_its_applications_beside_it",
        || {
            let Some(service) = Service::new("service") else {
                return;
            };
            support::make_way(&service.group, &service.aside()).expect("moved");
            let after = v2().expect("as before");
            assert_eq!(after.base(), service.group);
            assert_eq!(after.own, service.aside());

            let ground = Ground::new("beside", &UNLIMITED, 0, "cgroup.events").expect("in v2");
            let group = service.group.join(group::directory_name("beside"));
            assert!(ground.0.directories().contains(&group));
            let mut child = ground.bash("exec sleep 1000");
            assert_eq!(v2(), Some(after), "back aside");
            ground.0.kill().expect("killed");
            assert_eq!(child.wait().unwrap().signal(), Some(9));
        },
    );
}

#[test]
fn a_group_hands_controllers_down_if_only_the_worker_is_in_it() {
    alone(
        "a_group_hands_controllers_down_if_only_the_worker_is_in_it",
        || {
            let Some(service) = Service::new("service") else {
                return;
            };
            let hierarchy = v2().expect("as before");
            let [controller, ..] = &hierarchy.controllers[..] else {
                return skipped("the group above hands no controller of v2 down");
            };
            assert!(hierarchy.has(controller) && !hierarchy.gives(controller));

            // Another process is in the way: nothing changes.
            let mut other = Command::new("sleep").arg("1000").spawn().expect("it runs");
            let reason = support::hand_down(&hierarchy, &[controller]).expect_err("shared");
            other.kill().expect("our child");
            other.wait().expect("our child");
            assert!(reason.contains("shares its cgroup"), "{reason}");
            assert!(!service.aside().exists());
            assert_eq!(v2().as_ref(), Some(&hierarchy));

            support::hand_down(&hierarchy, &[controller]).expect("alone");
            let after = v2().expect("as before");
            assert_eq!(after.own, service.aside());
            assert!(after.gives(controller));
        },
    );
}
