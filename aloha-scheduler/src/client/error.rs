//! Why a master could not be asked, and what became of each that was tried.

use std::fmt;

use aloha_rpc::{AskError, LookupError, RpcAddress};

use crate::master::STANDBY;

/// Why a master could not be asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// None of the masters leads, for as long as the client was patient. Nothing was done.
    #[error("no master leads: {}", list(tried))]
    NoMaster {
        /// What came of each.
        tried: Vec<TriedMaster>,
    },
    /// There is no answer, and asking again would not help, or did not.
    #[error("no answer from the master: {reason}{}", others(tried))]
    Unanswered {
        /// Why not.
        reason: AskError,
        /// What came of each master when it was last looked at; empty where there is only one to ask.
        tried: Vec<TriedMaster>,
    },
    /// A submission got no answer and may have been taken: submitted again, it might run twice, except under its key.
    #[error(
        "the master may have taken the application and its answer was lost: {reason}; `aloha apps{}` shows it if so, and {}{}",
        named(name),
        repeatable(key.as_deref()),
        others(tried)
    )]
    OutcomeUnknown {
        /// The name of the application; empty where a master of this process was asked.
        name: String,
        /// The key under which it can be submitted again, and still runs once.
        key: Option<String>,
        /// What happened to the answer.
        reason: AskError,
        /// What came of each master when it was last looked at; empty where there is only one to ask.
        tried: Vec<TriedMaster>,
    },
}

/// A master, and what came of it when it was last looked at.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TriedMaster {
    /// Its address.
    pub address: RpcAddress,
    /// What came of it.
    pub outcome: MasterOutcome,
}

impl fmt::Display for TriedMaster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.address, self.outcome)
    }
}

/// What came of a master.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum MasterOutcome {
    /// It has not said anything yet.
    #[error("has not answered yet")]
    Unheard,
    /// It leads.
    #[error("leads")]
    Leads,
    /// It led, and another has led since.
    #[error("led once, before epoch {epoch}")]
    Outdated {
        /// The epoch of the one after it.
        epoch: u64,
    },
    /// It is there and does not lead.
    #[error("does not lead ({text})")]
    Standby {
        /// What it says.
        text: String,
    },
    /// There is no such master.
    #[error("is no master ({reason})")]
    NotFound {
        /// What was found instead.
        reason: LookupError,
    },
    /// It did not answer.
    #[error("did not answer ({reason})")]
    Unanswered {
        /// Why not.
        reason: AskError,
    },
}

impl MasterOutcome {
    /// Whether it is a master that leads, or may soon.
    pub(super) fn is_alive(&self) -> bool {
        matches!(
            self,
            Self::Leads | Self::Standby { .. } | Self::Outdated { .. }
        )
    }
}

impl From<AskError> for MasterOutcome {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Failed { kind, text, .. } if kind == STANDBY => Self::Standby { text },
            reason => Self::Unanswered { reason },
        }
    }
}

impl From<LookupError> for MasterOutcome {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Failed { reason, .. } => Self::Unanswered { reason },
            reason => Self::NotFound { reason },
        }
    }
}

fn list(tried: &[TriedMaster]) -> String {
    if tried.is_empty() {
        return "none is named".to_owned();
    }
    let tried: Vec<_> = tried.iter().map(ToString::to_string).collect();
    tried.join("; ")
}

/// All masters, where there are more than the one that the error is about.
fn others(tried: &[TriedMaster]) -> String {
    if tried.len() < 2 {
        return String::new();
    }
    format!(" (tried: {})", list(tried))
}

fn repeatable(key: Option<&str>) -> String {
    match key {
        Some(key) => format!("submitted again under the key {key} it runs once"),
        None => "a submission with a key can be repeated safely".to_owned(),
    }
}

fn named(name: &str) -> String {
    if name.is_empty() {
        return String::new();
    }
    format!(" --name '{name}'")
}
