//! Who stands where in the line of those who would lead, from the names of their nodes alone.
//!
//! A node is named as Curator's LeaderLatch names it, `_c_<uuid>-latch-<sequence>`: the uuid finds a node again whose
//! creation was not answered, the sequence is its place.

use std::sync::atomic::{AtomicU64, Ordering};

/// The start of a name that nobody else uses: sessions have numbers of their own, and this process counts.
pub(super) fn prefix(session: i64) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let session = format!("{session:016x}");
    let (head, middle, tail) = (&session[..8], &session[8..12], &session[12..]);
    let (process, count) = (std::process::id() & 0xffff, count & 0xffff_ffff_ffff);
    format!("_c_{head}-{middle}-{tail}-{process:04x}-{count:012x}-latch-")
}

/// What a candidate sees of the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Its node is not there.
    Nowhere,
    /// It is the first.
    First {
        /// Its node.
        own: String,
    },
    /// Somebody is before it.
    Behind {
        /// The node right before its own.
        whom: String,
    },
}

/// Where the first node with this prefix stands.
pub(super) fn place(nodes: Vec<String>, prefix: &str) -> Place {
    let line = in_order(nodes);
    match line.iter().position(|node| node.starts_with(prefix)) {
        None => Place::Nowhere,
        Some(0) => Place::First {
            own: line[0].clone(),
        },
        Some(at) => Place::Behind {
            whom: line[at - 1].clone(),
        },
    }
}

/// The first of the line.
pub(super) fn first(nodes: Vec<String>) -> Option<String> {
    in_order(nodes).into_iter().next()
}

/// In the order of their sequences, whatever their prefixes; what has none is no candidate.
fn in_order(nodes: Vec<String>) -> Vec<String> {
    let numbered = nodes
        .into_iter()
        .filter_map(|node| sequence(&node).map(|sequence| (sequence, node)));
    let mut numbered: Vec<_> = numbered.collect();
    numbered.sort();
    numbered.into_iter().map(|(_, node)| node).collect()
}

fn sequence(node: &str) -> Option<u64> {
    let (_, digits) = node.rsplit_once("latch-")?;
    let is_number = digits.len() >= 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn the_sequence_alone_decides_who_is_before_whom() {
        let line = || {
            nodes(&[
                "_c_a-latch-0000000012",
                "lock-0000000001",
                "_c_z-latch-0000000009",
                "latch-0000000011",
                "_c_b-latch-x",
            ])
        };
        assert_eq!(first(line()).as_deref(), Some("_c_z-latch-0000000009"));
        let own = "_c_z-latch-0000000009".to_owned();
        assert_eq!(place(line(), "_c_z-latch-"), Place::First { own });
        let whom = "latch-0000000011".to_owned();
        assert_eq!(place(line(), "_c_a-latch-"), Place::Behind { whom });
        assert_eq!(place(line(), "_c_y-latch-"), Place::Nowhere);
        assert_eq!(first(Vec::new()), None);
    }

    #[test]
    fn a_node_created_twice_has_the_place_of_the_first() {
        let line = nodes(&["_c_a-latch-0000000003", "_c_a-latch-0000000002"]);
        let own = "_c_a-latch-0000000002".to_owned();
        assert_eq!(place(line, "_c_a-latch-"), Place::First { own });
    }

    #[test]
    fn prefixes_are_those_of_curator_and_never_the_same() {
        let (one, other) = (prefix(0x1000_2345_6789_abcd), prefix(-1));
        assert_ne!(one, other);
        for prefix in [one, other] {
            let id = prefix
                .strip_prefix("_c_")
                .and_then(|id| id.strip_suffix("-latch-"));
            let parts: Vec<_> = id.expect("as Curator").split('-').map(str::len).collect();
            assert_eq!(parts, [8, 4, 4, 4, 12]);
        }
    }
}
