use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

/// Where a row lies. A slot is used again after its row was removed.
///
/// Other tables refer to rows by it: numbers are compared faster than ids, and need no memory of their own.
pub(crate) struct Slot<V>(u32, PhantomData<fn() -> V>);

/// Always the same, so that the same events make the same tables in the same order.
pub(crate) type FixedHasher = BuildHasherDefault<FoldHasher>;

/// A hash of ids: eight bytes at a time, each mixed in by a multiplication whose halves are folded together, as wyhash
/// by Wang Yi does. Ids are minted here and by workers, who are trusted with more than the speed of a table.
#[derive(Debug, Default)]
pub(crate) struct FoldHasher(u64);

impl FoldHasher {
    fn mix(&mut self, word: u64) {
        // The fractions of the golden ratio and of the square root of two.
        let (a, b) = (self.0 ^ 0x9E37_79B9_7F4A_7C15, word ^ 0x6A09_E667_F3BC_C909);
        let product = u128::from(a) * u128::from(b);
        let bytes = product.to_le_bytes();
        let (low, high) = bytes.split_at(8);
        let half = |half: &[u8]| u64::from_le_bytes(half.try_into().expect("eight bytes"));
        self.0 = half(low) ^ half(high);
    }
}

impl Hasher for FoldHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.mix(u64::from_le_bytes(word.try_into().expect("eight bytes")));
        }
        let mut last = [0; 8];
        last[..words.remainder().len()].copy_from_slice(words.remainder());
        self.mix(u64::from_le_bytes(last) ^ bytes.len() as u64);
    }

    fn write_u8(&mut self, number: u8) {
        self.mix(u64::from(number));
    }

    fn write_u32(&mut self, number: u32) {
        self.mix(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.mix(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.mix(number as u64);
    }
}

/// Rows that are found by their id or, faster, by the slot they lie in.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    slots: HashMap<K, Slot<V>, FixedHasher>,
    rows: Vec<Option<V>>,
    vacant: Vec<Slot<V>>,
}

impl<K: Eq + Hash, V> Table<K, V> {
    pub(crate) fn slot<Q: Eq + Hash + ?Sized>(&self, id: &Q) -> Option<Slot<V>>
    where
        K: Borrow<Q>,
    {
        self.slots.get(id).copied()
    }

    pub(crate) fn get<Q: Eq + Hash + ?Sized>(&self, id: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.slot(id).map(|slot| &self[slot])
    }

    /// Puts a row in whose id is new.
    pub(crate) fn insert(&mut self, id: K, row: V) -> Slot<V> {
        let slot = self.vacant.pop().unwrap_or_else(|| {
            let next = u32::try_from(self.rows.len()).expect("fewer than 2^32 rows fit in memory");
            self.rows.push(None);
            Slot(next, PhantomData)
        });
        self.rows[slot.place()] = Some(row);
        let before = self.slots.insert(id, slot);
        debug_assert!(before.is_none(), "an id is in the table twice");
        slot
    }

    pub(crate) fn remove<Q: Eq + Hash + ?Sized>(&mut self, id: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let slot = self.slots.remove(id)?;
        self.vacant.push(slot);
        self.rows[slot.place()].take()
    }

    /// What lies in a slot that may be vacant.
    pub(crate) fn at(&self, slot: Slot<V>) -> Option<&V> {
        self.rows.get(slot.place())?.as_ref()
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Every row with its slot, in an order that means nothing.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot<V>, &V)> {
        (0..)
            .zip(&self.rows)
            .filter_map(|(place, row)| Some((Slot(place, PhantomData), row.as_ref()?)))
    }
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self {
            slots: HashMap::default(),
            rows: Vec::new(),
            vacant: Vec::new(),
        }
    }
}

impl<K, V> Index<Slot<V>> for Table<K, V> {
    type Output = V;

    fn index(&self, slot: Slot<V>) -> &V {
        self.rows[slot.place()]
            .as_ref()
            .expect("a slot is let go before its row is removed")
    }
}

impl<K, V> IndexMut<Slot<V>> for Table<K, V> {
    fn index_mut(&mut self, slot: Slot<V>) -> &mut V {
        self.rows[slot.place()]
            .as_mut()
            .expect("a slot is let go before its row is removed")
    }
}

impl<V> Slot<V> {
    /// Before or equal to every other.
    pub(crate) const FIRST: Self = Self(0, PhantomData);

    #[cfg(test)]
    pub(crate) fn at(place: u32) -> Self {
        Self(place, PhantomData)
    }

    fn place(self) -> usize {
        self.0 as usize
    }
}

// Derived, these would ask the same of `V`.
impl<V> Clone for Slot<V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Slot<V> {}

impl<V> PartialEq for Slot<V> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<V> Eq for Slot<V> {}

impl<V> PartialOrd for Slot<V> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<V> Ord for Slot<V> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl<V> fmt::Debug for Slot<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_found_by_its_id_and_by_its_slot_until_it_is_removed() {
        let mut table: Table<String, i32> = Table::default();
        let one = table.insert("one".into(), 1);
        let two = table.insert("two".into(), 2);
        assert_eq!((table.get("one"), table[two]), (Some(&1), 2));
        assert_eq!(table.remove("one"), Some(1));
        assert_eq!((table.get("one"), table.len()), (None, 1));
        table[two] += 20;
        let three = table.insert("three".into(), 3);
        assert_eq!(three, one, "a slot is used again");
        let rows: Vec<_> = table.iter().collect();
        assert_eq!(rows, [(three, &3), (two, &22)]);
    }
}
