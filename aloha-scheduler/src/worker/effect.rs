use std::sync::Arc;
use std::time::{Duration, Instant};

use super::registration::WorkerRegistration;
use crate::app::AppDescription;
use crate::application::ShutdownReason;
use crate::attempt::AttemptReport;
use crate::ids::AppId;

/// How firmly an application is asked to end, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// It may clean up.
    Stop(ShutdownReason),
    /// It may not.
    Kill(ShutdownReason),
}

/// Why a worker ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitReason {
    /// It was asked to, and nothing is left to do.
    Stopped,
    /// A master told it to leave, for it is drained.
    Drained,
    /// It was asked to, and what was left to do took too long or was called off.
    GaveUpWaiting,
    /// A master will never take it.
    Refused(String),
}

/// Something the shell must do, in the order given. Masters are named by their addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Ask a master to take us; what comes of it, silence too, is an
    /// [`Event::RegistrationAnswered`](super::Event::RegistrationAnswered).
    Register {
        /// Which master.
        master: String,
        /// What to say.
        registration: WorkerRegistration,
        /// When: to be handed back with the answer.
        sent: Instant,
    },
    /// Tell the master that we are alive, and say so with
    /// [`Event::HeartbeatAcknowledged`](super::Event::HeartbeatAcknowledged) if it answers.
    SendHeartbeat {
        /// Which master.
        master: String,
        /// When: to be handed back with the answer.
        sent: Instant,
    },
    /// Tell the master how an attempt goes.
    Report {
        /// Which master.
        master: String,
        /// What to say.
        report: AttemptReport,
    },
    /// Tell the master that we take no more applications, and are gone once those we have are over.
    Leave {
        /// Which master.
        master: String,
    },
    /// Start the process of an attempt, and say with [`Event::AppStarted`](super::Event::AppStarted) and
    /// [`Event::AppExited`](super::Event::AppExited) how it goes. The last always comes.
    StartApp {
        /// Of which application.
        app: AppId,
        /// Which attempt.
        attempt: u32,
        /// What to run.
        description: Arc<AppDescription>,
        /// How long its runner at most waits for a worker that is gone before it asks it to end, and then before it
        /// kills it; `None` for as long as is usual.
        alone_max: Option<Duration>,
    },
    /// Ask an attempt to end. One whose process is still being started is not to run.
    SignalApp {
        /// Of which application.
        app: AppId,
        /// Which attempt.
        attempt: u32,
        /// How firmly.
        signal: Signal,
    },
    /// Note on disk that a master knows how an attempt ended.
    Settle {
        /// Of which application.
        app: AppId,
        /// Which attempt.
        attempt: u32,
    },
    /// End the process. Nothing follows.
    Exit(ExitReason),
}
