//! A cluster in a simulation: masters, workers and clients on a network that delays, parts and loses by a seed, with an
//! election and a store that go over it too, and a checker that sees everything.
//!
//! ```text
//!   clients ── m0, m1, m2 ── coordinator: election, store          on a [`Simulation`]'s network
//!                  │              │
//!            w0 … w19           Disk ──────────┐
//!                  │                           ├──► Checker        beside it
//!            Machine: applications ── Ledger ──┘
//! ```
//!
//! [`Simulation`]: aloha_rpc::testing::Simulation
//!
//! - [`SimCluster`] has it all, and what can happen to it: pauses, crashes of processes and of machines, clocks that step.
//!   Partitions, delays and losses are those of its simulation's network.
//! - [`CoordinatedMaster`] is election and store alone, for one master.

mod app;
mod board;
mod checker;
mod cluster;
mod coordinator;
mod ledger;
mod machine;

pub use self::app::SimApp;
pub use self::checker::{Checker, Promise};
pub use self::cluster::{SimCluster, SimClusterSettings};
pub use self::coordinator::{
    Batch, CoordinatedElection, CoordinatedMaster, CoordinatedStore, Disk, SessionEnd,
    StoreTrouble, start_coordinator,
};
pub use self::ledger::{Ledger, Run};
pub use self::machine::Machine;
