//! Who leads and what is stored, for masters of a simulation: a coordinator of the kind of ZooKeeper, on a host of its own.
//!
//! ```text
//!    m0        m1        m2            sessions, kept alive by pings
//!     '---------+---------'
//!          coordinator                 seats: the lowest leads; a session that ends leaves its seat
//!               |                      the epoch, raised by who leads
//!             Disk                     batches of changes, in order, each of an epoch
//! ```
//!
//! Everything goes over the simulated network, so that its delays, losses and partitions hold for it as for all else. What
//! is answered is on the [`Disk`], which outlives the coordinator; sessions do too, and begin their time anew with it.
//! A session ends where the coordinator has not heard of it for its timeout, by the coordinator's clock, and whatever
//! comes of it later is refused.

mod client;
mod disk;
mod election;
mod endpoint;
mod engine;
mod messages;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use aloha_rpc::{RpcAddress, RpcEnv};

pub use self::disk::{Batch, Disk, StoreTrouble};
pub use self::election::CoordinatedElection;
pub use self::endpoint::start_coordinator;
pub use self::engine::CoordinatedStore;
use crate::recovery_mode::RecoveryMode;

/// How a master learns that its session is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SessionEnd {
    /// By its own clock: its leadership is lost no later than another may win it.
    #[default]
    Noted,
    /// From the coordinator alone: for as long as that cannot be reached its leadership is suspended, whoever leads.
    Told,
}

/// A master's part in an election and a store that a coordinator keeps, under one session.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use aloha_rpc::testing::Simulation;
/// use aloha_scheduler::testing::{CoordinatedMaster, Disk, SessionEnd, start_coordinator};
/// use aloha_scheduler::{Master, MasterRole};
///
/// Simulation::run(7, async |sim| {
///     let coordinator = sim.env("coordinator").await;
///     start_coordinator(&coordinator, &Disk::new());
///     let at = coordinator.address().expect("it listens");
///     let mut masters = Vec::new();
///     for host in ["m0", "m1"] {
///         let env = sim.env(host).await;
///         let coordinated = CoordinatedMaster::join(&env, at, Duration::from_secs(6), SessionEnd::Noted);
///         let master = Master::builder(&env).recovery_mode(coordinated.recovery_mode()).start();
///         let mut role = master.expect("the first there").role();
///         masters.push((env, role.clone()));
///         if host == "m0" {
///             role.wait_for(|role| matches!(role, MasterRole::Leading { .. })).await.expect("it lives");
///         }
///     }
///     sim.network().isolate("m0");
///     let (_, role) = &mut masters[1];
///     role.wait_for(|role| matches!(role, MasterRole::Leading { .. })).await.expect("it takes over");
/// });
/// ```
#[derive(Debug)]
pub struct CoordinatedMaster {
    store: Arc<CoordinatedStore>,
    election: Arc<CoordinatedElection>,
}

impl CoordinatedMaster {
    /// Opens a session, in the background, that ends where the coordinator has not heard of it for `timeout`. It is closed
    /// when this, and the recovery modes made of it, are dropped.
    #[must_use]
    pub fn join(
        env: &RpcEnv,
        coordinator: &RpcAddress,
        timeout: Duration,
        end: SessionEnd,
    ) -> Self {
        let client = Arc::new(client::Client::start(env, coordinator, timeout, end));
        Self {
            store: Arc::new(CoordinatedStore::new(Arc::clone(&client))),
            election: Arc::new(CoordinatedElection::new(client)),
        }
    }

    /// What survives the master, and who leads.
    #[must_use]
    pub fn recovery_mode(&self) -> RecoveryMode {
        RecoveryMode {
            persistence: Some(Arc::clone(&self.store) as _),
            election: Arc::clone(&self.election) as _,
        }
    }
}
