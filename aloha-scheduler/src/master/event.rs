use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::app::AppDescription;
use crate::attempt::Outcome;
use crate::drain::DrainRequest;
use crate::ids::{AppId, WorkerId};
use crate::worker::WorkerRegistration;

/// Names a caller who waits for an answer. The shell mints it, keeps the call, and finds it again by the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyTo(pub u64);

/// Something that happened outside the master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A worker registers, for the first time or again.
    WorkerRegistered {
        /// What it says of itself.
        registration: WorkerRegistration,
        /// Who waits for the answer.
        reply: ReplyTo,
    },
    /// A worker says that it is alive.
    ///
    /// One that is unknown is sent [`WorkerCommand::Reregister`](super::WorkerCommand::Reregister), so the shell must
    /// be able to reach whoever sent this.
    Heartbeat {
        /// Which.
        worker: WorkerId,
        /// Who waits for the answer. One that is not taken on hears nothing.
        reply: ReplyTo,
    },
    /// The connection to a worker ended. It may come back.
    WorkerDisconnected {
        /// Which.
        worker: WorkerId,
    },
    /// A worker takes no more applications, and goes for good once those it has ended.
    WorkerLeaving {
        /// Which.
        worker: WorkerId,
    },
    /// A client wants a worker drained, or no more, or to know how far that is.
    DrainRequested {
        /// Which.
        worker: WorkerId,
        /// What.
        request: DrainRequest,
        /// Who waits for the answer.
        reply: ReplyTo,
    },
    /// A client submits an application.
    Submitted {
        /// What to run.
        description: Arc<AppDescription>,
        /// Its idempotency key, if it has one: the same one again gives the same application.
        key: Option<String>,
        /// Who waits for the answer.
        reply: ReplyTo,
    },
    /// A client wants an application killed.
    KillRequested {
        /// Which.
        app: AppId,
        /// Who waits for the answer.
        reply: ReplyTo,
    },
    /// A client wants every application killed.
    KillAllRequested {
        /// Who waits for the answer.
        reply: ReplyTo,
    },
    /// A client wants an application that has ended forgotten.
    ForgetRequested {
        /// Which.
        app: AppId,
        /// Who waits for the answer.
        reply: ReplyTo,
    },
    /// A client wants all applications that have ended forgotten.
    ClearRequested {
        /// Who waits for the answer.
        reply: ReplyTo,
    },
    /// A client wants to know when an application ends.
    WaitRequested {
        /// Which.
        app: AppId,
        /// Who waits for the answer.
        reply: ReplyTo,
        /// When to answer even if it has not ended.
        deadline: Instant,
    },
    /// Somebody who waited for an application no longer does.
    WaitAbandoned {
        /// The token of the [`Event::WaitRequested`].
        reply: ReplyTo,
    },
    /// A worker reports that the process of an attempt runs.
    AttemptStarted {
        /// The worker that says so.
        worker: WorkerId,
        /// Of which application.
        app: AppId,
        /// Which attempt.
        attempt: u32,
        /// Who waits for the acknowledgement.
        reply: ReplyTo,
    },
    /// A worker reports that an attempt is over.
    AttemptEnded {
        /// The worker that says so.
        worker: WorkerId,
        /// Of which application.
        app: AppId,
        /// Which attempt.
        attempt: u32,
        /// How it ended.
        outcome: Outcome,
        /// Who waits for the acknowledgement.
        reply: ReplyTo,
    },
    /// What was to be stored of a submission could not be, and its caller was told so: it is forgotten.
    SubmissionWithdrawn {
        /// The application that was to be.
        app: AppId,
    },
    /// This process stood still: whatever was said meanwhile may still wait to be heard.
    StoodStill {
        /// For how long.
        gap: Duration,
    },
    /// The time of [`MasterCore::next_deadline`](super::MasterCore::next_deadline) has come.
    Tick,
}
