//! Masters, workers and ZooKeeper servers that fail and are cut off at random while clients submit: what was acknowledged
//! runs, once.
//!
//! `ALOHA_FAILOVER_ROUNDS` says how often (8 otherwise), `ALOHA_FAILOVER_SEED` with which faults.
#![expect(
    clippy::print_stdout,
    reason = "figures, and a seed that fails is to be known"
)]

mod clients;
mod cluster;
#[path = "../common/mod.rs"]
mod common;
mod faults;
mod moves;
mod verdict;

use std::time::Duration;

use clients::{Clients, description};
use cluster::Cluster;
use common::moments::{Moments, number};
use common::now;
use faults::Fault;

/// How long at most all is well between two faults.
const WORK: Duration = Duration::from_secs(1);
/// How long a submission may take once all is healed.
const REST_TIMEOUT: Duration = Duration::from_secs(30);

#[test]
fn whatever_fails_what_was_acknowledged_runs_once() {
    let seed = number("ALOHA_FAILOVER_SEED", 1);
    let rounds = number("ALOHA_FAILOVER_ROUNDS", 8);
    println!("seed {seed}, {rounds} rounds");
    let mut moments = Moments(seed);
    let mut cluster = Cluster::start();
    let journal = cluster.path("journal");
    let clients = Clients::start(&cluster, seed, &journal);
    for round in 1..=rounds {
        let leader = cluster.wait_for_leader();
        let zookeeper = cluster.zookeeper.wait_for_quorum();
        let before = clients.acknowledged();
        let fault = Fault::any(&mut moments, leader, zookeeper);
        let lasts = fault.lasts(&mut moments);
        std::thread::sleep(moments.between(Duration::ZERO, WORK));
        let began = now();
        println!("round {round}: {fault} for {lasts:.1?}; master {leader} leads");
        fault.begin(&mut cluster);
        std::thread::sleep(lasts);
        cluster.assert_all_run();
        let meanwhile = clients.acknowledged() - before;
        let healed = now();
        cluster.heal();
        accept_one(&cluster, &format!("probe-{seed}-{round}"));
        println!(
            "  {meanwhile} acknowledged in {:.1?}; accepted {:.1?} after it was healed",
            healed - began,
            healed.elapsed()
        );
    }
    let told = clients.stop(&cluster);
    cluster.wait_for_workers();
    let verdict = verdict::judge(&cluster, &told, &journal);
    println!("{rounds} rounds of seed {seed}: {verdict}");
    verdict.assert_good();
}

/// Waits until a submission is acknowledged.
#[track_caller]
fn accept_one(cluster: &Cluster, key: &str) {
    let started = now();
    let client = cluster.client();
    let description = description(&cluster.path("probes"), key, 10, false);
    let mut answers = Vec::new();
    while started.elapsed() < REST_TIMEOUT {
        let asked = client.submit_once(description.clone(), key);
        let answer = cluster.runtime.block_on(asked);
        if matches!(&answer, Ok(answer) if answer.clone().accepted().is_ok()) {
            return;
        }
        answers.push(answer);
    }
    panic!(
        "nothing is accepted: {answers:#?}\n{}",
        cluster.ends_of_logs()
    );
}
