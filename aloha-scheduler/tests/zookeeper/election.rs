//! The election.

use std::time::Duration;

use aloha_scheduler::election::{
    LeaderElectionAgent, Leadership, MasterAddress, Standing, contract,
};
use aloha_scheduler::persistence::PersistenceEngine;
use aloha_scheduler::zookeeper::ZooKeeper;

use crate::common::gates::{Network, Party};
use crate::ground::{self, SERVER, Server};

fn address(rpc: &str) -> MasterAddress {
    MasterAddress {
        rpc: rpc.to_owned(),
        rest: Some(format!("http://{rpc}")),
    }
}

async fn until(leadership: &mut Leadership, standing: Standing) {
    let stands = leadership.standing.wait_for(|stands| *stands == standing);
    stands.await.expect("its sender is there");
}

#[tokio::test]
async fn the_election_keeps_the_contract() {
    let server = Server::shared();
    contract::check(async || server.zookeeper("/election-contract").election()).await;
}

#[tokio::test]
async fn everybody_hears_who_leads() {
    let server = Server::shared();
    let [first, second, onlooker] = [(); 3].map(|()| server.zookeeper("/who-leads").election());
    let mut seen = onlooker.leader();
    let leads = first.campaign(&address("a:1")).await.expect("alone");
    seen.wait_for(|leader| *leader == Some(address("a:1")))
        .await
        .expect("told");
    let address_of_second = address("b:1");
    let (after, ()) = tokio::join!(second.campaign(&address_of_second), async {
        let mut second = second.leader();
        second
            .wait_for(|leader| *leader == Some(address("a:1")))
            .await
            .expect("told");
        drop(leads);
    });
    let after = after.expect("the first gave up");
    seen.wait_for(|leader| *leader == Some(address("b:1")))
        .await
        .expect("told");
    drop(after);
    seen.wait_for(Option::is_none).await.expect("told");
}

#[tokio::test]
async fn who_withdraws_is_gone_from_the_line() {
    let server = Server::shared();
    let [first, second, third] = [(); 3].map(|()| server.zookeeper("/withdrawn").election());
    let leads = first.campaign(&address("a:1")).await.expect("alone");
    let address_of_second = address("b:1");
    let campaign = second.campaign(&address_of_second);
    let stood = tokio::time::timeout(Duration::from_secs(1), campaign);
    stood.await.expect_err("somebody leads");
    second.withdrawn().await;
    drop(leads);
    first.withdrawn().await;
    let mut seen = third.leader();
    let address_of_third = address("c:1");
    let campaign = third.campaign(&address_of_third);
    let stands = tokio::time::timeout(Duration::from_secs(30), campaign).await;
    let _leads = stands.expect("nobody is before it").expect("a session");
    let leader = seen.wait_for(Option::is_some).await.expect("told").clone();
    assert_eq!(leader, Some(address_of_third));
}

#[tokio::test]
async fn a_cut_suspends_a_leadership_and_a_lost_session_ends_it_but_not_its_master() {
    let server = Server::shared();
    let network = Network::new();
    let settings = ground::settings(&server.behind(&network), "/lost");
    let zookeeper = ZooKeeper::new(&settings).expect("good settings");
    let (election, store) = (zookeeper.election(), zookeeper.store());
    let mut leads = election.campaign(&address("a:1")).await.expect("alone");
    let first_epoch = leads.epoch;
    let epoch = store.begin_epoch(first_epoch).await.expect("begun");

    network.reset(Party::Clients, SERVER);
    until(&mut leads, Standing::Suspended).await;
    network.heal();
    until(&mut leads, Standing::Held).await;
    store
        .write(epoch, vec![ground::put("a", b"1")])
        .await
        .expect("the same session");

    // Another one leads as soon as the session has expired, and never before it is lost here.
    let other = server.zookeeper("/lost").election();
    let lost = leads.standing.clone();
    let other_address = address("b:1");
    let candidate = other.campaign(&other_address);
    network.reset(Party::Clients, SERVER);
    let theirs = candidate.await.expect("the session of the first expires");
    assert_eq!(*lost.borrow(), Standing::Lost, "two would lead");
    assert!(theirs.epoch > first_epoch);

    // The same master stands again, by another session.
    let own_address = address("a:1");
    let mut again = Box::pin(election.campaign(&own_address));
    let refused = tokio::time::timeout(Duration::from_secs(20), &mut again).await;
    let error = refused.expect("said in time").expect_err("nobody answers");
    assert!(error.reason.contains("no ZooKeeper server"), "{error}");
    network.heal();
    drop(again);
    drop(theirs);
    let again = loop {
        if let Ok(leads) = election.campaign(&own_address).await {
            break leads;
        }
    };
    assert!(again.epoch > first_epoch);
    let next = store.begin_epoch(again.epoch).await.expect("begun");
    store
        .write(next, vec![ground::put("a", b"2")])
        .await
        .expect("written");
}

#[tokio::test]
async fn a_leader_whose_node_is_deleted_leads_no_more() {
    let server = Server::shared();
    let election = server.zookeeper("/deleted").election();
    let mut leads = election.campaign(&address("a:1")).await.expect("alone");
    let client = server.client().await;
    let line = client
        .list_children("/deleted/leader_election")
        .await
        .expect("there");
    assert!(
        line[0].starts_with("_c_") && line[0].contains("-latch-"),
        "as Curator names it: {line:?}"
    );
    let node = format!("/deleted/leader_election/{}", line[0]);
    let (data, _) = client.get_data(&node).await.expect("there");
    assert_eq!(
        serde_json::from_slice::<MasterAddress>(&data).expect("JSON"),
        address("a:1")
    );
    client.delete(&node, None).await.expect("deleted");
    until(&mut leads, Standing::Lost).await;
    let again = election.campaign(&address("a:1")).await.expect("alone");
    assert!(again.epoch > leads.epoch);
}

#[tokio::test]
async fn who_stands_no_longer_leaves_no_node_behind() {
    let server = Server::shared();
    let [first, second] = [(); 2].map(|()| server.zookeeper("/leaving").election());
    let leads = first.campaign(&address("a:1")).await.expect("alone");
    let client = server.client().await;
    let line = async || {
        client
            .list_children("/leaving/leader_election")
            .await
            .expect("there")
            .len()
    };
    for _ in 0..5 {
        let candidate = address("b:1");
        let campaign = second.campaign(&candidate);
        tokio::select! {
            biased;
            _ = campaign => panic!("two lead"),
            () = async { while line().await < 2 {} } => {}
        }
        while line().await > 1 {}
    }
    drop(leads);
    while line().await > 0 {}
}
