//! How an application is asked to end, and what the system lets each of its processes have.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The signal by which an application is asked to end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "these are the system's names")]
pub enum StopSignal {
    #[default]
    Term,
    Int,
    Quit,
    Hup,
    Usr1,
    Usr2,
}

/// How an application is asked to end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopPolicy {
    /// What its processes are sent.
    pub signal: StopSignal,
    /// How long they then may go on, in milliseconds; as long as the worker says where this is `None`.
    pub grace_millis: Option<u64>,
}

impl StopPolicy {
    /// How long an application may go on once asked to end.
    pub fn grace(&self, otherwise: Duration) -> Duration {
        self.grace_millis.map_or(otherwise, Duration::from_millis)
    }
}

/// What each process of an application may have at the most (`setrlimit`); `None` leaves it as the worker has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessLimits {
    /// Open files (`RLIMIT_NOFILE`).
    pub open_files: Option<u64>,
    /// Processes and threads of the user (`RLIMIT_NPROC`).
    pub processes: Option<u64>,
    /// Address space in bytes (`RLIMIT_AS`).
    pub address_space_bytes: Option<u64>,
    /// Size of a file in bytes (`RLIMIT_FSIZE`).
    pub file_bytes: Option<u64>,
    /// Size of a core dump in bytes (`RLIMIT_CORE`).
    pub core_bytes: Option<u64>,
    /// Processor time in seconds (`RLIMIT_CPU`).
    pub cpu_seconds: Option<u64>,
}

impl From<StopSignal> for rustix::process::Signal {
    fn from(signal: StopSignal) -> Self {
        match signal {
            StopSignal::Term => Self::TERM,
            StopSignal::Int => Self::INT,
            StopSignal::Quit => Self::QUIT,
            StopSignal::Hup => Self::HUP,
            StopSignal::Usr1 => Self::USR1,
            StopSignal::Usr2 => Self::USR2,
        }
    }
}
