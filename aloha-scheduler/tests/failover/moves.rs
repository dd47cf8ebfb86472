//! Leadership that moves for one known reason.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aloha_scheduler::{AppId, AppPhase, MasterClient};

use crate::clients::{Acknowledged, Told, description};
use crate::cluster::{Cluster, SESSION_TIMEOUT, connect};
use crate::common::gates::Party;
use crate::common::{self, now};
use crate::{accept_one, verdict};

/// The longest gap that a planned move may leave.
const GAP_MAX: Duration = Duration::from_secs(1);

/// Submits one after another, and notes what was accepted.
struct Stream<'a> {
    cluster: &'a Cluster,
    client: MasterClient,
    told: Told,
}

impl<'a> Stream<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        Self {
            client: cluster.client(),
            cluster,
            told: Told::default(),
        }
    }

    fn submit(&mut self, millis: u64) -> AppId {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let token = format!("stream-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let description = description(&self.cluster.path("journal"), &token, millis, false);
        let asked = self.client.submit_once(description, &token);
        let answer = self.cluster.runtime.block_on(asked).expect("an answer");
        let app = answer.accepted().expect("accepted");
        self.told.acknowledged.push(Acknowledged {
            app: app.clone(),
            token,
            is_supervised: false,
            is_killed: false,
        });
        app
    }

    fn assert_each_ran_once(&self) {
        let verdict = verdict::judge(self.cluster, &self.told, &self.cluster.path("journal"));
        println!("{verdict}");
        verdict.assert_good();
    }
}

#[test]
fn a_leader_that_wakes_after_its_session_does_nothing() {
    let mut cluster = Cluster::start();
    let old = cluster.wait_for_leader();
    // A client that knows the old one alone, and asks it while it cannot answer.
    let address = vec![cluster.masters[old].address()];
    let client = cluster
        .runtime
        .block_on(connect(address))
        .expect("it leads");
    let journal = cluster.path("journal");
    cluster.masters[old].stop();
    let late = cluster.runtime.spawn(async move {
        client
            .submit(description(&journal, "late", 10, false))
            .await
    });
    let new = cluster.wait_for_leader_besides(old);
    let mut stream = Stream::new(&cluster);
    for _ in 0..10 {
        stream.submit(20);
    }
    let mut told = stream.told;
    cluster.masters[old].resume();
    let late = cluster.runtime.block_on(late).expect("it does not panic");
    if let Ok(Ok(app)) = late.map(aloha_scheduler::SubmitAnswer::accepted) {
        // By the new leader, for the old one may not.
        told.acknowledged.push(Acknowledged {
            app,
            token: "late".into(),
            is_supervised: false,
            is_killed: false,
        });
    }
    cluster.wait_until("the old one leads no more", || {
        (!cluster.leads(old)).then_some(())
    });
    assert_eq!(cluster.wait_for_leader(), new);
    cluster.assert_all_run();
    let mut stream = Stream::new(&cluster);
    stream.told = told;
    stream.submit(20);
    stream.assert_each_ran_once();
}

#[test]
fn a_master_that_is_asked_to_end_hands_over_within_a_second() {
    let mut cluster = Cluster::start();
    let mut gaps = Vec::new();
    let mut told = Told::default();
    for _ in 0..3 {
        let old = cluster.wait_for_leader();
        // Who takes over is to be there.
        cluster.wait_for_standby((old + 1) % 2);
        let mut stream = Stream::new(&cluster);
        stream.told = told;
        let mut last = now();
        let mut gap = Duration::ZERO;
        let mut ended = None;
        for number in 0.. {
            if number == 20 {
                cluster.masters[old].terminate();
                ended = Some(last);
            }
            stream.submit(1);
            gap = gap.max(last.elapsed());
            last = now();
            // Long enough to see what follows the hand-over too.
            if ended.is_some_and(|ended| ended.elapsed() > GAP_MAX * 2) {
                break;
            }
        }
        told = stream.told;
        let master = &mut cluster.masters[old];
        let status = master.reap().expect("it was running");
        assert!(status.success(), "{status}: {}", master.end_of_log(40));
        gaps.push(gap);
        cluster.heal();
    }
    println!("longest gap between two accepted submissions while a master hands over: {gaps:.0?}");
    let mut stream = Stream::new(&cluster);
    stream.told = told;
    stream.assert_each_ran_once();
    assert!(gaps.iter().all(|gap| *gap <= GAP_MAX), "{gaps:?}");
}

#[test]
fn a_standby_that_was_started_anew_is_not_behind_what_it_was() {
    let mut cluster = Cluster::start();
    let leader = cluster.wait_for_leader();
    let standby = (leader + 1) % 2;
    cluster.wait_for_standby(standby);
    cluster.masters[standby].terminate();
    cluster.masters[standby].reap();
    cluster.masters[standby].start(&cluster.network);
    cluster.wait_for_standby(standby);
    let asked = now();
    cluster.masters[leader].terminate();
    cluster.masters[leader].reap();
    assert_eq!(cluster.wait_for_leader(), standby);
    let gap = asked.elapsed();
    assert!(gap <= GAP_MAX, "{gap:?}\n{}", cluster.ends_of_logs());
}

#[test]
fn a_deposed_master_stands_by_and_leads_again() {
    let mut cluster = Cluster::start();
    let first = cluster.wait_for_leader();
    for server in 0..cluster.zookeeper.size() {
        let server = Party::ZooKeeper(server);
        cluster.network.cut(Party::Master(first), server);
    }
    let second = cluster.wait_for_leader_besides(first);
    accept_one(&cluster, "cut-off");
    cluster.network.heal();
    cluster.wait_for_standby(first);
    cluster.assert_all_run();
    cluster.masters[second].kill();
    assert_eq!(cluster.wait_for_leader(), first);
    accept_one(&cluster, "leads-again");
}

#[test]
fn without_a_quorum_nothing_is_acknowledged_and_nothing_is_lost() {
    let mut cluster = Cluster::start();
    let mut stream = Stream::new(&cluster);
    let before: Vec<AppId> = (0..10).map(|_| stream.submit(1500)).collect();
    let told = stream.told;
    let client = cluster.client();
    let zookeeper = cluster.zookeeper.wait_for_quorum();
    cluster.zookeeper.kill(zookeeper);
    cluster.zookeeper.kill((zookeeper + 1) % 3);
    let asked = client.submit_once(
        description(&cluster.path("journal"), "kept", 10, false),
        "kept",
    );
    let answer = cluster
        .runtime
        .block_on(async { tokio::time::timeout(SESSION_TIMEOUT * 2, asked).await });
    let is_accepted = matches!(&answer, Ok(Ok(answer)) if answer.clone().accepted().is_ok());
    assert!(!is_accepted, "{answer:?} without a quorum");
    cluster.assert_all_run();
    cluster.heal();
    let mut stream = Stream::new(&cluster);
    stream.told = told;
    for app in &before {
        let status = cluster.runtime.block_on(stream.client.wait(app));
        let status = status.expect("an answer").expect("it is known");
        assert_eq!(status.phase, AppPhase::Finished, "{status:?}");
    }
    stream.submit(10);
    stream.assert_each_ran_once();
}

#[test]
fn who_knows_the_standby_alone_reaches_the_leader() {
    let cluster = Cluster::start();
    let leader = cluster.wait_for_leader();
    let standby = (leader + 1) % 2;
    cluster.wait_for_standby(standby);
    // By the command line.
    let master = cluster.masters[standby].address();
    let by_command = |arguments: &[&str]| {
        let output = common::command()
            .env("ALOHA_MASTER", format!("aloha://{master}"))
            .args(arguments)
            .output()
            .expect("the binary is built");
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        text
    };
    let id = by_command(&["submit", "--memory", "16", "--", "true"]);
    by_command(&["wait", &id]);
    // By REST, as `curl -L` does.
    let rest = cluster.masters[standby].rest.expect("a master serves it");
    let url = format!("http://{rest}/v1/submissions/create");
    let body = r#"{"action":"CreateSubmissionRequest","name":"rest","entryPoint":"SimpleProcess","libs":[],
        "args":"true","cores":1,"memory":16}"#;
    let answer = cluster.runtime.block_on(async {
        let http = reqwest::Client::new();
        let answer = http.post(url).body(body).send().await.expect("an answer");
        answer.text().await.expect("a body")
    });
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!(answer["success"], true, "{answer}");
    let id = answer["submissionId"].as_str().expect("an id").to_owned();
    by_command(&["wait", &id]);
}
