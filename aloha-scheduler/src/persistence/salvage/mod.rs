//! What can still be read of a [redb](https://docs.rs/redb) file whose checksums do not hold any more.
//!
//! redb refuses such a file as a whole. This walks the same trees (format 3, as redb's `docs/design.md` has it) without
//! believing any page: a page whose header makes no sense is read as what most of it says it is, and what leads nowhere
//! is left out and told. Whether a record is as it was written is for its own checksum to say.
//!
//! ```text
//! header ── slot of the last commit ──► tree of tables ──► "records" ──► branch ──► leaf: keys and values
//!        └─ slot of the one before      (the same, one commit older: for what is missing in the first)
//! ```

use std::collections::{BTreeMap, BTreeSet};

use super::StoredRecord;
use super::record;

const PAGE: usize = 4096;
const FORMAT: u8 = 3;
const SLOTS: [usize; 2] = [64, 192];
const LEAF: u8 = 1;
const BRANCH: u8 = 2;
/// How many entries or children are looked for in a page that does not say how many it has.
const COUNT_MAX: usize = 128;
const KEY_LENGTH_MAX: usize = 200;

/// What was read of a damaged file.
#[derive(Debug, Default)]
pub(super) struct Salvaged {
    /// The newest epoch, 0 where it is lost.
    pub(super) epoch: u64,
    /// Damaged ones too, as far as they are there.
    pub(super) records: Vec<StoredRecord>,
    /// Where records may be missing.
    pub(super) gaps: Vec<Gap>,
}

/// The keys above the one and up to the other; without one, from the first or to the last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Gap {
    after: Option<Vec<u8>>,
    up_to: Option<Vec<u8>>,
}

impl Gap {
    fn has(&self, key: &[u8]) -> bool {
        self.after.as_deref().is_none_or(|after| after < key)
            && self.up_to.as_deref().is_none_or(|up_to| key <= up_to)
    }

    fn part(&self, after: Option<&[u8]>, up_to: Option<&[u8]>) -> Self {
        Self {
            after: after.map(<[u8]>::to_vec).or_else(|| self.after.clone()),
            up_to: up_to.map(<[u8]>::to_vec).or_else(|| self.up_to.clone()),
        }
    }
}

impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.after, &self.up_to) {
            (None, None) => f.write_str("anywhere"),
            (Some(after), None) => write!(f, "after {}", after.escape_ascii()),
            (None, Some(up_to)) => write!(f, "up to {}", up_to.escape_ascii()),
            (Some(after), Some(up_to)) => {
                let (after, up_to) = (after.escape_ascii(), up_to.escape_ascii());
                write!(f, "after {after} and up to {up_to}")
            }
        }
    }
}

/// Reads what there is; `None` if the table of records cannot be found.
pub(super) fn salvage(bytes: &[u8]) -> Option<Salvaged> {
    let file = File { bytes };
    let primary = usize::from(bytes.get(9)? & 1);
    let newest = file.commit(SLOTS[primary]);
    let older = || file.commit(SLOTS[1 - primary]);
    let Some(mut salvaged) = newest else {
        let mut older = older()?;
        older.gaps.push(Gap::default());
        return Some(older);
    };
    if !salvaged.gaps.is_empty()
        && let Some(older) = older()
    {
        let known: BTreeSet<_> = salvaged.records.iter().map(|r| r.key.clone()).collect();
        for record in older.records {
            let missing = |gap: &Gap| gap.has(record.key.as_bytes());
            if salvaged.gaps.iter().any(missing) && !known.contains(&record.key) {
                salvaged
                    .records
                    .push(record::outdated(salvaged.epoch, record));
            }
        }
    }
    Some(salvaged)
}

#[derive(Debug, Clone, Copy)]
struct File<'a> {
    bytes: &'a [u8],
}

/// Whether it is where its key says, its key, its value.
type Entry<'a> = (bool, &'a [u8], &'a [u8]);

#[derive(Debug, Default)]
struct Found<'a> {
    entries: Vec<Entry<'a>>,
    gaps: Vec<Gap>,
    /// Which pages were read.
    pages: BTreeSet<u64>,
}

/// The key that its keys go up to, unless it is the last, and its page; `None` where there can be none.
type Child<'a> = (Option<&'a [u8]>, Option<u64>);

/// A key and its value; `None` where there can be none.
type Pair<'a> = (&'a [u8], Option<&'a [u8]>);

/// The entries of a leaf, or the children of a branch with the keys between them.
enum Page<'a> {
    Leaf(Vec<Pair<'a>>),
    Branch(Vec<Child<'a>>),
}

impl<'a> File<'a> {
    /// The records as of the commit in this slot, if they are found.
    fn commit(self, slot: usize) -> Option<Salvaged> {
        let slot = self.bytes.get(slot..slot + 128)?;
        if SLOTS
            .iter()
            .all(|slot| self.bytes.get(*slot) != Some(&FORMAT))
        {
            return None;
        }
        // Two tables, so one leaf, whatever its header says: "meta" and "records".
        let page = self.page(u64_at(slot, 8)?)?;
        let tables = leaf(page, 2, None)?;
        let root = |n: usize| {
            let table = tables[n].1?;
            // Its kind, its length, whether it has a root.
            let has_root = *table.get(9)? != 0;
            Some(if has_root {
                Some(u64_at(table, 10)?)
            } else {
                None
            })
        };
        let mut salvaged = Salvaged::default();
        if let Some(root) = root(1)? {
            self.page(root)?;
            let tree = self.tree(root, None);
            salvaged.gaps = tree.gaps;
            salvaged.records = records(tree.entries);
        }
        if let Some(Some(root)) = root(0) {
            let entries = self.tree(root, Some(8)).entries;
            let epoch = entries.iter().find(|(_, key, _)| *key == b"epoch");
            salvaged.epoch = epoch
                .and_then(|(_, _, value)| u64_at(value, 0))
                .unwrap_or(0);
        }
        (!salvaged.records.is_empty() || salvaged.gaps.is_empty()).then_some(salvaged)
    }

    /// What is found from this root on.
    fn tree(self, root: u64, value_size: Option<usize>) -> Found<'a> {
        let mut found = Found::default();
        self.walk(root, value_size, &Gap::default(), &mut found);
        found
    }

    /// Collects the entries at this page and below, whose keys are to be in the range.
    fn walk(self, number: u64, value_size: Option<usize>, range: &Gap, found: &mut Found<'a>) {
        // What was altered may lead in circles.
        let page = self.page(number).filter(|_| found.pages.insert(number));
        match page.and_then(|page| self.read(page, value_size)) {
            None => found.gaps.push(range.clone()),
            Some(Page::Leaf(entries)) => {
                if entries.iter().any(|(_, value)| value.is_none()) {
                    found.gaps.push(range.clone());
                }
                for (key, value) in entries {
                    let entry = value.map(|value| (range.has(key), key, value));
                    found.entries.extend(entry);
                }
            }
            Some(Page::Branch(children)) => {
                let mut after = None;
                for (up_to, child) in children {
                    let range = range.part(after, up_to);
                    match child {
                        Some(child) => self.walk(child, value_size, &range, found),
                        None => found.gaps.push(range),
                    }
                    after = up_to.or(after);
                }
            }
        }
    }

    fn page(self, number: u64) -> Option<&'a [u8]> {
        let order = u32::try_from(number >> 59).expect("five bits");
        if order > 20 {
            return None;
        }
        let index = number & (0x000f_ffff >> order);
        let region = (number >> 20) & 0x000f_ffff;
        // Regions have no headers in this format, and the first file's worth of pages is in the first of them.
        let data_pages = u32_at(self.bytes, 20).map_or(0, u64::from);
        let size = (PAGE as u64) << order;
        let start = (1 + region * data_pages) * PAGE as u64;
        let start = usize::try_from(start.checked_add(index * size)?).ok()?;
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        self.bytes.get(start..end)
    }

    fn plausible(self, number: u64) -> bool {
        self.page(number)
            .is_some_and(|page| matches!(page[0], LEAF | BRANCH))
    }

    /// Reads a page as what its header says, or else as what makes the most of it.
    fn read(self, page: &'a [u8], value_size: Option<usize>) -> Option<Page<'a>> {
        let stated = (page[0], usize::from(u16::from_le_bytes([page[2], page[3]])));
        let score = |&(kind, count): &(u8, usize)| match kind {
            LEAF => score_of(&leaf(page, count, value_size), |(key, value)| {
                value.is_some() && is_key(key)
            }),
            _ => self.branch(page, count).map_or(isize::MIN, |children| {
                let keys = children[..count]
                    .iter()
                    .filter(|(key, _)| key.is_some_and(is_key));
                let pages: BTreeSet<_> = children
                    .iter()
                    .filter_map(|(_, child)| *child)
                    .filter(|child| self.plausible(*child))
                    .collect();
                let good = keys.count() + pages.len();
                2 * good.cast_signed() - (2 * count + 1).cast_signed()
            }),
        };
        if matches!(stated.0, LEAF | BRANCH) && stated.1 > 0 {
            let all = stated.1 + usize::from(stated.0 == BRANCH) * stated.1;
            if score(&stated) >= all.cast_signed() {
                return self.read_as(page, stated, value_size);
            }
        }
        let leaves = (1..=COUNT_MAX).map(|count| (LEAF, count));
        let branches = (1..=COUNT_MAX).map(|count| (BRANCH, count));
        // What it says counts for more: an altered key or end makes one entry or two of it bad.
        let score = |way: &(u8, usize)| score(way).saturating_add(3 * isize::from(*way == stated));
        let best = leaves.chain(branches).max_by_key(score);
        let best = best.filter(|way| score(way) > 0)?;
        self.read_as(page, best, value_size)
    }

    fn read_as(
        self,
        page: &'a [u8],
        (kind, count): (u8, usize),
        value_size: Option<usize>,
    ) -> Option<Page<'a>> {
        Some(match kind {
            LEAF => Page::Leaf(leaf(page, count, value_size)?),
            _ => Page::Branch(self.branch(page, count)?),
        })
    }

    fn branch(self, page: &'a [u8], count: usize) -> Option<Vec<Child<'a>>> {
        let children = 8 + 16 * (count + 1);
        let ends = children + 8 * (count + 1);
        let mut start = ends + 4 * count;
        page.get(..start)?;
        let mut found = Vec::with_capacity(count + 1);
        for n in 0..=count {
            let child = u64_at(page, children + 8 * n).filter(|child| self.page(*child).is_some());
            let mut key = None;
            if n < count {
                let end = u32_at(page, ends + 4 * n)? as usize;
                key = page.get(start..end);
                start = end;
            }
            found.push((key, child));
        }
        Some(found)
    }
}

fn leaf(page: &[u8], count: usize, value_size: Option<usize>) -> Option<Vec<Pair<'_>>> {
    let value_ends = 4 + 4 * count;
    let mut key_start = match value_size {
        None => value_ends + 4 * count,
        Some(_) => value_ends,
    };
    page.get(..key_start)?;
    let mut value_start = u32_at(page, value_ends - 4)? as usize;
    let mut found = Vec::with_capacity(count);
    for n in 0..count {
        let key_end = u32_at(page, 4 + 4 * n)? as usize;
        let value_end = match value_size {
            None => u32_at(page, value_ends + 4 * n)? as usize,
            Some(size) => value_start.checked_add(size)?,
        };
        let key = page.get(key_start..key_end).unwrap_or_default();
        found.push((key, page.get(value_start..value_end)));
        (key_start, value_start) = (key_end, value_end);
    }
    Some(found)
}

/// How many more of these are good than bad.
fn score_of<T: Copy>(read: &Option<Vec<T>>, good: impl Fn(T) -> bool) -> isize {
    let Some(read) = read else { return isize::MIN };
    let good = read.iter().filter(|entry| good(**entry)).count();
    2 * good.cast_signed() - read.len().cast_signed()
}

/// What was read, each under a key of its own that a store may have.
fn records(mut entries: Vec<Entry<'_>>) -> Vec<StoredRecord> {
    let mut records = BTreeMap::<String, Vec<u8>>::new();
    // Those that are in their place come first: a way that leads astray may lead to a page of another time.
    entries.sort_by_key(|(in_place, ..)| !in_place);
    for (in_place, key, value) in entries {
        let mut key: String = key.iter().map(|byte| legible(*byte)).collect();
        key.truncate(KEY_LENGTH_MAX);
        let mut value = value.to_vec();
        // A key that was altered may be that of another record: the whole one of the two has it.
        if let Some(other) = records.get_mut(&key) {
            if !in_place && is_whole(key.as_bytes(), &value) {
                continue;
            }
            if !is_whole(key.as_bytes(), other) {
                std::mem::swap(other, &mut value);
            }
            key = format!("twice/{}/{key:.150}", records.len());
        }
        records.insert(key, value);
    }
    let record = |(key, value)| StoredRecord { key, value };
    records.into_iter().map(record).collect()
}

fn is_whole(key: &[u8], value: &[u8]) -> bool {
    std::str::from_utf8(key).is_ok_and(|key| record::is_whole(key, value))
}

fn is_key(key: &[u8]) -> bool {
    !key.is_empty() && key.iter().all(|byte| legible(*byte) == char::from(*byte))
}

fn legible(byte: u8) -> char {
    match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'/' => char::from(byte),
        _ => '_',
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().expect("four bytes")))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + 8)?;
    Some(u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
}

#[cfg(test)]
mod tests;
