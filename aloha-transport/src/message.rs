//! What a frame holds.
//!
//! | type | name | after the type byte |
//! |---|---|---|
//! | 1 | `RpcRequest` | request id u32 LE, body |
//! | 2 | `OneWay` | body |
//! | 3 | `RpcResponse` | request id u32 LE, body |
//! | 4 | `RpcFailure` | request id u32 LE, code u8, length of kind u8, kind, text (UTF-8) |
//! | 5 | `Cancel` | request id u32 LE |
//! | 6 | `Ping` | nonce u64 LE |
//! | 7 | `Pong` | nonce u64 LE |
//! | 8 | `Credit` | flow u32 LE, messages u32 LE, bytes u32 LE |
//! | 9 | `Goodbye` | |
//! | 10 | `Begin` | transfer u32 LE, length of a frame u32 LE, its first bytes |
//! | 11 | `More` | transfer u32 LE, the next bytes of its frame |
//! | 12 | `PartCredit` | bytes u32 LE |
//! | 13 | `StreamRequest` | request id u32 LE, stream u32 LE, body |
//! | 14 | `StreamResponse` | request id u32 LE, stream u32 LE, body |
//! | 15 | `StreamData` | stream u32 LE, bytes |
//! | 16 | `StreamEnd` | stream u32 LE, 0 whole or 1 failed u8, text (UTF-8) |
//! | 17 | `StreamCredit` | stream u32 LE, bytes u32 LE |
//! | 18 | `StreamStop` | stream u32 LE |
//!
//! `Begin` and `More` are parts of a frame that is too large for others to wait for it. They are put together below
//! this module, which meets the whole frame alone; so a frame in parts holds no parts.
//!
//! An unknown type ends the connection: what a peer may send is settled by the version that the
//! handshake agreed on.

use std::fmt;

use bytes::{Buf, Bytes};

use crate::error::{Failure, FailureCode};

pub(crate) const RPC_REQUEST: u8 = 1;
pub(crate) const ONE_WAY: u8 = 2;
pub(crate) const RPC_RESPONSE: u8 = 3;
pub(crate) const RPC_FAILURE: u8 = 4;
pub(crate) const CANCEL: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const PONG: u8 = 7;
pub(crate) const CREDIT: u8 = 8;
pub(crate) const GOODBYE: u8 = 9;
pub(crate) const BEGIN: u8 = 10;
pub(crate) const MORE: u8 = 11;
pub(crate) const PART_CREDIT: u8 = 12;
pub(crate) const STREAM_REQUEST: u8 = 13;
pub(crate) const STREAM_RESPONSE: u8 = 14;
pub(crate) const STREAM_DATA: u8 = 15;
pub(crate) const STREAM_END: u8 = 16;
pub(crate) const STREAM_CREDIT: u8 = 17;
pub(crate) const STREAM_STOP: u8 = 18;

/// Names one unanswered request on one connection and in one direction.
///
/// The lower 22 bits are the asker's slot, the upper ten count how often it was used, so that a
/// stray answer is told from the one awaited.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u32);

impl RequestId {
    const INDEX_BITS: u32 = 22;
    pub(crate) const INDEX_MAX: u32 = (1 << Self::INDEX_BITS) - 1;

    pub(crate) fn new(index: u32, generation: u16) -> Self {
        debug_assert!(index <= Self::INDEX_MAX, "slots are limited to 22 bits");
        Self(u32::from(generation) << Self::INDEX_BITS | index)
    }

    pub(crate) fn index(self) -> u32 {
        self.0 & Self::INDEX_MAX
    }

    /// The id as it stands on the wire.
    #[must_use]
    pub fn to_bits(self) -> u32 {
        self.0
    }

    /// The id that stood on the wire.
    #[must_use]
    pub fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index(), self.0 >> Self::INDEX_BITS)
    }
}

/// Why a frame holds no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The type byte is none of this version's.
    #[error("unknown frame type {0}")]
    UnknownType(u8),
    /// The frame ends before its fields do.
    #[error("a frame of type {0} that is too short")]
    Truncated(u8),
}

/// One frame, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Asks for an answer under this id.
    RpcRequest {
        /// Chosen by the asker.
        id: RequestId,
        /// The request.
        body: Bytes,
    },
    /// Wants no answer.
    OneWay {
        /// The message.
        body: Bytes,
    },
    /// The answer.
    RpcResponse {
        /// The request answered.
        id: RequestId,
        /// The reply.
        body: Bytes,
    },
    /// The answer, when there is no reply.
    RpcFailure {
        /// The request answered.
        id: RequestId,
        /// Why there is none.
        failure: Failure,
    },
    /// The asker has lost interest; an answer is still due.
    Cancel {
        /// The request concerned.
        id: RequestId,
    },
    /// Are you there?
    Ping {
        /// Comes back in the pong.
        nonce: u64,
    },
    /// I am here.
    Pong {
        /// That of the ping.
        nonce: u64,
    },
    /// A receiver takes more.
    Credit {
        /// The receiver, by the number that the sender gave it.
        flow: u32,
        /// So many more messages.
        messages: u32,
        /// So many more bytes of messages.
        bytes: u32,
    },
    /// I take nothing new and send nothing new: send what is queued, and your own goodbye. Answers still go both ways.
    Goodbye,
    /// So many bytes of parts of large frames were read, and as many may follow.
    PartCredit {
        /// Bytes.
        bytes: u32,
    },
    /// Asks for an answer under this id; a stream follows.
    StreamRequest {
        /// Chosen by the asker.
        id: RequestId,
        /// The stream, by the number that its sender gave it.
        stream: u32,
        /// The request.
        body: Bytes,
    },
    /// The answer; a stream follows.
    StreamResponse {
        /// The request answered.
        id: RequestId,
        /// The stream, by the number that its sender gave it.
        stream: u32,
        /// The reply.
        body: Bytes,
    },
    /// The next bytes of a stream.
    StreamData {
        /// The sender's number.
        stream: u32,
        /// The bytes.
        bytes: Bytes,
    },
    /// Nothing more of a stream follows.
    StreamEnd {
        /// The sender's number.
        stream: u32,
        /// Why it is not whole, unless it is.
        failure: Option<String>,
    },
    /// The receiver of a stream takes more.
    StreamCredit {
        /// The sender's number.
        stream: u32,
        /// So many more bytes.
        bytes: u32,
    },
    /// The receiver of a stream takes nothing more; its end is still due.
    StreamStop {
        /// The sender's number.
        stream: u32,
    },
}

impl Message {
    /// Whether somebody uses the connection, which would else be idle.
    pub(crate) fn is_use(&self) -> bool {
        !matches!(
            self,
            Self::Ping { .. } | Self::Pong { .. } | Self::Credit { .. } | Self::Goodbye
        )
    }

    /// Takes a frame (without its length) apart; bodies share its memory.
    ///
    /// # Errors
    ///
    /// The type is unknown or the frame too short for it.
    pub fn decode(mut frame: Bytes) -> Result<Self, MessageError> {
        if frame.is_empty() {
            return Err(MessageError::Truncated(0));
        }
        let kind = frame.get_u8();
        let short = MessageError::Truncated(kind);
        Ok(match kind {
            RPC_REQUEST => Self::RpcRequest {
                id: take_id(&mut frame).ok_or(short)?,
                body: frame,
            },
            ONE_WAY => Self::OneWay { body: frame },
            RPC_RESPONSE => Self::RpcResponse {
                id: take_id(&mut frame).ok_or(short)?,
                body: frame,
            },
            RPC_FAILURE => {
                let id = take_id(&mut frame).ok_or(short.clone())?;
                Self::RpcFailure {
                    id,
                    failure: take_failure(&mut frame).ok_or(short)?,
                }
            }
            CANCEL => Self::Cancel {
                id: take_id(&mut frame).ok_or(short)?,
            },
            PING => Self::Ping {
                nonce: frame.try_get_u64_le().map_err(|_| short)?,
            },
            PONG => Self::Pong {
                nonce: frame.try_get_u64_le().map_err(|_| short)?,
            },
            CREDIT => {
                let mut field = || frame.try_get_u32_le().map_err(|_| short.clone());
                Self::Credit {
                    flow: field()?,
                    messages: field()?,
                    bytes: field()?,
                }
            }
            GOODBYE => Self::Goodbye,
            PART_CREDIT => Self::PartCredit {
                bytes: frame.try_get_u32_le().map_err(|_| short)?,
            },
            STREAM_REQUEST => Self::StreamRequest {
                id: take_id(&mut frame).ok_or(short.clone())?,
                stream: frame.try_get_u32_le().map_err(|_| short)?,
                body: frame,
            },
            STREAM_RESPONSE => Self::StreamResponse {
                id: take_id(&mut frame).ok_or(short.clone())?,
                stream: frame.try_get_u32_le().map_err(|_| short)?,
                body: frame,
            },
            STREAM_DATA => Self::StreamData {
                stream: frame.try_get_u32_le().map_err(|_| short)?,
                bytes: frame,
            },
            STREAM_END => {
                let stream = frame.try_get_u32_le().map_err(|_| short.clone())?;
                let failed = frame.try_get_u8().map_err(|_| short)? != 0;
                let text = || String::from_utf8_lossy(&frame).into_owned();
                Self::StreamEnd {
                    stream,
                    failure: failed.then(text),
                }
            }
            STREAM_CREDIT => Self::StreamCredit {
                stream: frame.try_get_u32_le().map_err(|_| short.clone())?,
                bytes: frame.try_get_u32_le().map_err(|_| short)?,
            },
            STREAM_STOP => Self::StreamStop {
                stream: frame.try_get_u32_le().map_err(|_| short)?,
            },
            other => return Err(MessageError::UnknownType(other)),
        })
    }
}

/// What a frame begins with.
pub(crate) enum Head {
    /// A message, asked under an id or sent; its body begins at `head`.
    Message { id: Option<RequestId>, head: usize },
    /// The answer to a request; its body begins at `head`.
    Reply { id: RequestId, head: usize },
    /// Something else, for [`Message::decode`].
    Other,
}

/// Reads no more of a frame than is needed to know where its body begins.
pub(crate) fn head(frame: &[u8]) -> Result<Head, MessageError> {
    let id = |kind| match frame.get(1..).and_then(|rest| rest.first_chunk()) {
        Some(id) => Ok(RequestId(u32::from_le_bytes(*id))),
        None => Err(MessageError::Truncated(kind)),
    };
    Ok(match frame.first() {
        Some(&RPC_REQUEST) => Head::Message {
            id: Some(id(RPC_REQUEST)?),
            head: 5,
        },
        Some(&ONE_WAY) => Head::Message { id: None, head: 1 },
        Some(&RPC_RESPONSE) => Head::Reply {
            id: id(RPC_RESPONSE)?,
            head: 5,
        },
        _ => Head::Other,
    })
}

fn take_id(frame: &mut Bytes) -> Option<RequestId> {
    frame.try_get_u32_le().ok().map(RequestId)
}

fn take_failure(frame: &mut Bytes) -> Option<Failure> {
    let code = FailureCode(frame.try_get_u8().ok()?);
    let kind_bytes = usize::from(frame.try_get_u8().ok()?);
    if frame.len() < kind_bytes {
        return None;
    }
    let kind = frame.split_to(kind_bytes);
    Some(Failure {
        code,
        kind: String::from_utf8_lossy(&kind).into_owned(),
        text: String::from_utf8_lossy(frame).into_owned(),
    })
}

/// The bytes of a failure behind its request id.
pub(crate) fn encode_failure(failure: &Failure) -> Vec<u8> {
    let kind = truncated(&failure.kind, usize::from(u8::MAX));
    let text = truncated(&failure.text, 4096);
    let mut bytes = Vec::with_capacity(2 + kind.len() + text.len());
    bytes.push(failure.code.0);
    bytes.push(u8::try_from(kind.len()).expect("truncated to 255 bytes"));
    bytes.extend_from_slice(kind.as_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// The longest start of `text` that fits into `bytes_max`, cut between two characters.
pub(crate) fn truncated(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_id_keeps_slot_and_generation_apart() {
        let id = RequestId::new(5, 3);
        assert_eq!((id.index(), id.to_bits()), (5, 3 << 22 | 5));
        assert_eq!(format!("{id:?}"), "5.3");
    }

    #[test]
    fn a_failure_keeps_kind_and_text_and_loses_what_is_too_long() {
        let failure = Failure {
            code: FailureCode(9),
            kind: "k".repeat(300),
            text: "ä".repeat(4000),
        };
        let mut bytes = Bytes::from(encode_failure(&failure));
        let back = take_failure(&mut bytes).unwrap();
        assert_eq!(
            (back.code, back.kind.len(), back.text.len()),
            (FailureCode(9), 255, 4096)
        );
    }

    proptest! {
        #[test]
        fn arbitrary_frames_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            drop(Message::decode(Bytes::from(bytes)));
        }
    }
}
