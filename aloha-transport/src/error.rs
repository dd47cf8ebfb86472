//! What can go wrong, one enum per operation.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::handshake::Refusal;

/// Why a configuration cannot be kept to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A reader that polls would keep its peer from working.
    #[error("polling for {polling:?} needs two processors, and there is one")]
    Polling {
        /// [`TransportConfig::polling`](crate::TransportConfig::polling).
        polling: Duration,
    },
}

/// Why a server could not listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another process listens there.
    #[error("address {address} is already in use")]
    InUse {
        /// The address asked for.
        address: String,
    },
    /// The configuration cannot be kept to.
    #[error("cannot listen on {address}")]
    Config {
        /// The address asked for.
        address: String,
        /// Why not.
        #[source]
        source: ConfigError,
    },
    /// The system refused for another reason.
    #[error("cannot listen on {address}")]
    Io {
        /// The address asked for.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Why no connection could be made.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The system refused: nobody listens there, or there is no way to it.
    #[error("cannot connect to {address}: {source}")]
    Io {
        /// Who was called.
        address: Arc<str>,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Nobody answered in time.
    #[error("no connection to {address} within {timeout:?}")]
    TimedOut {
        /// Who was called.
        address: Arc<str>,
        /// The limit that passed.
        timeout: Duration,
    },
    /// The peer speaks our protocol and does not want us.
    #[error("{address} refused the connection: {refusal}")]
    Refused {
        /// Who was called.
        address: Arc<str>,
        /// The peer's reason.
        refusal: Refusal,
    },
    /// Whoever answered does not speak our protocol.
    #[error("{address} does not speak Aloha's protocol: {reason}")]
    NotAloha {
        /// Who was called.
        address: Arc<str>,
        /// What was wrong with its first bytes.
        reason: String,
    },
    /// An attempt failed a moment ago; this one was not made.
    #[error("not calling {address} again before another {retry_in:?}: {cause}")]
    FastFail {
        /// Who was to be called.
        address: Arc<str>,
        /// When the next attempt may be made.
        retry_in: Duration,
        /// Why the last one failed.
        cause: Arc<Self>,
    },
    /// The configuration cannot be kept to.
    #[error("cannot connect to {address}: {source}")]
    Config {
        /// Who was to be called.
        address: Arc<str>,
        /// Why not.
        source: ConfigError,
    },
    /// The factory was closed.
    #[error("cannot connect to {address}: the client factory is closed")]
    Closed {
        /// Who was to be called.
        address: Arc<str>,
    },
}

/// Why an established connection ended.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// This side closed it.
    #[error("closed by this side")]
    Local,
    /// The peer closed it between two frames.
    #[error("closed by the peer")]
    Peer,
    /// The network failed, or the peer vanished in the middle of a frame.
    #[error("{0}")]
    Io(Arc<io::Error>),
    /// The peer sent nothing, not even the answer to a ping.
    #[error("nothing was received for {silence:?}, not even an answer to a ping")]
    Silent {
        /// How long, at least.
        silence: Duration,
    },
    /// The peer broke the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(String),
    /// It was never established.
    #[error(transparent)]
    NotConnected(ConnectError),
}

/// Why a message was not queued. Nothing of it was sent.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The connection has ended.
    #[error("connection to {peer} is closed: {reason}")]
    Closed {
        /// The peer.
        peer: Arc<str>,
        /// Why it ended.
        reason: CloseReason,
    },
    /// Too many bytes wait to be written already.
    #[error("{waiting} bytes wait to be sent to {peer}, the limit is {limit}")]
    Full {
        /// The peer.
        peer: Arc<str>,
        /// Bytes waiting.
        waiting: usize,
        /// [`TransportConfig::outbound_bytes_max`](crate::TransportConfig::outbound_bytes_max).
        limit: usize,
    },
    /// Too many requests are unanswered already.
    #[error("{limit} requests to {peer} are unanswered, and that is the limit")]
    TooManyRequests {
        /// The peer.
        peer: Arc<str>,
        /// The limit in force for this connection.
        limit: u32,
    },
    /// The receiver has taken up too little of what was sent to it: no credit is left.
    #[error("the receiver at {peer} takes no more messages for now")]
    NoCredit {
        /// The peer.
        peer: Arc<str>,
    },
    /// Too many receivers were addressed over one connection.
    #[error("more than {limit} receivers at {peer} were addressed over one connection")]
    TooManyFlows {
        /// The peer.
        peer: Arc<str>,
        /// [`FLOWS_MAX`](crate::FLOWS_MAX).
        limit: u32,
    },
    /// Too many streams to the peer are open already.
    #[error("{limit} streams to {peer} are open, and that is the limit")]
    TooManyStreams {
        /// The peer.
        peer: Arc<str>,
        /// [`STREAMS_MAX`](crate::STREAMS_MAX).
        limit: u32,
    },
    /// The message does not fit into a frame that the peer accepts.
    #[error("a message of {bytes} bytes to {peer} is over {whose} limit of {limit}")]
    TooLarge {
        /// The peer.
        peer: Arc<str>,
        /// Bytes of the frame.
        bytes: usize,
        /// The smaller of both sides' [`TransportConfig::frame_bytes_max`](crate::TransportConfig::frame_bytes_max).
        limit: usize,
        /// Which side that is.
        whose: LimitOf,
    },
}

/// Whose limit the smaller of two is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitOf {
    /// The sender's own.
    Ours,
    /// That of the other end.
    Peers,
}

impl fmt::Display for LimitOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ours => "our",
            Self::Peers => "its",
        })
    }
}

/// Why a request got no reply.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The request was never queued.
    #[error(transparent)]
    NotSent(#[from] SendError),
    /// No connection came about; the peer has not seen the request.
    #[error(transparent)]
    NotConnected(ConnectError),
    /// The deadline passed first; the peer was told to stop, and may have acted on the request.
    #[error("no reply from {peer} within {timeout:?}")]
    TimedOut {
        /// The peer.
        peer: Arc<str>,
        /// What was left for the reply when the request was queued.
        timeout: Duration,
    },
    /// The connection ended while the request was in flight; whether the peer saw it is unknown.
    #[error("connection to {peer} ended before the reply: {reason}")]
    ConnectionClosed {
        /// The peer.
        peer: Arc<str>,
        /// Why it ended.
        reason: CloseReason,
    },
    /// The peer answered with a failure.
    #[error("{0}")]
    Failed(Failure),
}

/// What kind of failure a peer answered with.
///
/// The codes below 64 belong to the transport; those above are free for the layer on top.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FailureCode(pub u8);

impl FailureCode {
    /// The handler reported a failure of its own; its kind and text say which.
    pub const APPLICATION: Self = Self(0);
    /// The request was dropped without an answer.
    pub const DROPPED: Self = Self(1);
    /// The handler panicked while it held the request.
    pub const PANICKED: Self = Self(2);
    /// The asker cancelled, and the request was not handled.
    pub const CANCELLED: Self = Self(3);
    /// The reply is larger than a frame that the asker accepts.
    pub const REPLY_TOO_LARGE: Self = Self(4);
    /// Too much waits already; the request was not handled.
    pub const OVERLOADED: Self = Self(5);
    /// The request was handled, and too much waits for the asker already to send the reply.
    pub const REPLY_REFUSED: Self = Self(6);
    /// A stream comes with the request, or was to go with the reply, and there is no handler or no room for it.
    pub const STREAM_REFUSED: Self = Self(7);
}

/// A failure as it crosses the wire: a code, a kind that a program can compare, and a text for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// Who failed, and how.
    pub code: FailureCode,
    /// A word that names the failure; at most 255 bytes cross the wire.
    pub kind: String,
    /// What happened, in words.
    pub text: String,
}

impl Failure {
    /// A failure without a kind.
    pub fn new(code: FailureCode, text: impl Into<String>) -> Self {
        Self {
            code,
            kind: String::new(),
            text: text.into(),
        }
    }
}
