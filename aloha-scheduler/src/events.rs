//! What the cluster tells its listeners.

use serde::{Deserialize, Serialize};

use crate::app::{AppPhase, AppStatus};
use crate::drain::DrainPhase;
use crate::ids::{AppId, WorkerId};
use crate::master::WorkerState;

/// Something that happened in the cluster, for whoever listens.
///
/// It is published after what it tells was stored. As JSON it is an object whose `event` names the variant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event")]
#[non_exhaustive]
pub enum AlohaEvent {
    /// An application went from one state to another.
    AppStateChanged {
        /// Which application.
        id: AppId,
        /// Where it was; `None` when it was just submitted.
        from: Option<AppPhase>,
        /// Where it is.
        to: AppPhase,
        /// All that is known of it now.
        status: Box<AppStatus>,
    },
    /// An application is to run again after an attempt was lost.
    AppRelaunched {
        /// Which application.
        id: AppId,
        /// The attempt that was lost.
        attempt: u32,
        /// What became of it.
        reason: String,
    },
    /// A worker came, went, or went from one state to another.
    WorkerStateChanged {
        /// Which worker.
        id: WorkerId,
        /// Where it was; `None` when it came.
        from: Option<WorkerState>,
        /// Where it is.
        to: WorkerState,
        /// Why, in words.
        reason: String,
    },
    /// The drain of a worker was asked for, called off, or is done.
    WorkerDrainChanged {
        /// Which worker.
        id: WorkerId,
        /// How far it is: `NONE` where it was called off.
        to: DrainPhase,
        /// More about it, in words.
        reason: String,
    },
}
