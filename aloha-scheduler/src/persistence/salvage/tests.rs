use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use tempfile::{TempDir, tempdir, tempdir_in};

use super::super::{Change, FileEngine, PersistenceEngine as _, PersistenceError, StoredRecord};
use super::*;
use crate::master::{Record, WorkerRecord};
use crate::resources::Resources;

/// More than one page of them, and two that have several pages each.
const WORKERS: usize = 120;
const LEAF_RECORDS_MAX: usize = 30;

type Records = BTreeMap<String, Vec<u8>>;

fn worker(n: usize, revision: usize) -> Change {
    let length = if n % 60 == 30 { 20_000 } else { 20 };
    super::super::change_of(&Record::Worker(WorkerRecord {
        id: format!("worker-{n:04}").parse().unwrap(),
        host: format!("revision-{revision}"),
        port: 1,
        offers: Resources {
            cores: 8,
            memory_mib: 4096,
        },
        enforces: Default::default(),
        attributes: BTreeMap::from([("zone".into(), "z".repeat(length))]),
        drain: None,
    }))
}

struct Written {
    home: TempDir,
    /// The file as a master leaves it that is killed.
    bytes: Vec<u8>,
    /// What stands beside it.
    noted: Vec<u8>,
    records: Records,
    /// What changed last, as it was before that.
    older: StoredRecord,
    epoch: u64,
}

async fn read(engine: &FileEngine) -> Records {
    let records = engine.read_all().await.unwrap();
    let pair = |StoredRecord { key, value }| (key, value);
    records.into_iter().map(pair).collect()
}

/// A store with several revisions of each record, of which the last alone holds.
async fn written() -> Written {
    // In memory where that can be had: nothing here is about the disk, and thousands of files are made.
    let home = tempdir_in("/dev/shm").or_else(|_| tempdir()).unwrap();
    let engine = FileEngine::open(home.path()).unwrap();
    let epoch = engine.begin_epoch(0).await.unwrap();
    for revision in 0..3 {
        let changes = (0..WORKERS).map(|n| worker(n, revision)).collect();
        engine.write(epoch, changes).await.unwrap();
    }
    let Change::Put(older) = worker(7, 2) else {
        unreachable!("workers are put")
    };
    engine.write(epoch, vec![worker(7, 3)]).await.unwrap();
    let records = read(&engine).await;
    let bytes = fs::read(home.path().join("recovery.redb")).unwrap();
    let noted = fs::read(home.path().join("recovery.batch")).unwrap();
    drop(engine);
    Written {
        home,
        bytes,
        noted,
        records,
        older,
        epoch,
    }
}

impl Written {
    fn lay(&self, bytes: &[u8]) -> &Path {
        let home = self.home.path();
        for entry in fs::read_dir(home).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        fs::write(home.join("recovery.redb"), bytes).unwrap();
        fs::write(home.join("recovery.batch"), &self.noted).unwrap();
        home
    }

    fn flipped(&self, at: usize, bits: u8) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes[at] ^= bits;
        bytes
    }

    fn positions(&self, text: &str) -> Vec<usize> {
        let windows = self.bytes.windows(text.len());
        let found = windows
            .enumerate()
            .filter(|(_, window)| *window == text.as_bytes());
        found.map(|(at, _)| at).collect()
    }

    /// Opens the store with these bytes: what came back as it was, and what is damaged. Nothing else came back.
    async fn recovered(&self, bytes: &[u8]) -> Result<(Records, Records), PersistenceError> {
        let home = self.lay(bytes);
        let engine = FileEngine::open(home)?;
        let (whole, damaged): (Records, Records) = read(&engine)
            .await
            .into_iter()
            .partition(|(key, value)| record::is_whole(key, value));
        // Where neither the header nor the page of tables says what the last commit was, it is the one before.
        for (key, value) in &whole {
            let older = (key, value) == (&self.older.key, &self.older.value);
            assert!(
                self.records.get(key) == Some(value) || older,
                "{key} is not as it was last written: byte {:?}",
                bytes.iter().zip(&self.bytes).position(|(a, b)| a != b)
            );
        }
        if whole != self.records {
            let kept = fs::read(home.join("recovery.redb.damaged-1")).unwrap();
            assert_eq!(kept.len(), bytes.len(), "the damaged file is kept");
            let epoch = engine.begin_epoch(self.epoch).await.unwrap();
            engine.write(epoch, vec![worker(7, 4)]).await.unwrap();
            drop(engine);
            let again = read(&FileEngine::open(home).unwrap()).await;
            assert!(again.len() >= whole.len(), "the new file is whole");
        }
        Ok((whole, damaged))
    }
}

#[tokio::test]
async fn a_flipped_letter_in_a_record_costs_that_record_alone() {
    let written = written().await;
    let mut hits = 0;
    for at in written.positions("revision-2") {
        let (whole, damaged) = written.recovered(&written.flipped(at, 1)).await.unwrap();
        assert!(whole.len() >= WORKERS - 1, "{at}: {}", whole.len());
        assert_eq!(whole.len() + damaged.len(), WORKERS, "{at}");
        hits += damaged.len();
    }
    assert!(hits >= WORKERS - 1, "{hits}");
}

#[tokio::test]
async fn a_flipped_letter_in_a_key_costs_that_record_alone() {
    let written = written().await;
    let mut hits = 0;
    // Keys, routing keys between pages, and the names within records: to another letter, another number, no letter.
    for (n, bits) in [(11, 1), (31, 2), (60, 4), (99, 0x80), (119, 0x20)] {
        for at in written.positions(&format!("worker/worker-{n:04}")) {
            for at in [at, at + 17] {
                let (whole, damaged) = written.recovered(&written.flipped(at, bits)).await.unwrap();
                assert!(
                    whole.len() >= WORKERS - 1,
                    "{n} at {at} ^ {bits}: {:?}",
                    damaged.keys()
                );
                assert_eq!(whole.len() + damaged.len(), WORKERS, "{n} at {at}");
                hits += damaged.len();
            }
        }
    }
    assert!(hits >= 10, "{hits}");
}

#[tokio::test]
async fn a_flipped_byte_in_any_page_costs_no_more_than_the_records_of_that_page() {
    let written = written().await;
    let mut worst = WORKERS;
    let mut rolled_back = BTreeSet::new();
    for page in (PAGE..written.bytes.len()).step_by(PAGE) {
        for (offset, bits) in [
            (0, 1),
            (1, 0xff),
            (2, 1),
            (2, 0x40),
            (3, 1),
            (8, 4),
            (30, 1),
        ] {
            let at = page + offset;
            let bytes = written.flipped(at, bits);
            let (whole, _) = written.recovered(&bytes).await.unwrap_or_else(|error| {
                panic!("byte {offset} of page {} ^ {bits}: {error}", page / PAGE)
            });
            assert!(
                whole.len() >= WORKERS - LEAF_RECORDS_MAX,
                "byte {offset} of page {} ^ {bits}: {}",
                page / PAGE,
                whole.len()
            );
            worst = worst.min(whole.len());
            if whole.get(&written.older.key) == Some(&written.older.value) {
                rolled_back.insert(page);
            }
        }
    }
    assert!(worst < WORKERS, "some page mattered");
    assert!(rolled_back.len() <= 1, "{rolled_back:?}");
}

#[tokio::test]
async fn a_flipped_byte_in_the_header_never_empties_a_store() {
    let written = written().await;
    for at in (0..320).step_by(3) {
        match written.recovered(&written.flipped(at, 0xff)).await {
            Ok((whole, _)) => assert!(whole.len() >= WORKERS - 1, "{at}: {}", whole.len()),
            Err(error) => panic!("byte {at}: {error}"),
        }
    }
}

#[tokio::test]
async fn of_a_file_that_was_cut_off_what_is_left_is_read() {
    let written = written().await;
    let length = written.bytes.len();
    let mut read = 0;
    for length in (0..length).step_by(length / 40) {
        match written.recovered(&written.bytes[..length]).await {
            Ok((whole, _)) => read = read.max(whole.len()),
            Err(PersistenceError::Damaged { .. }) => {
                let left = fs::read(written.home.path().join("recovery.redb")).unwrap();
                assert_eq!(left.len(), length, "what cannot be read is left alone");
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(read > 0, "some of it could be read");
}
