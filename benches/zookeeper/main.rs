//! What the store on ZooKeeper costs, on one real server and on three: writes of single records and of batches, reading
//! 50,000 records anew, and taking over from having read along.
//!
//! `cargo bench -p aloha-benches --bench zookeeper [-- --short]`; needs ZooKeeper as the tests do.

#[path = "../../aloha-scheduler/tests/common/ports.rs"]
#[allow(unreachable_pub, reason = "tests use it too")]
mod ports;
#[path = "../../aloha-scheduler/tests/common/zookeeper.rs"]
#[allow(dead_code, unreachable_pub, reason = "the tests use the rest")]
mod servers;

use std::time::Instant;

use aloha_scheduler::ZooKeeperSettings;
use aloha_scheduler::persistence::{Change, PersistenceEngine, StoredRecord};
use aloha_scheduler::zookeeper::{ZooKeeper, ZooKeeperStore};
use servers::Ensemble;

const RECORD_BYTES: usize = 600;
const BATCH: usize = 1000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "it is what is asked for")]
async fn main() {
    let has = |argument: &str| std::env::args().any(|it| it == argument);
    // Cargo's own runs of it, as under `cargo test --benches`, only show that it starts.
    if !has("--bench") {
        return;
    }
    if !servers::is_installed() {
        println!("skipped: apt-get install zookeeper default-jre-headless");
        return;
    }
    let is_short = has("--short");
    let (writes, records) = if is_short {
        (100, 5_000)
    } else {
        (2000, 50_000)
    };
    for servers in [1, 3] {
        let directory = tempfile::tempdir().expect("a directory");
        let ensemble = Ensemble::start(directory.path(), servers);
        println!("servers: {servers}");
        let figures = measure(&ensemble.url(), writes, records).await;
        for (what, figure) in figures {
            println!("  {what:<58} {figure}");
        }
    }
    if is_short {
        println!("a short run: it shows that all works, not how fast");
    }
}

async fn measure(url: &str, writes: usize, records: usize) -> Vec<(String, String)> {
    let mut figures = Vec::new();
    let mut note = |what: String, figure: String| figures.push((what, figure));

    let store = open(url, "/single");
    let epoch = store.begin_epoch(0).await.expect("begun");
    let mut times = Vec::new();
    let started = now();
    for n in 0..writes {
        let one = now();
        store.write(epoch, vec![put(n)]).await.expect("written");
        times.push(one.elapsed());
    }
    let rate = writes as f64 / started.elapsed().as_secs_f64();
    times.sort();
    let (median, worst) = (times[writes / 2], times[writes * 99 / 100]);
    let what = "durable writes of one record, one after the other";
    note(
        what.to_owned(),
        format!("{rate:.0}/s, median {median:.1?}, p99 {worst:.1?}"),
    );

    let store = open(url, "/batches");
    let epoch = store.begin_epoch(0).await.expect("begun");
    let standby = open(url, "/batches");
    let mut follower = standby
        .follow()
        .await
        .expect("there")
        .expect("it can be followed");
    follower.next().await.expect("read");
    let started = now();
    for first in (0..records).step_by(BATCH) {
        let batch = (first..first + BATCH).map(put).collect();
        store.write(epoch, batch).await.expect("written");
    }
    let rate = records as f64 / started.elapsed().as_secs_f64();
    note(
        format!("records of {RECORD_BYTES} bytes, {BATCH} a batch"),
        format!("{rate:.0}/s"),
    );

    let started = now();
    let read = open(url, "/batches").read_all().await.expect("read").len();
    note(
        format!("reading {read} records, session included"),
        format!("{:.1?}", started.elapsed()),
    );

    let mut followed = 0;
    while followed < records {
        followed += follower.next().await.expect("it keeps up").len();
    }
    store.write(epoch, vec![put(0)]).await.expect("written");
    let started = now();
    let epoch = standby.begin_epoch(0).await.expect("begun");
    let begun = started.elapsed();
    follower.catch_up().await.expect("it keeps up");
    let caught_up = started.elapsed();
    standby.write(epoch, vec![put(0)]).await.expect("written");
    let what = format!("taking over {records} records: an epoch, + the rest, + a write");
    note(
        what,
        format!("{begun:.1?}, {caught_up:.1?}, {:.1?}", started.elapsed()),
    );

    let store = open(url, "/small");
    let epoch = store.begin_epoch(0).await.expect("begun");
    for n in 0..writes {
        store.write(epoch, vec![put(n)]).await.expect("written");
    }
    let started = now();
    let read = open(url, "/small").read_all().await.expect("read").len();
    note(
        format!("reading {read} records written one by one"),
        format!("{:.1?}", started.elapsed()),
    );
    figures
}

fn open(url: &str, dir: &str) -> ZooKeeperStore {
    let mut settings = ZooKeeperSettings::default();
    settings.url = Some(url.to_owned());
    settings.dir = dir.to_owned();
    ZooKeeper::new(&settings).expect("good settings").store()
}

fn put(n: usize) -> Change {
    Change::Put(StoredRecord {
        key: format!("app/app-20190311221731-{n:08}"),
        value: vec![b'x'; RECORD_BYTES - 30],
    })
}

#[expect(clippy::disallowed_methods, reason = "it measures")]
fn now() -> Instant {
    Instant::now()
}
