//! The runner: the small process between a worker and one application.

#[allow(dead_code, unused_imports, reason = "only a runner makes groups")]
mod cgroup;
#[allow(dead_code, reason = "only a runner wraps commands")]
mod rlimits;
mod settings;

pub use cgroup::{CgroupSupport, CgroupVersion, Enforced};
pub use rlimits::{EXEC_STAGE, exec_stage};
pub use settings::{CpuEnforcement, Enforcement, LogSettings, RunnerSettings};
