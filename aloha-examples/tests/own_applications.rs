//! Two users' executables, with dependencies that do not go together, side by side in one cluster.

use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const APPS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/apps");
/// One for all three, which share most of their dependencies.
const TARGET: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/own-applications");

/// Builds a binary of the package in this directory. What it depends on is there, for the workspace needs it as well.
fn build(directory: &str, binary: &str) -> PathBuf {
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--offline", "--bin", binary])
        .args(["--target-dir", TARGET])
        .current_dir(directory)
        .output()
        .expect("cargo runs");
    let stderr = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{directory}: {stderr}");
    Path::new(TARGET).join("debug").join(binary)
}

/// Builds a user's executable, with the versions that the workspace has locked.
fn build_app(name: &str) -> String {
    let directory = format!("{APPS}/{name}");
    let locked = std::fs::copy(
        format!("{ROOT}/Cargo.lock"),
        format!("{directory}/Cargo.lock"),
    );
    locked.expect("it can be written");
    let built = build(&directory, name);
    built.to_str().expect("UTF-8").to_owned()
}

/// An example, which cargo builds beside the tests.
fn example(name: &str) -> String {
    let test = std::env::current_exe().expect("a test has a path");
    let target = test.ancestors().nth(2).expect("target/<profile>/deps");
    let path = target.join("examples").join(name);
    path.to_str().expect("UTF-8").to_owned()
}

/// A cluster in one process, ended with the test.
struct Cluster {
    aloha: PathBuf,
    process: Child,
    master: String,
    directory: tempfile::TempDir,
}

impl Cluster {
    fn start() -> Self {
        let aloha = build(ROOT, "aloha");
        let directory = tempfile::tempdir().expect("a directory");
        let mut process = command(&aloha)
            .args(["local", "-c", "8", "-m", "4G", "-p", "0"])
            .args(["--rest-port", "0", "-d"])
            .arg(directory.path())
            .env("RUST_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()
            .expect("it is built");
        let mut out = BufReader::new(process.stdout.take().expect("piped"));
        let mut ready = String::new();
        out.read_line(&mut ready).expect("a line");
        // The rest is read, lest the pipe fills.
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        let master = ready.split_whitespace().nth(2).expect("its address");
        Self {
            master: master.to_owned(),
            aloha,
            process,
            directory,
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(&self.aloha);
        command.env("ALOHA_MASTER", &self.master).args(arguments);
        command
    }

    /// The exit code of a command, and what it says on stdout.
    fn ask(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.command(arguments).stderr(Stdio::inherit()).output();
        let output = output.expect("it is built");
        let stdout = String::from_utf8(output.stdout).expect("UTF-8");
        (output.status.code(), stdout)
    }

    fn submit(&self, entry_point: &str, executable: &str, arguments: &[&str]) -> String {
        let fixed = ["submit", "--entry-point", entry_point, "--lib", executable];
        let memory = ["--memory", "64", "--"];
        let (code, id) = self.ask(&[&fixed[..], &memory, arguments].concat());
        assert_eq!(code, Some(0), "{entry_point}");
        id.trim().to_owned()
    }

    /// The end of an application: its exit code, its output.
    fn end(&self, id: &str) -> (Option<i32>, String) {
        let (code, _) = self.ask(&["wait", id]);
        let (logs, output) = self.ask(&["logs", id]);
        assert_eq!(logs, Some(0));
        (code, output)
    }

    fn state(&self, id: &str) -> String {
        let (_, status) = self.ask(&["status", id]);
        status
    }

    /// The lines of an application, as they come.
    fn follow(&self, id: &str) -> Following {
        let mut process = self
            .command(&["logs", "-f", id])
            .stdout(Stdio::piped())
            .spawn()
            .expect("it is built");
        let lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        Following { process, lines }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // TERM: it ends its applications.
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        drop(self.process.wait());
    }
}

struct Following {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Following {
    fn line(&mut self) -> String {
        let line = self.lines.next().expect("it goes on");
        line.expect("UTF-8")
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The command `aloha`, with nothing of the tester's environment in it.
fn command(aloha: &Path) -> Command {
    let mut command = Command::new(aloha);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ALOHA_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

#[test]
fn two_users_dependencies_do_not_meet_and_a_crash_takes_nobody_along() {
    let (alices, bobs) = (build_app("alice"), build_app("bob"));
    let cluster = Cluster::start();
    let alice = cluster.submit("alice.Greeter", &alices, &["WALL-E"]);
    let bob = cluster.submit("bob.Greeter", &bobs, &["EVE", "haw"]);
    let crasher = cluster.submit("alice.Crasher", &alices, &["-"]);

    let (mut alice_says, mut bob_says) = (cluster.follow(&alice), cluster.follow(&bob));
    assert_eq!(alice_says.line(), "1: Aloha, WALL-E");
    assert_eq!(bob_says.line(), "1: Aloha e EVE");

    let crashed = format!("Aloha, {crasher} crashes\n");
    assert_eq!(cluster.end(&crasher), (Some(134), crashed));

    // What they have said until now may wait to be read, so they are looked at beyond that.
    for (id, says) in [(&alice, &mut alice_says), (&bob, &mut bob_says)] {
        let (_, until_now) = cluster.ask(&["logs", id]);
        let lines = until_now.lines().count();
        for number in 2..=lines + 5 {
            let line = says.line();
            assert!(line.starts_with(&format!("{number}: Aloha")), "{line}");
        }
    }

    assert_eq!(cluster.ask(&["kill", &alice]).0, Some(0));
    let (code, output) = cluster.end(&alice);
    assert_eq!(code, Some(137));
    assert_eq!(output.lines().last(), Some("alice ends: killed by request"));
    let bobs_state = cluster.state(&bob);
    assert!(bobs_state.contains("RUNNING"), "{bobs_state}");
    assert_eq!(cluster.ask(&["kill", &bob]).0, Some(0));
    let (code, output) = cluster.end(&bob);
    assert_eq!(code, Some(137));
    assert_eq!(output.lines().last(), Some("bob ends: killed by request"));

    // Bob's has an answer to what it does not know; the other has no such type at all.
    let other = cluster.submit("bob.Greeter", &bobs, &["EVE", "tlh"]);
    assert_eq!(cluster.end(&other), (Some(3), String::new()));
    let unknown = cluster.submit("bob.Greeter", &alices, &["EVE", "haw"]);
    assert_eq!(cluster.end(&unknown).0, Some(1));
    let state = cluster.state(&unknown);
    let says =
        "unknown entry point \"bob.Greeter\", its executable has alice.Crasher, alice.Greeter";
    assert!(state.contains("ERROR") && state.contains(says), "{state}");
}

#[test]
fn one_executable_has_a_thread_and_a_process() {
    let executable = example("own_applications");
    let cluster = Cluster::start();
    let thread = "me.jrwang.app.SimpleContextThreadApp";
    let thread = cluster.submit(thread, &executable, &["20"]);
    let mut says = cluster.follow(&thread);
    let of = format!("{thread}, attempt 1, of {}", cluster.master);
    assert_eq!(says.line(), format!("1: {of}"));
    assert_eq!(says.line(), format!("2: {of}"));
    assert_eq!(cluster.ask(&["kill", &thread]).0, Some(0));
    let (code, output) = cluster.end(&thread);
    assert_eq!(code, Some(137));
    assert_eq!(
        output.lines().last(),
        Some("told to end: killed by request")
    );

    let file = cluster.directory.path().join("empty");
    std::fs::write(&file, "").expect("it can be written");
    let file = file.to_str().expect("UTF-8");
    let process = cluster.submit("com.example.Checksum", &executable, &[file]);
    let sum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(cluster.end(&process), (Some(0), format!("{sum}  {file}\n")));
}
