//! The runner: the small process between a worker and one application.

#[allow(dead_code, unused_imports, reason = "only a runner makes groups")]
mod cgroup;
mod settings;

pub use cgroup::{CgroupSupport, CgroupVersion, Enforced};
pub use settings::{CpuEnforcement, Enforcement, LogSettings, RunnerSettings};
