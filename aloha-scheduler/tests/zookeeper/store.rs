//! The store.

use aloha_scheduler::persistence::{
    Change, MemoryEngine, PersistenceEngine, PersistenceError, contract,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::ground::{Map, Server, apply, assert_fenced, put, read};

#[tokio::test]
async fn the_store_keeps_the_contract() {
    let server = Server::shared();
    contract::check(async || server.zookeeper("/contract").store()).await;
}

#[tokio::test]
async fn a_store_that_is_compacted_all_the_time_keeps_the_contract() {
    let server = Server::shared();
    let open = async || {
        let zookeeper = server.zookeeper("/compacted-contract");
        zookeeper.compacting_beyond(1000, 4).store()
    };
    contract::check(open).await;
}

#[tokio::test]
async fn zookeeper_itself_refuses_a_leader_that_was_deposed_and_does_not_know_it() {
    let server = Server::shared();
    let [first, second] = [(); 2].map(|()| server.zookeeper("/fencing").store());
    let old = first.begin_epoch(0).await.expect("begun");
    first
        .write(old, vec![put("a", b"1")])
        .await
        .expect("written");
    let new = second.begin_epoch(0).await.expect("begun");
    let client = server.client().await;
    let before = client
        .get_data("/fencing/store/log")
        .await
        .expect("there")
        .1;

    // Nothing told the first one: it sends what it would have sent before.
    assert_fenced(first.write(old, vec![put("a", b"2")]).await, (old, new));
    let after = client
        .get_data("/fencing/store/log")
        .await
        .expect("there")
        .1;
    assert_eq!(after, before, "nothing was appended");
    second
        .write(new, vec![put("b", b"1")])
        .await
        .expect("written");
    assert_fenced(first.write(old, vec![put("c", b"1")]).await, (old, new));
    let expected = [("a", "1"), ("b", "1")].map(|(key, value)| (key.to_owned(), value.into()));
    assert_eq!(read(&first).await, Map::from(expected));
}

#[tokio::test]
async fn a_leader_whose_node_of_the_election_is_gone_begins_no_epoch() {
    use aloha_scheduler::election::{LeaderElectionAgent, MasterAddress};

    let server = Server::shared();
    let zookeeper = server.zookeeper("/no-latch");
    let (election, store) = (zookeeper.election(), zookeeper.store());
    let leadership = election
        .campaign(&MasterAddress::default())
        .await
        .expect("alone");
    store.begin_epoch(0).await.expect("it leads");
    let client = server.client().await;
    let line = client
        .list_children("/no-latch/leader_election")
        .await
        .expect("there");
    // The master may write on until it has heard of it, but cannot fence a successor.
    let node = format!("/no-latch/leader_election/{}", line[0]);
    let mut standing = leadership.standing.clone();
    client.delete(&node, None).await.expect("deleted");
    let begun = store.begin_epoch(0).await;
    let is_lost =
        standing.wait_for(|standing| *standing == aloha_scheduler::election::Standing::Lost);
    is_lost.await.expect("told");
    // By then another may lead, whom this would depose.
    let again = store.begin_epoch(0).await;
    for begun in [begun, again] {
        let error = begun.expect_err("it leads no more");
        assert!(error.to_string().contains("leads no more"), "{error}");
    }
    let _leadership = election
        .campaign(&MasterAddress::default())
        .await
        .expect("alone again");
    store.begin_epoch(0).await.expect("it leads again");
}

#[tokio::test]
async fn a_record_of_two_mebibytes_is_stored_as_a_whole() {
    let server = Server::shared();
    let store = server.zookeeper("/large").store();
    let epoch = store.begin_epoch(0).await.expect("begun");
    let large: Vec<u8> = (0..=255).cycle().take(2 << 20).collect();
    let many = (0..1000).map(|n| put(&format!("small-{n}"), &[7; 1000]));
    store
        .write(epoch, many.chain([put("large", &large)]).collect())
        .await
        .expect("written");
    let other = server.zookeeper("/large").store();
    let stored = read(&other).await;
    assert_eq!(stored.len(), 1001);
    assert!(stored["large"] == large, "byte by byte");
    // Another leader writes over it, and nothing of it remains.
    let epoch = other.begin_epoch(0).await.expect("begun");
    for _ in 0..3 {
        other
            .write(epoch, vec![put("large", &large)])
            .await
            .expect("written");
    }
    assert!(read(&store).await["large"] == large);
}

fn random_changes(runner: &mut TestRunner) -> Vec<Change> {
    let change = prop_oneof![
        (0..30_u8, prop::collection::vec(any::<u8>(), 0..300))
            .prop_map(|(key, value)| put(&format!("key-{key}"), &value)),
        (0..30_u8).prop_map(|key| Change::Delete {
            key: format!("key-{key}")
        }),
    ];
    let batch = prop::collection::vec(change, 1..20).new_tree(runner);
    batch.expect("possible").current()
}

#[tokio::test]
async fn compaction_keeps_exactly_what_is_stored_for_whoever_reads() {
    let server = Server::shared();
    let open = || {
        server
            .zookeeper("/compaction")
            .compacting_beyond(3000, 6)
            .store()
    };
    let (mut store, model) = (open(), MemoryEngine::new());
    let (mut epoch, model_epoch) = (store.begin_epoch(0).await.expect("begun"), 1);
    let standby = open();
    let follow = async || {
        let follower = standby.follow().await.expect("there");
        follower.expect("it can be followed")
    };
    let mut follower = follow().await;
    let (mut followed, mut overtaken) = (Map::new(), 0);
    let mut runner = TestRunner::deterministic();
    for batch in 0..150 {
        let changes = random_changes(&mut runner);
        model
            .write(model_epoch, changes.clone())
            .await
            .expect("in memory");
        store.write(epoch, changes).await.expect("written");
        if batch % 3 == 2 {
            match follower.catch_up().await {
                Ok(changes) => apply(&mut followed, changes),
                Err(PersistenceError::Unavailable { reason, .. }) => {
                    assert!(reason.contains("has been compacted"), "{reason}");
                    overtaken += 1;
                    follower = follow().await;
                    followed = Map::new();
                    apply(&mut followed, follower.catch_up().await.expect("read"));
                }
                Err(error) => panic!("{error}"),
            }
            assert_eq!(followed, read(&model).await, "after batch {batch}");
        }
        if batch % 25 == 24 {
            // The next leader knows what it needs from having read along, or reads it.
            store = open();
            if batch % 50 == 49 {
                let mut follower = store
                    .follow()
                    .await
                    .expect("there")
                    .expect("it can be followed");
                follower.catch_up().await.expect("read");
            }
            epoch = store.begin_epoch(0).await.expect("begun");
            assert_eq!(
                read(&store).await,
                read(&model).await,
                "after batch {batch}"
            );
        }
    }
    assert!(overtaken < 25, "it keeps up most of the time");
    let client = server.client().await;
    let (oldest, stat) = client
        .get_data("/compaction/store/log")
        .await
        .expect("there");
    let oldest: u64 = String::from_utf8(oldest)
        .expect("digits")
        .parse()
        .expect("a number");
    assert!(oldest > 100 && stat.num_children < 20, "{oldest}, {stat:?}");
}

#[tokio::test]
async fn a_follower_that_compaction_has_overtaken_says_so_and_another_begins_anew() {
    let server = Server::shared();
    let store = server
        .zookeeper("/left-behind")
        .compacting_beyond(1000, 4)
        .store();
    let epoch = store.begin_epoch(0).await.expect("begun");
    store
        .write(epoch, vec![put("a", b"1")])
        .await
        .expect("written");
    let standby = server.zookeeper("/left-behind").store();
    let follow = async || {
        standby
            .follow()
            .await
            .expect("there")
            .expect("it can be followed")
    };
    let (mut behind, mut waiting) = (follow().await, follow().await);
    behind.catch_up().await.expect("read");
    waiting.catch_up().await.expect("read");
    for n in 0..40 {
        store
            .write(epoch, vec![put("b", &[n; 400])])
            .await
            .expect("written");
    }
    for error in [
        behind.next().await.unwrap_err(),
        waiting.catch_up().await.unwrap_err(),
    ] {
        assert!(
            matches!(error, PersistenceError::Unavailable { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("has been compacted"), "{error}");
    }
    let mut anew = Map::new();
    apply(&mut anew, follow().await.next().await.expect("read"));
    assert_eq!(anew, read(&store).await);
}

#[tokio::test]
async fn a_follower_learns_that_nothing_is_stored_and_then_of_each_batch() {
    let server = Server::shared();
    let store = server.zookeeper("/following").store();
    let standby = server.zookeeper("/following").store();
    let mut follower = standby
        .follow()
        .await
        .expect("there")
        .expect("it can be followed");
    assert_eq!(follower.next().await.expect("read"), []);
    let epoch = store.begin_epoch(0).await.expect("begun");
    for n in 0..20 {
        // One that is dropped while it waits loses nothing.
        tokio::select! {
            biased;
            _ = follower.next() => panic!("there is nothing"),
            () = tokio::task::yield_now() => {}
        }
        let batch = vec![put("a", &[n])];
        store.write(epoch, batch.clone()).await.expect("written");
        assert_eq!(follower.next().await.expect("read"), batch);
    }
}
