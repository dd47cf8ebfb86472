//! Limits as a program finds them: what the hidden stage of the real binary leaves it.

mod common;

use std::process::{Command, Output};

use common::{Daemon, assert_ends};

/// Executes a program under these limits, in JSON.
fn limited(limits: &str, program: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_aloha"))
        .args(["exec-limited", limits])
        .args(program)
        .output()
        .expect("the binary runs")
}

#[test]
fn each_limit_holds_for_the_program_and_its_children_soft_and_hard() {
    let limits = r#"{"open_files":64,"processes":5000,"address_space_bytes":1073741824,
                     "file_bytes":1048576,"core_bytes":0,"cpu_seconds":77}"#;
    // In the units of bash: KiB, and for files and dumps blocks of 1024 bytes.
    let script = "for which in S H; do for limit in n u v f c t; do ulimit -$which$limit; done; done; exit 3";
    let output = limited(limits, &["bash", "-c", &format!("bash -c '{script}'")]);
    let once = "64\n5000\n1048576\n1024\n0\n77\n";
    assert_ends(&output, 3, &once.repeat(2), "");
}

#[test]
fn what_is_not_limited_is_as_it_was() {
    let script = "ulimit -Ha; ulimit -Sa";
    let before = Command::new("bash").args(["-c", script]).output();
    let before = before.expect("bash runs").stdout;
    let output = limited("{}", &["bash", "-c", script]);
    assert_ends(&output, 0, &String::from_utf8_lossy(&before), "");
}

#[test]
fn a_program_that_is_not_there_or_none_has_the_exit_code_of_a_shell() {
    let output = limited("{}", &["/nonexistent/x"]);
    let line = "aloha: cannot execute \"/nonexistent/x\": No such file or directory (os error 2)\n";
    assert_ends(&output, 127, "", line);
    let output = limited("{}", &["/etc/passwd"]);
    let line = "aloha: cannot execute \"/etc/passwd\": Permission denied (os error 13)\n";
    assert_ends(&output, 126, "", line);
}

#[test]
fn limits_that_are_none_execute_nothing() {
    let output = limited("64", &["echo", "hi"]);
    assert_eq!(
        (output.status.code(), &output.stdout[..]),
        (Some(126), &b""[..])
    );
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(
        stderr.starts_with("aloha: \"64\" are no limits: "),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 1);
    let output = limited("{}", &[]);
    assert_ends(
        &output,
        126,
        "",
        "aloha: exec-limited needs a program to execute\n",
    );
}

#[test]
fn a_limit_above_the_hard_one_is_refused_in_words() {
    let limits = r#"{"open_files":4000000000000}"#;
    let output = limited(limits, &["true"]);
    assert_eq!(output.status.code(), Some(126));
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    let line = "aloha: cannot limit open files to 4000000000000: the worker itself may have ";
    assert!(stderr.starts_with(line), "{stderr}");
}

#[test]
fn what_a_worker_enforces_stands_in_the_list_with_each_reason_once() {
    let home = tempfile::tempdir().expect("a directory");
    let cluster = Daemon::local_with(home.path(), &["--workers", "2"]);
    cluster.wait_for_line("worker registered");
    let json = cluster.ask(&["workers", "--json"]).stdout;
    let workers: Vec<serde_json::Value> = serde_json::from_str(&json).expect("JSON");
    let text = |what: &str| {
        let text = workers[0]["enforces"][what].as_str();
        text.expect("memory, cpu and tracking").to_owned()
    };
    let enforced = |what: &&str| text(what).starts_with("enforced by cgroup v");
    let words: Vec<_> = ["memory", "cpu"].into_iter().filter(enforced).collect();
    let words = match words.is_empty() {
        true => "none".to_owned(),
        false => words.join(", "),
    };
    let table = cluster.ask(&["workers"]).stdout;
    let lines: Vec<_> = table.lines().collect();
    let column = lines[0].find("ENFORCES").expect("a column");
    for line in &lines[1..3] {
        assert!(line[column..].starts_with(&words), "{table}");
    }
    let reasons: std::collections::BTreeSet<_> = ["memory", "cpu", "tracking"]
        .iter()
        .filter_map(|what| text(what).strip_prefix("not enforced: ").map(str::to_owned))
        .collect();
    assert_eq!(lines.len(), 3 + reasons.len(), "{table}");
    for reason in reasons {
        let notes = lines[3..].iter().filter(|line| line.ends_with(&reason));
        assert_eq!(notes.count(), 1, "{table}");
    }
}

#[test]
fn variables_of_a_submission_reach_it_and_a_limit_that_is_none_is_refused() {
    let home = tempfile::tempdir().expect("a directory");
    let cluster = Daemon::local(home.path());
    let flags = [
        "submit", "--wait", "--follow", "--env", "A=1", "--env", "B=x=y",
    ];
    let answer = cluster.ask(&[&flags[..], &["--", "printenv", "A", "B"]].concat());
    assert_eq!((answer.code, &*answer.stderr), (Some(0), ""));
    let (id, output) = answer.stdout.split_once('\n').expect("the id first");
    assert!(id.starts_with("app-"), "{id}");
    assert_eq!(output, "1\nx=y\n");
    let answer = cluster.ask(&["submit", "--limit", "stack=1", "--", "true"]);
    assert_eq!((answer.code, &*answer.stdout), (Some(2), ""));
    let known = "openFiles, processes, addressSpaceBytes, fileBytes, coreBytes, cpuSeconds";
    assert!(answer.stderr.contains(known), "{answer:?}");
}
