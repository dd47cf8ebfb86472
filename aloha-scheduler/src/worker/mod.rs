//! The worker: takes on applications, sees them through, and tells its master how they end.
//!
//! Its mind is [`WorkerCore`], made like the master's: events and the time in, effects out, one deadline derived from
//! its state, and a thin shell around it that talks to masters and starts processes.
//!
//! ```text
//!                 asked in turn, pausing longer after each round
//!                 .---------------.
//!                 v               | silence, standby
//!   Started --> Searching --------'
//!                 |    ^
//!        accepted |    | connection lost, or told to register again
//!                 v    |                                  refused: ends its applications, then itself
//!               Registered (heartbeats)
//! ```
//!
//! - **Applications do not notice the loss of a master.** They run on, and how they end is kept until a master
//!   acknowledges it.
//! - **A command of an older epoch is refused**, for it comes from a master that no longer leads.
//! - **What may be started elsewhere can be made to stop in time**: a worker knows until when its master counts on it,
//!   for heartbeats are acknowledged, and where it is told so ends supervised applications before that.
//! - **A launch may arrive twice** and starts one process; two attempts of one application never run at once here.
//! - **Applications outlive their worker.** Each has a runner ([`crate::runner`]), and the next worker in the same
//!   directory takes it over: it knows what runs, and what ended meanwhile, before it looks for a master.

mod absence;
mod adoption;
mod app_directory;
mod attempts;
mod cleanup;
mod core;
mod cut_off;
mod effect;
mod endpoint;
mod event;
mod launcher;
mod lease;
mod logs;
mod registration;
mod runners;
mod search;
#[cfg(test)]
mod tests;

pub use self::cleanup::{CleanupSettings, clean_regularly};
pub use self::core::{WorkerCore, WorkerSettings};
pub use self::effect::{Effect, ExitReason, Signal};
pub use self::endpoint::{OwnEvent, Worker, WorkerHandle};
pub use self::event::{Event, FoundApp, FoundState, RegistrationAnswer};
pub use self::launcher::{
    AdoptError, Adopted, LaunchError, LaunchSpec, Launcher, RunningApp, SignalError,
};
pub use self::logs::{LogChunk, LogError, LogStream, read_log};
pub use self::registration::{Backoff, Registration, WorkerRegistration};
pub use self::runners::RunnerLauncher;
