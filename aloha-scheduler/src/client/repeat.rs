//! Whether what got no answer may be asked again.

use aloha_rpc::{AskError, SendError};

use crate::master::STANDBY;

/// What asking twice does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// The same as asking once: questions, kills, submissions with a key.
    Safe,
    /// As above; but the master passes it on to a worker, and what comes from there is the answer.
    PassedOn,
    /// It may do it twice: submissions without a key.
    Unsafe,
}

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The same master, a little later.
    Later,
    /// Whichever master leads now.
    Elsewhere,
    /// It is over: asking again would end the same way.
    GiveUp,
    /// It is over: it may have been done, and must not be done twice.
    Unknown,
}

impl Repeat {
    /// What follows from this failure.
    pub(super) fn after(self, error: &AskError) -> Next {
        match error {
            // Nobody has done anything.
            AskError::Failed { kind, .. } if kind == STANDBY => Next::Elsewhere,
            AskError::NotConnected { .. } => Next::Elsewhere,
            AskError::NotSent(error) if error.is_overload() => Next::Later,
            AskError::NotSent(SendError::EndpointStopped { .. } | SendError::Transport { .. }) => {
                Next::Elsewhere
            }
            AskError::Overloaded { .. } => Next::Later,
            AskError::EndpointNotFound { .. } if self != Self::PassedOn => Next::Elsewhere,
            AskError::NotSent(_) | AskError::ContextMissing { .. } => Next::GiveUp,
            AskError::EndpointNotFound { .. }
            | AskError::Undecodable { .. }
            | AskError::Failed { .. } => Next::GiveUp,
            // It may have been done.
            _ if self == Self::Unsafe => Next::Unknown,
            AskError::Disconnected { .. } => Next::Elsewhere,
            AskError::TimedOut { .. }
            | AskError::EndpointStopped { .. }
            | AskError::Dropped { .. }
            | AskError::Cancelled { .. }
                if self == Self::Safe =>
            {
                Next::Elsewhere
            }
            // A panic would come again, and so would an answer that cannot be read.
            _ => Next::GiveUp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_master_took_is_submitted_again_without_a_key() {
        let endpoint = || "aloha://Master@h:1".to_owned();
        let standby = AskError::Failed {
            endpoint: endpoint(),
            kind: STANDBY.to_owned(),
            text: String::new(),
        };
        let full = AskError::NotSent(SendError::InboxFull {
            endpoint: endpoint(),
            limit: 1,
        });
        let unencodable = AskError::NotSent(SendError::Unencodable {
            endpoint: endpoint(),
            reason: String::new(),
        });
        let not_found = AskError::EndpointNotFound {
            endpoint: endpoint(),
        };
        let dropped = AskError::Dropped {
            endpoint: endpoint(),
        };
        let panicked = AskError::Panicked {
            endpoint: endpoint(),
        };
        let stopped = AskError::EndpointStopped {
            endpoint: endpoint(),
        };
        use Next::{Elsewhere, GiveUp, Later, Unknown};
        for (error, without_key, safe, passed_on) in [
            (standby, Elsewhere, Elsewhere, Elsewhere),
            (full, Later, Later, Later),
            (unencodable, GiveUp, GiveUp, GiveUp),
            (not_found, Elsewhere, Elsewhere, GiveUp),
            (dropped, Unknown, Elsewhere, GiveUp),
            (panicked, Unknown, GiveUp, GiveUp),
            (stopped, Unknown, Elsewhere, GiveUp),
        ] {
            let found =
                [Repeat::Unsafe, Repeat::Safe, Repeat::PassedOn].map(|repeat| repeat.after(&error));
            assert_eq!(found, [without_key, safe, passed_on], "{error}");
        }
    }
}
