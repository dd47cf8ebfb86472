//! The runner: the small process between a worker and one application.

mod settings;

pub use settings::{CpuEnforcement, Enforcement, LogSettings, RunnerSettings};
