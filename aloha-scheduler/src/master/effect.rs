use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::apps::AppRecord;
use super::event::ReplyTo;
use super::keys::{KeyRecord, SubmissionError};
use super::workers::WorkerRecord;
use crate::app::{AppDescription, AppStatus};
use crate::drain::DrainAnswer;
use crate::events::AlohaEvent;
use crate::ids::{AppId, WorkerId};
use crate::messages::ForgetAnswer;

/// Something the shell must do, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Store this durably, under the epoch of the core. What follows waits for it, unless it
    /// [goes ahead](Effect::goes_ahead).
    Persist(Record),
    /// Answer a caller.
    Reply(ReplyTo, Reply),
    /// Tell a worker. One that cannot be reached needs nothing more: it will register again, and is then told.
    Send(WorkerId, WorkerCommand),
    /// Tell the listeners.
    Publish(AlohaEvent),
}

impl Effect {
    /// Whether it need not wait until what came before it is stored, for it promises and starts nothing.
    pub fn goes_ahead(&self) -> bool {
        match self {
            Self::Persist(_) | Self::Publish(_) => false,
            Self::Send(_, command) => match command {
                // What ended there is not to be forgotten once it is gone.
                WorkerCommand::LaunchApp { .. } | WorkerCommand::Leave { .. } => false,
                // A worker that is told before the launch of it remembers that and launches nothing.
                WorkerCommand::KillApp { .. } | WorkerCommand::Reregister { .. } => true,
            },
            Self::Reply(_, reply) => match reply {
                Reply::Registered { .. }
                | Reply::Refused { .. }
                | Reply::SubmissionRefused(_)
                | Reply::KeyReused(_)
                | Reply::HeartbeatNoted
                | Reply::NoSuchApp(_) => true,
                // An end that is told must not be forgotten; anything before it promises nothing.
                Reply::Status(status) => !status.phase.is_final(),
                Reply::Submitted { .. }
                | Reply::Kill { .. }
                | Reply::KilledAll { .. }
                | Reply::Forget(_)
                | Reply::Drain(_)
                | Reply::Cleared { .. }
                | Reply::Acknowledged => false,
            },
        }
    }
}

/// A change of what is stored. Each replaces whatever was stored of the same id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// An application as it stands now.
    App(Arc<AppRecord>),
    /// An application is no longer listed.
    AppForgotten(AppId),
    /// A worker as it stands now.
    Worker(WorkerRecord),
    /// A worker is gone.
    WorkerForgotten(WorkerId),
    /// Numbers of applications below this one may have been given.
    NextNumber(u64),
    /// The idempotency key of an application that is no longer listed.
    Key(KeyRecord),
    /// The idempotency key of this application is no longer known.
    KeyForgotten(AppId),
}

/// What a caller is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To a registration: welcome.
    Registered {
        /// The epoch of this leadership, which is in every command.
        epoch: u64,
        /// How often to send a heartbeat.
        heartbeat_interval: Duration,
    },
    /// To a registration, or to a report about another worker's application: no.
    Refused {
        /// Why.
        reason: String,
    },
    /// To a submission: it is stored and will run.
    Submitted {
        /// Its id.
        app: AppId,
        /// Whether it became so by this submission, and not by an earlier one under the same key.
        is_new: bool,
    },
    /// To a submission: the description is no good.
    SubmissionRefused(SubmissionError),
    /// To a submission: its idempotency key is that of this application, of which something is different.
    KeyReused(AppId),
    /// To a kill request.
    Kill {
        /// Which application.
        app: AppId,
        /// Whether it is killed, or will be.
        success: bool,
        /// In words.
        message: String,
    },
    /// To a request to kill everything.
    KilledAll {
        /// How many applications are killed, or will be.
        count: u64,
    },
    /// To a request to forget an application.
    Forget(ForgetAnswer),
    /// To a request about the drain of a worker.
    Drain(DrainAnswer),
    /// To a request to forget all that have ended.
    Cleared {
        /// How many these were.
        count: u64,
    },
    /// To a wait: the application as it stands now, ended or not.
    Status(Box<AppStatus>),
    /// To a wait: there is no such application.
    NoSuchApp(AppId),
    /// To a heartbeat: the worker is seen, and its applications are its own for another `aloha.worker.timeout`, counted
    /// from when it sent this.
    HeartbeatNoted,
    /// To a report: it need not be sent again.
    Acknowledged,
}

/// What a master tells a worker. A worker refuses an epoch older than the newest it has seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkerCommand {
    /// Start an attempt. May arrive twice, and is then to be ignored.
    LaunchApp {
        /// The epoch of the leadership that says so.
        epoch: u64,
        /// Of which application.
        app: AppId,
        /// Which attempt.
        attempt: u32,
        /// What to run.
        description: Arc<AppDescription>,
    },
    /// End an attempt, and report it ended whether it was there or not.
    KillApp {
        /// The epoch of the leadership that says so.
        epoch: u64,
        /// Of which application.
        app: AppId,
        /// Which attempt.
        attempt: u32,
    },
    /// This master does not know the worker, or lost sight of it: register (again).
    Reregister {
        /// The epoch of the leadership that says so.
        epoch: u64,
    },
    /// Nothing is left on this worker, and it is drained: say that it goes, and go. One that holds something all the same
    /// stays until it is told again.
    Leave {
        /// The epoch of the leadership that says so.
        epoch: u64,
    },
}
