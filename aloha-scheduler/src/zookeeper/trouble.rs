//! What may be wrong with a ZooKeeper, in words that say what to do.

use zookeeper_client::Error;

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
