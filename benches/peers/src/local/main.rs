//! The workloads inside one process, done by other actor libraries.

use std::sync::Arc;

use aloha_benches::{Entry, Figures, Job, Kind, Workload};
use tokio::sync::Semaphore;

mod actix;
mod kameo;
mod kanal;
mod ractor;
mod xtra;

fn main() {
    let entries = [
        &actix::ENTRIES[..],
        &kameo::ENTRIES,
        &kanal::ENTRIES,
        &ractor::ENTRIES,
        &xtra::ENTRIES,
    ];
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let took_part = aloha_benches::take_part(&entries.concat(), &arguments);
    assert!(
        took_part,
        "run by: cargo bench -p aloha-benches --bench rpc -- --peers"
    );
}

/// All of them: those of one shape, L5, L5m and L6.
const fn entries(
    name: &'static str,
    kind: Kind,
    common: fn(Job) -> Figures,
    start_and_stop: fn(Job) -> Figures,
    idle_memory: fn(Job) -> Figures,
    ring: fn(Job) -> Figures,
) -> [Entry; 7] {
    [
        Entry::local(name, kind, Workload::L1, common),
        Entry::local(name, kind, Workload::L2, common),
        Entry::local(name, kind, Workload::L3, common),
        Entry::local(name, kind, Workload::L4, common),
        Entry::local(name, kind, Workload::L5, start_and_stop),
        Entry::local(name, kind, Workload::L5m, idle_memory),
        Entry::local(name, kind, Workload::L6, ring),
    ]
}

/// Adds a permit when the actor that holds it has ended.
struct End(Arc<Semaphore>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

/// Waits until so many have ended.
async fn all_ended(ended: &Semaphore, actors: usize) {
    let actors = u32::try_from(actors).expect("not so many");
    drop(ended.acquire_many(actors).await.expect("open"));
}
