//! What every [`PersistenceEngine`] must do, as one suite.
//!
//! ```
//! use aloha_scheduler::persistence::{MemoryEngine, contract};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let store = MemoryEngine::new();
//! contract::check(async || store.clone()).await;
//! # }
//! ```

use std::collections::BTreeMap;

use super::{Change, PersistenceEngine, PersistenceError, StoredRecord};

/// How many batches are compared with what a map makes of them.
const BATCHES: u64 = 60;

/// Checks an engine. `open` opens the same store each time, which holds nothing the first time; the engine opened
/// before is dropped by then.
///
/// # Panics
///
/// The engine breaks the contract, or an operation fails.
pub async fn check<E: PersistenceEngine>(open: impl AsyncFn() -> E) {
    epochs_rise_and_older_ones_write_nothing(&open).await;
    batches_apply_in_order(&open().await).await;
    values_and_keys_come_back_byte_by_byte(&open).await;
    it_does_what_a_map_does(&open).await;
    whoever_follows_sees_the_same(&open().await).await;
}

async fn epochs_rise_and_older_ones_write_nothing<E: PersistenceEngine>(
    open: &impl AsyncFn() -> E,
) {
    let store = open().await;
    assert_eq!(read(&store).await, BTreeMap::new(), "a new store is empty");
    let first = begin(&store, 0).await;
    assert!(first >= 1, "the first epoch is 1 or more, not {first}");
    write(&store, first, vec![put("a", b"first")]).await;
    let second = begin(&store, 0).await;
    assert!(second > first, "epoch {second} follows {first}");
    let third = begin(&store, second + 1000).await;
    assert!(
        third >= second + 1000,
        "an epoch is at least what was asked for"
    );
    for old in [first, second] {
        let refused = store
            .write(old, vec![put("a", b"old"), put("b", b"old")])
            .await;
        match refused {
            Err(PersistenceError::Fenced { ours, newest }) => assert_eq!(
                (ours, newest),
                (old, third),
                "a fence names the epoch that wrote and the newest"
            ),
            other => panic!("epoch {old} wrote under {third}: {other:?}"),
        }
    }
    let expected = BTreeMap::from([("a".to_owned(), b"first".to_vec())]);
    assert_eq!(
        read(&store).await,
        expected,
        "a fenced batch changes nothing"
    );
    drop(store);

    let store = open().await;
    assert_eq!(
        read(&store).await,
        expected,
        "what was written outlives the engine"
    );
    let fourth = begin(&store, 0).await;
    assert!(
        fourth > third,
        "epochs rise over restarts: {fourth} follows {third}"
    );
    let refused = store.write(third, vec![put("a", b"old")]).await;
    assert!(
        matches!(refused, Err(PersistenceError::Fenced { .. })),
        "an epoch of before a restart wrote: {refused:?}"
    );
    write(&store, fourth, vec![delete("a")]).await;
    assert_eq!(read(&store).await, BTreeMap::new());
}

async fn batches_apply_in_order<E: PersistenceEngine>(store: &E) {
    let epoch = begin(store, 0).await;
    let changes = vec![
        put("a", b"1"),
        put("b", b"1"),
        delete("a"),
        delete("never-there"),
        put("a", b"2"),
        put("b", b"2"),
        delete("b"),
    ];
    write(store, epoch, changes).await;
    let expected = BTreeMap::from([("a".to_owned(), b"2".to_vec())]);
    assert_eq!(
        read(store).await,
        expected,
        "the last change of a key holds"
    );
    write(store, epoch, Vec::new()).await;
    assert_eq!(
        read(store).await,
        expected,
        "an empty batch changes nothing"
    );
    write(store, epoch, vec![delete("a")]).await;
}

async fn values_and_keys_come_back_byte_by_byte<E: PersistenceEngine>(open: &impl AsyncFn() -> E) {
    let every_byte: Vec<u8> = (0..=255).collect();
    let large = every_byte.repeat(4096);
    let longest = "k".repeat(200);
    let expected = BTreeMap::from(
        [
            ("app/app-20190311221731-0000", every_byte),
            ("app/app-20190311221731-0000.x", Vec::new()),
            ("app", b"a prefix of others".to_vec()),
            ("set-aside/7/app/A_b.c-d", large),
            (&longest, b"{}".to_vec()),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    );
    let store = open().await;
    let epoch = begin(&store, 0).await;
    let puts = expected
        .iter()
        .map(|(key, value)| put(key, value))
        .collect();
    write(&store, epoch, puts).await;
    assert!(read(&store).await == expected, "what was put is read");
    drop(store);
    let store = open().await;
    assert!(
        read(&store).await == expected,
        "what was put is read after a restart"
    );
    let epoch = begin(&store, 0).await;
    let deletes = expected.keys().map(|key| delete(key)).collect();
    write(&store, epoch, deletes).await;
    assert_eq!(read(&store).await, BTreeMap::new());
}

/// Where a store can be followed.
async fn whoever_follows_sees_the_same(store: &impl PersistenceEngine) {
    let epoch = begin(store, 0).await;
    write(store, epoch, vec![put("a", b"1"), put("b", b"1")]).await;
    let Some(mut follower) = store.follow().await.expect("it can be followed") else {
        return;
    };
    let mut seen = BTreeMap::new();
    apply(&mut seen, follower.catch_up().await);
    assert_eq!(seen, read(store).await, "at first it sees what is there");

    write(store, epoch, vec![put("a", b"2"), delete("b")]).await;
    write(store, epoch, vec![put("c", b"1")]).await;
    while seen.contains_key("b") || !seen.contains_key("c") {
        apply(&mut seen, follower.next().await);
    }
    assert_eq!(seen, read(store).await, "then each change");

    // What a newer leadership finds, whoever wrote it.
    let newer = begin(store, 0).await;
    apply(&mut seen, follower.catch_up().await);
    assert_eq!(seen, read(store).await);
    write(store, newer, vec![delete("a"), put("d", b"1")]).await;
    apply(&mut seen, follower.catch_up().await);
    assert_eq!(seen, read(store).await, "all that is durable by then");
    apply(&mut seen, follower.catch_up().await);
    assert_eq!(seen, read(store).await, "nothing twice");
    let mut second = store.follow().await.expect("as before").expect("as before");
    write(store, newer, vec![delete("d")]).await;
    apply(&mut seen, follower.next().await);
    assert_eq!(seen, read(store).await);
    let mut anew = BTreeMap::new();
    apply(&mut anew, second.catch_up().await);
    assert_eq!(anew, seen, "several may follow");
    write(store, newer, vec![delete("c")]).await;
}

fn apply(seen: &mut BTreeMap<String, Vec<u8>>, changes: Result<Vec<Change>, PersistenceError>) {
    for change in changes.expect("it can be followed") {
        match change {
            Change::Put(StoredRecord { key, value }) => seen.insert(key, value),
            Change::Delete { key } => seen.remove(&key),
        };
    }
}

async fn it_does_what_a_map_does<E: PersistenceEngine>(open: &impl AsyncFn() -> E) {
    let mut dice = Dice(1);
    let mut model = BTreeMap::new();
    let mut store = open().await;
    let mut epoch = begin(&store, 0).await;
    for batch in 0..BATCHES {
        let mut changes = Vec::new();
        for _ in 0..dice.below(40) {
            let key = format!("key-{}", dice.below(50));
            if dice.below(3) == 0 {
                model.remove(&key);
                changes.push(Change::Delete { key });
            } else {
                let value = dice.below(u64::MAX).to_le_bytes().to_vec();
                model.insert(key.clone(), value.clone());
                changes.push(Change::Put(StoredRecord { key, value }));
            }
        }
        write(&store, epoch, changes).await;
        match dice.below(6) {
            0 => epoch = begin(&store, 0).await,
            1 => {
                drop(store);
                store = open().await;
                epoch = begin(&store, 0).await;
            }
            _ => {}
        }
        assert_eq!(read(&store).await, model, "after batch {batch}");
    }
}

/// splitmix64: numbers that follow from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

fn put(key: &str, value: &[u8]) -> Change {
    Change::Put(StoredRecord {
        key: key.to_owned(),
        value: value.to_vec(),
    })
}

fn delete(key: &str) -> Change {
    Change::Delete {
        key: key.to_owned(),
    }
}

async fn begin(store: &impl PersistenceEngine, at_least: u64) -> u64 {
    store.begin_epoch(at_least).await.expect("an epoch begins")
}

async fn write(store: &impl PersistenceEngine, epoch: u64, changes: Vec<Change>) {
    let written = store.write(epoch, changes).await;
    written.expect("the newest epoch may write");
}

async fn read(store: &impl PersistenceEngine) -> BTreeMap<String, Vec<u8>> {
    let records = store.read_all().await.expect("it can be read");
    let count = records.len();
    let by_key: BTreeMap<_, _> = records
        .into_iter()
        .map(|StoredRecord { key, value }| (key, value))
        .collect();
    assert_eq!(by_key.len(), count, "a key is read once");
    by_key
}
