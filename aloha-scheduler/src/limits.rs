//! How an application is asked to end, and what the system lets each of its processes have.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{ByteUnit, parse_bytes};

/// The longest time that an application may be given to end: a day.
pub(crate) const GRACE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

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

impl StopSignal {
    /// Every signal there is.
    pub const ALL: [Self; 6] = [
        Self::Term,
        Self::Int,
        Self::Quit,
        Self::Hup,
        Self::Usr1,
        Self::Usr2,
    ];

    /// Its number on this system.
    pub fn number(self) -> i32 {
        self.to_system().as_raw()
    }

    pub(crate) fn to_system(self) -> rustix::process::Signal {
        match self {
            Self::Term => rustix::process::Signal::TERM,
            Self::Int => rustix::process::Signal::INT,
            Self::Quit => rustix::process::Signal::QUIT,
            Self::Hup => rustix::process::Signal::HUP,
            Self::Usr1 => rustix::process::Signal::USR1,
            Self::Usr2 => rustix::process::Signal::USR2,
        }
    }
}

/// Its name without `SIG`, as in JSON.
impl fmt::Display for StopSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Term => "TERM",
            Self::Int => "INT",
            Self::Quit => "QUIT",
            Self::Hup => "HUP",
            Self::Usr1 => "USR1",
            Self::Usr2 => "USR2",
        })
    }
}

/// A text that names no signal by which an application can be asked to end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no signal to end by, expected {}", StopSignal::expected())]
pub struct UnknownStopSignal {
    /// The text.
    pub text: String,
}

impl StopSignal {
    /// The names that are accepted, for messages.
    pub(crate) fn expected() -> String {
        format!("one of {}", Self::ALL.map(|s| s.to_string()).join(", "))
    }
}

/// `TERM` or `SIGTERM`, in any case.
impl FromStr for StopSignal {
    type Err = UnknownStopSignal;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let known = Self::ALL.into_iter().find(|s| s.to_string() == name);
        known.ok_or_else(|| UnknownStopSignal {
            text: text.to_owned(),
        })
    }
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

    /// These seconds for [`StopPolicy::grace_millis`]; `None` if they are negative or more than a day.
    pub fn grace_of_seconds(seconds: f64) -> Option<u64> {
        let grace = Duration::try_from_secs_f64(seconds).ok();
        let grace = grace.filter(|grace| *grace <= GRACE_MAX)?;
        u64::try_from(grace.as_millis()).ok()
    }

    pub(crate) fn is_sensible(&self) -> bool {
        self.grace(Duration::ZERO) <= GRACE_MAX
    }
}

/// What each process of an application may have at the most (`setrlimit`); `None` leaves it as the worker has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessLimits {
    /// Open files (`RLIMIT_NOFILE`).
    pub open_files: Option<u64>,
    /// Processes and threads of the user (`RLIMIT_NPROC`); the system does not hold root to it.
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

/// Why a limit was refused; names what is accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// There is no such limit.
    #[error("there is no limit {name:?}, expected one of {}", Limit::names())]
    Unknown {
        /// The name.
        name: String,
    },
    /// It cannot have this value.
    #[error("the limit {name} is {value}, expected {expected}")]
    BadValue {
        /// The limit.
        name: &'static str,
        /// The value.
        value: String,
        /// What is accepted.
        expected: String,
    },
}

impl ProcessLimits {
    /// Sets one limit by its name, as `openFiles` or `open-files`, to a number, or a size such as `4G` where it counts
    /// bytes.
    ///
    /// # Errors
    ///
    /// There is no such limit, or it cannot have this value.
    ///
    /// # Examples
    ///
    /// ```
    /// use aloha_scheduler::ProcessLimits;
    ///
    /// let mut limits = ProcessLimits::default();
    /// limits.set("open-files", "1024")?;
    /// limits.set("addressSpaceBytes", "4G")?;
    /// assert_eq!(limits.open_files, Some(1024));
    /// assert_eq!(limits.address_space_bytes, Some(4 << 30));
    ///
    /// let error = limits.set("openFiles", "many").unwrap_err();
    /// assert_eq!(error.to_string(), "the limit openFiles is many, expected a whole number from 8 to 1073741824");
    /// # Ok::<(), aloha_scheduler::LimitError>(())
    /// ```
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), LimitError> {
        let plain = |name: &str| name.replace('-', "").to_ascii_lowercase();
        let limit = Limit::ALL
            .iter()
            .find(|limit| plain(limit.name) == plain(name));
        let limit = limit.ok_or_else(|| LimitError::Unknown {
            name: name.to_owned(),
        })?;
        let number = match limit.is_size {
            true => parse_bytes(value, ByteUnit::Bytes),
            false => value.parse().ok(),
        };
        let number = number.filter(|number| limit.allows(*number));
        *(limit.of)(self) = Some(number.ok_or_else(|| limit.refuse(value.to_owned()))?);
        Ok(())
    }

    /// Whether each limit has a value that makes sense.
    pub(crate) fn validate(mut self) -> Result<(), LimitError> {
        Limit::ALL.iter().try_for_each(|limit| {
            let value = (limit.of)(&mut self);
            match value.filter(|value| !limit.allows(*value)) {
                Some(value) => Err(limit.refuse(value.to_string())),
                None => Ok(()),
            }
        })
    }
}

/// What is to be known of one limit.
pub(crate) struct Limit {
    /// Its name in JSON.
    pub(crate) name: &'static str,
    is_size: bool,
    pub(crate) min: u64,
    pub(crate) max: u64,
    pub(crate) of: fn(&mut ProcessLimits) -> &mut Option<u64>,
}

impl Limit {
    /// Every limit. The least values are those under which a shell still starts.
    pub(crate) const ALL: [Self; 6] = [
        Self {
            name: "openFiles",
            is_size: false,
            min: 8,
            max: 1 << 30,
            of: |limits| &mut limits.open_files,
        },
        Self {
            name: "processes",
            is_size: false,
            min: 1,
            max: 1 << 22,
            of: |limits| &mut limits.processes,
        },
        Self {
            name: "addressSpaceBytes",
            is_size: true,
            min: 16 << 20,
            max: 1 << 60,
            of: |limits| &mut limits.address_space_bytes,
        },
        Self {
            name: "fileBytes",
            is_size: true,
            min: 0,
            max: 1 << 60,
            of: |limits| &mut limits.file_bytes,
        },
        Self {
            name: "coreBytes",
            is_size: true,
            min: 0,
            max: 1 << 60,
            of: |limits| &mut limits.core_bytes,
        },
        Self {
            name: "cpuSeconds",
            is_size: false,
            min: 1,
            max: 1 << 32,
            of: |limits| &mut limits.cpu_seconds,
        },
    ];

    pub(crate) fn names() -> String {
        Self::ALL.map(|limit| limit.name).join(", ")
    }

    pub(crate) fn allows(&self, value: u64) -> bool {
        (self.min..=self.max).contains(&value)
    }

    /// What values it takes, for messages.
    pub(crate) fn expected(&self) -> String {
        let (min, max) = (self.min, self.max);
        let what = match self.is_size {
            true => "a number of bytes",
            false => "a whole number",
        };
        format!("{what} from {min} to {max}")
    }

    fn refuse(&self, value: String) -> LimitError {
        LimitError::BadValue {
            name: self.name,
            value,
            expected: self.expected(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_known_with_and_without_sig_in_any_case() {
        for (text, signal) in [
            ("TERM", StopSignal::Term),
            ("sigterm", StopSignal::Term),
            ("SigUsr1", StopSignal::Usr1),
            ("hup", StopSignal::Hup),
        ] {
            assert_eq!(text.parse(), Ok(signal), "{text}");
        }
        for signal in StopSignal::ALL {
            assert_eq!(signal.to_string().parse(), Ok(signal));
            let json = serde_json::to_string(&signal).unwrap();
            assert_eq!(json, format!("\"{signal}\""));
        }
        assert_eq!(
            StopSignal::ALL.map(StopSignal::number),
            [15, 2, 3, 1, 10, 12]
        );
        for text in ["", "SIG", "KILL", "15", "TERM "] {
            let error = text.parse::<StopSignal>().expect_err(text).to_string();
            let expected =
                "is no signal to end by, expected one of TERM, INT, QUIT, HUP, USR1, USR2";
            assert_eq!(error, format!("{text:?} {expected}"));
        }
    }

    #[test]
    fn a_grace_is_between_nothing_and_a_day() {
        let of = StopPolicy::grace_of_seconds;
        assert_eq!(
            [of(0.0), of(1.5), of(86_400.0)],
            [Some(0), Some(1500), Some(86_400_000)]
        );
        assert_eq!(
            [of(-1.0), of(86_400.1), of(f64::NAN), of(f64::INFINITY)],
            [None; 4]
        );
    }

    #[test]
    fn each_limit_is_set_by_its_name_and_only_to_what_makes_sense() {
        let mut limits = ProcessLimits::default();
        for (name, value) in [
            ("openFiles", "64"),
            ("PROCESSES", "7"),
            ("address-space-bytes", "1G"),
            ("fileBytes", "0"),
            ("core-bytes", "2k"),
            ("cpuseconds", "9"),
        ] {
            assert_eq!(limits.set(name, value), Ok(()), "{name}");
        }
        let expected = ProcessLimits {
            open_files: Some(64),
            processes: Some(7),
            address_space_bytes: Some(1 << 30),
            file_bytes: Some(0),
            core_bytes: Some(2048),
            cpu_seconds: Some(9),
        };
        assert_eq!(limits, expected);
        assert_eq!(limits.validate(), Ok(()));
        for (name, value) in [
            ("openFiles", "7"),
            ("openFiles", "1k"),
            ("openFiles", "-1"),
            ("processes", "0"),
            ("addressSpaceBytes", "1M"),
            ("fileBytes", ""),
            ("cpuSeconds", "1.5"),
        ] {
            let error = limits.set(name, value).expect_err(name).to_string();
            assert!(
                error.starts_with(&format!("the limit {name} is {value}, expected ")),
                "{error}"
            );
        }
        let error = limits.set("stack", "1").expect_err("unknown").to_string();
        let known = "openFiles, processes, addressSpaceBytes, fileBytes, coreBytes, cpuSeconds";
        assert_eq!(
            error,
            format!("there is no limit \"stack\", expected one of {known}")
        );
        assert_eq!(limits, expected);
    }
}
