//! A cluster manager for long-living applications.
//!
//! A master keeps a queue of submitted applications and places them on workers; a worker runs them and reports how
//! they end. Both minds are pure state machines, [`MasterCore`] and [`WorkerCore`]: events and
//! the time go in, effects come out, and a thin shell around each does everything that touches the world.
//!
//! ```text
//!   MasterClient, rest ──► Master ──► Worker ──► runner, a process for each ──► application: a command, or
//!                                                application, outlives Worker   a type of one's own
//! ```
//!
//! - [`application`] is for those who write applications.
//! - [`runner`] is what hosts them: a program that embeds a [`Worker`] begins its `main` with
//!   [`runner::run_if_asked`].

mod app;
mod app_query;
mod attempt;
mod blocking;
mod causes;
mod client;
mod clock;
mod cluster_status;
mod constraint;
mod drain;
mod events;
mod ids;
mod jitter;
mod limits;
mod log_files;
mod log_follower;
mod messages;
mod moment;
mod now;
mod procfs;
mod recovery_mode;
mod resources;
mod restart;

pub mod application;
pub mod config;
pub mod election;
pub mod listeners;
pub mod master;
pub mod persistence;
pub mod rest;
pub mod runner;
#[cfg(feature = "testing")]
pub mod testing;
pub mod worker;
#[cfg(feature = "zookeeper")]
pub mod zookeeper;

pub use app::{
    AppDescription, AppPhase, AppState, AppStatus, DescriptionError, Ending, Placement, Transition,
    UnknownAppPhase,
};
pub use app_query::{AppsCursor, AppsPage, AppsQuery, AppsSort, BadCursor};
pub use attempt::{AttemptReport, AttemptState, HeldAttempt, Outcome};
pub use causes::with_causes;
pub use client::{ClientError, MasterClient, MasterOutcome, TriedMaster};
pub use cluster_status::ClusterStatus;
pub use constraint::{Attributes, BadConstraint, Constraint};
pub use drain::{
    Drain, DrainAnswer, DrainFate, DrainMode, DrainPhase, DrainRequest, DrainStatus, LeftApp,
};
pub use events::AlohaEvent;
pub use ids::{AppId, IdError, WorkerId};
pub use limits::{LimitError, ProcessLimits, StopPolicy, StopSignal, UnknownStopSignal};
pub use listeners::{AlohaEventListener, EventBus, Listeners};
pub use log_follower::{FollowError, LogFollower, LogNews};
pub use master::{Master, MasterBuilder, MasterCore, MasterHandle, MasterRole, MasterSettings};
pub use messages::{
    ForgetAnswer, KillAnswer, LeaderAnswer, LocalOnly, LogAnswer, LogRequest, MASTER,
    MasterMessage, RegisterAnswer, SubmitAnswer, WORKER, WorkerMessage,
};
pub use moment::Moment;
pub use now::Now;
pub use recovery_mode::{
    RecoveryKind, RecoveryMode, RecoveryModeError, RecoveryModes, RecoverySettings,
    ZooKeeperSettings,
};
pub use resources::Resources;
pub use restart::{RestartCondition, RestartPolicy, UnknownRestartCondition};
pub use worker::{Worker, WorkerCore, WorkerHandle, WorkerRegistration, WorkerSettings};
