//! Every message between master, worker and client, grouped by direction.
//!
//! They grow by appended variants alone, so that masters, workers and clients can be upgraded one
//! after another.

use std::time::Duration;

use aloha_rpc::{RpcCallContext, RpcEndpointRef};
use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use crate::app::{AppDescription, AppPhase, AppStatus};
use crate::app_query::{AppsPage, AppsQuery};
use crate::attempt::AttemptReport;
use crate::cluster_status::ClusterStatus;
use crate::drain::{DrainAnswer, DrainRequest};
use crate::election::MasterAddress;
use crate::ids::{AppId, WorkerId};
use crate::master::{WorkerCommand, WorkerStatus};
use crate::worker::{LogStream, WorkerRegistration};

/// The name of the master's endpoint.
pub const MASTER: &str = "Master";
/// The name of a worker's endpoint, in an environment of its own.
pub const WORKER: &str = "Worker";

/// What a master is told.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub enum MasterMessage {
    /// Worker: here I am, with these applications.
    RegisterWorker {
        /// What it says of itself.
        registration: WorkerRegistration,
        /// Where to send commands.
        worker: RpcEndpointRef<WorkerMessage>,
        /// Welcome or not.
        call: RpcCallContext<RegisterAnswer>,
    },
    /// Worker: I am alive.
    Heartbeat {
        /// Which.
        id: WorkerId,
        /// Where it is reached, if the master has forgotten it.
        worker: RpcEndpointRef<WorkerMessage>,
        /// Answered by a master that counts on the worker.
        call: RpcCallContext<()>,
    },
    /// Worker: I take no more applications.
    WorkerLeaving {
        /// Which.
        id: WorkerId,
    },
    /// Worker: this is how an attempt goes.
    Report {
        /// Which.
        id: WorkerId,
        /// What happened.
        report: AttemptReport,
        /// It is stored, or will never be wanted.
        call: RpcCallContext<()>,
    },
    /// Client: run this.
    Submit {
        /// What to run.
        description: AppDescription,
        /// Its idempotency key: the same one again gives the same application.
        key: Option<String>,
        /// Its id.
        call: RpcCallContext<SubmitAnswer>,
    },
    /// Client: end it.
    Kill {
        /// Which.
        app: AppId,
        /// Whether it will end.
        call: RpcCallContext<KillAnswer>,
    },
    /// Client: how is it?
    Status {
        /// Which.
        app: AppId,
        /// None if there is no such application.
        call: RpcCallContext<Option<AppStatus>>,
    },
    /// Client: tell me when it has ended.
    Wait {
        /// Which.
        app: AppId,
        /// How long to wait for that before telling how it is, in milliseconds.
        patience_millis: u64,
        /// None if there is no such application.
        call: RpcCallContext<Option<AppStatus>>,
    },
    /// Client: what is there?
    Apps {
        /// Which of those that are remembered.
        query: AppsQuery,
        /// A page of them.
        call: RpcCallContext<AppsPage>,
    },
    /// Client: who is there?
    Workers {
        /// All that are remembered.
        call: RpcCallContext<Vec<WorkerStatus>>,
    },
    /// Client: what did it write?
    ReadLog {
        /// Which application.
        app: AppId,
        /// Which part.
        request: LogRequest,
        /// Answered by the worker, to which this is passed on.
        call: RpcCallContext<LogAnswer>,
    },
    /// Client: how is everything, in numbers?
    Cluster {
        /// The numbers.
        call: RpcCallContext<ClusterStatus>,
    },
    /// Client: end everything.
    KillAll {
        /// How many applications are ended, or will be.
        call: RpcCallContext<u64>,
    },
    /// Client: forget an application that has ended.
    Forget {
        /// Which.
        app: AppId,
        /// Whether it is forgotten.
        call: RpcCallContext<ForgetAnswer>,
    },
    /// Client: forget every application that has ended.
    Clear {
        /// How many these were.
        call: RpcCallContext<u64>,
    },
    /// The master to itself.
    Own(LocalOnly<crate::master::OwnMessage>),
    /// Client: who leads? Answered once this master leads, or knows of one that does.
    AwaitLeader {
        /// The RPC address of a leader that is known already, and not wanted.
        besides: Option<String>,
        /// How long to wait for another, in milliseconds; a minute at the most.
        patience_millis: u64,
        /// Who leads.
        call: RpcCallContext<LeaderAnswer>,
    },
    /// Client: drain a worker, or no more, or say how far that is.
    Drain {
        /// Its id, or where it is reached, `host:port`.
        worker: String,
        /// What.
        request: DrainRequest,
        /// How it stands then.
        call: RpcCallContext<DrainAnswer>,
    },
}

/// What a worker is told.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub enum WorkerMessage {
    /// Master: do this.
    Command {
        /// The master, as the worker knows it.
        master: String,
        /// What.
        command: WorkerCommand,
    },
    /// Master, for a client: what did it write?
    ReadLog {
        /// Which application.
        app: AppId,
        /// Which part.
        request: LogRequest,
        /// The client.
        call: RpcCallContext<LogAnswer>,
    },
    /// The worker to itself.
    Own(LocalOnly<crate::worker::OwnEvent>),
}

/// The answer to a registration.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub enum RegisterAnswer {
    /// Welcome.
    Registered {
        /// The epoch of this leadership.
        epoch: u64,
        /// How often to send a heartbeat, in milliseconds.
        heartbeat_millis: u64,
    },
    /// This master does not lead.
    Standby,
    /// Never.
    Refused {
        /// Why.
        reason: String,
    },
}

/// Who leads.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LeaderAnswer {
    /// How it is reached; none where nobody is known to lead.
    pub leader: Option<MasterAddress>,
    /// The epoch of its leadership where it is the master that answers, 0 where that only heard of it.
    pub epoch: u64,
}

/// The answer to a submission.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum SubmitAnswer {
    /// It will run.
    Accepted {
        /// Its id.
        app: AppId,
    },
    /// It will not.
    Refused {
        /// Why.
        reason: String,
    },
    /// Not now: the master is behind with what came before, or cannot store anything. Nothing was taken.
    Busy {
        /// With what.
        reason: String,
        /// When to try again, in milliseconds.
        retry_after_millis: u64,
    },
    /// Its idempotency key is that of another application, of which something is different.
    KeyReused {
        /// Which.
        app: AppId,
    },
}

impl SubmitAnswer {
    /// The application that it is now, or in words why it is none.
    ///
    /// # Errors
    ///
    /// It was not accepted.
    pub fn accepted(self) -> Result<AppId, String> {
        match self {
            Self::Accepted { app } => Ok(app),
            Self::Refused { reason } | Self::Busy { reason, .. } => Err(reason),
            Self::KeyReused { app } => Err(key_reused(&app)),
        }
    }
}

pub(crate) fn key_reused(app: &AppId) -> String {
    format!(
        "the idempotency key is that of {app}, of which something is different; take another key"
    )
}

/// The answer to a request to forget an application.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ForgetAnswer {
    /// It is forgotten.
    Forgotten,
    /// There is no such application.
    NoSuchApp,
    /// It has not ended.
    NotEnded {
        /// How it is.
        phase: AppPhase,
    },
}

/// The answer to a request to end an application.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KillAnswer {
    /// Whether it is ended, or will be.
    pub success: bool,
    /// In words.
    pub message: String,
}

/// A part of an application's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LogRequest {
    /// Which of its two outputs.
    pub stream: LogStream,
    /// Of which attempt; of the latest where this is `None`.
    pub attempt: Option<u32>,
    /// From where on, in bytes.
    pub offset: u64,
    /// How much at the most.
    pub bytes_max: u32,
    /// How long to wait for more where there is none yet, in milliseconds; half a minute at the most.
    pub patience_millis: u32,
}

impl LogRequest {
    /// Asks for the latest attempt's output from its beginning, without waiting for more.
    #[must_use]
    pub fn new(stream: LogStream) -> Self {
        Self {
            stream,
            attempt: None,
            offset: 0,
            bytes_max: 256 << 10,
            patience_millis: 0,
        }
    }

    /// Waits so long for more where there is none yet.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self {
            patience_millis: u32::try_from(patience.as_millis()).unwrap_or(u32::MAX),
            ..self
        }
    }

    /// How long to wait for more.
    #[must_use]
    pub fn patience(&self) -> Duration {
        Duration::from_millis(self.patience_millis.into())
    }
}

/// A piece of an application's output, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum LogAnswer {
    /// The piece; empty at the end of what there is.
    Chunk {
        /// The piece.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
        /// Where the next one starts. This one starts `bytes.len()` before: later than was asked for, where what
        /// lies between was removed.
        next_offset: u64,
    },
    /// There is none.
    Unavailable {
        /// Why.
        reason: String,
    },
}

/// A part of a message that never leaves its environment: it cannot be encoded, and so not forged by a peer.
#[derive(Debug)]
pub struct LocalOnly<T>(pub T);

impl<T> Serialize for LocalOnly<T> {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom(LOCAL_ONLY))
    }
}

impl<'de, T> Deserialize<'de> for LocalOnly<T> {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom(LOCAL_ONLY))
    }
}

const LOCAL_ONLY: &str = "this message stays inside its environment";
