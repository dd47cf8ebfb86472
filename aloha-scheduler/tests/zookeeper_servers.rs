//! The servers that other tests rely on: they come up, choose a leader, and choose another when it is gone.

mod common;

use common::gates::{Network, Party};
use common::zookeeper::{Ensemble, Mode};

#[test]
fn a_server_alone_serves() {
    let home = tempfile::tempdir().expect("a directory");
    let ensemble = Ensemble::start(home.path(), 1);
    assert_eq!(ensemble.mode(0), Some(Mode::Standalone));
    assert_eq!(ensemble.ask(0, "ruok").expect("it runs"), "imok");
}

#[test]
fn three_servers_choose_another_leader_when_it_is_killed_or_stopped() {
    let home = tempfile::tempdir().expect("a directory");
    let mut ensemble = Ensemble::start(home.path(), 3);
    let first = ensemble.wait_for_quorum();
    ensemble.kill(first);
    let second = ensemble.wait_for_quorum();
    assert_ne!(first, second);
    ensemble.restart(first);
    assert_eq!(ensemble.wait_for_quorum(), second);
    ensemble.stop(second);
    let third = ensemble.wait_for_quorum();
    assert_ne!(second, third);
    ensemble.resume(second);
    assert_eq!(ensemble.wait_for_quorum(), third);
}

#[test]
fn a_leader_that_is_cut_off_from_the_others_stops_leading_and_comes_back() {
    let home = tempfile::tempdir().expect("a directory");
    let network = Network::new();
    let ensemble = Ensemble::start_via(home.path(), 3, |from, to, address| {
        network.open_between(Party::ZooKeeper(from), Party::ZooKeeper(to), address)
    });
    let first = ensemble.wait_for_quorum();
    for other in (0..3).filter(|place| *place != first) {
        network.cut(Party::ZooKeeper(first), Party::ZooKeeper(other));
    }
    let second = ensemble.wait_for_leader_besides(first);
    assert_eq!(ensemble.mode(first), None);
    network.heal();
    assert_eq!(ensemble.wait_for_quorum(), second);
}
