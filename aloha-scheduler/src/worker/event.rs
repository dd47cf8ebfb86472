use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::app::AppDescription;
use crate::attempt::Outcome;
use crate::ids::AppId;
use crate::master::WorkerCommand;

/// What came of asking a master to take us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistrationAnswer {
    /// It takes us.
    Registered {
        /// The epoch of its leadership.
        epoch: u64,
        /// How often it wants to hear from us.
        heartbeat_interval: Duration,
    },
    /// It does not lead; another may.
    Standby,
    /// It could not be reached, or did not answer.
    Unreachable,
    /// It will never take us.
    Refused {
        /// Why.
        reason: String,
    },
}

/// An attempt that an earlier worker left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundApp {
    /// Of which application.
    pub app: AppId,
    /// Which attempt.
    pub attempt: u32,
    /// As what it was launched.
    pub description: Arc<AppDescription>,
    /// How it stands.
    pub state: FoundState,
}

/// How an attempt stands that an earlier worker left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundState {
    /// It runs, and is ours from now on.
    Running,
    /// It has ended, and no master knows.
    Ended(Outcome),
    /// It has ended, and a master knows.
    Settled,
}

/// Something that happened outside the worker. Masters are named by their addresses, as in the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An attempt of an earlier worker was found. Told before [`Event::Started`].
    AppFound(FoundApp),
    /// The worker can be reached: look for a master.
    Started,
    /// What came of an [`Effect::Register`](super::Effect::Register).
    RegistrationAnswered {
        /// By which master.
        master: String,
        /// What it said.
        answer: RegistrationAnswer,
        /// When it was asked.
        sent: Instant,
    },
    /// A master has heard an [`Effect::SendHeartbeat`](super::Effect::SendHeartbeat), and counts on us.
    HeartbeatAcknowledged {
        /// Which.
        master: String,
        /// When it was sent.
        sent: Instant,
    },
    /// The connection to a master ended.
    MasterDisconnected {
        /// Which.
        master: String,
    },
    /// A master that was told something answers that it leads no more.
    MasterSteppedDown {
        /// Which.
        master: String,
    },
    /// A master tells us something.
    Commanded {
        /// Which master, by the address under which it is advertised.
        master: String,
        /// What.
        command: WorkerCommand,
    },
    /// The process of an attempt runs.
    AppStarted {
        /// Of which application.
        app: AppId,
        /// Which attempt.
        attempt: u32,
    },
    /// An attempt is over: its process ended, or there never was one.
    AppExited {
        /// Of which application.
        app: AppId,
        /// Which attempt.
        attempt: u32,
        /// How, as the launcher saw it; whether that was by request is known here.
        outcome: Outcome,
    },
    /// The master answered the report that an attempt ended, whatever it said: it need not be sent again.
    ReportAcknowledged {
        /// Of which application.
        app: AppId,
        /// Which attempt.
        attempt: u32,
    },
    /// The worker is to stop. Said a second time, it stops at once.
    StopRequested {
        /// Whether to end its applications first, or leave them running for its successor.
        stop_apps: bool,
    },
    /// The time of [`WorkerCore::next_deadline`](super::WorkerCore::next_deadline) has come.
    Tick,
}
