//! The JSON of what there is: applications, workers, the cluster. Absent fields are left out.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::app::{AppPhase, AppStatus, Transition};
use crate::cluster_status::ClusterStatus;
use crate::master::{WorkerState, WorkerStatus};
use crate::runner::CgroupSupport;

/// An application. All times are in milliseconds since 1970.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Application {
    /// Which attempt is the latest, counted from 1; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    attempt: Option<u32>,
    /// Cores set aside.
    #[schema(minimum = 1)]
    cores: u32,
    /// Whether its state is final: nothing follows.
    ended: bool,
    /// Which kind of application it is.
    entry_point: String,
    /// The code it exited with, or 128 plus the number of the signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<u64>,
    /// Its last changes of state, the oldest first; absent in lists.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    history: Vec<StateChange>,
    /// Its id.
    id: String,
    /// Memory set aside, in MiB.
    memory: u64,
    /// Why it is in this state, where there is something to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// Its name.
    name: String,
    /// When it runs again at the earliest, if it waits for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_before: Option<u64>,
    /// Its place in the queue: higher before lower.
    priority: i32,
    /// When its latest attempt began to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<u64>,
    /// Its state.
    state: AppPhase,
    /// When it was submitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    submitted_at: Option<u64>,
    /// Whether it runs again when it fails or its worker is lost.
    supervise: bool,
    /// What it waits for, while it does not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_for: Option<String>,
    /// `host:port` of that worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_host_port: Option<String>,
    /// The worker it runs on, or ran on last.
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_id: Option<String>,
}

/// A change of an application's state.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StateChange {
    /// When, in milliseconds since 1970.
    at: u64,
    /// Its latest attempt then; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    attempt: Option<u32>,
    /// Why, where the state alone does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The state it went to.
    state: AppPhase,
}

/// A page of the list of applications.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ApplicationList {
    /// The applications, without their history.
    pub(super) applications: Vec<Application>,
    /// Where the next page begins, to be given as `after`; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

/// The application that a submission became.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Submitted {
    /// Its id.
    pub(super) id: String,
    /// The names of fields that the submission had and that mean nothing here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unknown_fields: Option<Vec<String>>,
}

/// What is done about a request to end an application.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Killed {
    /// The application's id.
    pub(super) id: String,
    /// What happens now, for a person.
    pub(super) message: String,
}

/// All workers that the master remembers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WorkerList {
    /// The workers, by id.
    pub(super) workers: Vec<Worker>,
}

/// A worker.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Worker {
    /// The ids of the applications that occupy it.
    applications: Vec<String>,
    /// What it is or has, such as `zone` or `gpu`; the value may be empty.
    attributes: BTreeMap<String, String>,
    /// Its cores.
    cores: u32,
    /// Those in use.
    cores_used: u32,
    /// What of the resources of applications it enforces.
    enforces: Enforcement,
    /// How long ago it was last heard of, in milliseconds.
    heard_millis_ago: u64,
    /// The host it is reached at.
    host: String,
    /// Its id.
    pub(super) id: String,
    /// Its memory, in MiB.
    memory: u64,
    /// What of it is in use.
    memory_used: u64,
    /// The port it is reached at.
    port: u16,
    /// Whether it can be reached.
    state: WorkerState,
}

/// What a worker enforces. Each is `enforced by cgroup v1` or `v2`, or `not enforced: ` with the reason.
#[derive(Debug, Serialize, ToSchema)]
struct Enforcement {
    /// Whether an application is kept to its cores.
    cpu: String,
    /// Whether an application is kept to its memory.
    memory: String,
    /// Whether all its processes are found and ended with it, by the kernel's account.
    tracking: String,
}

/// The whole cluster, as its leader sees it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cluster {
    /// How many applications are in each state; a state that none is in is absent.
    applications: BTreeMap<AppPhase, u64>,
    /// The cores of the workers that take applications.
    cores: u64,
    /// Those in use.
    cores_used: u64,
    /// The number of this leadership; it rises with each.
    epoch: u64,
    /// Since when this master leads, in milliseconds since 1970.
    leading_since: u64,
    /// The RPC address of this master.
    master: String,
    /// The memory of the workers that take applications, in MiB.
    memory: u64,
    /// What of it is in use.
    memory_used: u64,
    /// Whether it still waits for workers that it knows from the leader before.
    recovering: bool,
    /// Why nothing can be stored just now, or may be acknowledged, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    store_trouble: Option<String>,
    /// The version of this master.
    version: String,
    /// How many workers are in each state; a state that none is in is absent.
    workers: BTreeMap<WorkerState, u64>,
}

impl From<AppStatus> for Application {
    fn from(status: AppStatus) -> Self {
        let (worker_id, worker_host_port) = status
            .worker
            .map(|placed| (placed.worker.to_string(), placed.address.to_string()))
            .unzip();
        Self {
            attempt: Some(status.attempt).filter(|attempt| *attempt > 0),
            cores: status.cores,
            ended: status.phase.is_final(),
            entry_point: status.entry_point,
            exit_code: status.exit_code,
            finished_at: status.ended_at,
            history: status.history.into_iter().map(StateChange::from).collect(),
            id: status.id.to_string(),
            memory: status.memory_mib,
            message: status.message,
            name: status.name,
            not_before: status.not_before,
            priority: status.priority,
            started_at: status.started_at,
            state: status.phase,
            submitted_at: status.submitted_at,
            supervise: status.supervise,
            waiting_for: status.waiting_for,
            worker_host_port,
            worker_id,
        }
    }
}

impl From<Transition> for StateChange {
    fn from(past: Transition) -> Self {
        Self {
            at: past.at,
            attempt: Some(past.attempt).filter(|attempt| *attempt > 0),
            reason: past.reason,
            state: past.to,
        }
    }
}

impl From<WorkerStatus> for Worker {
    fn from(status: WorkerStatus) -> Self {
        Self {
            applications: status.apps.iter().map(ToString::to_string).collect(),
            attributes: status.attributes,
            cores: status.cores,
            cores_used: status.cores_used,
            enforces: status.enforces.into(),
            heard_millis_ago: status.heard_millis_ago,
            host: status.host,
            id: status.id.to_string(),
            memory: status.memory_mib,
            memory_used: status.memory_mib_used,
            port: status.port,
            state: status.state,
        }
    }
}

impl From<CgroupSupport> for Enforcement {
    fn from(support: CgroupSupport) -> Self {
        Self {
            cpu: support.cpu.to_string(),
            memory: support.memory.to_string(),
            tracking: support.tracking.to_string(),
        }
    }
}

impl From<ClusterStatus> for Cluster {
    fn from(status: ClusterStatus) -> Self {
        Self {
            applications: status.apps,
            cores: status.cores,
            cores_used: status.cores_used,
            epoch: status.epoch,
            leading_since: status.leading_since,
            master: status.master,
            memory: status.memory_mib,
            memory_used: status.memory_mib_used,
            recovering: status.is_recovering,
            store_trouble: status.store_trouble,
            version: status.version,
            workers: status.workers,
        }
    }
}
