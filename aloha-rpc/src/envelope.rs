//! What stands before every body: receiver, verb, deadline, trace, and the ids of the calls inside. Pure.
//!
//! ```text
//! flags u8    1 receiver is introduced by name    2 deadline    4 trace
//!             8 calls inside the body            16 asked      32 extension
//!            64 has a receiver                   (128: must be 0)
//! then, each where its flag is set, in this order:
//! receiver    varint number
//! name        length u8, UTF-8: from now on the number means this name on this connection
//! deadline    varint: milliseconds that are left
//! trace       trace id 16 bytes, span id 8 bytes, flags u8 (as in W3C trace context)
//! calls       count u8, request ids u32 LE: the body names them by their place, from 1
//! extension   varint length, bytes: skipped by whoever does not know them
//! ```
//!
//! A varint is LEB128. Requests and one-way messages have a receiver, replies have none. In a body, a call is the
//! place of its id: 0 is the request itself.

use std::time::Duration;

use aloha_transport::RequestId;
use bytes::{Buf, BufMut};

use crate::trace::TraceContext;

const NAMED: u8 = 1;
const DEADLINE: u8 = 2;
const TRACE: u8 = 4;
const CALLS: u8 = 8;
const ASKED: u8 = 16;
const EXTENSION: u8 = 32;
const RECEIVER: u8 = 64;
const UNKNOWN: u8 = 128;

/// The whole envelope of a reply: no flags.
pub(crate) const REPLY_ENVELOPE: u8 = 0;
/// The longest envelope that has neither name nor trace nor calls: flags, a number and a deadline.
pub(crate) const SHORT_BYTES_MAX: usize = 1 + 5 + 9;
/// How many calls one message may carry besides its own.
pub(crate) const CALLS_MAX: usize = 255;
/// The largest varint: nine bytes of seven bits.
const VARINT_MAX: u64 = u64::MAX >> 1;
/// The longest name of an endpoint, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 255;

/// The receiver of a message: a number, and the name it stands for when it is used first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Receiver<'a> {
    pub(crate) number: u32,
    pub(crate) name: Option<&'a str>,
}

/// One envelope; borrowed from the frame it came in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Envelope<'a> {
    pub(crate) receiver: Option<Receiver<'a>>,
    /// `ask` or `forward`, not `send`.
    pub(crate) asked: bool,
    pub(crate) time_left: Option<Duration>,
    pub(crate) trace: Option<TraceContext>,
    pub(crate) calls: Vec<RequestId>,
}

/// Bytes that are no envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnvelopeError {
    #[error("an envelope that ends too early")]
    Truncated,
    #[error("an envelope with unknown flags {0:#010b}")]
    Flags(u8),
    #[error("a name that is not UTF-8")]
    Name,
    #[error("a number that does not end")]
    Varint,
}

impl<'a> Envelope<'a> {
    /// Whether it has no more than [`SHORT_BYTES_MAX`] bytes for certain.
    pub(crate) fn is_short(&self) -> bool {
        self.trace.is_none()
            && self.calls.is_empty()
            && self.receiver.is_none_or(|receiver| receiver.name.is_none())
    }

    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let name = self.receiver.and_then(|receiver| receiver.name);
        out.put_u8(
            flag(self.receiver.is_some(), RECEIVER)
                | flag(name.is_some(), NAMED)
                | flag(self.time_left.is_some(), DEADLINE)
                | flag(self.trace.is_some(), TRACE)
                | flag(!self.calls.is_empty(), CALLS)
                | flag(self.asked, ASKED),
        );
        if let Some(receiver) = self.receiver {
            put_varint(out, u64::from(receiver.number));
        }
        if let Some(name) = name {
            out.put_u8(u8::try_from(name.len()).expect("names are limited to 255 bytes"));
            out.put_slice(name.as_bytes());
        }
        if let Some(left) = self.time_left {
            // Longer than anyone waits, so it may be cut to what can be written.
            let left =
                u64::try_from(left.as_millis()).map_or(VARINT_MAX, |left| left.min(VARINT_MAX));
            put_varint(out, left);
        }
        if let Some(trace) = self.trace {
            out.put_slice(&trace.trace_id);
            out.put_slice(&trace.span_id);
            out.put_u8(trace.flags);
        }
        if !self.calls.is_empty() {
            out.put_u8(u8::try_from(self.calls.len()).expect("calls are limited to 255"));
            for id in &self.calls {
                out.put_u32_le(id.to_bits());
            }
        }
    }

    /// Takes the envelope off the front of `bytes`; what is left is the body.
    pub(crate) fn decode(bytes: &mut &'a [u8]) -> Result<Self, EnvelopeError> {
        // What most messages have.
        if let [RECEIVER, number @ 0..0x80, ref rest @ ..] = **bytes {
            *bytes = rest;
            let receiver = Some(Receiver {
                number: u32::from(number),
                name: None,
            });
            return Ok(Self {
                receiver,
                ..Self::default()
            });
        }
        let flags = take_u8(bytes)?;
        if flags & UNKNOWN != 0 || flags & (NAMED | RECEIVER) == NAMED {
            return Err(EnvelopeError::Flags(flags));
        }
        let receiver = match flags & RECEIVER {
            0 => None,
            _ => Some(Receiver {
                number: u32::try_from(take_varint(bytes)?).map_err(|_| EnvelopeError::Varint)?,
                name: if flags & NAMED == 0 {
                    None
                } else {
                    Some(take_name(bytes)?)
                },
            }),
        };
        let time_left = match flags & DEADLINE {
            0 => None,
            _ => Some(Duration::from_millis(take_varint(bytes)?)),
        };
        let trace = if flags & TRACE == 0 {
            None
        } else {
            Some(take_trace(bytes)?)
        };
        let calls = if flags & CALLS == 0 {
            Vec::new()
        } else {
            take_calls(bytes)?
        };
        if flags & EXTENSION != 0 {
            let length = usize::try_from(take_varint(bytes)?).map_err(|_| EnvelopeError::Varint)?;
            take(bytes, length)?;
        }
        Ok(Self {
            receiver,
            asked: flags & ASKED != 0,
            time_left,
            trace,
            calls,
        })
    }
}

fn put_varint(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], EnvelopeError> {
    let (taken, rest) = bytes
        .split_at_checked(length)
        .ok_or(EnvelopeError::Truncated)?;
    *bytes = rest;
    Ok(taken)
}

fn take_u8(bytes: &mut &[u8]) -> Result<u8, EnvelopeError> {
    Ok(take(bytes, 1)?[0])
}

fn take_varint(bytes: &mut &[u8]) -> Result<u64, EnvelopeError> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let byte = take_u8(bytes)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(EnvelopeError::Varint)
}

fn take_name<'a>(bytes: &mut &'a [u8]) -> Result<&'a str, EnvelopeError> {
    let length = usize::from(take_u8(bytes)?);
    std::str::from_utf8(take(bytes, length)?).map_err(|_| EnvelopeError::Name)
}

fn take_trace(bytes: &mut &[u8]) -> Result<TraceContext, EnvelopeError> {
    let (mut trace_id, mut span_id) = ([0; 16], [0; 8]);
    trace_id.copy_from_slice(take(bytes, 16)?);
    span_id.copy_from_slice(take(bytes, 8)?);
    Ok(TraceContext {
        trace_id,
        span_id,
        flags: take_u8(bytes)?,
    })
}

fn take_calls(bytes: &mut &[u8]) -> Result<Vec<RequestId>, EnvelopeError> {
    let count = usize::from(take_u8(bytes)?);
    let mut ids = take(bytes, 4 * count)?;
    Ok((0..count)
        .map(|_| RequestId::from_bits(ids.get_u32_le()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn full() -> Envelope<'static> {
        Envelope {
            receiver: Some(Receiver {
                number: 300,
                name: Some("hi"),
            }),
            asked: true,
            time_left: Some(Duration::from_millis(5)),
            trace: Some(TraceContext {
                trace_id: [7; 16],
                span_id: [8; 8],
                flags: 1,
            }),
            calls: vec![RequestId::from_bits(9)],
        }
    }

    #[test]
    fn an_envelope_has_these_bytes() {
        let mut bytes = Vec::new();
        full().encode(&mut bytes);
        let expected = [
            &[64 | 16 | 8 | 4 | 2 | 1][..],
            &[0xac, 0x02, 2, b'h', b'i', 5],
            &[7; 16],
            &[8; 8],
            &[1, 1, 9, 0, 0, 0],
        ]
        .concat();
        assert_eq!(bytes, expected);
        let mut small = Vec::new();
        Envelope {
            receiver: Some(Receiver {
                number: 3,
                name: None,
            }),
            ..Envelope::default()
        }
        .encode(&mut small);
        assert_eq!(small, [64, 3], "two bytes before a body that was sent");
    }

    #[test]
    fn an_extension_is_skipped() {
        let mut bytes = &[64_u8 | 32, 1, 2, 0xaa, 0xbb, b'b'][..];
        let envelope = Envelope::decode(&mut bytes).unwrap();
        assert_eq!(
            (envelope.receiver, bytes),
            (
                Some(Receiver {
                    number: 1,
                    name: None
                }),
                &b"b"[..]
            )
        );
    }

    #[test]
    fn a_deadline_of_any_length_can_be_read() {
        for left in [Duration::from_millis(VARINT_MAX), Duration::MAX] {
            let mut bytes = Vec::new();
            let envelope = Envelope {
                time_left: Some(left),
                ..Envelope::default()
            };
            envelope.encode(&mut bytes);
            let read = Envelope::decode(&mut &bytes[..]).map(|envelope| envelope.time_left);
            assert_eq!(read, Ok(Some(Duration::from_millis(VARINT_MAX))));
        }
    }

    #[test]
    fn an_envelope_is_read_whole_or_refused() {
        let mut bytes = Vec::new();
        full().encode(&mut bytes);
        for end in 0..bytes.len() {
            assert_eq!(
                Envelope::decode(&mut &bytes[..end]),
                Err(EnvelopeError::Truncated)
            );
        }
        assert_eq!(Envelope::decode(&mut &bytes[..]), Ok(full()));
        assert_eq!(
            Envelope::decode(&mut &[0xff_u8][..]),
            Err(EnvelopeError::Flags(0xff))
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            drop(Envelope::decode(&mut &bytes[..]));
        }
    }
}
