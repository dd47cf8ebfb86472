//! How batches of changes lie in segments: pure.
//!
//! A batch is encoded as one stream of changes, cut where a segment is full. The segments of a batch are its *run*; they
//! follow one another, and nothing of a run counts before its last.
//!
//! ```text
//!   segment  | format 1 | epoch 8 | part 4 | parts 4 | crc32 4 | a piece of the stream |
//!   change   | 1 put    | length of key 2 | key | length of value 4 | value |
//!            | 2 delete | length of key 2 | key |
//! ```
//!
//! Numbers are big-endian. The checksum covers all other bytes of the segment.

use crate::persistence::{Change, StoredRecord};

const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 1 + 8 + 4 + 4 + 4;
const PUT: u8 = 1;
const DELETE: u8 = 2;
/// How much of a stream goes into one segment. A whole request must stay below ZooKeeper's mebibyte.
pub(super) const PIECE_BYTES_MAX: usize = 512 << 10;
/// What a run may have; one change of four gibibytes would.
const PARTS_MAX: u32 = 8192;

/// Why a segment cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadSegment {
    #[error("a newer version of Aloha wrote it")]
    Newer,
    #[error("it is damaged")]
    Damaged,
}

/// Cuts what these changes are into the segments of one run.
pub(super) fn encode(epoch: u64, changes: &[Change]) -> Vec<Vec<u8>> {
    let mut stream = Vec::new();
    for change in changes {
        match change {
            Change::Put(StoredRecord { key, value }) => {
                put_key(&mut stream, PUT, key);
                let length =
                    u32::try_from(value.len()).expect("a record has two mebibytes at most");
                stream.extend_from_slice(&length.to_be_bytes());
                stream.extend_from_slice(value);
            }
            Change::Delete { key } => put_key(&mut stream, DELETE, key),
        }
    }
    let pieces: Vec<_> = stream.chunks(PIECE_BYTES_MAX).collect();
    let parts = u32::try_from(pieces.len()).expect("fewer than there are bytes");
    let segments = (0..).zip(pieces).map(|(part, piece): (u32, &[u8])| {
        let mut segment = Vec::with_capacity(HEADER_BYTES + piece.len());
        segment.push(FORMAT);
        segment.extend_from_slice(&epoch.to_be_bytes());
        segment.extend_from_slice(&part.to_be_bytes());
        segment.extend_from_slice(&parts.to_be_bytes());
        let checksum = checksum(&segment, piece);
        segment.extend_from_slice(&checksum.to_be_bytes());
        segment.extend_from_slice(piece);
        segment
    });
    segments.collect()
}

/// How many bytes a put takes in the stream.
pub(super) fn put_bytes(record: &StoredRecord) -> usize {
    1 + 2 + record.key.len() + 4 + record.value.len()
}

fn put_key(stream: &mut Vec<u8>, kind: u8, key: &str) {
    stream.push(kind);
    let length = u16::try_from(key.len()).expect("a key has 200 bytes at most");
    stream.extend_from_slice(&length.to_be_bytes());
    stream.extend_from_slice(key.as_bytes());
}

fn checksum(header: &[u8], piece: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(piece);
    hasher.finalize()
}

/// Segments that are over: a whole run with its changes, or what is left of one that was never finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    /// The number of its first segment.
    pub(super) first: u64,
    /// How many segments.
    pub(super) parts: u32,
    /// What they hold, headers included.
    pub(super) bytes: u64,
    /// Nothing for one that was never finished.
    pub(super) changes: Vec<Change>,
}

/// Makes runs of segments that are given to it in order.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    first: u64,
    epoch: u64,
    parts: u32,
    have: u32,
    bytes: u64,
    stream: Vec<u8>,
}

impl Open {
    fn abandoned(self) -> Run {
        Run {
            first: self.first,
            parts: self.have,
            bytes: self.bytes,
            changes: Vec::new(),
        }
    }
}

impl Assembler {
    /// Takes the next segment; gives the runs that are over by it.
    pub(super) fn take(&mut self, number: u64, segment: &[u8]) -> Result<Vec<Run>, BadSegment> {
        let (header, piece) = segment
            .split_at_checked(HEADER_BYTES)
            .ok_or(BadSegment::Damaged)?;
        let (covered, expected) = header.split_at(HEADER_BYTES - 4);
        if checksum(covered, piece).to_be_bytes() != expected {
            return Err(BadSegment::Damaged);
        }
        if covered[0] != FORMAT {
            return Err(BadSegment::Newer);
        }
        let epoch = u64::from_be_bytes(covered[1..9].try_into().expect("eight bytes"));
        let part = u32::from_be_bytes(covered[9..13].try_into().expect("four bytes"));
        let parts = u32::from_be_bytes(covered[13..17].try_into().expect("four bytes"));
        if part >= parts || parts > PARTS_MAX {
            return Err(BadSegment::Damaged);
        }
        let bytes = segment.len() as u64;
        let mut over = Vec::new();
        let goes_on = self.open.as_ref().is_some_and(|open| {
            (open.epoch, open.parts, open.have) == (epoch, parts, part) && part > 0
        });
        if !goes_on {
            over.extend(self.abandon());
            if part > 0 {
                // What it went on with was never stored.
                let (parts, changes) = (1, Vec::new());
                over.push(Run {
                    first: number,
                    parts,
                    bytes,
                    changes,
                });
                return Ok(over);
            }
        }
        let open = self.open.get_or_insert_with(|| Open {
            first: number,
            epoch,
            parts,
            have: 0,
            bytes: 0,
            stream: Vec::new(),
        });
        open.have += 1;
        open.bytes += bytes;
        open.stream.extend_from_slice(piece);
        if open.have == open.parts {
            let open = self.open.take().expect("just seen");
            let changes = decode(&open.stream).ok_or(BadSegment::Damaged)?;
            over.push(Run {
                changes,
                ..open.abandoned()
            });
        }
        Ok(over)
    }

    /// Gives up what is not finished.
    pub(super) fn abandon(&mut self) -> Option<Run> {
        self.open.take().map(Open::abandoned)
    }
}

fn decode(mut stream: &[u8]) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    while let Some((&kind, rest)) = stream.split_first() {
        stream = rest;
        let length = u16::from_be_bytes(split(&mut stream, 2)?.try_into().ok()?);
        let key = split(&mut stream, length.into())?;
        let key = String::from_utf8(key.to_vec()).ok()?;
        changes.push(match kind {
            PUT => {
                let length = u32::from_be_bytes(split(&mut stream, 4)?.try_into().ok()?);
                let value = split(&mut stream, usize::try_from(length).ok()?)?.to_vec();
                Change::Put(StoredRecord { key, value })
            }
            DELETE => Change::Delete { key },
            _ => return None,
        });
    }
    Some(changes)
}

fn split<'a>(stream: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (piece, rest) = stream.split_at_checked(length)?;
    *stream = rest;
    Some(piece)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(key: &str, value: &[u8]) -> Change {
        Change::Put(StoredRecord {
            key: key.to_owned(),
            value: value.to_vec(),
        })
    }

    fn assemble(segments: impl IntoIterator<Item = Vec<u8>>) -> Vec<Run> {
        let mut assembler = Assembler::default();
        let taken = (1..)
            .zip(segments)
            .flat_map(|(number, segment)| assembler.take(number, &segment).expect("good"));
        let mut runs: Vec<_> = taken.collect();
        runs.extend(assembler.abandon());
        runs
    }

    #[test]
    fn the_layout_is_written_down() {
        let changes = [
            put("k", b"v"),
            Change::Delete {
                key: "d".to_owned(),
            },
        ];
        let mut expected = vec![1];
        expected.extend(7_u64.to_be_bytes());
        expected.extend([0, 0, 0, 0, 0, 0, 0, 1]);
        let stream = [1, 0, 1, b'k', 0, 0, 0, 1, b'v', 2, 0, 1, b'd'];
        expected.extend(checksum(&expected, &stream).to_be_bytes());
        expected.extend(stream);
        assert_eq!(encode(7, &changes), [expected]);
    }

    #[test]
    fn a_large_batch_counts_once_its_last_segment_is_there() {
        let changes = [put("small", b"1"), put("large", &vec![7; 2 << 20])];
        let segments = encode(1, &changes);
        assert_eq!(segments.len(), 5);
        assert!(
            segments
                .iter()
                .all(|segment| segment.len() <= PIECE_BYTES_MAX + HEADER_BYTES)
        );
        let runs = assemble(segments.clone());
        assert_eq!((runs.len(), runs[0].first, runs[0].parts), (1, 1, 5));
        assert_eq!(runs[0].changes, changes);
        let unfinished = assemble(segments[..4].to_vec());
        assert_eq!((unfinished.len(), unfinished[0].parts), (1, 4));
        assert_eq!(unfinished[0].changes, []);
    }

    #[test]
    fn what_a_dead_leader_did_not_finish_is_passed_over() {
        let large = encode(1, &[put("large", &vec![7; 2 << 20])]);
        let next = encode(2, &[put("next", b"1")]);
        // Two segments of a dead leader, one of the next, and one that should have followed the two.
        let segments = [&large[0], &large[1], &next[0], &large[2]].map(Clone::clone);
        let runs = assemble(segments);
        let seen: Vec<_> = runs
            .iter()
            .map(|run| (run.first, run.parts, run.changes.len()))
            .collect();
        assert_eq!(seen, [(1, 2, 0), (3, 1, 1), (4, 1, 0)]);
    }

    #[test]
    fn what_is_damaged_or_newer_is_not_taken() {
        let segment = encode(1, &[put("key", b"value")]).remove(0);
        let take = |segment: &[u8]| Assembler::default().take(1, segment).unwrap_err();
        for at in 0..segment.len() {
            let mut bad = segment.clone();
            bad[at] ^= 1;
            assert_eq!(take(&bad), BadSegment::Damaged, "byte {at}");
            assert_eq!(take(&segment[..at]), BadSegment::Damaged);
        }
        let mut newer = segment;
        newer[0] = 2;
        let sum = checksum(&newer[..17], &newer[21..]);
        newer[17..21].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(take(&newer), BadSegment::Newer);
    }

    fn any_change() -> impl Strategy<Value = Change> {
        let key = "[A-Za-z0-9._/-]{1,20}";
        prop_oneof![
            (key, prop::collection::vec(any::<u8>(), 0..50))
                .prop_map(|(key, value)| Change::Put(StoredRecord { key, value })),
            key.prop_map(|key| Change::Delete { key }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(changes in prop::collection::vec(any_change(), 1..50)) {
            let runs = assemble(encode(3, &changes));
            prop_assert_eq!(runs.len(), 1);
            prop_assert_eq!(&runs[0].changes, &changes);
        }

        #[test]
        fn no_stream_panics(stream in prop::collection::vec(any::<u8>(), 0..200)) {
            let _changes = decode(&stream);
        }
    }
}
