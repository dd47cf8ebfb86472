//! A cluster manager for long-living applications.
//!
//! A master keeps a queue of submitted applications and places them on workers; a worker runs them and reports how
//! they end. Both minds are pure state machines, [`MasterCore`] and [`WorkerCore`]: events and
//! the time go in, effects come out, and a thin shell around each does everything that touches the world.

mod app;
mod attempt;
mod events;
mod ids;
mod now;
mod resources;

pub mod config;
pub mod master;
pub mod rest;
pub mod worker;

pub use app::{AppDescription, AppPhase, AppState, AppStatus, DescriptionError, Ending, Placement};
pub use attempt::{AttemptReport, AttemptState, HeldAttempt, Outcome};
pub use events::AlohaEvent;
pub use ids::{AppId, IdError, WorkerId};
pub use master::{MasterCore, MasterSettings};
pub use now::Now;
pub use resources::Resources;
pub use worker::{WorkerCore, WorkerRegistration, WorkerSettings};
