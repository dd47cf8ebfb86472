//! What a submission may ask for besides room, as users say it and as they see it again.

mod common;

use std::process::Command;

use common::Daemon;
use serde_json::{Value, json};
use tempfile::tempdir;

/// What the REST server answers to `curl` with these arguments.
fn curl(cluster: &Daemon, path: &str, arguments: &[&str]) -> Value {
    let output = Command::new("curl")
        .arg("-sS")
        .args(arguments)
        .arg(format!("{}/v1/submissions/{path}", cluster.rest()))
        .output()
        .expect("curl runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The states of a history, each with its attempt and its reason.
fn lines(history: &Value, state: &str) -> Vec<String> {
    let changes = history.as_array().expect("a list").iter();
    let line = |change: &Value| {
        assert!(
            change["at"]
                .as_u64()
                .is_some_and(|at| at > 1_500_000_000_000)
        );
        let reason = change["reason"].as_str().unwrap_or_default();
        // A worker's id is another each time.
        let reason = if reason.starts_with("on worker-") {
            "on"
        } else {
            reason
        };
        let state = change[state].as_str().expect("a state");
        let attempt = change["attempt"].as_u64().unwrap_or_default();
        format!("{state} {attempt} {reason}").trim_end().to_owned()
    };
    changes.map(line).collect()
}

const TWO_FAILURES: [&str; 7] = [
    "SUBMITTED 0",
    "LAUNCHING 1 on",
    "RUNNING 1",
    "RELAUNCHING 1 exited with code 3",
    "LAUNCHING 2 on",
    "RUNNING 2",
    "FAILED 2",
];

/// All but the words of the last, which say that there were enough restarts.
fn assert_two_failures(lines: &[String]) {
    assert_eq!(lines.len(), TWO_FAILURES.len(), "{lines:#?}");
    for (line, expected) in lines.iter().zip(TWO_FAILURES) {
        assert!(line.starts_with(expected), "{lines:#?}");
    }
}

#[test]
fn a_restart_policy_comes_by_rest_and_the_history_goes_back() {
    let directory = tempdir().expect("a directory");
    let cluster = Daemon::local(directory.path());
    let request = json!({
        "action": "CreateSubmissionRequest", "name": "crasher", "entryPoint": "SimpleProcess", "libs": [],
        "args": "exit 3", "cores": 1, "memory": 64, "priority": 7, "maxRunTime": 3600, "tags": ["etl"],
        "restart": {"condition": "on-failure", "backoffInitial": 0.05, "maxInARow": 1},
    });
    let created = curl(&cluster, "create", &["-d", &request.to_string()]);
    assert_eq!(created["success"], true, "{created}");
    let id = created["submissionId"].as_str().expect("an id");
    assert_eq!(cluster.ask(&["wait", id]).code, Some(3));
    let status = curl(&cluster, &format!("status/{id}"), &[]);
    assert_eq!(
        (
            &status["driverState"],
            &status["exitCode"],
            &status["attempt"],
            &status["priority"]
        ),
        (&json!("FAILED"), &json!(3), &json!(2), &json!(7))
    );
    assert_two_failures(&lines(&status["history"], "state"));
}

#[test]
fn a_restart_policy_comes_by_flags_and_the_status_shows_the_history() {
    let directory = tempdir().expect("a directory");
    let cluster = Daemon::local(directory.path());
    let flags = "--restart on-failure --restart-max 1 --restart-backoff 50ms --priority -7 --tag etl --max-run-time 1h";
    let flags: Vec<_> = flags.split(' ').collect();
    let id = cluster.submit_with("exit 3", &flags);
    assert_eq!(cluster.ask(&["wait", &id]).code, Some(3));
    let status = cluster.status(&id);
    assert_eq!(
        (&status["phase"], &status["priority"]),
        (&json!("FAILED"), &json!(-7))
    );
    assert_two_failures(&lines(&status["history"], "to"));
    let text = cluster.ask(&["status", &id]).stdout;
    let relaunched = "RELAUNCHING (attempt 1): exited with code 3";
    assert!(
        text.contains(relaunched) && text.contains("priority"),
        "{text}"
    );
}

#[test]
fn a_wrong_policy_is_refused_by_its_name() {
    let directory = tempdir().expect("a directory");
    let cluster = Daemon::local(directory.path());
    let never = cluster.ask(&["submit", "--supervise", "--restart", "never", "--", "ls"]);
    let said = "aloha: refused: it is supervised, but restart says never; leave one of them out\n";
    assert_eq!((never.code, &*never.stderr), (Some(1), said));
    let sometimes = cluster.ask(&["submit", "--restart", "sometimes", "--", "ls"]);
    assert_eq!(sometimes.code, Some(2), "{}", sometimes.stderr);
    let request = json!({
        "action": "CreateSubmissionRequest", "name": "x", "entryPoint": "SimpleProcess", "args": "ls", "cores": 1,
        "memory": 64, "restart": {"backoffMax": -1},
    });
    let refused = curl(&cluster, "create", &["-d", &request.to_string()]);
    let said =
        "the field restart.backoffMax is -1, expected a number of seconds from 0.001 to 315360000";
    assert!(
        refused["message"]
            .as_str()
            .is_some_and(|text| text.contains(said)),
        "{refused}"
    );
}

#[test]
fn what_a_worker_is_or_has_is_shown() {
    let directory = tempdir().expect("a directory");
    let attributes = ["-D", "aloha.worker.attributes=zone=a,gpu"];
    let cluster = Daemon::local_with(directory.path(), &attributes);
    let shown = cluster.ask(&["workers"]).stdout;
    assert!(
        shown.contains("ATTRIBUTES") && shown.contains("gpu,zone=a"),
        "{shown}"
    );
    let workers = cluster.ask(&["workers", "--json"]).stdout;
    let workers: Value = serde_json::from_str(&workers).expect("JSON");
    assert_eq!(workers[0]["attributes"], json!({"gpu": "", "zone": "a"}));
}
