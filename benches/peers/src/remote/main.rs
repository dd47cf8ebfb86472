//! The workloads between two processes, done by other RPC libraries.

use aloha_benches::{Entry, Figures, Job, Kind, Lobby, Workload};

mod kameo;
mod ractor_cluster;
mod tarpc;
mod tonic;

fn main() {
    let entries = [
        &kameo::ENTRIES[..],
        &ractor_cluster::ENTRIES,
        &tarpc::ENTRIES,
        &tonic::ENTRIES,
    ];
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let took_part = aloha_benches::take_part(&entries.concat(), &arguments);
    assert!(
        took_part,
        "run by: cargo bench -p aloha-benches --bench rpc -- --peers"
    );
}

/// Those of asks: R2, R2p, R3, R4 and R5.
const fn asks(name: &'static str, run: fn(Job) -> Figures, serve: fn(Lobby)) -> [Entry; 5] {
    [
        Entry::remote(name, Kind::Peer, Workload::R2, run, serve),
        Entry::remote(name, Kind::Peer, Workload::R2p, run, serve),
        Entry::remote(name, Kind::Peer, Workload::R3, run, serve),
        Entry::remote(name, Kind::Peer, Workload::R4, run, serve),
        Entry::remote(name, Kind::Peer, Workload::R5, run, serve),
    ]
}

/// R1.
const fn tells(name: &'static str, run: fn(Job) -> Figures, serve: fn(Lobby)) -> Entry {
    Entry::remote(name, Kind::Peer, Workload::R1, run, serve)
}
