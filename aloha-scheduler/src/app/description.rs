//! What a user asks to have run, and what of it could do harm or never work.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::constraint::{Constraint, is_name};
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
