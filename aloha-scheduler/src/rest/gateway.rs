//! What the REST server asks of the master.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::app::{AppDescription, AppStatus};
use crate::app_query::{AppsPage, AppsQuery};
use crate::cluster_status::ClusterStatus;
use crate::drain::{DrainAnswer, DrainRequest};
use crate::election::MasterAddress;
use crate::ids::AppId;
use crate::log_follower::LogNews;
use crate::master::WorkerStatus;
use crate::messages::{ForgetAnswer, KillAnswer, LogRequest, SubmitAnswer};

/// The master, as the REST server sees it.
#[async_trait]
pub trait SubmissionGateway: Send + Sync + fmt::Debug {
    /// Accepts an application, or says why not. Under the same idempotency key it is the same application.
    async fn submit(
        &self,
        description: AppDescription,
        key: Option<&str>,
    ) -> Result<SubmitAnswer, GatewayError>;

    /// Ends an application, or keeps it from starting.
    async fn kill(&self, app: AppId) -> Result<KillAnswer, GatewayError>;

    /// Ends every application, or keeps it from starting; tells how many these were.
    async fn kill_all(&self) -> Result<u64, GatewayError>;

    /// Forgets an application that has ended.
    async fn forget(&self, app: AppId) -> Result<ForgetAnswer, GatewayError>;

    /// Forgets every application that has ended; tells how many these were.
    async fn clear(&self) -> Result<u64, GatewayError>;

    /// What is known of an application; `None` if nothing is.
    async fn status(&self, app: AppId) -> Result<Option<AppStatus>, GatewayError>;

    /// As [`status`](Self::status), once it has ended or `patience` is over.
    async fn wait(
        &self,
        app: &AppId,
        patience: Duration,
    ) -> Result<Option<AppStatus>, GatewayError>;

    /// A page of the applications that are remembered.
    async fn apps(&self, query: AppsQuery) -> Result<AppsPage, GatewayError>;

    /// The workers that are remembered.
    async fn workers(&self) -> Result<Vec<WorkerStatus>, GatewayError>;

    /// Drains a worker, or no more; tells how that stands.
    async fn drain(
        &self,
        worker: &str,
        request: DrainRequest,
    ) -> Result<DrainAnswer, GatewayError> {
        let _ = (worker, request);
        let reason = "workers cannot be drained here".to_owned();
        Err(GatewayError::Failed { reason })
    }

    /// The cluster in numbers.
    async fn cluster(&self) -> Result<ClusterStatus, GatewayError>;

    /// Whether submissions are taken right now.
    async fn ready(&self) -> Result<(), GatewayError>;

    /// A piece of an application's output; empty at its present end, and where it has not begun to run.
    async fn read_log(&self, app: &AppId, request: LogRequest) -> Result<LogPiece, GatewayError>;

    /// Follows an application's output to its end; says too where that begins.
    async fn follow_log(
        &self,
        app: &AppId,
        request: LogRequest,
    ) -> Result<(u64, Box<dyn LogSource>), GatewayError>;
}

/// The output of an application that is followed. Dropped, it is not any more.
#[async_trait]
pub trait LogSource: Send {
    /// The next news; none once all is told.
    async fn next(&mut self) -> Result<Option<LogNews>, GatewayError>;
}

/// A piece of an application's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPiece {
    /// The piece.
    pub bytes: Vec<u8>,
    /// Where it begins: elsewhere than asked for, where that was removed or is not written yet.
    pub offset: u64,
    /// Where the next one begins.
    pub next_offset: u64,
}

/// Why the master gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// Another master leads, or none does.
    #[error("this master is a standby; {}", who_leads(leader.as_ref()))]
    Standby {
        /// The one that leads, if that is known.
        leader: Option<MasterAddress>,
    },
    /// Not now: another master may answer, or this one later.
    #[error("{reason}")]
    NotReady {
        /// What it is busy with.
        reason: String,
    },
    /// There is no such application, or no such output of it.
    #[error("{reason}")]
    NotFound {
        /// What is missing.
        reason: String,
    },
    /// It tried and failed, for instance to store the submission.
    #[error("{reason}")]
    Failed {
        /// What happened, without paths or traces.
        reason: String,
    },
}

fn who_leads(leader: Option<&MasterAddress>) -> String {
    match leader {
        Some(leader) => format!("{} leads", leader.rpc),
        None => "which one leads is not known yet, try again".to_owned(),
    }
}
