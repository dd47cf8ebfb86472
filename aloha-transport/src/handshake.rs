//! The first bytes of a connection: who is there, and do we speak the same protocol? Pure.
//!
//! ```text
//! 0       4        6      7
//! ┌───────┬────────┬──────┬──────────────────────┐
//! │ magic │ length │ kind │ length - 1 bytes     │
//! │ ALOH  │ u16 LE │  u8  │                      │
//! └───────┴────────┴──────┴──────────────────────┘
//! kind 0, hello    version_min u16, version_max u16, codec u8, frame_bytes_max u32,
//!                  requests_in_flight_max u32, authentication u8 (0: none),
//!                  name (u8 length, UTF-8), address (u8 length, UTF-8; empty: no listener)
//! kind 1, welcome  the same; version_min = version_max = the version chosen
//! kind 2, refusal  code u8, text (the rest, UTF-8)
//! ```
//!
//! All numbers are little endian. The caller sends a hello; the server answers with a welcome or a
//! refusal. Bytes after the known fields are ignored: there is room for more.

use std::fmt;
use std::ops::RangeInclusive;

use bytes::{Buf, BufMut};

/// The newest protocol version of this build.
pub const PROTOCOL_VERSION: u16 = 1;
const PROTOCOL_VERSION_MIN: u16 = 1;

const MAGIC: &[u8; 4] = b"ALOH";
const HEADER_BYTES: usize = MAGIC.len() + 2;
/// The longest packet of a handshake, in bytes. Nobody sends more before the other end is known.
pub const HANDSHAKE_BYTES_MAX: usize = 2048;
/// What every peer must allow; so much may be sent before its own limit is known.
pub(crate) const REQUESTS_IN_FLIGHT_MIN: u32 = 4096;

const HELLO: u8 = 0;
const WELCOME: u8 = 1;
const REFUSAL: u8 = 2;

/// What one end says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The versions spoken; one, in a welcome.
    pub versions: RangeInclusive<u16>,
    /// The encoding of bodies: a number that must match.
    pub codec: u8,
    /// The largest frame this end accepts.
    pub frame_bytes_max: u32,
    /// How many unanswered requests this end accepts.
    pub requests_in_flight_max: u32,
    /// A name for logs.
    pub name: String,
    /// Where this end listens, if it does.
    pub address: Option<String>,
}

/// Why one end does not want the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reason, for programs.
    pub code: RefusalCode,
    /// The reason, for people.
    pub text: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The reasons for a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusalCode(pub u8);

impl RefusalCode {
    /// The first bytes were no hello.
    pub const NOT_ALOHA: Self = Self(1);
    /// No version is spoken by both ends.
    pub const VERSION: Self = Self(2);
    /// The codecs differ.
    pub const CODEC: Self = Self(3);
    /// No room for another connection.
    pub const BUSY: Self = Self(4);
}

/// Why the first bytes are no part of a handshake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The magic is wrong, and the bytes are those of an HTTP request or response.
    #[error("it speaks HTTP")]
    Http,
    /// The magic is wrong.
    #[error("its first bytes are {0:02x?}")]
    Magic(Vec<u8>),
    /// The packet is longer than any may be.
    #[error("a handshake of {0} bytes")]
    TooLong(usize),
    /// The packet is shorter than its fields.
    #[error("a handshake that is too short")]
    Truncated,
    /// The packet's kind is unknown or out of turn.
    #[error("a handshake packet of kind {0} out of turn")]
    Kind(u8),
}

/// What the server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Welcome(Hello),
    Refusal(Refusal),
}

impl Hello {
    /// The hello of this build.
    pub(crate) fn new(
        codec: u8,
        frame_bytes_max: usize,
        requests_in_flight_max: u32,
        name: &str,
    ) -> Self {
        Self {
            versions: PROTOCOL_VERSION_MIN..=PROTOCOL_VERSION,
            codec,
            frame_bytes_max: u32::try_from(frame_bytes_max).unwrap_or(u32::MAX),
            requests_in_flight_max: requests_in_flight_max.max(REQUESTS_IN_FLIGHT_MIN),
            name: name.to_owned(),
            address: None,
        }
    }

    /// The version both ends speak, as a welcome would say it; or the reason for a refusal.
    pub(crate) fn meet(&self, caller: &Self) -> Answer {
        let newest = *self.versions.end().min(caller.versions.end());
        if newest < *self.versions.start().max(caller.versions.start()) {
            let text = format!(
                "it speaks protocol versions {:?}, you speak {:?}",
                self.versions, caller.versions
            );
            return Answer::Refusal(Refusal {
                code: RefusalCode::VERSION,
                text,
            });
        }
        if self.codec != caller.codec {
            let text = format!(
                "it uses codec {}, you use codec {}",
                self.codec, caller.codec
            );
            return Answer::Refusal(Refusal {
                code: RefusalCode::CODEC,
                text,
            });
        }
        Answer::Welcome(Self {
            versions: newest..=newest,
            ..self.clone()
        })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        self.packet(HELLO)
    }

    fn packet(&self, kind: u8) -> Vec<u8> {
        let mut body = vec![kind];
        body.put_u16_le(*self.versions.start());
        body.put_u16_le(*self.versions.end());
        body.put_u8(self.codec);
        body.put_u32_le(self.frame_bytes_max);
        body.put_u32_le(self.requests_in_flight_max);
        body.put_u8(0);
        for text in [&*self.name, self.address.as_deref().unwrap_or("")] {
            let text = &text[..text.floor_char_boundary(usize::from(u8::MAX))];
            body.put_u8(u8::try_from(text.len()).expect("cut to 255 bytes"));
            body.put_slice(text.as_bytes());
        }
        with_header(&body)
    }

    fn decode(mut body: &[u8]) -> Option<Self> {
        let versions = body.try_get_u16_le().ok()?..=body.try_get_u16_le().ok()?;
        let codec = body.try_get_u8().ok()?;
        let frame_bytes_max = body.try_get_u32_le().ok()?;
        let requests_in_flight_max = body.try_get_u32_le().ok()?;
        let _authentication = body.try_get_u8().ok()?;
        let name = take_text(&mut body)?;
        let address = Some(take_text(&mut body)?).filter(|address| !address.is_empty());
        Some(Self {
            versions,
            codec,
            frame_bytes_max,
            requests_in_flight_max,
            name,
            address,
        })
    }
}

impl Answer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Welcome(hello) => hello.packet(WELCOME),
            Self::Refusal(refusal) => {
                let text = &refusal.text[..refusal.text.floor_char_boundary(1024)];
                with_header(&[&[REFUSAL, refusal.code.0], text.as_bytes()].concat())
            }
        }
    }
}

fn with_header(body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("texts are cut far below");
    [&MAGIC[..], &length.to_le_bytes(), body].concat()
}

fn take_text(body: &mut &[u8]) -> Option<String> {
    let length = usize::from(body.try_get_u8().ok()?);
    let (text, rest) = body.split_at_checked(length)?;
    *body = rest;
    Some(String::from_utf8_lossy(text).into_owned())
}

/// The caller's hello, once it is whole, and how many bytes it took.
pub(crate) fn read_hello(received: &[u8]) -> Result<Option<(Hello, usize)>, HandshakeError> {
    let Some((body, consumed)) = read_packet(received)? else {
        return Ok(None);
    };
    match body {
        [HELLO, rest @ ..] => Ok(Some((
            Hello::decode(rest).ok_or(HandshakeError::Truncated)?,
            consumed,
        ))),
        [other, ..] => Err(HandshakeError::Kind(*other)),
        [] => Err(HandshakeError::Truncated),
    }
}

/// The server's answer, once it is whole, and how many bytes it took.
pub(crate) fn read_answer(received: &[u8]) -> Result<Option<(Answer, usize)>, HandshakeError> {
    let Some((body, consumed)) = read_packet(received)? else {
        return Ok(None);
    };
    let answer = match body {
        [WELCOME, rest @ ..] => {
            Answer::Welcome(Hello::decode(rest).ok_or(HandshakeError::Truncated)?)
        }
        [REFUSAL, code, text @ ..] => Answer::Refusal(Refusal {
            code: RefusalCode(*code),
            text: String::from_utf8_lossy(text).into_owned(),
        }),
        [REFUSAL] | [] => return Err(HandshakeError::Truncated),
        [other, ..] => return Err(HandshakeError::Kind(*other)),
    };
    Ok(Some((answer, consumed)))
}

/// The body of the first packet, once it is whole. Strangers are recognised by their first byte.
fn read_packet(received: &[u8]) -> Result<Option<(&[u8], usize)>, HandshakeError> {
    let seen = received.len().min(MAGIC.len());
    if received[..seen] != MAGIC[..seen] {
        return Err(stranger(received));
    }
    let Some(header) = received.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
    if HEADER_BYTES + length > HANDSHAKE_BYTES_MAX {
        return Err(HandshakeError::TooLong(length));
    }
    let end = HEADER_BYTES + length;
    Ok(received.get(HEADER_BYTES..end).map(|body| (body, end)))
}

fn stranger(received: &[u8]) -> HandshakeError {
    const HTTP: [&[u8]; 8] = [
        b"GET ",
        b"POST ",
        b"HEAD ",
        b"PUT ",
        b"DELETE ",
        b"OPTIONS ",
        b"PATCH ",
        b"HTTP/",
    ];
    if HTTP.iter().any(|start| received.starts_with(start)) {
        HandshakeError::Http
    } else {
        HandshakeError::Magic(received[..received.len().min(8)].to_vec())
    }
}

/// What a stranger is told: in its own language where that is HTTP.
pub(crate) fn parting_words(error: &HandshakeError) -> Vec<u8> {
    let text = "this port speaks Aloha's RPC protocol";
    if *error == HandshakeError::Http {
        let body = format!("{text}; REST has a port of its own\n");
        let length = body.len();
        return format!(
            "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
        .into_bytes();
    }
    Answer::Refusal(Refusal {
        code: RefusalCode::NOT_ALOHA,
        text: format!("{text}, and yours is another"),
    })
    .encode()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hello() -> Hello {
        Hello {
            address: Some("h:1".into()),
            ..Hello::new(1, 1 << 20, 5000, "n")
        }
    }

    #[test]
    fn a_hello_has_these_bytes() {
        let expected = [
            b'A', b'L', b'O', b'H', 21, 0, 0, // magic, length, kind
            1, 0, 1, 0, 1, // versions, codec
            0, 0, 16, 0, 0x88, 0x13, 0, 0, 0, // limits, authentication
            1, b'n', 3, b'h', b':', b'1', // name, address
        ];
        assert_eq!(hello().encode(), expected);
        assert_eq!(read_hello(&expected), Ok(Some((hello(), expected.len()))));
    }

    #[test]
    fn a_hello_is_read_whole_or_not_at_all() {
        let bytes = hello().encode();
        for end in 0..bytes.len() {
            assert_eq!(read_hello(&bytes[..end]), Ok(None));
        }
    }

    #[test]
    fn the_newest_common_version_is_chosen() {
        let ours = Hello {
            versions: 2..=5,
            ..hello()
        };
        let theirs = Hello {
            versions: 1..=4,
            ..hello()
        };
        assert_eq!(
            ours.meet(&theirs),
            Answer::Welcome(Hello {
                versions: 4..=4,
                ..hello()
            })
        );
    }

    #[test]
    fn versions_apart_and_another_codec_are_refused() {
        let code = |ours: Hello| match ours.meet(&hello()) {
            Answer::Refusal(refusal) => Some(refusal.code),
            Answer::Welcome(_) => None,
        };
        assert_eq!(
            code(Hello {
                versions: 2..=5,
                ..hello()
            }),
            Some(RefusalCode::VERSION)
        );
        assert_eq!(
            code(Hello {
                codec: 2,
                ..hello()
            }),
            Some(RefusalCode::CODEC)
        );
    }

    #[test]
    fn strangers_are_told_apart() {
        assert_eq!(read_hello(b"GET / HTTP/1.1\r\n"), Err(HandshakeError::Http));
        assert_eq!(read_hello(b"\x16"), Err(HandshakeError::Magic(vec![0x16])));
        assert_eq!(
            read_hello(b"ALOH\xff\xff"),
            Err(HandshakeError::TooLong(0xffff))
        );
        assert_eq!(
            read_hello(b"ALOH\x01\x00\x07"),
            Err(HandshakeError::Kind(7))
        );
    }

    #[test]
    fn an_answer_survives_the_wire() {
        let refusal = Refusal {
            code: RefusalCode::BUSY,
            text: "full".into(),
        };
        for answer in [Answer::Refusal(refusal), hello().meet(&hello())] {
            let bytes = answer.encode();
            assert_eq!(read_answer(&bytes), Ok(Some((answer, bytes.len()))));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), magic in any::<bool>()) {
            let received = if magic { [&MAGIC[..], &bytes].concat() } else { bytes };
            drop(read_hello(&received));
            drop(read_answer(&received));
        }
    }
}
