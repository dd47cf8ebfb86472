//! What may be wrong with a ZooKeeper, in words that say what to do.

use std::time::Duration;

use tokio::time::Instant;
use zookeeper_client::Error;

/// How often the log repeats what is still the matter.
const REPEATED_AFTER: Duration = Duration::from_secs(60);

/// What the log has said of a trouble that lasts: it is said once, again when it changes, and once a minute.
#[derive(Debug, Default)]
pub(super) struct Said(Option<(String, Instant)>);

impl Said {
    /// Whether this is to be said now; if so, it counts as said.
    pub(super) fn is_worth_saying(&mut self, reason: &str, now: Instant) -> bool {
        let is_news = self.0.as_ref().is_none_or(|(said, since)| {
            said != reason || now.saturating_duration_since(*since) >= REPEATED_AFTER
        });
        if is_news {
            self.0 = Some((reason.to_owned(), now));
        }
        is_news
    }
}

/// Why something could not be done.
#[derive(Debug, Clone)]
pub(super) enum Trouble {
    /// No server answers, or none that could do it.
    Away(String),
    /// A server answered that it will not.
    Refused(Error),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Away(reason) => f.write_str(reason),
            Self::Refused(Error::AuthFailed) => f.write_str(
                "authentication failed: no server knows the scheme or the secret in aloha.deploy.zookeeper.auth.file",
            ),
            Self::Refused(Error::NoAuth) => f.write_str(
                "not authorized: the nodes there belong to somebody else; all masters need the same \
                 aloha.deploy.zookeeper.auth.file, and aloha.deploy.zookeeper.acl must let them in",
            ),
            Self::Refused(Error::InvalidAcl) => f.write_str(
                "the servers do not accept aloha.deploy.zookeeper.acl for who aloha.deploy.zookeeper.auth.file says we are",
            ),
            Self::Refused(Error::NotReadOnly) => f.write_str("the server is read-only, for it sees no majority"),
            Self::Refused(Error::QuotaExceeded) => f.write_str("a quota of the directory is exceeded"),
            Self::Refused(error) => write!(f, "{error}"),
        }
    }
}

/// Whether a server has decided not to do it, so that asking again is of no use.
pub(super) fn is_refusal(error: &Error) -> bool {
    matches!(
        error,
        Error::NoNode
            | Error::NoAuth
            | Error::BadVersion
            | Error::NoChildrenForEphemerals
            | Error::NodeExists
            | Error::NotEmpty
            | Error::InvalidAcl
            | Error::AuthFailed
            | Error::NotReadOnly
            | Error::QuotaExceeded
            | Error::MarshallingError
            | Error::Unimplemented
            | Error::BadArguments(_)
            | Error::UnmarshalError { .. }
            | Error::UnexpectedErrorCode(_)
            | Error::RuntimeInconsistent
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    #[expect(
        clippy::disallowed_methods,
        reason = "some moment, of a clock that stands still"
    )]
    async fn a_trouble_that_lasts_is_said_once_a_minute_and_a_new_one_at_once() {
        let start = Instant::now();
        let mut said = Said::default();
        let mut at =
            |seconds, reason| said.is_worth_saying(reason, start + Duration::from_secs(seconds));
        assert_eq!(
            [at(0, "down"), at(1, "down"), at(59, "down")],
            [true, false, false]
        );
        assert_eq!([at(60, "down"), at(61, "down")], [true, false]);
        assert_eq!([at(62, "refused"), at(63, "down")], [true, true]);
    }
}
