//! Length-prefixed framing: bytes ↔ frames.
//!
//! ```text
//! 0        4
//! ┌────────┬──────────────────────────────┐
//! │ length │ length bytes: type, then what│
//! │ u32 LE │ the type calls for           │
//! └────────┴──────────────────────────────┘
//! ```
//!
//! The length is checked as soon as its four bytes are there. Memory grows with the bytes that
//! arrive, never with what a length claims.

use bytes::{Buf, Bytes, BytesMut};

/// Bytes of the length field.
pub const LENGTH_BYTES: usize = 4;

/// Why a peer's bytes are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A frame has at least its type.
    #[error("an empty frame")]
    Empty,
    /// The frame is over the limit.
    #[error("a frame of {claimed} bytes, the limit is {max}")]
    TooLarge {
        /// What the length field says.
        claimed: usize,
        /// The limit in force.
        max: usize,
    },
}

/// Bytes of the frame that `bytes` start with, without those of its length; `None` until it is whole.
///
/// # Errors
///
/// The length is zero or above `frame_bytes_max`. What follows is of no use after that.
pub fn whole_frame(bytes: &[u8], frame_bytes_max: usize) -> Result<Option<usize>, FrameError> {
    let Some(length) = bytes.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = checked_length(*length, frame_bytes_max)?;
    Ok((bytes.len() - LENGTH_BYTES >= length).then_some(length))
}

/// Cuts the first whole frame out of `buffer`, without its length; `None` until it is whole.
///
/// The frame shares the buffer's memory.
///
/// # Errors
///
/// The length is zero or above `frame_bytes_max`. The buffer is of no use after that.
pub fn cut_frame(
    buffer: &mut BytesMut,
    frame_bytes_max: usize,
) -> Result<Option<Bytes>, FrameError> {
    let Some(length) = whole_frame(buffer, frame_bytes_max)? else {
        return Ok(None);
    };
    buffer.advance(LENGTH_BYTES);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// What a length field says, if a frame may be so long.
pub(crate) fn checked_length(
    field: [u8; LENGTH_BYTES],
    frame_bytes_max: usize,
) -> Result<usize, FrameError> {
    let length = u32::from_le_bytes(field) as usize;
    if length == 0 {
        return Err(FrameError::Empty);
    }
    if length > frame_bytes_max {
        return Err(FrameError::TooLarge {
            claimed: length,
            max: frame_bytes_max,
        });
    }
    Ok(length)
}

// After Spark's `TransportFrameDecoderSuite`. What it says of buffers that are consolidated holds where the buffer is
// kept (`connection/reading.rs`: it grows with what came); interceptors of raw bytes there are none here: the handshake is
// over before the first frame. A negative length is one of more than two gibibytes here.
#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap();
        [&length.to_le_bytes(), body].concat()
    }

    #[test]
    fn an_empty_frame_is_refused() {
        assert_eq!(
            cut_frame(&mut BytesMut::from(&[0_u8; 4][..]), 16),
            Err(FrameError::Empty)
        );
    }

    #[test]
    fn a_length_may_come_byte_by_byte() {
        let mut buffer = BytesMut::new();
        for byte in &framed(b"ab")[..5] {
            buffer.extend_from_slice(&[*byte]);
            assert_eq!(cut_frame(&mut buffer, 16), Ok(None));
        }
        buffer.extend_from_slice(b"b");
        let frame = cut_frame(&mut buffer, 16).unwrap();
        assert_eq!(frame.as_deref(), Some(&b"ab"[..]));
    }

    #[test]
    fn a_frame_that_is_kept_stays_as_it_is() {
        let mut buffer = BytesMut::new();
        let mut kept = Vec::new();
        for n in 0..100_u8 {
            buffer.extend_from_slice(&framed(&[n; 50]));
            kept.push(cut_frame(&mut buffer, 64).unwrap().unwrap());
        }
        for (n, frame) in (0_u8..).zip(&kept) {
            assert_eq!(frame[..], [n; 50]);
        }
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_length_of_four_gibibytes_is_refused_and_reserves_nothing() {
        let mut buffer = BytesMut::from(&[0xff_u8; 4][..]);
        let before = buffer.capacity();
        let refused = FrameError::TooLarge {
            claimed: u32::MAX as usize,
            max: 16 << 20,
        };
        assert_eq!(cut_frame(&mut buffer, 16 << 20), Err(refused));
        assert_eq!(buffer.capacity(), before);
    }

    #[test]
    fn an_unfinished_frame_within_the_limit_reserves_nothing() {
        let mut buffer = BytesMut::from(&(16_u32 << 20).to_le_bytes()[..]);
        let before = buffer.capacity();
        assert_eq!(cut_frame(&mut buffer, 16 << 20), Ok(None));
        assert_eq!(buffer.capacity(), before);
    }

    proptest! {
        #[test]
        fn frames_survive_any_chunking(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 1..=100),
            chunk in 1_usize..64,
        ) {
            let wire: Vec<u8> = bodies.iter().flat_map(|body| framed(body)).collect();
            let mut buffer = BytesMut::new();
            let mut cut = Vec::new();
            for piece in wire.chunks(chunk) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = cut_frame(&mut buffer, 200).unwrap() {
                    cut.push(frame.to_vec());
                }
            }
            prop_assert_eq!(cut, bodies);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = cut_frame(&mut buffer, 64) {}
        }
    }
}
