//! Two masters on a real ZooKeeper, as those see them who type commands and send requests.

mod common;

use std::time::Duration;

use common::zookeeper::Ensemble;
use common::{Daemon, now};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Of the masters' sessions.
const SESSION_TIMEOUT: Duration = Duration::from_secs(2);

struct Masters {
    leader: Daemon,
    standby: Daemon,
    _zookeeper: Ensemble,
    _home: tempfile::TempDir,
}

impl Masters {
    fn start() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let zookeeper = Ensemble::start(home.path(), 1);
        let url = format!("aloha.deploy.zookeeper.url={}", zookeeper.url());
        let timeout = format!(
            "aloha.deploy.zookeeper.sessionTimeout={}",
            SESSION_TIMEOUT.as_secs()
        );
        let mode = "aloha.deploy.recoveryMode=ZOOKEEPER";
        let start = || Daemon::master(&["-D", mode, "-D", &url, "-D", &timeout]);
        let leader = start();
        leader.wait_for_line("this master leads the cluster");
        let standby = start();
        let said = standby.wait_for_line("this master is a standby; ");
        assert!(
            said.contains(&format!("{} leads the cluster", host_port(&leader))),
            "{said}"
        );
        Self {
            leader,
            standby,
            _zookeeper: zookeeper,
            _home: home,
        }
    }

    /// Both, as a client is told of them.
    fn both(&self) -> String {
        format!("{},{}", self.leader.rpc, host_port(&self.standby))
    }
}

fn host_port(master: &Daemon) -> &str {
    master.rpc.strip_prefix("aloha://").expect("its scheme")
}

fn json_of(answer: &common::Answer) -> Value {
    assert_eq!(answer.code, Some(0), "{}", answer.stderr);
    serde_json::from_str(&answer.stdout).expect("JSON")
}

const SUBMISSION: [&str; 4] = ["submit", "--shell", "true", "--json"];

#[test]
fn commands_and_requests_to_a_standby_end_up_at_the_leader() {
    let masters = Masters::start();
    let (leader, standby) = (&masters.leader, &masters.standby);
    // Told of the standby alone.
    let cluster = json_of(&standby.ask(&["cluster", "--json"]));
    assert_eq!(cluster["master"], host_port(leader));
    assert_eq!(
        cluster["leader"],
        json!({"rpc": host_port(leader), "rest": leader.rest()})
    );
    let said = cluster["other_masters"][host_port(standby)].as_str();
    assert!(
        said.is_some_and(|said| said.starts_with("does not lead")),
        "{cluster}"
    );
    let text = standby.ask(&["cluster"]).stdout;
    assert!(
        text.contains(&format!("REST          {}", leader.rest())),
        "{text}"
    );
    assert!(
        text.contains(&format!(
            "other master  {} does not lead",
            host_port(standby)
        )),
        "{text}"
    );
    json_of(&standby.ask(&SUBMISSION));

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = reqwest::Client::new();
        let url = format!("{}/v1/applications", standby.rest());
        let body = json!({"name": "n", "entryPoint": "SimpleProcess", "args": "true"});
        let answer = client
            .post(&url)
            .json(&body)
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.status(), 201);
        assert!(
            answer.url().as_str().starts_with(leader.rest()),
            "{}",
            answer.url()
        );
        let ready = client
            .get(format!("{}/v1/submissions/readyz", standby.rest()))
            .send();
        assert_eq!(ready.await.expect("an answer").status(), 503);
    });
    let apps = json_of(&leader.ask(&["apps", "--json"]));
    assert_eq!(apps.as_array().expect("a list").len(), 2);
}

/// Submits with a command that begins right after the leader had this signal; tells how long it took.
#[expect(clippy::print_stdout, reason = "the figure is for whoever asks for it")]
fn submit_after(signal: Signal, most: Duration) {
    let masters = Masters::start();
    let both = masters.both();
    masters.leader.signal(signal);
    let begun = now();
    let arguments = [&SUBMISSION[..], &["--master", &both]].concat();
    let answer = masters.standby.ask(&arguments);
    let taken = now().saturating_duration_since(begun);
    if signal == Signal::STOP {
        masters.leader.signal(Signal::CONT);
    }
    json_of(&answer);
    println!("submitted {taken:?} after {signal:?}, with a session timeout of {SESSION_TIMEOUT:?}");
    assert!(taken < most, "{taken:?}");
    masters
        .standby
        .wait_for_line("this master leads the cluster");
    let cluster = json_of(
        &masters
            .standby
            .ask(&["cluster", "--json", "--master", &both]),
    );
    assert_eq!(cluster["master"], host_port(&masters.standby));
}

#[test]
fn a_submission_goes_to_the_next_master_when_the_leader_is_killed() {
    submit_after(Signal::KILL, SESSION_TIMEOUT * 3);
}

#[test]
fn a_submission_goes_to_the_next_master_when_the_leader_stands_still() {
    submit_after(Signal::STOP, SESSION_TIMEOUT * 3);
}
