//! Storage by growing keys: dense where keys are, in key order, and as large as what it holds.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Index;

use crate::policy::ChildKey;

/// A key that is handed out in ascending order.
pub(crate) trait Ascending: Copy {
    /// Returns the key's place in that order.
    fn number(self) -> u64;
}

impl Ascending for u64 {
    fn number(self) -> u64 {
        self
    }
}

impl Ascending for ChildKey {
    fn number(self) -> u64 {
        self.get()
    }
}

/// A map in key order.
///
/// While no key was removed from the middle, a look-up is one array access; else it is a binary search at worst.
/// Removed entries leave a hole, and the holes are closed once they outnumber the rest.
#[derive(Debug, Clone)]
pub(crate) struct Table<K, T> {
    entries: Vec<Entry<K, T>>,
    /// The number of the first entry's key.
    origin: u64,
    /// Before this position there are only holes.
    head: usize,
    live: usize,
}

#[derive(Debug, Clone)]
struct Entry<K, T> {
    key: K,
    value: Option<T>,
}

impl<K, T> Default for Table<K, T> {
    fn default() -> Self {
        Self { entries: Vec::new(), origin: 0, head: 0, live: 0 }
    }
}

impl<K: Ascending, T> Table<K, T> {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self { entries: Vec::with_capacity(capacity), ..Self::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.live
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.live == 0
    }

    #[inline]
    pub(crate) fn get(&self, key: K) -> Option<&T> {
        let guess = self.guess(key);
        match self.entries.get(guess) {
            Some(entry) if entry.key.number() == key.number() => entry.value.as_ref(),
            _ => self.entries[self.search(key).ok()?].value.as_ref(),
        }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut T> {
        let position = self.position(key).ok()?;
        self.entries[position].value.as_mut()
    }

    /// Inserts a value, in place of one that is there. Cheap at the end, where new keys belong.
    pub(crate) fn insert(&mut self, key: K, value: T) {
        if self.entries.last().is_some_and(|last| last.key.number() < key.number()) {
            self.live += 1;
            return self.entries.push(Entry { key, value: Some(value) });
        }
        let position = match self.position(key) {
            Ok(position) => {
                let entry = &mut self.entries[position];
                self.live += usize::from(entry.value.is_none());
                entry.value = Some(value);
                position
            }
            Err(position) => {
                self.live += 1;
                if position == 0 {
                    self.origin = key.number();
                }
                self.entries.insert(position, Entry { key, value: Some(value) });
                position
            }
        };
        self.head = self.head.min(position);
    }

    pub(crate) fn remove(&mut self, key: K) -> Option<T> {
        let position = self.position(key).ok()?;
        let value = self.entries[position].value.take()?;
        self.live -= 1;
        self.close_holes();
        Some(value)
    }

    /// Returns the entries in key order.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (K, &T)> {
        self.entries[self.head..].iter().filter_map(|entry| Some((entry.key, entry.value.as_ref()?)))
    }

    /// Returns the entries from this key on, in key order.
    pub(crate) fn iter_from(&self, from: K) -> impl DoubleEndedIterator<Item = (K, &T)> {
        let position = self.position(from).unwrap_or_else(|position| position).max(self.head);
        self.entries[position..].iter().filter_map(|entry| Some((entry.key, entry.value.as_ref()?)))
    }

    /// Returns where the entry of a key is while there are no gaps.
    #[inline]
    fn guess(&self, key: K) -> usize {
        usize::try_from(key.number().wrapping_sub(self.origin)).unwrap_or(usize::MAX)
    }

    /// Returns where the entry of a key is, or where it belongs.
    #[inline]
    fn position(&self, key: K) -> Result<usize, usize> {
        let guess = self.guess(key);
        match self.entries.get(guess) {
            Some(entry) if entry.key.number() == key.number() => Ok(guess),
            _ => self.search(key),
        }
    }

    fn search(&self, key: K) -> Result<usize, usize> {
        match self.entries.last() {
            Some(last) if last.key.number() >= key.number() => {
                self.entries.binary_search_by_key(&key.number(), |entry| entry.key.number())
            }
            _ => Err(self.entries.len()),
        }
    }

    fn close_holes(&mut self) {
        while self.entries.last().is_some_and(|entry| entry.value.is_none()) {
            self.entries.pop();
        }
        while self.entries.get(self.head).is_some_and(|entry| entry.value.is_none()) {
            self.head += 1;
        }
        if self.entries.len() > 2 * self.live + 8 {
            self.entries.retain(|entry| entry.value.is_some());
            self.head = 0;
            self.origin = self.entries.first().map_or(0, |entry| entry.key.number());
        }
        self.head = self.head.min(self.entries.len());
        if self.entries.capacity() > 64 + 8 * self.entries.len() {
            self.entries.shrink_to(2 * self.entries.len());
        }
    }
}

impl<K: Ascending, T> Index<&K> for Table<K, T> {
    type Output = T;

    /// # Panics
    /// If there is no entry with this key.
    fn index(&self, key: &K) -> &T {
        self.get(*key).expect("an entry with this key")
    }
}

/// A hash map whose keys are counted up or given by whoever owns the supervisor, so that a fast hash does.
pub(crate) type FastMap<K, T> = HashMap<K, T, BuildHasherDefault<FastHasher>>;

/// Hashes word by word with a multiplication, which spreads neighbors over all bits.
#[derive(Debug, Default)]
pub(crate) struct FastHasher(u64);

impl Hasher for FastHasher {
    fn finish(&self) -> u64 {
        // Maps take the place from the low bits, where a product has mixed least.
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            // Each is eight bytes long.
            self.write_u64(u64::from_ne_bytes(word.try_into().unwrap_or_default()));
        }
        let rest = words.remainder();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.write_u64(u64::from_ne_bytes(last));
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        // An odd number near 2^64 divided by the golden ratio.
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write_isize(&mut self, number: isize) {
        self.write_u64(number as u64);
    }
}

/// A set of children in key order, a bit for each.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeySet {
    /// The keys that share all but their lowest six bits, none of them empty.
    words: Table<u64, u64>,
}

impl KeySet {
    pub(crate) fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    pub(crate) fn insert(&mut self, key: ChildKey) {
        let (word, bit) = place(key);
        match self.words.get_mut(word) {
            Some(bits) => *bits |= bit,
            None => self.words.insert(word, bit),
        }
    }

    pub(crate) fn remove(&mut self, key: ChildKey) {
        let (word, bit) = place(key);
        let Some(bits) = self.words.get_mut(word) else { return };
        *bits &= !bit;
        if *bits == 0 {
            self.words.remove(word);
        }
    }

    pub(crate) fn first(&self) -> Option<ChildKey> {
        let (word, bits) = self.words.iter().next()?;
        Some(ChildKey::new(word << 6 | u64::from(bits.trailing_zeros())))
    }

    /// Returns the keys from this one on, lowest first.
    pub(crate) fn ascending_from(&self, from: ChildKey) -> impl Iterator<Item = ChildKey> {
        self.words_from(from).flat_map(|(word, mut bits)| {
            std::iter::from_fn(move || {
                let bit = (bits != 0).then(|| bits.trailing_zeros())?;
                bits &= bits - 1;
                Some(ChildKey::new(word << 6 | u64::from(bit)))
            })
        })
    }

    /// Returns the keys down to this one, highest first.
    pub(crate) fn descending_to(&self, from: ChildKey) -> impl Iterator<Item = ChildKey> {
        self.words_from(from).rev().flat_map(|(word, mut bits)| {
            std::iter::from_fn(move || {
                let bit = bits.checked_ilog2()?;
                bits ^= 1 << bit;
                Some(ChildKey::new(word << 6 | u64::from(bit)))
            })
        })
    }

    fn words_from(&self, from: ChildKey) -> impl DoubleEndedIterator<Item = (u64, u64)> {
        let (first, bit) = place(from);
        self.words.iter_from(first).map(move |(word, &bits)| {
            let below = if word == first { bit - 1 } else { 0 };
            (word, bits & !below)
        })
    }
}

fn place(key: ChildKey) -> (u64, u64) {
    (key.get() >> 6, 1 << (key.get() & 63))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        /// Insert the next key, after leaving out this many.
        Push(u64),
        /// Insert a key that was handed out before, by its number modulo all.
        Insert(u64),
        Remove(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..3_u64).prop_map(Step::Push),
            (0..200_u64).prop_map(Step::Push),
            any::<u64>().prop_map(Step::Insert),
            any::<u64>().prop_map(Step::Remove),
            any::<u64>().prop_map(Step::Remove),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn a_table_is_a_map_in_key_order(steps in steps(), from in any::<u64>()) {
            let mut table = Table::default();
            let mut model = BTreeMap::new();
            let mut next = 1;
            for (value, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Push(skip) => {
                        next += skip + 1;
                        table.insert(next, value);
                        model.insert(next, value);
                    }
                    Step::Insert(key) => {
                        table.insert(key % next, value);
                        model.insert(key % next, value);
                    }
                    Step::Remove(key) => prop_assert_eq!(table.remove(key % next), model.remove(&(key % next))),
                }
                prop_assert_eq!(table.len(), model.len());
                prop_assert!(table.entries.len() <= 2 * model.len() + 8);
            }
            for key in 0..=next {
                prop_assert_eq!(table.get(key), model.get(&key));
            }
            let from = from % (next + 2);
            prop_assert!(table.iter().eq(model.iter().map(|(&key, value)| (key, value))));
            prop_assert!(table.iter_from(from).eq(model.range(from..).map(|(&key, value)| (key, value))));
        }

        #[test]
        fn a_key_set_is_a_set_in_key_order(steps in steps(), from in any::<u64>()) {
            let mut set = KeySet::default();
            let mut model = BTreeSet::new();
            let mut next = 1;
            for step in steps {
                match step {
                    Step::Push(skip) => {
                        next += skip + 1;
                        set.insert(ChildKey::new(next));
                        model.insert(ChildKey::new(next));
                    }
                    Step::Insert(key) => {
                        set.insert(ChildKey::new(key % next));
                        model.insert(ChildKey::new(key % next));
                    }
                    Step::Remove(key) => {
                        set.remove(ChildKey::new(key % next));
                        model.remove(&ChildKey::new(key % next));
                    }
                }
                prop_assert_eq!(set.is_empty(), model.is_empty());
                prop_assert_eq!(set.first(), model.first().copied());
            }
            let from = ChildKey::new(from % (next + 2));
            prop_assert!(set.ascending_from(from).eq(model.range(from..).copied()));
            prop_assert!(set.descending_to(from).eq(model.range(from..).rev().copied()));
        }
    }
}
