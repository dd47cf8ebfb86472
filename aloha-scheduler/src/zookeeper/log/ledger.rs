//! What lies where in the log, and which of it is to be written again: pure.
//!
//! The log is a circle: what is still valid in its oldest runs is appended again, and those runs go. What a delete was
//! written for is older than it, so that one in an oldest run has nothing left to delete.

use std::collections::{HashMap, HashSet, VecDeque};

use super::segment::{Run, put_bytes};
use crate::persistence::{Change, StoredRecord};

/// What a node costs beside its data, roughly, in a server's memory.
const NODE_BYTES: u64 = 100;
/// What is copied in one step: it fits one segment.
const STEP_LIVE_BYTES: u64 = 400 << 10;
/// What is read and deleted in one step.
const STEP_BYTES: u64 = 4 << 20;
const STEP_SEGMENTS: u64 = 512;
/// A segment for every so many valid bytes is not too many.
const FAIR_SEGMENT_BYTES: u64 = 8 << 10;

/// When a log is compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// It may have as many bytes as are valid twice over, and these.
    pub(super) bytes: u64,
    /// It may have a segment for every eight valid KiB, and these.
    pub(super) segments: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 1 << 20,
            segments: 512,
        }
    }
}

/// Where the valid records of a log lie. The values stay where they are.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The number of the segment after the last.
    next: u64,
    index: HashMap<Box<str>, Place>,
    runs: VecDeque<Extent>,
    bytes: u64,
    live: u64,
    segments: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// The first segment of its run.
    run: u64,
    bytes: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    first: u64,
    parts: u32,
    bytes: u64,
    live: u64,
}

/// A step of compaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// The segments that go, from the oldest to before this one.
    pub(super) oldest: u64,
    pub(super) end: u64,
}

impl Ledger {
    /// Of a log that begins with this segment, and has none yet.
    pub(super) fn new(oldest: u64) -> Self {
        Self {
            next: oldest,
            ..Self::default()
        }
    }

    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn oldest(&self) -> u64 {
        self.runs.front().map_or(self.next, |run| run.first)
    }

    /// Takes a run that was appended.
    pub(super) fn append(&mut self, run: &Run) {
        debug_assert_eq!(run.first, self.next, "runs follow one another");
        self.runs.push_back(Extent {
            first: run.first,
            parts: run.parts,
            bytes: run.bytes + NODE_BYTES * u64::from(run.parts),
            live: 0,
        });
        self.next = run.first + u64::from(run.parts);
        self.bytes += run.bytes + NODE_BYTES * u64::from(run.parts);
        self.segments += u64::from(run.parts);
        for change in &run.changes {
            match change {
                Change::Put(record) => self.put(run.first, record),
                Change::Delete { key } => self.forget(key),
            }
        }
    }

    fn put(&mut self, run: u64, record: &StoredRecord) {
        let bytes = u32::try_from(put_bytes(record)).expect("a record has two mebibytes at most");
        let place = Place { run, bytes };
        self.live += u64::from(bytes);
        self.extent(run).live += u64::from(bytes);
        let replaced = match self.index.get_mut(&*record.key) {
            Some(known) => Some(std::mem::replace(known, place)),
            None => self.index.insert(record.key.as_str().into(), place),
        };
        if let Some(replaced) = replaced {
            self.release(replaced);
        }
    }

    fn forget(&mut self, key: &str) {
        if let Some(place) = self.index.remove(key) {
            self.release(place);
        }
    }

    fn release(&mut self, place: Place) {
        self.live -= u64::from(place.bytes);
        self.extent(place.run).live -= u64::from(place.bytes);
    }

    fn extent(&mut self, first: u64) -> &mut Extent {
        let at = self.runs.partition_point(|run| run.first < first);
        &mut self.runs[at]
    }

    /// What is to be compacted next, if anything.
    pub(super) fn step(&self, limits: Limits) -> Option<Step> {
        let has_dead = self.bytes > 2 * self.live + limits.bytes;
        let has_many = self.segments > self.live / FAIR_SEGMENT_BYTES + limits.segments;
        if !has_dead && !has_many {
            return None;
        }
        let (mut end, mut live, mut bytes) = (self.oldest(), 0, 0);
        // The last one stays, for the log to have a newest segment.
        for run in self.runs.iter().take(self.runs.len().saturating_sub(1)) {
            let segments = run.first + u64::from(run.parts) - self.oldest();
            (live, bytes) = (live + run.live, bytes + run.bytes);
            let is_full = live > STEP_LIVE_BYTES || bytes > STEP_BYTES || segments > STEP_SEGMENTS;
            if is_full && end > self.oldest() {
                break;
            }
            end = run.first + u64::from(run.parts);
        }
        let oldest = self.oldest();
        (end > oldest).then_some(Step { oldest, end })
    }

    /// What of these runs is valid, in the order in which it was written.
    pub(super) fn valid(&self, runs: Vec<Run>) -> Vec<Change> {
        let mut valid = Vec::new();
        for run in runs {
            let mut seen = HashSet::new();
            let from = valid.len();
            for change in run.changes.into_iter().rev() {
                if let Change::Put(record) = change
                    && self
                        .index
                        .get(&*record.key)
                        .is_some_and(|place| place.run == run.first)
                    && seen.insert(record.key.clone())
                {
                    valid.push(Change::Put(record));
                }
            }
            valid[from..].reverse();
        }
        valid
    }

    /// Forgets the runs before this segment, in which nothing is valid any more.
    pub(super) fn trim(&mut self, end: u64) {
        while let Some(run) = self.runs.front().filter(|run| run.first < end) {
            debug_assert_eq!(run.live, 0, "what was valid has been copied");
            self.bytes -= run.bytes;
            self.segments -= u64::from(run.parts);
            self.runs.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::segment::{Assembler, encode};
    use super::*;

    const LIMITS: Limits = Limits {
        bytes: 500,
        segments: 5,
    };

    /// A log in memory.
    #[derive(Default)]
    struct Log {
        segments: BTreeMap<u64, Vec<u8>>,
        ledger: Ledger,
    }

    impl Log {
        fn append(&mut self, changes: &[Change]) {
            let mut assembler = Assembler::default();
            let first = self.ledger.next();
            for (number, segment) in (first..).zip(encode(1, changes)) {
                for run in assembler.take(number, &segment).expect("good") {
                    self.ledger.append(&run);
                }
                self.segments.insert(number, segment);
            }
        }

        fn runs(&self, from: u64, to: u64) -> Vec<Run> {
            let mut assembler = Assembler::default();
            let segments = self.segments.range(from..to);
            segments
                .flat_map(|(&number, segment)| assembler.take(number, segment).expect("good"))
                .collect()
        }

        fn compact(&mut self) {
            while let Some(Step { oldest, end }) = self.ledger.step(LIMITS) {
                let valid = self.ledger.valid(self.runs(oldest, end));
                self.append(&valid);
                self.ledger.trim(end);
                self.segments = self.segments.split_off(&end);
            }
        }

        fn read(&self) -> BTreeMap<String, Vec<u8>> {
            let mut map = BTreeMap::new();
            for change in self
                .runs(0, u64::MAX)
                .into_iter()
                .flat_map(|run| run.changes)
            {
                match change {
                    Change::Put(record) => map.insert(record.key, record.value),
                    Change::Delete { key } => map.remove(&key),
                };
            }
            map
        }
    }

    proptest! {
        #[test]
        fn compaction_keeps_exactly_what_is_stored(
            batches in prop::collection::vec(
                prop::collection::vec((0..20_u8, prop::option::of(0..200_usize)), 1..10), 1..60),
        ) {
            let (mut log, mut model) = (Log::default(), BTreeMap::new());
            for batch in batches {
                let changes: Vec<_> = batch.into_iter().map(|(key, value)| {
                    let key = format!("key-{key}");
                    match value {
                        Some(length) => {
                            let value = vec![7; length];
                            model.insert(key.clone(), value.clone());
                            Change::Put(StoredRecord { key, value })
                        }
                        None => {
                            model.remove(&key);
                            Change::Delete { key }
                        }
                    }
                }).collect();
                log.append(&changes);
                log.compact();
                prop_assert_eq!(&log.read(), &model);
                let ledger = &log.ledger;
                let bytes: u64 = ledger.runs.iter().map(|run| run.bytes).sum();
                let live: u64 = ledger.runs.iter().map(|run| run.live).sum();
                prop_assert_eq!((ledger.bytes, ledger.live), (bytes, live));
                prop_assert_eq!(ledger.segments, log.segments.len() as u64);
                prop_assert_eq!(ledger.index.len(), model.len());
                prop_assert!(ledger.step(LIMITS).is_none());
            }
        }
    }

    #[test]
    fn a_log_of_little_but_valid_is_left_alone() {
        let mut log = Log::default();
        let value = vec![7; 100];
        for n in 0..5 {
            let key = format!("key-{n}");
            log.append(&[Change::Put(StoredRecord {
                key,
                value: value.clone(),
            })]);
        }
        assert_eq!(log.ledger.step(LIMITS), None);
    }
}
