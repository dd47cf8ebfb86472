//! Frames that arrive in parts, put together.
//!
//! ```text
//! length u32   10   transfer u32   total u32   first bytes       begins a frame of `total` bytes
//! length u32   11   transfer u32   next bytes                    once or more, until `total` is reached
//! ```
//!
//! Parts of several frames mix with each other and with whole frames. The numbers of transfers are the sender's to
//! choose, and free again with the last part. Memory grows with the bytes that came: a frame's buffer is at most four
//! times as large as what has arrived of it, whatever was announced. What of a part is not in the read buffer yet is
//! read straight to its place.

use bytes::buf::Limit;
use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::frame::{FrameError, LENGTH_BYTES, checked_length};
use crate::message::{BEGIN, MORE};
use crate::transfer::{PARTS_WINDOW_BYTES, TRANSFERS_MAX};

/// How much room there is for a frame of which little has arrived.
const ROOM_MIN: usize = 4 << 10;

/// The unfinished frames of one connection.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Assembly {
    unfinished: Vec<Unfinished>,
    part: Option<Part>,
    /// Bytes of parts that came and that the sender may send anew.
    read: u32,
}

#[derive(Debug, PartialEq)]
struct Unfinished {
    transfer: u32,
    total: usize,
    bytes: Vec<u8>,
}

/// The part that is arriving: to which unfinished frame, and how many bytes it lacks.
#[derive(Debug, PartialEq)]
struct Part {
    place: usize,
    lacks: usize,
}

/// Why a peer's bytes are no frame, whole or in parts.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AssemblyError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("a part that is too short for its fields")]
    Truncated,
    #[error("more than {TRANSFERS_MAX} frames in parts at once")]
    TooMany,
    #[error("transfer {0} begins while it is under way")]
    InUse(u32),
    #[error("a part of transfer {0}, which was never begun")]
    Unknown(u32),
    #[error("transfer {transfer} brings {brings} bytes where {lacks} are due")]
    TooLong {
        transfer: u32,
        brings: usize,
        lacks: usize,
    },
}

impl Assembly {
    /// Whether no frame is unfinished.
    pub(crate) fn is_empty(&self) -> bool {
        self.unfinished.is_empty()
    }

    /// Takes the parts at the start of `buffer`, up to the first that makes a frame whole: gives that frame.
    ///
    /// # Errors
    ///
    /// No peer of ours sends such bytes. Buffer and assembly are of no use after that.
    pub(crate) fn take_parts(
        &mut self,
        buffer: &mut BytesMut,
        frame_bytes_max: usize,
    ) -> Result<Option<Bytes>, AssemblyError> {
        loop {
            if let Some(part) = &mut self.part {
                let frame = &mut self.unfinished[part.place];
                let here = buffer.len().min(part.lacks);
                self.read = self
                    .read
                    .saturating_add(u32::try_from(here).unwrap_or(u32::MAX));
                frame.make_room(here);
                frame.bytes.extend_from_slice(&buffer[..here]);
                buffer.advance(here);
                part.lacks -= here;
                if part.lacks > 0 {
                    return Ok(None);
                }
                let place = part.place;
                self.part = None;
                if let Some(frame) = self.take_whole(place) {
                    return Ok(Some(frame));
                }
            }
            if !is_part(buffer) || !self.start_part(buffer, frame_bytes_max)? {
                return Ok(None);
            }
        }
    }

    /// Takes the next frame out of `buffer`, whole or made so by parts.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn next_frame(
        &mut self,
        buffer: &mut BytesMut,
        frame_bytes_max: usize,
    ) -> Result<Option<Bytes>, AssemblyError> {
        let frame = self.take_parts(buffer, frame_bytes_max)?;
        if frame.is_some() || self.wants_bytes() || is_part(buffer) {
            return Ok(frame);
        }
        Ok(crate::frame::cut_frame(buffer, frame_bytes_max)?)
    }

    /// Takes the fields of a part out of the buffer; false while they are not whole.
    fn start_part(
        &mut self,
        buffer: &mut BytesMut,
        frame_bytes_max: usize,
    ) -> Result<bool, AssemblyError> {
        let mut fields = &buffer[..];
        let mut length = [0; LENGTH_BYTES];
        fields.copy_to_slice(&mut length);
        let length = checked_length(length, frame_bytes_max)?;
        let begins = fields.get_u8() == BEGIN;
        let fields_bytes = if begins { 8 } else { 4 };
        let Some(brings) = length.checked_sub(1 + fields_bytes) else {
            return Err(AssemblyError::Truncated);
        };
        if fields.len() < fields_bytes {
            return Ok(false);
        }
        let transfer = fields.get_u32_le();
        let known = self
            .unfinished
            .iter()
            .position(|known| known.transfer == transfer);
        let place = match (begins, known) {
            (true, None) => {
                let total = fields.get_u32_le();
                self.begin(transfer, total.to_le_bytes(), frame_bytes_max)?
            }
            (true, Some(_)) => return Err(AssemblyError::InUse(transfer)),
            (false, Some(place)) => place,
            (false, None) => return Err(AssemblyError::Unknown(transfer)),
        };
        let frame = &self.unfinished[place];
        let lacks = frame.total - frame.bytes.len();
        if brings > lacks {
            return Err(AssemblyError::TooLong {
                transfer,
                brings,
                lacks,
            });
        }
        buffer.advance(LENGTH_BYTES + 1 + fields_bytes);
        self.part = Some(Part {
            place,
            lacks: brings,
        });
        Ok(true)
    }

    fn begin(
        &mut self,
        transfer: u32,
        total: [u8; LENGTH_BYTES],
        frame_bytes_max: usize,
    ) -> Result<usize, AssemblyError> {
        let total = checked_length(total, frame_bytes_max)?;
        if self.unfinished.len() == TRANSFERS_MAX {
            return Err(AssemblyError::TooMany);
        }
        self.unfinished.push(Unfinished {
            transfer,
            total,
            bytes: Vec::new(),
        });
        Ok(self.unfinished.len() - 1)
    }

    /// The frame at this place, if it is whole.
    fn take_whole(&mut self, place: usize) -> Option<Bytes> {
        let frame = &self.unfinished[place];
        (frame.bytes.len() == frame.total)
            .then(|| Bytes::from(self.unfinished.swap_remove(place).bytes))
    }

    /// Whether the bytes that come next belong to a part, so that they are to be read into [`room`](Self::room).
    pub(crate) fn wants_bytes(&self) -> bool {
        self.part.is_some()
    }

    /// Where the next bytes go: never empty, and never beyond the end of the part.
    ///
    /// # Panics
    ///
    /// Unless it [`wants_bytes`](Self::wants_bytes).
    pub(crate) fn room(&mut self) -> Limit<&mut Vec<u8>> {
        let part = self.part.as_ref().expect("asked before");
        let frame = &mut self.unfinished[part.place];
        frame.make_room(1);
        let room = frame.bytes.capacity() - frame.bytes.len();
        (&mut frame.bytes).limit(room.min(part.lacks))
    }

    /// What holds after each step.
    ///
    /// # Panics
    ///
    /// If it does not.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn check(&self, frame_bytes_max: usize) {
        assert!(self.unfinished.len() <= TRANSFERS_MAX);
        for frame in &self.unfinished {
            let (arrived, reserved) = (frame.bytes.len(), frame.bytes.capacity());
            assert!(frame.total <= frame_bytes_max && arrived <= frame.total);
            let allowed = (4 * (arrived + 1)).max(ROOM_MIN);
            assert!(reserved <= allowed, "{reserved} bytes for {arrived}");
        }
        if let Some(part) = &self.part {
            let frame = &self.unfinished[part.place];
            assert!((1..=frame.total - frame.bytes.len()).contains(&part.lacks));
        }
    }

    /// So many bytes were put into [`room`](Self::room).
    pub(crate) fn filled(&mut self, bytes: usize) {
        if let Some(part) = &mut self.part {
            part.lacks -= bytes;
        }
        self.read = self
            .read
            .saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// How many bytes to let the sender send anew, once they are worth a frame.
    pub(crate) fn take_read(&mut self) -> Option<u32> {
        (self.read >= PARTS_WINDOW_BYTES / 4).then(|| std::mem::take(&mut self.read))
    }
}

/// Whether the frame at the start of the buffer is a part, as far as it is there.
pub(crate) fn is_part(buffer: &[u8]) -> bool {
    matches!(buffer.get(LENGTH_BYTES), Some(&(BEGIN | MORE)))
}

impl Unfinished {
    /// Makes room for so many bytes that have come, and then for three times as many as are there.
    fn make_room(&mut self, coming: usize) {
        let there = self.bytes.len() + coming;
        if self.bytes.capacity() < there {
            let room = (4 * there).max(ROOM_MIN).min(self.total);
            self.bytes.reserve_exact(room - self.bytes.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: usize = 1 << 20;

    fn begin(transfer: u32, total: u32, first: &[u8]) -> Vec<u8> {
        let fields = [transfer.to_le_bytes(), total.to_le_bytes()].concat();
        part(BEGIN, &fields, first)
    }

    fn more(transfer: u32, next: &[u8]) -> Vec<u8> {
        part(MORE, &transfer.to_le_bytes(), next)
    }

    fn part(kind: u8, fields: &[u8], bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(1 + fields.len() + bytes.len()).unwrap();
        [&length.to_le_bytes(), &[kind][..], fields, bytes].concat()
    }

    /// The frames in `wire`, which ends between two parts or frames, or the error.
    fn frames(assembly: &mut Assembly, wire: &[u8]) -> Result<Vec<Bytes>, AssemblyError> {
        let mut buffer = BytesMut::from(wire);
        let mut frames = Vec::new();
        while let Some(frame) = assembly.next_frame(&mut buffer, MAX)? {
            frames.push(frame);
        }
        assembly.check(MAX);
        Ok(frames)
    }

    #[test]
    fn parts_of_several_frames_mix_with_whole_frames() {
        let mut assembly = Assembly::default();
        let wire = [
            begin(7, 6, b"abc"),
            part(2, b"", b"whole"),
            begin(1, 3, b""),
            more(1, b"xyz"),
            more(7, b"def"),
        ];
        let expected = ["\u{2}whole", "xyz", "abcdef"].map(Bytes::from);
        assert_eq!(frames(&mut assembly, &wire.concat()), Ok(expected.to_vec()));
        assert!(assembly.is_empty());
        let again = begin(7, 1, b"z");
        assert_eq!(
            frames(&mut assembly, &again),
            Ok(vec![Bytes::from_static(b"z")]),
            "its number is free again"
        );
    }

    #[test]
    fn what_breaks_the_rules_of_parts_is_refused() {
        let nine: Vec<u8> = (0..9)
            .flat_map(|transfer| begin(transfer, 5, b"a"))
            .collect();
        let limit = FrameError::TooLarge {
            claimed: MAX + 1,
            max: MAX,
        };
        let too_long = |lacks| AssemblyError::TooLong {
            transfer: 1,
            brings: 4,
            lacks,
        };
        let broken = [
            (nine, AssemblyError::TooMany),
            (begin(1, 5, b"a").repeat(2), AssemblyError::InUse(1)),
            (more(1, b"a"), AssemblyError::Unknown(1)),
            (begin(1, 3, b"abcd"), too_long(3)),
            ([begin(1, 5, b"ab"), more(1, b"cdef")].concat(), too_long(3)),
            (
                begin(1, u32::try_from(MAX).unwrap() + 1, b"a"),
                limit.into(),
            ),
            (begin(1, 0, b""), FrameError::Empty.into()),
            (part(BEGIN, b"1234567", b""), AssemblyError::Truncated),
            (part(MORE, b"123", b""), AssemblyError::Truncated),
        ];
        for (wire, expected) in broken {
            assert_eq!(frames(&mut Assembly::default(), &wire), Err(expected));
        }
    }

    #[test]
    fn memory_grows_with_what_came_and_not_with_what_was_announced() {
        const TOTAL: u32 = 1 << 30;
        let mut assembly = Assembly::default();
        let mut wire = BytesMut::from(&begin(1, TOTAL, b"a")[..]);
        assert_eq!(assembly.next_frame(&mut wire, TOTAL as usize), Ok(None));
        assembly.check(TOTAL as usize);
        assert!(assembly.unfinished[0].bytes.capacity() <= ROOM_MIN);
        let chunk = vec![1; 256 << 10];
        wire.extend_from_slice(&more(1, &chunk));
        assert_eq!(assembly.next_frame(&mut wire, TOTAL as usize), Ok(None));
        assembly.check(TOTAL as usize);
        let reserved = assembly.unfinished[0].bytes.capacity();
        assert!(reserved <= (1 << 20) + 4, "{reserved}");
    }

    proptest! {
        /// As the reader does it: what is whole in the buffer is cut there, the rest of a part goes to its place.
        #[test]
        fn frames_in_parts_survive_any_reads(
            lengths in prop::collection::vec(1_usize..3000, 1..6),
            part_bytes in 1_usize..700,
            reads in prop::collection::vec(1_usize..900, 1..20),
        ) {
            let expected: Vec<Vec<u8>> = lengths
                .iter()
                .enumerate()
                .map(|(n, length)| (0..*length).map(|at| (at * 31 + n) as u8).collect())
                .collect();
            let mut parts = Vec::new();
            for (n, frame) in expected.iter().enumerate() {
                let transfer = u32::try_from(n).unwrap();
                for (turn, bytes) in frame.chunks(part_bytes).enumerate() {
                    let part = if turn == 0 {
                        begin(transfer, u32::try_from(frame.len()).unwrap(), bytes)
                    } else {
                        more(transfer, bytes)
                    };
                    parts.push((turn, part));
                }
            }
            // Round robin, as a writer sends them.
            parts.sort_by_key(|(turn, _)| *turn);
            let wire: Vec<u8> = parts.into_iter().flat_map(|(_, part)| part).collect();
            let mut assembly = Assembly::default();
            let mut buffer = BytesMut::new();
            let mut received = Vec::new();
            let mut rest = &wire[..];
            let mut reads = reads.iter().cycle();
            while !rest.is_empty() {
                let read = (*reads.next().unwrap()).min(rest.len());
                let read = if assembly.wants_bytes() {
                    let mut room = assembly.room();
                    let read = read.min(room.remaining_mut());
                    room.put_slice(&rest[..read]);
                    assembly.filled(read);
                    read
                } else {
                    buffer.extend_from_slice(&rest[..read]);
                    read
                };
                rest = &rest[read..];
                while let Some(frame) = assembly.next_frame(&mut buffer, 3000).unwrap() {
                    received.push(frame.to_vec());
                }
                assembly.check(3000);
            }
            prop_assert!(assembly.is_empty() && buffer.is_empty());
            received.sort();
            let mut expected = expected;
            expected.sort();
            prop_assert_eq!(received, expected);
        }
    }
}
