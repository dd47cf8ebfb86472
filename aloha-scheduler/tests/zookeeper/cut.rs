//! Connections that are lost in the middle of something.

use std::time::Duration;

use aloha_scheduler::persistence::PersistenceEngine;
use aloha_scheduler::zookeeper::ZooKeeper;

use crate::common::gates::{Network, Party};
use crate::common::zookeeper::Ensemble;
use crate::ground::{self, Map, SERVER, Server, apply, put, read};

#[tokio::test]
async fn what_is_written_while_connections_are_cut_is_written_once() {
    const BATCHES: u32 = 100;
    let server = Server::shared();
    let network = Network::new();
    let settings = ground::settings(&server.behind(&network), "/cut");
    let zookeeper = ZooKeeper::new(&settings).expect("good settings");
    let store = zookeeper.compacting_beyond(1 << 40, 1 << 40).store();
    let epoch = store.begin_epoch(0).await.expect("begun");
    let mut expected = Map::new();
    for n in 0..BATCHES {
        let value = n.to_be_bytes().repeat(20_000);
        let batch = vec![put(&format!("key-{}", n % 10), &value)];
        apply(&mut expected, batch.clone());
        // From before it is sent to after it is answered.
        let cut = async {
            if n % 4 == 0 {
                for _ in 0..n / 2 {
                    tokio::task::yield_now().await;
                }
                network.disconnect();
            }
        };
        let (written, ()) = tokio::join!(store.write(epoch, batch), cut);
        written.expect("the connection comes back");
    }
    let other = server.zookeeper("/cut").store();
    assert_eq!(read(&other).await, expected);
    let (_, stat) = server
        .client()
        .await
        .get_data("/cut/store/log")
        .await
        .expect("there");
    assert_eq!(stat.num_children, 100, "a segment for each batch");
}

/// Whoever is told that a write failed tells others that nothing will come of it.
#[tokio::test]
async fn a_write_whose_answer_is_lost_is_never_said_to_have_failed() {
    // Longer than the session lasts: another cannot be had at first.
    const AWAY: Duration = Duration::from_secs(5);
    let server = Server::shared();
    let network = Network::new();
    let settings = ground::settings(&server.behind(&network), "/unanswered");
    let store = ZooKeeper::new(&settings).expect("good settings").store();
    let epoch = store.begin_epoch(0).await.expect("begun");
    store
        .write(epoch, vec![put("before", b"1")])
        .await
        .expect("written");
    network.cut_one_way(SERVER, Party::Clients);
    let comes_back = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        network.reset(Party::Clients, SERVER);
        tokio::time::sleep(AWAY).await;
        network.heal();
    };
    let (written, ()) = tokio::join!(store.write(epoch, vec![put("key", b"2")]), comes_back);
    let other = server.zookeeper("/unanswered").store();
    assert!(read(&other).await.contains_key("key"), "it got there");
    written.expect("it is stored");
}

/// Whoever still asks for something under a session that is over must notice, or what it holds is held for ever.
#[tokio::test]
async fn a_write_that_outlives_its_session_ends_and_the_next_epoch_begins() {
    // Until the client has given its session up, and no other could be had of any of three that do not answer.
    const SILENT: Duration = Duration::from_secs(6);
    const PATIENCE: Duration = Duration::from_secs(30);
    let server = Server::shared();
    let network = Network::new();
    let three = [(); 3].map(|()| server.behind(&network));
    let settings = ground::settings(&three.join(","), "/outlived");
    let store = ZooKeeper::new(&settings).expect("good settings").store();
    let epoch = store.begin_epoch(0).await.expect("begun");
    let before = store.write(epoch, vec![put("before", b"1")]).await;
    before.expect("written");
    network.cut_one_way(SERVER, Party::Clients);
    let answers_again = async {
        tokio::time::sleep(SILENT).await;
        network.heal();
    };
    let written = tokio::time::timeout(PATIENCE, store.write(epoch, vec![put("key", b"2")]));
    let (written, ()) = tokio::join!(written, answers_again);
    written.expect("it ends").expect("it got there");
    let next = tokio::time::timeout(PATIENCE, store.begin_epoch(0)).await;
    next.expect("nobody holds the log").expect("begun");
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_a_large_batch_whole_or_not_there() {
    let server = Server::shared();
    let store = server.zookeeper("/gone").store();
    let epoch = store.begin_epoch(0).await.expect("begun");
    for n in 0..10_u8 {
        let batch = [("a", n), ("b", n)].map(|(key, n)| put(key, &vec![n; 700 << 10]));
        tokio::select! {
            biased;
            written = store.write(epoch, batch.to_vec()) => written.expect("written"),
            () = async { for _ in 0..u32::from(n) * 3 { tokio::task::yield_now().await } } => {}
        }
        let stored = read(&store).await;
        assert_eq!(stored.get("a"), stored.get("b"), "in part");
    }
    store
        .write(epoch, vec![put("a", b"end"), put("b", b"end")])
        .await
        .expect("written");
    assert_eq!(read(&store).await["b"], b"end");
}

#[tokio::test]
async fn three_servers_lose_their_leader_and_nothing_that_was_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut ensemble = Ensemble::start(directory.path(), 3);
    let settings = ground::settings(&ensemble.url(), "/three");
    let mut settings = settings;
    settings.session_timeout = Duration::from_secs(6);
    let store = ZooKeeper::new(&settings).expect("good settings").store();
    let standby = ZooKeeper::new(&settings).expect("good settings").store();
    let mut follower = standby
        .follow()
        .await
        .expect("there")
        .expect("it can be followed");
    let epoch = store.begin_epoch(0).await.expect("begun");
    let (mut expected, mut followed) = (Map::new(), Map::new());
    for n in 0..100_u8 {
        if n == 50 {
            let leader = ensemble.leader().expect("one leads");
            ensemble.kill(leader);
        }
        let batch = vec![put(&format!("key-{}", n % 10), &[n; 100])];
        apply(&mut expected, batch.clone());
        while let Err(error) = store.write(epoch, batch.clone()).await {
            assert!(
                !matches!(
                    error,
                    aloha_scheduler::persistence::PersistenceError::Fenced { .. }
                ),
                "{error}"
            );
        }
    }
    while followed != expected {
        apply(&mut followed, follower.next().await.expect("it keeps up"));
    }
    assert_eq!(read(&standby).await, expected);
}
