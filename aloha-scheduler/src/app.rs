//! What an application is, the states it goes through, and what a client sees of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::constraint::{Constraint, is_name};
use crate::ids::{AppId, WorkerId};
use crate::limits::{LimitError, ProcessLimits, StopPolicy};
use crate::resources::Resources;
use crate::restart::{RestartCondition, RestartPolicy};

/// The largest number of cores that is believed, of an application or of a worker.
pub(crate) const CORES_MAX: u32 = 1_000_000;
/// The largest amount of memory that is believed.
pub(crate) const MEMORY_MIB_MAX: u64 = 1 << 40;
pub(crate) const NAME_CHARS_MAX: usize = 256;
/// As every status has the entry point, a page of them must stay a message of sensible size.
pub(crate) const ENTRY_POINT_CHARS_MAX: usize = 1024;
pub(crate) const CONSTRAINTS_MAX: usize = 32;
pub(crate) const TAGS_MAX: usize = 32;
/// The longest time that makes sense anywhere in a description: ten years.
pub(crate) const MILLIS_MAX: u64 = 10 * 365 * 86_400_000;

/// What a user asks to have run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppDescription {
    /// A name for people; need not be unique.
    pub name: String,
    /// Which kind of application runs, such as `SimpleProcess`.
    pub entry_point: String,
    /// Absolute paths or URLs of what it needs beside it, there on every worker; for a type of one's own, the first
    /// executable among them has it.
    #[serde(default)]
    pub libs: Vec<String>,
    /// Arguments, as the entry point understands them.
    #[serde(default)]
    pub args: Vec<String>,
    /// Whole cores to set aside.
    pub cores: u32,
    /// Memory to set aside, in MiB.
    pub memory_mib: u64,
    /// Whether it runs again when it fails or its worker is lost. After a loss the attempt before may still run, where
    /// nobody reaches it: `ALOHA_ATTEMPT` tells which is newer.
    #[serde(default)]
    pub supervise: bool,
    /// Variables added to its environment.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// How it is asked to end.
    #[serde(default)]
    pub stop: StopPolicy,
    /// What each of its processes may have.
    #[serde(default)]
    pub limits: ProcessLimits,
    /// Its place in the queue: higher before lower, and among equals the one that came first.
    #[serde(default)]
    pub priority: i32,
    /// When it runs again, in more detail than `supervise` says.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// The longest an attempt may run, in milliseconds. One that runs longer is ended and has failed.
    #[serde(default)]
    pub run_millis_max: Option<u64>,
    /// What a worker must be or have.
    #[serde(default)]
    pub constraints: BTreeSet<Constraint>,
    /// What it belongs to. The master may limit how many of a tag run at once.
    #[serde(default)]
    pub tags: BTreeSet<String>,
}

/// Why a description is refused; names the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptionError {
    /// `name` is empty or blank.
    #[error("name is empty")]
    NameEmpty,
    /// `name` is too long to show.
    #[error("name has {chars} characters, more than {NAME_CHARS_MAX}")]
    NameTooLong {
        /// The length found.
        chars: usize,
    },
    /// `name` could garble a terminal or a log.
    #[error("name contains the control character {found:?}")]
    NameHasControlCharacter {
        /// The first one found.
        found: char,
    },
    /// `entry_point` is empty or blank.
    #[error("entry point is empty")]
    EntryPointEmpty,
    /// `entry_point` is too long to be one.
    #[error("entry point has {chars} characters, more than {ENTRY_POINT_CHARS_MAX}")]
    EntryPointTooLong {
        /// The length found.
        chars: usize,
    },
    /// `entry_point` could garble a terminal or a log.
    #[error("entry point contains the control character {found:?}")]
    EntryPointHasControlCharacter {
        /// The first one found.
        found: char,
    },
    /// `cores` is zero or absurd.
    #[error("cores is {cores}, not between 1 and {CORES_MAX}")]
    CoresOutOfRange {
        /// The number found.
        cores: u32,
    },
    /// `memory_mib` is absurd.
    #[error("memory is {memory_mib} MiB, more than {MEMORY_MIB_MAX} MiB")]
    MemoryOutOfRange {
        /// The amount found.
        memory_mib: u64,
    },
    /// A text that no process can be given.
    #[error("{field} contains a NUL character, which no process can be given")]
    TextHasNul {
        /// Where it stands.
        field: &'static str,
    },
    /// A variable that no process can be given.
    #[error("environment has a variable {name:?}; a name is not empty and has neither = nor NUL")]
    VariableNameInvalid {
        /// The name found.
        name: String,
    },
    /// The time to end is longer than a day.
    #[error("stop grace is {grace_millis} ms, more than a day")]
    StopGraceOutOfRange {
        /// The time found.
        grace_millis: u64,
    },
    /// A limit that makes no sense.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// A tag that is not a plain word.
    #[error("tag {tag:?} is not 1 to 64 characters of A-Z a-z 0-9 . _ -")]
    TagInvalid {
        /// The tag found.
        tag: String,
    },
    /// More tags or constraints than make sense.
    #[error("{field} has {count} entries, more than {max}")]
    TooMany {
        /// Which field.
        field: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// A time that makes no sense.
    #[error("{field} is {millis} ms, not between 1 ms and ten years")]
    TimeOutOfRange {
        /// Which field.
        field: &'static str,
        /// The time found.
        millis: u64,
    },
    /// A policy that contradicts itself.
    #[error("it is supervised, but restart says never; leave one of them out")]
    SupervisedNeverRestarts,
}

impl AppDescription {
    /// What it needs of a worker.
    pub fn needs(&self) -> Resources {
        Resources {
            cores: self.cores,
            memory_mib: self.memory_mib,
        }
    }

    /// How many bytes of text there are in it.
    pub(crate) fn text_bytes(&self) -> usize {
        let lists = self.libs.iter().chain(&self.args).map(String::len);
        let variables = self.environment.iter();
        let variables = variables.map(|(name, value)| name.len() + value.len());
        self.name.len() + self.entry_point.len() + lists.chain(variables).sum::<usize>()
    }

    /// Checks every field that could do harm or never work.
    ///
    /// # Errors
    ///
    /// The first field found wrong.
    pub fn validate(&self) -> Result<(), DescriptionError> {
        if self.name.trim().is_empty() {
            return Err(DescriptionError::NameEmpty);
        }
        let chars = self.name.chars().count();
        if chars > NAME_CHARS_MAX {
            return Err(DescriptionError::NameTooLong { chars });
        }
        if let Some(found) = self.name.chars().find(|c| c.is_control()) {
            return Err(DescriptionError::NameHasControlCharacter { found });
        }
        if self.entry_point.trim().is_empty() {
            return Err(DescriptionError::EntryPointEmpty);
        }
        let chars = self.entry_point.chars().count();
        if chars > ENTRY_POINT_CHARS_MAX {
            return Err(DescriptionError::EntryPointTooLong { chars });
        }
        if let Some(found) = self.entry_point.chars().find(|c| c.is_control()) {
            return Err(DescriptionError::EntryPointHasControlCharacter { found });
        }
        if self.cores == 0 || self.cores > CORES_MAX {
            return Err(DescriptionError::CoresOutOfRange { cores: self.cores });
        }
        if self.memory_mib > MEMORY_MIB_MAX {
            return Err(DescriptionError::MemoryOutOfRange {
                memory_mib: self.memory_mib,
            });
        }
        self.validate_texts()?;
        match self.stop.grace_millis {
            Some(grace_millis) if !self.stop.is_sensible() => {
                return Err(DescriptionError::StopGraceOutOfRange { grace_millis });
            }
            _ => {}
        }
        self.limits.validate()?;
        self.validate_policy()
    }

    /// When it runs again after an end of its own.
    pub fn restart_condition(&self) -> RestartCondition {
        self.restart.condition.unwrap_or(if self.supervise {
            RestartCondition::OnFailure
        } else {
            RestartCondition::Never
        })
    }

    /// Whether it runs again when its worker is lost.
    pub fn survives_its_worker(&self) -> bool {
        self.restart_condition() != RestartCondition::Never
    }

    fn validate_policy(&self) -> Result<(), DescriptionError> {
        if self.supervise && self.restart.condition == Some(RestartCondition::Never) {
            return Err(DescriptionError::SupervisedNeverRestarts);
        }
        let RestartPolicy {
            backoff_initial_millis,
            backoff_max_millis,
            reset_after_millis,
            ..
        } = self.restart;
        let times = [
            ("restart back-off", backoff_initial_millis),
            ("longest restart back-off", backoff_max_millis),
            ("restart reset", reset_after_millis),
            ("longest run time", self.run_millis_max),
        ];
        for (field, millis) in times {
            if let Some(millis) = millis.filter(|millis| !(1..=MILLIS_MAX).contains(millis)) {
                return Err(DescriptionError::TimeOutOfRange { field, millis });
            }
        }
        let counts = [
            ("tags", self.tags.len(), TAGS_MAX),
            ("constraints", self.constraints.len(), CONSTRAINTS_MAX),
        ];
        for (field, count, max) in counts {
            if count > max {
                return Err(DescriptionError::TooMany { field, count, max });
            }
        }
        match self.tags.iter().find(|tag| !is_name(tag)) {
            Some(tag) => Err(DescriptionError::TagInvalid { tag: tag.clone() }),
            None => Ok(()),
        }
    }

    /// Checks what becomes of it arguments and variables of a process.
    fn validate_texts(&self) -> Result<(), DescriptionError> {
        let is_name = |name: &str| !name.is_empty() && !name.contains(['=', '\0']);
        if let Some(name) = self.environment.keys().find(|name| !is_name(name)) {
            let name = name.clone();
            return Err(DescriptionError::VariableNameInvalid { name });
        }
        let has_nul = |text: &String| text.contains('\0');
        let texts = [
            ("args", self.args.iter().any(has_nul)),
            ("libs", self.libs.iter().any(has_nul)),
            ("environment", self.environment.values().any(has_nul)),
        ];
        match texts.into_iter().find(|(_, has_nul)| *has_nul) {
            Some((field, _)) => Err(DescriptionError::TextHasNul { field }),
            None => Ok(()),
        }
    }
}

/// Where an attempt runs or ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The worker's id.
    pub worker: WorkerId,
    /// The worker's address, `host:port`, as it was then.
    pub address: Arc<str>,
}

/// How an application ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// It exited with code 0.
    Finished,
    /// It exited with this code, or 128 plus the number of the signal that ended it.
    Failed(i32),
    /// It was killed by request.
    Killed,
    /// It could not run, or its worker is gone.
    Error,
}

/// Where an application stands, with what belongs to each state. Moments are milliseconds since 1970.
///
/// ```text
///                 .--------- declined --------.
///                 v                           |
///  submitted -> SUBMITTED -----------> LAUNCHING ----> RUNNING ----> FINISHED | FAILED
///                                       ^   |  ^          |          KILLED | ERROR
///                                       |   |  |          |            ^
///                         RELAUNCHING --'   v  v          v            |
///                              ^         UNKNOWN (its worker is away)--'
///                              '--- worker lost, or failed, and to run again
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppState {
    /// Waits for a worker, for the first time.
    Submitted,
    /// Waits for its time and then for a worker, after an attempt came to nothing.
    Relaunching {
        /// What became of the attempt before.
        reason: String,
        /// When it may run again at the earliest; `None` for at once.
        #[serde(default)]
        not_before: Option<u64>,
    },
    /// A worker was told to start it and has not yet said that it runs.
    Launching {
        /// Where.
        on: Placement,
    },
    /// Runs.
    Running {
        /// Where.
        on: Placement,
        /// Since when.
        since: u64,
    },
    /// Its worker is away and may come back with it.
    Unknown {
        /// Where it was last.
        on: Placement,
        /// Since when it ran, `None` if the worker never said that it did.
        since: Option<u64>,
    },
    /// Is over, for good.
    Ended {
        /// How.
        how: Ending,
        /// Where its last attempt was, if there was one.
        on: Option<Placement>,
        /// Since when its last attempt ran, if it did.
        since: Option<u64>,
        /// When it ended.
        at: u64,
        /// What a user should know besides.
        message: Option<String>,
    },
}

impl AppState {
    /// The plain form of this state.
    pub fn phase(&self) -> AppPhase {
        match self {
            Self::Submitted => AppPhase::Submitted,
            Self::Relaunching { .. } => AppPhase::Relaunching,
            Self::Launching { .. } => AppPhase::Launching,
            Self::Running { .. } => AppPhase::Running,
            Self::Unknown { .. } => AppPhase::Unknown,
            Self::Ended {
                how: Ending::Finished,
                ..
            } => AppPhase::Finished,
            Self::Ended {
                how: Ending::Failed(_),
                ..
            } => AppPhase::Failed,
            Self::Ended {
                how: Ending::Killed,
                ..
            } => AppPhase::Killed,
            Self::Ended {
                how: Ending::Error, ..
            } => AppPhase::Error,
        }
    }

    /// Where the application is now, or was last if it ended.
    pub fn placement(&self) -> Option<&Placement> {
        match self {
            Self::Submitted | Self::Relaunching { .. } => None,
            Self::Launching { on } | Self::Running { on, .. } | Self::Unknown { on, .. } => {
                Some(on)
            }
            Self::Ended { on, .. } => on.as_ref(),
        }
    }

    /// Why it is so, for the history; `None` where the name of the state says it all.
    pub(crate) fn reason(&self) -> Option<String> {
        match self {
            Self::Submitted | Self::Running { .. } => None,
            Self::Launching { on } => Some(format!("on {}", on.worker)),
            Self::Relaunching { reason, .. } => Some(reason.clone()),
            Self::Unknown { on, .. } => Some(format!("{} is disconnected", on.worker)),
            Self::Ended { how, message, .. } => match (how, message) {
                (_, Some(message)) => Some(message.clone()),
                (Ending::Killed, None) => Some("killed by request".to_owned()),
                (Ending::Failed(code), None) => Some(format!("exited with code {code}")),
                (Ending::Finished | Ending::Error, None) => None,
            },
        }
    }

    /// Since when the (last) attempt runs or ran.
    pub fn since(&self) -> Option<u64> {
        match self {
            Self::Submitted | Self::Relaunching { .. } | Self::Launching { .. } => None,
            Self::Running { since, .. } => Some(*since),
            Self::Unknown { since, .. } | Self::Ended { since, .. } => *since,
        }
    }
}

/// The plain form of an [`AppState`], for the wire and for people.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(description = "The state of an application.")]
#[expect(missing_docs, reason = "each is documented at its AppState")]
pub enum AppPhase {
    Submitted,
    Launching,
    Running,
    Finished,
    Failed,
    Killed,
    Error,
    Relaunching,
    Unknown,
}

impl AppPhase {
    /// Every phase there is.
    pub const ALL: [Self; 9] = [
        Self::Submitted,
        Self::Launching,
        Self::Running,
        Self::Finished,
        Self::Failed,
        Self::Killed,
        Self::Error,
        Self::Relaunching,
        Self::Unknown,
    ];

    /// Whether nothing follows.
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Self::Finished | Self::Failed | Self::Killed | Self::Error
        )
    }

    /// Whether an application in this phase holds resources of a worker.
    pub fn is_placed(self) -> bool {
        matches!(self, Self::Launching | Self::Running | Self::Unknown)
    }

    /// Whether `next` may follow: the one place that says so.
    pub fn may_become(self, next: Self) -> bool {
        match self {
            Self::Submitted | Self::Relaunching => {
                matches!(next, Self::Launching | Self::Killed | Self::Error)
            }
            // Back to SUBMITTED when the worker declines to start it.
            Self::Launching => next != Self::Launching,
            Self::Running => next.is_final() || matches!(next, Self::Unknown | Self::Relaunching),
            Self::Unknown => next != Self::Unknown,
            Self::Finished | Self::Failed | Self::Killed | Self::Error => false,
        }
    }
}

impl fmt::Display for AppPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Submitted => "SUBMITTED",
            Self::Launching => "LAUNCHING",
            Self::Running => "RUNNING",
            Self::Finished => "FINISHED",
            Self::Failed => "FAILED",
            Self::Killed => "KILLED",
            Self::Error => "ERROR",
            Self::Relaunching => "RELAUNCHING",
            Self::Unknown => "UNKNOWN",
        })
    }
}

/// A text that names no state of an application.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no state, expected any of {}", AppPhase::ALL.map(|phase| phase.to_string()).join(", "))]
pub struct UnknownAppPhase {
    /// The text.
    pub found: String,
}

impl FromStr for AppPhase {
    type Err = UnknownAppPhase;

    fn from_str(text: &str) -> Result<Self, UnknownAppPhase> {
        let known = Self::ALL
            .into_iter()
            .find(|phase| phase.to_string() == text);
        known.ok_or_else(|| UnknownAppPhase {
            found: text.to_owned(),
        })
    }
}

/// A change of an application's state that is past.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// The state it went to.
    pub to: AppPhase,
    /// Its latest attempt then.
    pub attempt: u32,
    /// Why, where the state alone does not say.
    #[serde(default)]
    pub reason: Option<String>,
}

/// What a client sees of an application at one moment. Moments are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppStatus {
    /// Its id.
    pub id: AppId,
    /// As in the description.
    pub name: String,
    /// As in the description.
    pub entry_point: String,
    /// As in the description.
    pub cores: u32,
    /// As in the description.
    pub memory_mib: u64,
    /// As in the description.
    pub supervise: bool,
    /// Its state.
    pub phase: AppPhase,
    /// The exit code, once there is one.
    pub exit_code: Option<i32>,
    /// The latest attempt: 1, 2, …; 0 before the first.
    pub attempt: u32,
    /// Where it is, or where its last attempt was.
    pub worker: Option<Placement>,
    /// Why it waits, if it does.
    pub waiting_for: Option<String>,
    /// What else a user should know.
    pub message: Option<String>,
    /// When it was submitted.
    pub submitted_at: Option<u64>,
    /// When its latest attempt began to run.
    pub started_at: Option<u64>,
    /// When it ended.
    pub ended_at: Option<u64>,
    /// As in the description.
    pub priority: i32,
    /// When it runs again at the earliest, if it waits for that.
    pub not_before: Option<u64>,
    /// Its last changes of state, the oldest first. Empty in lists of many applications and in events.
    pub history: Vec<Transition>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> AppDescription {
        AppDescription {
            name: "n".into(),
            entry_point: "e".into(),
            cores: 1,
            ..AppDescription::default()
        }
    }

    #[test]
    fn a_description_that_could_not_work_is_refused_by_the_name_of_its_field() {
        type Spoil = fn(&mut AppDescription);
        let cases: [(Spoil, DescriptionError); 16] = [
            (|d| d.name = " ".into(), DescriptionError::NameEmpty),
            (
                |d| d.name = "x".repeat(257),
                DescriptionError::NameTooLong { chars: 257 },
            ),
            (
                |d| d.name = "a\nb".into(),
                DescriptionError::NameHasControlCharacter { found: '\n' },
            ),
            (|d| d.entry_point.clear(), DescriptionError::EntryPointEmpty),
            (
                |d| d.entry_point = "x".repeat(1025),
                DescriptionError::EntryPointTooLong { chars: 1025 },
            ),
            (
                |d| d.entry_point = "a\u{1b}[2J".into(),
                DescriptionError::EntryPointHasControlCharacter { found: '\u{1b}' },
            ),
            (
                |d| d.cores = 0,
                DescriptionError::CoresOutOfRange { cores: 0 },
            ),
            (
                |d| d.cores = u32::MAX,
                DescriptionError::CoresOutOfRange { cores: u32::MAX },
            ),
            (
                |d| d.cores = 1_000_001,
                DescriptionError::CoresOutOfRange { cores: 1_000_001 },
            ),
            (
                |d| d.memory_mib = u64::MAX,
                DescriptionError::MemoryOutOfRange {
                    memory_mib: u64::MAX,
                },
            ),
            (
                |d| d.args = vec!["a".into(), "b\0".into()],
                DescriptionError::TextHasNul { field: "args" },
            ),
            (
                |d| d.libs = vec!["\0".into()],
                DescriptionError::TextHasNul { field: "libs" },
            ),
            (
                |d| d.environment = [("A".into(), "\0".into())].into(),
                DescriptionError::TextHasNul {
                    field: "environment",
                },
            ),
            (
                |d| d.environment = [("A=B".into(), String::new())].into(),
                DescriptionError::VariableNameInvalid { name: "A=B".into() },
            ),
            (
                |d| d.stop.grace_millis = Some(86_400_001),
                DescriptionError::StopGraceOutOfRange {
                    grace_millis: 86_400_001,
                },
            ),
            (
                |d| d.limits.processes = Some(0),
                DescriptionError::Limit(LimitError::BadValue {
                    name: "processes",
                    value: "0".into(),
                    expected: "a whole number from 1 to 4194304".into(),
                }),
            ),
        ];
        for (spoil, error) in cases {
            let mut description = good();
            spoil(&mut description);
            assert_eq!(description.validate(), Err(error));
        }
        assert_eq!(good().validate(), Ok(()));
    }

    #[test]
    fn nothing_follows_a_final_phase() {
        for (from, to) in AppPhase::ALL
            .iter()
            .flat_map(|from| AppPhase::ALL.map(|to| (*from, to)))
        {
            if from.is_final() {
                assert!(!from.may_become(to), "{from} became {to}");
            }
        }
    }

    #[test]
    fn nothing_runs_before_it_was_launched() {
        assert!(!AppPhase::Submitted.may_become(AppPhase::Running));
        assert!(!AppPhase::Submitted.may_become(AppPhase::Finished));
        assert!(!AppPhase::Relaunching.may_become(AppPhase::Running));
        assert!(!AppPhase::Running.may_become(AppPhase::Launching));
    }

    #[test]
    fn a_phase_reads_the_same_in_json_and_in_print() {
        for phase in AppPhase::ALL {
            assert_eq!(
                serde_json::to_string(&phase).unwrap(),
                format!("\"{phase}\"")
            );
        }
    }
}
