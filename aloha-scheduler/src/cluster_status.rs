use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::app::AppPhase;
use crate::master::WorkerState;

/// A cluster in numbers, as its leading master sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The version of Aloha that the master is.
    pub version: String,
    /// The master's RPC address, `host:port`.
    pub master: String,
    /// The epoch of its leadership.
    pub epoch: u64,
    /// Since when it leads, in milliseconds since 1970.
    pub leading_since: u64,
    /// Whether workers that an earlier leadership knew are still awaited.
    pub is_recovering: bool,
    /// How many applications there are in each state; states of none are left out.
    pub apps: BTreeMap<AppPhase, u64>,
    /// How many workers there are in each state; states of none are left out.
    pub workers: BTreeMap<WorkerState, u64>,
    /// The cores of the workers that take applications.
    pub cores: u64,
    /// Those of them that are in use.
    pub cores_used: u64,
    /// The memory of the workers that take applications, in MiB.
    pub memory_mib: u64,
    /// What of it is in use.
    pub memory_mib_used: u64,
    /// Why nothing can be stored, or may be acknowledged, if so: also that the leader is not sure that it still leads.
    pub store_trouble: Option<String>,
}
