use std::time::Duration;

use aloha_rpc::testing::{SimConditions, Simulation};
use aloha_rpc::{RpcAddress, RpcEnv};
use async_trait::async_trait;
use tokio::sync::watch;

use super::{CoordinatedMaster, Disk, SessionEnd, StoreTrouble, start_coordinator};
use crate::election::{
    self, ElectionError, LeaderElectionAgent, Leadership, MasterAddress, Standing,
};
use crate::persistence::{
    self, Change, PersistenceEngine, PersistenceError, StoreFollower, StoredRecord,
};

const TIMEOUT: Duration = Duration::from_secs(6);

struct Ground {
    sim: Simulation,
    disk: Disk,
    coordinator: RpcEnv,
    master: RpcEnv,
}

impl Ground {
    async fn new(sim: Simulation) -> Self {
        let (disk, coordinator) = (Disk::new(), sim.env("coordinator").await);
        start_coordinator(&coordinator, &disk);
        let master = sim.env("master").await;
        Self {
            sim,
            disk,
            coordinator,
            master,
        }
    }

    fn join(&self) -> CoordinatedMaster {
        CoordinatedMaster::join(&self.master, self.address(), TIMEOUT, SessionEnd::Noted)
    }

    fn address(&self) -> &RpcAddress {
        self.coordinator.address().expect("it listens")
    }
}

fn run(program: impl AsyncFnOnce(Ground)) {
    Simulation::run(7, async |sim| program(Ground::new(sim).await).await);
}

fn put(key: &str) -> Vec<Change> {
    let (key, value) = (key.to_owned(), b"value".to_vec());
    vec![Change::Put(StoredRecord { key, value })]
}

/// Each part of a master as one that ends with it.
#[derive(Debug)]
struct Whole(CoordinatedMaster);

#[async_trait]
impl LeaderElectionAgent for Whole {
    async fn campaign(&self, candidate: &MasterAddress) -> Result<Leadership, ElectionError> {
        self.0.election.campaign(candidate).await
    }
}

#[async_trait]
impl PersistenceEngine for Whole {
    async fn begin_epoch(&self, at_least: u64) -> Result<u64, PersistenceError> {
        self.0.store.begin_epoch(at_least).await
    }

    async fn read_all(&self) -> Result<Vec<StoredRecord>, PersistenceError> {
        self.0.store.read_all().await
    }

    async fn write(&self, epoch: u64, changes: Vec<Change>) -> Result<(), PersistenceError> {
        self.0.store.write(epoch, changes).await
    }

    async fn follow(&self) -> Result<Option<Box<dyn StoreFollower>>, PersistenceError> {
        self.0.store.follow().await
    }
}

#[test]
fn the_election_keeps_the_contract() {
    run(async |ground| election::contract::check(async || Whole(ground.join())).await);
}

#[test]
fn the_store_keeps_the_contract() {
    run(async |ground| persistence::contract::check(async || Whole(ground.join())).await);
}

#[test]
fn it_keeps_the_contract_where_segments_are_lost_and_connections_break() {
    run(async |ground| {
        ground.sim.network().set_conditions(SimConditions {
            loss: 0.1,
            reset: 0.002,
            ..SimConditions::default()
        });
        persistence::contract::check(async || Whole(ground.join())).await;
    });
}

async fn becomes(standing: &mut watch::Receiver<Standing>, expected: Standing) {
    let changed = standing.wait_for(|it| *it == expected).await;
    drop(changed.expect("it says so before it goes"));
}

#[test]
fn a_leader_that_is_cut_off_is_suspended_and_lost_no_later_than_another_leads() {
    run(async |ground| {
        let first = ground.join();
        let address = |rpc: &str| MasterAddress {
            rpc: rpc.to_owned(),
            rest: None,
        };
        let leads = first.election.campaign(&address("m0:1")).await;
        let mut standing = leads.expect("it is held").standing;
        let other = ground.sim.env("other").await;
        let second = CoordinatedMaster::join(&other, ground.address(), TIMEOUT, SessionEnd::Noted);
        let mut leader = second.election.leader();
        let known = leader.wait_for(|it| it == &Some(address("m0:1"))).await;
        drop(known.expect("it is told"));

        ground.sim.network().partition("master", "coordinator");
        becomes(&mut standing, Standing::Suspended).await;
        ground.sim.network().heal("master", "coordinator");
        becomes(&mut standing, Standing::Held).await;

        ground.sim.network().partition("master", "coordinator");
        let candidate = address("other:1");
        let taken = second.election.campaign(&candidate).await;
        let taken = taken.expect("it is held");
        assert_eq!(*standing.borrow_and_update(), Standing::Lost);
        assert_eq!(*taken.standing.borrow(), Standing::Held);
        ground.sim.network().heal("master", "coordinator");
        let mut leader = first.election.leader();
        drop(leader.wait_for(|it| it.as_ref() == Some(&candidate)).await);
    });
}

#[test]
fn a_batch_whose_answer_was_lost_is_stored_once() {
    run(async |ground| {
        let master = ground.join();
        let epoch = master.store.begin_epoch(0).await.expect("it is there");
        ground.disk.set_trouble(StoreTrouble::Slow(TIMEOUT * 2));
        let cut = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(ground.disk.count(), 1, "it is stored, and not answered");
            ground.sim.network().cut("master", "coordinator");
            ground.disk.set_trouble(StoreTrouble::None);
        };
        let (written, ()) = tokio::join!(master.store.write(epoch, put("a")), cut);
        written.expect("the newest epoch may write");
        assert_eq!(ground.disk.count(), 1);

        ground.disk.set_trouble(StoreTrouble::Refuses);
        let refused = master.store.write(epoch, put("b")).await;
        assert!(matches!(refused, Err(PersistenceError::Unavailable { .. })));
    });
}

#[test]
fn a_coordinator_that_comes_back_has_what_it_had_and_its_sessions_go_on() {
    run(async |ground| {
        let master = ground.join();
        let leads = master.election.campaign(&MasterAddress::default()).await;
        let leads = leads.expect("it is held");
        let epoch = master.store.begin_epoch(0).await.expect("it is there");
        master
            .store
            .write(epoch, put("a"))
            .await
            .expect("it may write");
        ground.coordinator.shutdown().await;
        let again = ground.sim.env("coordinator").await;
        start_coordinator(&again, &ground.disk);
        master
            .store
            .write(epoch, put("b"))
            .await
            .expect("it may write still");
        let stored = master.store.read_all().await.expect("it is there");
        assert_eq!(stored.len(), 2);
        assert_ne!(*leads.standing.borrow(), Standing::Lost);
    });
}

#[test]
fn who_follows_hears_late_where_news_are_delayed_and_who_catches_up_hears_all() {
    run(async |ground| {
        let (writer, reader) = (ground.join(), ground.join());
        let epoch = writer.store.begin_epoch(0).await.expect("it is there");
        writer.store.write(epoch, put("a")).await.expect("stored");
        let follower = reader.store.follow().await.expect("it is there");
        let mut follower = follower.expect("it can be followed");
        assert_eq!(follower.next().await.expect("it is there"), put("a"));

        let late = Duration::from_secs(60);
        ground.disk.delay_news(late);
        let stored = ground.sim.runtime().now();
        writer.store.write(epoch, put("b")).await.expect("stored");
        assert_eq!(follower.next().await.expect("it is there"), put("b"));
        assert!(ground.sim.runtime().now() - stored >= late);
        writer.store.write(epoch, put("c")).await.expect("stored");
        assert_eq!(follower.catch_up().await.expect("it is there"), put("c"));
    });
}

#[test]
fn a_session_whose_end_is_told_is_suspended_until_it_is() {
    run(async |ground| {
        let end = SessionEnd::Told;
        let first = CoordinatedMaster::join(&ground.master, ground.address(), TIMEOUT, end);
        let leads = first.election.campaign(&MasterAddress::default()).await;
        let mut standing = leads.expect("it is held").standing;
        let other = ground.sim.env("other").await;
        let second = CoordinatedMaster::join(&other, ground.address(), TIMEOUT, end);
        ground.sim.network().partition("master", "coordinator");
        let taken = second.election.campaign(&MasterAddress::default()).await;
        assert_eq!(
            *taken.expect("it is held").standing.borrow(),
            Standing::Held
        );
        tokio::time::sleep(TIMEOUT * 10).await;
        assert_eq!(*standing.borrow_and_update(), Standing::Suspended);
        ground.sim.network().heal("master", "coordinator");
        becomes(&mut standing, Standing::Lost).await;
    });
}
