//! What can go wrong, one enum per operation.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use aloha_transport::{
    BindError, CloseReason, ConfigError, Failure, FailureCode, LimitOf, RequestError,
};

use crate::config::RpcConfig;

/// Failure codes of this layer, beside those of the transport.
pub(crate) mod code {
    use aloha_transport::FailureCode;

    pub(crate) const ENDPOINT_NOT_FOUND: FailureCode = FailureCode(64);
    pub(crate) const ENDPOINT_STOPPED: FailureCode = FailureCode(65);
    pub(crate) const UNDECODABLE: FailureCode = FailureCode(66);
    pub(crate) const REPLY_UNENCODABLE: FailureCode = FailureCode(67);
    /// A relayed call whose next hop was lost.
    pub(crate) const RELAY_LOST: FailureCode = FailureCode(68);
}

/// An error of an endpoint's own: a kind that a program can compare and a text for a person.
///
/// Any [`std::error::Error`] becomes one with `?`, of kind `error`. Kind and text are all that
/// crosses the wire.
pub struct EndpointError {
    kind: Cow<'static, str>,
    cause: Cause,
}

enum Cause {
    Text(String),
    Error(Box<dyn std::error::Error + Send + Sync>),
}

impl EndpointError {
    /// The kind of a message that no callback handled.
    pub const UNHANDLED: &'static str = "unhandled";
    /// The kind of a panic.
    pub const PANIC: &'static str = "panic";
    /// The kind of a message that could not be decoded.
    pub const UNDECODABLE: &'static str = "undecodable";
    /// The kind of the end of an endpoint that this one is [linked](crate::EndpointContext::link) to.
    pub const LINKED: &'static str = "linked";

    /// The kind of the loss of an endpoint that was relayed to.
    pub const DISCONNECTED: &'static str = "disconnected";
    /// The kind of a message to a [group](crate::Group) without members.
    pub const NO_MEMBERS: &'static str = "no-members";

    /// A message that no callback handled.
    pub(crate) fn unhandled(endpoint: &str) -> Self {
        let text = format!("endpoint {endpoint} does not handle this message");
        Self::new(Self::UNHANDLED, text)
    }

    /// An error of a kind of your own, with a text.
    pub fn new(kind: impl Into<Cow<'static, str>>, text: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            cause: Cause::Text(text.into()),
        }
    }

    /// An error of a kind of your own, with a cause.
    pub fn with_kind(
        kind: impl Into<Cow<'static, str>>,
        cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            kind: kind.into(),
            cause: Cause::Error(cause.into()),
        }
    }

    /// What a program can compare.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The error this one wraps, if it wraps one.
    #[must_use]
    pub fn cause(&self) -> Option<&(dyn std::error::Error + Send + Sync + 'static)> {
        match &self.cause {
            Cause::Text(_) => None,
            Cause::Error(error) => Some(&**error),
        }
    }

    pub(crate) fn into_failure(self) -> Failure {
        let text = self.to_string();
        Failure {
            code: FailureCode::APPLICATION,
            kind: self.kind.into_owned(),
            text,
        }
    }
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Text(text) => f.write_str(text),
            Cause::Error(error) => error.fmt(f),
        }
    }
}

impl fmt::Debug for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {self}", self.kind)
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for EndpointError {
    fn from(error: E) -> Self {
        Self::with_kind("error", error)
    }
}

/// Why an environment did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Its address cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Its configuration cannot be kept to.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Why an endpoint was not set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// Another endpoint has the name.
    #[error("an endpoint named {0:?} is already set up")]
    NameTaken(String),
    /// The name is empty, longer than 255 bytes, or contains `@` or `/`.
    #[error("{0:?} is no name for an endpoint: 1 to 255 bytes, without @ and /")]
    InvalidName(String),
    /// The environment is shut down.
    #[error("the environment is shut down")]
    EnvironmentStopped,
    /// The system has no thread for it.
    #[error("cannot start a thread for endpoint {endpoint}: {reason}")]
    NoThread {
        /// Its name.
        endpoint: String,
        /// What the system said.
        reason: String,
    },
}

/// Why an endpoint was not found.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// The environment is there, the endpoint is not.
    #[error("no endpoint {uri}")]
    NotFound {
        /// What was asked for.
        uri: String,
    },
    /// The endpoint is there and speaks another message type.
    #[error("{uri} expects messages of type {expected}, not {given}")]
    WrongType {
        /// What was asked for.
        uri: String,
        /// The type it expects: the enum's name and variants.
        expected: String,
        /// The type of the reference asked for.
        given: String,
    },
    /// Nobody answered the question.
    #[error("cannot look up {uri}: {reason}")]
    Failed {
        /// What was asked for.
        uri: String,
        /// Why there was no answer.
        #[source]
        reason: AskError,
    },
    /// The text is no endpoint URI.
    #[error(transparent)]
    Address(#[from] crate::address::AddressError),
}

/// Why a message was not taken. It is dropped; calls inside it are answered with a failure.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The endpoint is stopped.
    #[error("endpoint {endpoint} is stopped")]
    EndpointStopped {
        /// To whom.
        endpoint: String,
    },
    /// This environment is shut down.
    #[error("cannot reach {endpoint}: this environment is shut down")]
    EnvironmentStopped {
        /// To whom.
        endpoint: String,
    },
    /// As many messages wait as may.
    #[error(
        "the inbox of {endpoint} is full: it takes {limit} messages, or fewer large ones ({}); reserve waits for a place",
        RpcConfig::INBOX_MESSAGES_MAX_KEY
    )]
    InboxFull {
        /// To whom.
        endpoint: String,
        /// How many messages may wait: fewer than configured where only so many fit into the bytes that may.
        limit: usize,
    },
    /// A remote endpoint has not taken up enough of what it was sent.
    #[error("{endpoint} takes no more messages for now; reserve waits for a place")]
    NoCredit {
        /// To whom.
        endpoint: String,
    },
    /// A helper endpoint on the way could not be set up.
    #[error("cannot reach {endpoint}: {reason}")]
    NotSetUp {
        /// To whom.
        endpoint: String,
        /// Why not.
        #[source]
        reason: SetupError,
    },
    /// The connection does not take it.
    #[error("cannot send to {endpoint}: {reason}")]
    Transport {
        /// To whom.
        endpoint: String,
        /// What the transport said.
        #[source]
        reason: aloha_transport::SendError,
    },
    /// The message is larger than this environment sends, or than the other accepts.
    #[error(
        "a message of {bytes} bytes to {endpoint} is over {whose} limit of {limit}, which {key} controls"
    )]
    TooLarge {
        /// To whom.
        endpoint: String,
        /// Its size, with what stands before it.
        bytes: usize,
        /// The smaller of both limits.
        limit: usize,
        /// Which environment's that is.
        whose: LimitOf,
        /// The configuration key of the limit.
        key: &'static str,
    },
    /// The message cannot be encoded.
    #[error("cannot encode a message to {endpoint}: {reason}")]
    Unencodable {
        /// To whom.
        endpoint: String,
        /// What the codec said.
        reason: String,
    },
}

impl SendError {
    pub(crate) fn of_transport(endpoint: String, reason: aloha_transport::SendError) -> Self {
        match reason {
            aloha_transport::SendError::NoCredit { .. } => Self::NoCredit { endpoint },
            aloha_transport::SendError::TooLarge {
                bytes,
                limit,
                whose,
                ..
            } => Self::TooLarge {
                endpoint,
                bytes,
                limit,
                whose,
                key: RpcConfig::MESSAGE_BYTES_MAX_KEY,
            },
            reason => Self::Transport { endpoint, reason },
        }
    }

    /// Whether a bound was reached, so that the same message may be taken later.
    #[must_use]
    pub fn is_overload(&self) -> bool {
        match self {
            Self::InboxFull { .. } | Self::NoCredit { .. } => true,
            Self::Transport { reason, .. } => matches!(
                reason,
                aloha_transport::SendError::Full { .. }
                    | aloha_transport::SendError::TooManyRequests { .. }
            ),
            Self::EndpointStopped { .. }
            | Self::EnvironmentStopped { .. }
            | Self::NotSetUp { .. }
            | Self::TooLarge { .. }
            | Self::Unencodable { .. } => false,
        }
    }
}

/// Why an ask has no reply.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The message was not taken; the endpoint has not seen it.
    #[error(transparent)]
    NotSent(#[from] SendError),
    /// No connection came about; the endpoint has not seen the message.
    #[error("cannot ask {endpoint}: {reason}")]
    NotConnected {
        /// Who was asked.
        endpoint: String,
        /// Why there is no connection.
        #[source]
        reason: aloha_transport::ConnectError,
    },
    /// The connection ended first; whether the endpoint saw the message is unknown.
    #[error("the connection to {endpoint} ended before the reply: {reason}")]
    Disconnected {
        /// Who was asked.
        endpoint: String,
        /// Why it ended.
        #[source]
        reason: CloseReason,
    },
    /// The time limit passed first.
    #[error("no reply from {endpoint} within {timeout:?}, which {key} controls")]
    TimedOut {
        /// Who was asked.
        endpoint: String,
        /// The limit.
        timeout: Duration,
        /// The configuration key of the limit.
        key: &'static str,
    },
    /// There is no such endpoint.
    #[error("no endpoint {endpoint}")]
    EndpointNotFound {
        /// Who was asked.
        endpoint: String,
    },
    /// The endpoint is stopped, or stopped before it came to the message or answered a call that it kept.
    #[error("endpoint {endpoint} is stopped")]
    EndpointStopped {
        /// Who was asked.
        endpoint: String,
    },
    /// This environment was shut down first.
    #[error("no reply from {endpoint}: this environment is shut down")]
    EnvironmentStopped {
        /// Who was asked.
        endpoint: String,
    },
    /// Too much waits there already: messages for the endpoint, or answers for this asker.
    #[error("{endpoint} is overloaded: {text}")]
    Overloaded {
        /// Who was asked.
        endpoint: String,
        /// What is full.
        text: String,
    },
    /// The endpoint cannot read the message.
    #[error("{endpoint} cannot decode the message: {text}")]
    Undecodable {
        /// Who was asked.
        endpoint: String,
        /// What the codec said.
        text: String,
    },
    /// The reply cannot be encoded, decoded, or is too large.
    #[error("the reply of {endpoint} did not come through: {text}")]
    BadReply {
        /// Who was asked.
        endpoint: String,
        /// What the codec said.
        text: String,
    },
    /// The endpoint dropped the call without an answer.
    #[error("{endpoint} dropped the call without an answer")]
    Dropped {
        /// Who was asked.
        endpoint: String,
    },
    /// The endpoint panicked while it held the call.
    #[error("{endpoint} panicked while it held the call")]
    Panicked {
        /// Who was asked.
        endpoint: String,
    },
    /// The call was cancelled before it was handled.
    #[error("the call to {endpoint} was cancelled")]
    Cancelled {
        /// Who was asked.
        endpoint: String,
    },
    /// Somebody who passed the call on lost the one to answer it.
    #[error("the call to {endpoint} was passed on and lost: {text}")]
    RelayLost {
        /// Who was asked.
        endpoint: String,
        /// What the relay said.
        text: String,
    },
    /// The message does not carry the context that the ask handed out.
    #[error("the message to {endpoint} does not carry the call context that ask handed out")]
    ContextMissing {
        /// Who was asked.
        endpoint: String,
    },
    /// The endpoint answered with a failure of its own.
    #[error("{endpoint} failed: {text}")]
    Failed {
        /// Who was asked.
        endpoint: String,
        /// What a program can compare.
        kind: String,
        /// What happened, in words.
        text: String,
    },
}

impl AskError {
    /// Whether a bound was reached, here or there, so that the same question may be taken later.
    #[must_use]
    pub fn is_overload(&self) -> bool {
        match self {
            Self::NotSent(error) => error.is_overload(),
            Self::Overloaded { .. } => true,
            _ => false,
        }
    }

    /// Whether an endpoint may have seen the message; if not, asking again cannot do it twice. What was refused by the
    /// other end may have been passed on there before, so it counts as seen.
    #[must_use]
    pub fn may_have_been_seen(&self) -> bool {
        !matches!(
            self,
            Self::NotSent(_) | Self::NotConnected { .. } | Self::ContextMissing { .. }
        )
    }

    /// A look-up has a limit of its own.
    pub(crate) fn of_lookup(self) -> Self {
        match self {
            Self::TimedOut {
                endpoint, timeout, ..
            } => Self::TimedOut {
                endpoint,
                timeout,
                key: RpcConfig::LOOKUP_TIMEOUT_KEY,
            },
            other => other,
        }
    }

    pub(crate) fn from_failure(endpoint: String, failure: Failure) -> Self {
        let Failure { code, kind, text } = failure;
        match code {
            FailureCode::DROPPED => Self::Dropped { endpoint },
            FailureCode::PANICKED => Self::Panicked { endpoint },
            FailureCode::CANCELLED => Self::Cancelled { endpoint },
            FailureCode::OVERLOADED => Self::Overloaded { endpoint, text },
            FailureCode::REPLY_TOO_LARGE => Self::BadReply {
                endpoint,
                text: format!(
                    "{text}, which {} controls",
                    RpcConfig::MESSAGE_BYTES_MAX_KEY
                ),
            },
            FailureCode::REPLY_REFUSED | code::REPLY_UNENCODABLE => {
                Self::BadReply { endpoint, text }
            }
            code::ENDPOINT_NOT_FOUND => Self::EndpointNotFound { endpoint },
            code::ENDPOINT_STOPPED => Self::EndpointStopped { endpoint },
            code::UNDECODABLE => Self::Undecodable { endpoint, text },
            code::RELAY_LOST => Self::RelayLost { endpoint, text },
            _ => Self::Failed {
                endpoint,
                kind,
                text,
            },
        }
    }

    pub(crate) fn from_request(endpoint: String, error: RequestError) -> Self {
        match error {
            RequestError::NotSent(reason) => {
                Self::NotSent(SendError::of_transport(endpoint, reason))
            }
            RequestError::NotConnected(reason) => Self::NotConnected { endpoint, reason },
            RequestError::TimedOut { timeout, .. } => Self::TimedOut {
                endpoint,
                timeout,
                key: RpcConfig::ASK_TIMEOUT_KEY,
            },
            RequestError::ConnectionClosed {
                reason: CloseReason::Local,
                ..
            } => Self::EnvironmentStopped { endpoint },
            RequestError::ConnectionClosed { reason, .. } => {
                Self::Disconnected { endpoint, reason }
            }
            RequestError::Failed(failure) => Self::from_failure(endpoint, failure),
            other => Self::BadReply {
                endpoint,
                text: other.to_string(),
            },
        }
    }
}
