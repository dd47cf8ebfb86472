use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a runner is told besides its application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunnerSettings {
    /// How long an application may go on once asked to end, unless its description says otherwise.
    pub kill_grace: Duration,
    /// How long a worker may be away before the application is ended.
    pub worker_timeout: Duration,
    /// The longest an application may go on once asked to end for that, whatever its grace.
    #[serde(default)]
    pub worker_lost_grace_max: Option<Duration>,
    /// What is kept of its output.
    pub logs: LogSettings,
    /// What of its resources is enforced.
    pub enforcement: Enforcement,
    /// The configuration in force, by its keys; for applications to read.
    pub configuration: BTreeMap<String, String>,
}

impl Default for RunnerSettings {
    fn default() -> Self {
        Self {
            kill_grace: Duration::from_secs(10),
            worker_timeout: Duration::from_secs(600),
            worker_lost_grace_max: None,
            logs: LogSettings::default(),
            enforcement: Enforcement::default(),
            configuration: BTreeMap::new(),
        }
    }
}

/// What is kept of each of the two outputs of an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogSettings {
    /// The size at which a file is closed and the next begun, in bytes; at the most half of `total_bytes_max`.
    pub roll_bytes: u64,
    /// The age at which a file that holds something is closed and the next begun; zero for never.
    pub roll_interval: Duration,
    /// The size of all files of one output together, in bytes; the oldest are removed for it.
    pub total_bytes_max: u64,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            roll_bytes: 16 << 20,
            roll_interval: Duration::from_secs(24 * 60 * 60),
            total_bytes_max: 128 << 20,
        }
    }
}

/// What of an application's resources its worker enforces, where the kernel lets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Enforcement {
    /// Whether its processes are kept in a cgroup at all.
    pub cgroups: bool,
    /// Whether more memory than it asked for is refused.
    pub memory: bool,
    /// How its cores count.
    pub cpu: CpuEnforcement,
}

impl Default for Enforcement {
    fn default() -> Self {
        Self {
            cgroups: true,
            memory: true,
            cpu: CpuEnforcement::Share,
        }
    }
}

/// How the cores of an application count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CpuEnforcement {
    /// Not at all.
    Off,
    /// Where processors are short, as its share of them.
    Share,
    /// As a limit, also where processors idle.
    Quota,
}
