//! One cache: a hash table of fixed size in shared memory.
//!
//! ```text
//! lock | header | buckets: first item of each chain | items: state, next, hash, ..., key and value
//! ```
//! Everything is read and written under the lock, which survives whoever dies with it: an item counts
//! only while its state says so, which is written last, and the next to come builds the chains anew.
//! Memory that was never used is never touched, so a large cache costs what is in it.

use std::hash::BuildHasher;
use std::hash::{DefaultHasher, Hasher, RandomState};
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::Spec;
use crate::sys::robust::{Robust, Taken, WORDS as LOCK_WORDS};
use crate::sys::shm::SharedMemory;

/// Words behind the lock.
#[derive(Clone, Copy)]
enum Header {
    /// Makes the hashes of keys unpredictable to clients.
    Seed = LOCK_WORDS as isize,
    /// Items from here on have never been used.
    Fresh,
    /// First item of those given up, plus one.
    Free,
    /// Counts uses.
    Clock,
    /// Where the next search for room begins.
    Hand,
    /// The second of the last search through all of it.
    Searched,
    /// Where the buckets begin.
    End,
}

/// Words of an item.
#[derive(Clone, Copy)]
enum Field {
    /// 1 while the item counts.
    State,
    /// The next item of the chain, or of those given up, plus one.
    Next,
    Hash,
    /// The second at which it expires; 0 is never.
    Expires,
    /// Bytes of the key.
    Key,
    /// Bytes of the value, which follow those of the key.
    Value,
    /// The clock when it was used last.
    Used,
    /// Where the bytes begin.
    Data,
}

/// Items looked at when there is no room.
const SAMPLE: usize = 16;

/// One cache.
#[derive(Debug)]
pub struct Table {
    memory: SharedMemory,
    items: usize,
    buckets: usize,
    item_words: usize,
    key_size: usize,
    value_size: usize,
    purge: bool,
}

/// What to do about a key that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Leave it; nothing is stored.
    Keep,
    /// Store the new value in its place.
    Replace,
}

impl Table {
    /// Makes an empty one.
    ///
    /// # Errors
    /// When memory or descriptors are short.
    pub fn create(spec: &Spec) -> io::Result<Self> {
        let buckets = spec.items.next_power_of_two();
        let item_words = Field::Data as usize + (spec.key_size + spec.value_size).div_ceil(8);
        let words = Header::End as usize + buckets + spec.items * item_words;
        let table = Table {
            memory: SharedMemory::create(c"appserver-cache", words * 8)?,
            items: spec.items,
            buckets,
            item_words,
            key_size: spec.key_size,
            value_size: spec.value_size,
            purge: spec.purge,
        };
        Robust::at(table.memory.words()).make()?;
        table.set(Header::Seed, RandomState::new().build_hasher().finish());
        Ok(table)
    }

    /// A copy of the value, unless it is missing or has expired.
    pub fn get(&self, key: &[u8], now: u64) -> Option<Vec<u8>> {
        self.locked(|| {
            let item = self.find(key, now)?;
            self.touch(item);
            Some(self.value(item))
        })?
    }

    /// Whether there is a value that has not expired.
    pub fn exists(&self, key: &[u8], now: u64) -> bool {
        self.locked(|| self.find(key, now).is_some()) == Some(true)
    }

    /// Stores a value; with `expires` > 0, for so many seconds. False when it is too long, when there is
    /// no room, or when there is one to keep.
    pub fn store(&self, key: &[u8], value: &[u8], expires: u64, existing: Existing, now: u64) -> bool {
        if key.len() > self.key_size || value.len() > self.value_size {
            return false;
        }
        let stored = self.locked(|| match self.find(key, now) {
            Some(_) if existing == Existing::Keep => false,
            Some(item) => {
                self.put(item, Field::State, 0);
                self.write(item, key, value, expiry(expires, now));
                true
            }
            None => self.add(key, value, expires, now),
        });
        stored == Some(true)
    }

    /// Changes a number, 8 bytes in the machine's order; what is missing begins at zero. With `expires`
    /// 0, a number that is there expires when it was to. False when what is there is no number, or when
    /// there is no room.
    pub fn calculate(&self, key: &[u8], expires: u64, now: u64, change: impl Fn(i64) -> i64) -> bool {
        if key.len() > self.key_size || self.value_size < 8 {
            return false;
        }
        let done = self.locked(|| match self.find(key, now) {
            Some(item) => {
                let Ok(bytes) = self.value(item).try_into() else { return false };
                let number = change(i64::from_ne_bytes(bytes));
                self.put(item, Field::State, 0);
                let expires = match expires {
                    0 => self.field(item, Field::Expires),
                    seconds => expiry(seconds, now),
                };
                self.write(item, key, &number.to_ne_bytes(), expires);
                true
            }
            None => self.add(key, &change(0).to_ne_bytes(), expires, now),
        });
        done == Some(true)
    }

    /// Takes an item away; false if there is none.
    pub fn delete(&self, key: &[u8], now: u64) -> bool {
        self.locked(|| self.find(key, now).map(|item| self.remove(item)).is_some()) == Some(true)
    }

    /// Takes all items away.
    pub fn clear(&self) {
        self.locked(|| {
            (0..self.fresh()).filter(|item| self.counts(*item)).for_each(|item| self.remove(item))
        });
    }

    /// All keys.
    pub fn keys(&self, now: u64) -> Vec<Vec<u8>> {
        let live = |item: &usize| self.counts(*item) && !self.expired(*item, now);
        self.locked(|| (0..self.fresh()).filter(live).map(|item| self.key(item)).collect())
            .unwrap_or_default()
    }

    /// Runs `work` under the lock; `None` when that is beyond use.
    fn locked<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let lock = Robust::at(self.memory.words());
        if lock.lock().ok()? == Taken::FromTheDead {
            self.rebuild();
        }
        let result = work();
        lock.unlock().ok()?;
        Some(result)
    }

    /// Makes all chains anew: whoever had the lock died in the middle of something.
    fn rebuild(&self) {
        self.set(Header::Free, 0);
        (0..self.buckets).for_each(|bucket| self.bucket(bucket).store(0, Relaxed));
        for item in 0..self.fresh() {
            match self.counts(item) {
                true => self.link(item),
                false => self.give_up(item),
            }
        }
    }

    // The table.

    fn find(&self, key: &[u8], now: u64) -> Option<usize> {
        let hash = self.hash(key);
        let mut next = self.bucket_of(hash).load(Relaxed);
        while next != 0 {
            let item = next as usize - 1;
            next = self.field(item, Field::Next);
            if self.field(item, Field::Hash) == hash && self.has_key(item, key) {
                if self.expired(item, now) {
                    self.remove(item);
                    return None;
                }
                return Some(item);
            }
        }
        None
    }

    fn add(&self, key: &[u8], value: &[u8], expires: u64, now: u64) -> bool {
        let Some(item) = self.room(now) else { return false };
        self.put(item, Field::Hash, self.hash(key));
        self.write(item, key, value, expiry(expires, now));
        self.link(item);
        true
    }

    /// An item to be filled.
    fn room(&self, now: u64) -> Option<usize> {
        let free = self.header(Header::Free);
        if free != 0 {
            let item = free as usize - 1;
            self.set(Header::Free, self.field(item, Field::Next));
            return Some(item);
        }
        let fresh = self.fresh();
        if fresh < self.items {
            self.set(Header::Fresh, fresh as u64 + 1);
            return Some(fresh);
        }
        // A few at a time, as Redis does: who searches the whole table keeps all others waiting.
        let hand = self.header(Header::Hand) as usize;
        self.set(Header::Hand, ((hand + SAMPLE) % self.items) as u64);
        let sample = || (0..SAMPLE.min(self.items)).map(|step| (hand + step) % self.items);
        if self.sweep(sample(), now) {
            return self.room(now);
        }
        if self.purge {
            let oldest = sample().min_by_key(|item| self.field(*item, Field::Used))?;
            self.remove(oldest);
            return self.room(now);
        }
        if self.header(Header::Searched) == now {
            return None;
        }
        self.set(Header::Searched, now);
        if self.sweep(0..self.items, now) { self.room(now) } else { None }
    }

    /// Removes what has expired; true if there was any.
    fn sweep(&self, items: impl Iterator<Item = usize>, now: u64) -> bool {
        let expired = items.filter(|item| self.counts(*item) && self.expired(*item, now));
        expired.map(|item| self.remove(item)).count() > 0
    }

    fn remove(&self, item: usize) {
        self.put(item, Field::State, 0);
        let wanted = item as u64 + 1;
        let after = self.field(item, Field::Next);
        let bucket = self.bucket_of(self.field(item, Field::Hash));
        if bucket.load(Relaxed) == wanted {
            bucket.store(after, Relaxed);
        } else {
            let mut before = bucket.load(Relaxed);
            while before != 0 && self.field(before as usize - 1, Field::Next) != wanted {
                before = self.field(before as usize - 1, Field::Next);
            }
            if before != 0 {
                self.put(before as usize - 1, Field::Next, after);
            }
        }
        self.give_up(item);
    }

    fn link(&self, item: usize) {
        let bucket = self.bucket_of(self.field(item, Field::Hash));
        self.put(item, Field::Next, bucket.load(Relaxed));
        bucket.store(item as u64 + 1, Relaxed);
    }

    fn give_up(&self, item: usize) {
        self.put(item, Field::Next, self.header(Header::Free));
        self.set(Header::Free, item as u64 + 1);
    }

    // One item.

    /// Fills an item; that it counts is written last.
    fn write(&self, item: usize, key: &[u8], value: &[u8], expires: u64) {
        self.put(item, Field::Expires, expires);
        self.put(item, Field::Key, key.len() as u64);
        self.put(item, Field::Value, value.len() as u64);
        let mut bytes = key.iter().chain(value).copied();
        for word in &self.item(item)[Field::Data as usize..][..(key.len() + value.len()).div_ceil(8)] {
            let mut whole = [0; 8];
            whole.iter_mut().zip(&mut bytes).for_each(|(place, byte)| *place = byte);
            word.store(u64::from_ne_bytes(whole), Relaxed);
        }
        self.touch(item);
        self.put(item, Field::State, 1);
    }

    fn touch(&self, item: usize) {
        let clock = self.header(Header::Clock) + 1;
        self.set(Header::Clock, clock);
        self.put(item, Field::Used, clock);
    }

    fn key(&self, item: usize) -> Vec<u8> {
        self.bytes(item, 0, self.field(item, Field::Key) as usize)
    }

    fn value(&self, item: usize) -> Vec<u8> {
        let key = self.field(item, Field::Key) as usize;
        self.bytes(item, key, key + self.field(item, Field::Value) as usize)
    }

    fn has_key(&self, item: usize, key: &[u8]) -> bool {
        self.field(item, Field::Key) == key.len() as u64 && self.key(item) == key
    }

    fn bytes(&self, item: usize, from: usize, to: usize) -> Vec<u8> {
        let data = &self.item(item)[Field::Data as usize..];
        let mut bytes = Vec::with_capacity(to - from + 16);
        for word in &data[from / 8..to.div_ceil(8)] {
            bytes.extend_from_slice(&word.load(Relaxed).to_ne_bytes());
        }
        bytes.drain(..from % 8);
        bytes.truncate(to - from);
        bytes
    }

    fn counts(&self, item: usize) -> bool {
        self.field(item, Field::State) == 1
    }

    fn expired(&self, item: usize, now: u64) -> bool {
        let expires = self.field(item, Field::Expires);
        expires != 0 && now >= expires
    }

    // Words.

    fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.header(Header::Seed));
        hasher.write(key);
        hasher.finish()
    }

    fn header(&self, word: Header) -> u64 {
        self.memory.words()[word as usize].load(Relaxed)
    }

    fn set(&self, word: Header, value: u64) {
        self.memory.words()[word as usize].store(value, Relaxed);
    }

    fn fresh(&self) -> usize {
        (self.header(Header::Fresh) as usize).min(self.items)
    }

    fn bucket(&self, index: usize) -> &AtomicU64 {
        &self.memory.words()[Header::End as usize + index]
    }

    fn bucket_of(&self, hash: u64) -> &AtomicU64 {
        self.bucket(hash as usize & (self.buckets - 1))
    }

    fn item(&self, index: usize) -> &[AtomicU64] {
        let start = Header::End as usize + self.buckets + index * self.item_words;
        &self.memory.words()[start..start + self.item_words]
    }

    fn field(&self, item: usize, field: Field) -> u64 {
        self.item(item)[field as usize].load(Relaxed)
    }

    fn put(&self, item: usize, field: Field, value: u64) {
        self.item(item)[field as usize].store(value, Relaxed);
    }
}

/// The second at which something expires that is to be kept for so many; 0 is never.
fn expiry(seconds: u64, now: u64) -> u64 {
    if seconds == 0 { 0 } else { now.saturating_add(seconds) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::sys::testing::{alone, in_child};

    fn table(items: usize, purge: bool) -> Table {
        let spec = Spec { name: "t".to_owned(), items, key_size: 20, value_size: 50, purge };
        Table::create(&spec).expect("memory")
    }

    fn set(table: &Table, key: &str, value: &str) -> bool {
        table.store(key.as_bytes(), value.as_bytes(), 0, Existing::Keep, 0)
    }

    #[test]
    fn values_of_every_length_come_back_as_they_were() {
        let table = table(100, false);
        for length in 0..=50_usize {
            let (key, value) = (format!("key-{length}"), "v".repeat(length));
            assert!(set(&table, &key, &value));
            assert_eq!(table.get(key.as_bytes(), 0).as_deref(), Some(value.as_bytes()));
        }
        assert!(!set(&table, "long", &"v".repeat(51)));
        assert!(!set(&table, &"k".repeat(21), "v"));
        assert_eq!(table.keys(0).len(), 51);
    }

    #[test]
    fn an_existing_value_is_kept_or_replaced_as_asked() {
        let table = table(2, false);
        assert!(set(&table, "a", "1"));
        assert!(!set(&table, "a", "2"));
        assert_eq!(table.get(b"a", 0).as_deref(), Some(&b"1"[..]));
        assert!(table.store(b"a", b"longer", 0, Existing::Replace, 0));
        assert_eq!(table.get(b"a", 0).as_deref(), Some(&b"longer"[..]));
        assert!(table.delete(b"a", 0));
        assert!(!table.delete(b"a", 0) && !table.exists(b"a", 0));
    }

    #[test]
    fn a_value_expires_and_makes_room() {
        let table = table(1, false);
        assert!(table.store(b"a", b"1", 10, Existing::Keep, 100));
        assert!(table.exists(b"a", 109));
        assert!(!table.store(b"b", b"2", 0, Existing::Keep, 109), "full");
        assert!(table.store(b"b", b"2", 0, Existing::Keep, 110));
        assert_eq!(table.get(b"a", 110), None);
        assert_eq!(table.get(b"b", u64::MAX).as_deref(), Some(&b"2"[..]));
    }

    #[test]
    fn a_full_cache_forgets_what_was_not_used_for_long_if_it_may() {
        let table = table(3, true);
        ["a", "b", "c"].iter().for_each(|key| assert!(set(&table, key, "x")));
        table.get(b"a", 0);
        assert!(set(&table, "d", "x"));
        let mut keys = table.keys(0);
        keys.sort();
        assert_eq!(keys, [b"a", b"c", b"d"]);
        assert!(!set(&table_full(), "z", "x"));
    }

    fn table_full() -> Table {
        let table = table(1, false);
        set(&table, "a", "x");
        table
    }

    #[test]
    fn numbers_are_calculated_with() {
        let table = table(3, false);
        assert!(table.calculate(b"n", 0, 0, |number| number + 5));
        assert!(table.calculate(b"n", 0, 0, |number| number * 4));
        assert_eq!(table.get(b"n", 0), Some(20_i64.to_ne_bytes().to_vec()));
        assert!(table.calculate(b"soon", 5, 100, |number| number + 1));
        assert!(table.calculate(b"soon", 0, 104, |number| number + 1));
        assert!(!table.exists(b"soon", 105), "it expires when it was to");
        set(&table, "text", "abc");
        assert!(!table.calculate(b"text", 0, 0, |number| number + 1));
    }

    #[test]
    fn it_does_what_a_map_does() {
        let table = table(64, false);
        let mut map: HashMap<u64, u64> = HashMap::new();
        let mut random = 1_u64;
        for step in 0..20_000_u64 {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let (key, action) = ((random >> 33) % 100, (random >> 60) % 4);
            let name = key.to_string();
            match action {
                0 | 1 if map.len() < 64 || map.contains_key(&key) => {
                    let value = step.to_string();
                    assert!(table.store(name.as_bytes(), value.as_bytes(), 0, Existing::Replace, 0));
                    map.insert(key, step);
                }
                2 => assert_eq!(table.delete(name.as_bytes(), 0), map.remove(&key).is_some()),
                _ => {
                    let expected = map.get(&key).map(|value| value.to_string().into_bytes());
                    assert_eq!(table.get(name.as_bytes(), 0), expected);
                }
            }
        }
        table.clear();
        assert_eq!(table.keys(0), Vec::<Vec<u8>>::new());
        assert!((0..64).all(|key| set(&table, &key.to_string(), "again")));
    }

    #[test]
    fn a_process_that_dies_in_the_middle_takes_one_item_with_it_at_most() {
        alone(
            "cache::table::tests::a_process_that_dies_in_the_middle_takes_one_item_with_it_at_most",
            || {
                let table = table(8, false);
                (0..8).for_each(|key| assert!(set(&table, &key.to_string(), "x")));
                in_child(|| {
                    Robust::at(table.memory.words()).lock().expect("free");
                    // As if it had been replacing an item and changing a chain.
                    let item = table.find(b"3", 0).expect("there");
                    table.put(item, Field::State, 0);
                    (0..table.buckets).for_each(|bucket| table.bucket(bucket).store(0, Relaxed));
                });
                let mut keys = table.keys(0);
                keys.sort();
                assert_eq!(keys, [b"0", b"1", b"2", b"4", b"5", b"6", b"7"]);
                assert!(set(&table, "3", "again") && !set(&table, "9", "full"));
            },
        );
    }
}
