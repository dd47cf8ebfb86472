use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::Placement;
use crate::constraint::Attributes;
use crate::drain::Drain;
use crate::ids::{AppId, WorkerId};
use crate::resources::Resources;
use crate::runner::CgroupSupport;

/// What is stored of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRecord {
    /// Its id.
    pub id: WorkerId,
    /// The host it is reached at.
    pub host: String,
    /// The port it is reached at.
    pub port: u16,
    /// What it offers.
    pub offers: Resources,
    /// What of the resources of applications it enforces.
    #[serde(default)]
    pub enforces: CgroupSupport,
    /// What it is or has besides.
    #[serde(default)]
    pub attributes: Attributes,
    /// Set while it is drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
}

impl WorkerRecord {
    /// What a placement tells of its worker.
    pub(crate) fn of_placement(on: &Placement) -> Self {
        let (host, port) = on.address.rsplit_once(':').unwrap_or((&on.address, ""));
        Self {
            id: on.worker.clone(),
            host: host.to_owned(),
            port: port.parse().unwrap_or(0),
            offers: Resources::default(),
            enforces: CgroupSupport::default(),
            attributes: Attributes::new(),
            drain: None,
        }
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// Whether a worker can be reached.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WorkerState {
    /// It can, and takes applications.
    Alive,
    /// It can, but takes no more applications and goes once those it has ended: it is being stopped, or drained.
    Leaving,
    /// It cannot for now; its applications may well run on.
    Disconnected,
    /// It is gone, and listed for a while yet.
    Dead,
}

impl WorkerState {
    /// Every state there is.
    pub const ALL: [Self; 4] = [Self::Alive, Self::Leaving, Self::Disconnected, Self::Dead];

    /// Whether `next` may follow: the one place that says so. One that registers becomes ALIVE from any, or LEAVING where
    /// it is drained.
    pub fn may_become(self, next: Self) -> bool {
        match self {
            Self::Alive => matches!(next, Self::Leaving | Self::Disconnected | Self::Dead),
            Self::Leaving => matches!(next, Self::Alive | Self::Disconnected | Self::Dead),
            Self::Disconnected => matches!(next, Self::Alive | Self::Leaving | Self::Dead),
            Self::Dead => next == Self::Alive,
        }
    }
}

impl fmt::Display for WorkerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Alive => "ALIVE",
            Self::Leaving => "LEAVING",
            Self::Disconnected => "DISCONNECTED",
            Self::Dead => "DEAD",
        })
    }
}

/// What a client sees of a worker at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its id.
    pub id: WorkerId,
    /// The host it is reached at.
    pub host: String,
    /// The port it is reached at.
    pub port: u16,
    /// Whether it can be reached.
    pub state: WorkerState,
    /// The cores it has.
    pub cores: u32,
    /// Those in use.
    pub cores_used: u32,
    /// The memory it has.
    pub memory_mib: u64,
    /// What of it is in use.
    pub memory_mib_used: u64,
    /// The applications that occupy it.
    pub apps: Vec<AppId>,
    /// How long ago it was last heard of, in milliseconds.
    pub heard_millis_ago: u64,
    /// What of the resources of applications it enforces.
    pub enforces: CgroupSupport,
    /// What it is or has besides.
    pub attributes: Attributes,
}
