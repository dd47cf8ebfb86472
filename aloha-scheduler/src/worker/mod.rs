//! The worker: runs applications on one machine.

mod app_directory;
mod facts;
mod launcher;
mod logs;
mod process;
mod procfs;

pub use launcher::{
    AdoptError, Adopted, LaunchError, LaunchSpec, Launcher, Outcome, RunningApp, Signal,
    SignalError,
};
pub use logs::{LogChunk, LogError, LogStream, read_log};
pub use process::ProcessLauncher;
