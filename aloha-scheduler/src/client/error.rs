//! Why a master could not be asked, and what became of each that was tried.

use std::fmt;

use aloha_rpc::{AskError, ConnectError, LookupError, RpcAddress};

use crate::master::STANDBY;

/// How a master begins that says why it does not lead.
const CANNOT_LEAD: &str = "this master does not lead: ";

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
    #[error("does not lead{}", in_brackets(self.why_not()))]
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
    #[error("did not answer ({})", without_its_name(reason))]
    Unanswered {
        /// Why not.
        reason: AskError,
    },
}

impl MasterOutcome {
    /// Why it cannot lead, where it is there and says more than that another does, or will.
    #[must_use]
    pub fn why_not(&self) -> Option<&str> {
        match self {
            Self::Standby { text } => text.strip_prefix(CANNOT_LEAD),
            Self::Unheard
            | Self::Leads
            | Self::Outdated { .. }
            | Self::NotFound { .. }
            | Self::Unanswered { .. } => None,
        }
    }

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

/// What came of each; those of which the same came are named together.
fn list(tried: &[TriedMaster]) -> String {
    if tried.is_empty() {
        return "none is named".to_owned();
    }
    let mut alike: Vec<(String, Vec<String>)> = Vec::new();
    for one in tried {
        let (outcome, name) = (one.outcome.to_string(), one.address.to_string());
        match alike.iter_mut().find(|(known, _)| *known == outcome) {
            Some((_, names)) => names.push(name),
            None => alike.push((outcome, vec![name])),
        }
    }
    let said = alike.into_iter().map(|(outcome, mut names)| {
        let last = names.pop().expect("one at least");
        if names.is_empty() {
            return format!("{last} {outcome}");
        }
        format!("{} and {last} {}", names.join(", "), plural(&outcome))
    });
    said.collect::<Vec<_>>().join("; ")
}

/// What came of several.
fn plural(outcome: &str) -> String {
    let verbs = [
        ("does ", "do "),
        ("has ", "have "),
        ("is no master", "are no masters"),
    ];
    let plural = verbs.iter().find_map(|(one, several)| {
        let rest = outcome.strip_prefix(one)?;
        Some(format!("{several}{rest}"))
    });
    plural.unwrap_or_else(|| outcome.to_owned())
}

fn in_brackets(why: Option<&str>) -> String {
    why.map_or_else(String::new, |why| format!(" ({why})"))
}

/// Why a master did not answer, for who is told which one it was.
fn without_its_name(reason: &AskError) -> String {
    let AskError::NotConnected { reason, .. } = reason else {
        return reason.to_string();
    };
    let mut reason = reason;
    // How soon it is tried again does not matter any more.
    while let ConnectError::FastFail { cause, .. } = reason {
        reason = cause;
    }
    match reason {
        ConnectError::Io { source, .. } => format!("cannot connect: {source}"),
        ConnectError::TimedOut { timeout, .. } => format!("no connection within {timeout:?}"),
        other => other.to_string(),
    }
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    fn tried(host: &str, outcome: MasterOutcome) -> TriedMaster {
        let address = format!("{host}:7077").parse().expect("an address");
        TriedMaster { address, outcome }
    }

    fn standby(text: &str) -> MasterOutcome {
        let text = text.to_owned();
        MasterOutcome::Standby { text }
    }

    #[test]
    fn masters_of_which_the_same_came_are_named_together_and_each_once() {
        let nobody = |address: &str| {
            let io = ConnectError::Io {
                address: address.into(),
                source: Arc::new(io::ErrorKind::ConnectionRefused.into()),
            };
            let reason = ConnectError::FastFail {
                address: address.into(),
                retry_in: Duration::from_millis(7),
                cause: Arc::new(io),
            };
            let endpoint = format!("aloha://Master@{address}");
            AskError::NotConnected { endpoint, reason }.into()
        };
        let error = ClientError::NoMaster {
            tried: vec![
                tried("m1", standby("this master does not lead: no ZooKeeper")),
                tried("m2", nobody("m2:7077")),
                tried("m3", standby("this master does not lead: no ZooKeeper")),
                tried("m4", standby("this master is a standby: ask another")),
                tried("m5", standby("this master does not lead: no ZooKeeper")),
            ],
        };
        assert_eq!(
            error.to_string(),
            "no master leads: m1:7077, m3:7077 and m5:7077 do not lead (no ZooKeeper); \
             m2:7077 did not answer (cannot connect: connection refused); m4:7077 does not lead"
        );
    }
}
