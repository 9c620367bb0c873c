//! A least-recently-used cache that is bounded in bytes.

use std::hash::Hash;

use lru::LruCache;

use crate::table_use::TableUse;

/// Maps keys to values whose sizes the caller states. When they add up to more than the budget, the least
/// recently used ones go.
#[derive(Debug)]
pub struct ByteLru<K: Eq + Hash, V> {
    entries: LruCache<K, (V, usize)>,
    budget: usize,
    bytes: usize,
    counts: CacheCounts,
}

/// What a cache did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Look-ups that found something.
    pub hits: u64,
    /// Look-ups that found nothing.
    pub misses: u64,
    /// Entries dropped to stay within the budget.
    pub evictions: u64,
}

impl<K: Eq + Hash, V> ByteLru<K, V> {
    /// Bytes that an entry costs besides what the caller states: list links, hash table slot, key and value.
    pub const ENTRY: usize = size_of::<(K, (V, usize))>() + 6 * size_of::<usize>();

    /// An empty cache of at most `budget` bytes.
    pub fn new(budget: usize) -> Self {
        Self { entries: LruCache::unbounded(), budget, bytes: 0, counts: CacheCounts::default() }
    }

    /// The value of `key`, which counts as used now.
    pub fn get(&mut self, key: &K) -> Option<&V> {
        let found = self.entries.get(key).map(|(value, _)| value);
        let count = if found.is_some() { &mut self.counts.hits } else { &mut self.counts.misses };
        *count += 1;
        found
    }

    /// The value of `key`, which does not count as used.
    pub fn peek(&self, key: &K) -> Option<&V> {
        self.entries.peek(key).map(|(value, _)| value)
    }

    /// Remembers `value`, which owns `bytes` on the heap. What is larger than the whole budget is not kept. What had to go comes
    /// back, so that it need not be dropped where the cache is locked.
    pub fn insert(&mut self, key: K, value: V, bytes: usize) -> Vec<(K, V)> {
        let bytes = bytes.saturating_add(Self::ENTRY);
        if bytes > self.budget {
            self.counts.evictions += 1;
            return vec![(key, value)];
        }
        let mut gone = Vec::new();
        if let Some((key, (value, old))) = self.entries.push(key, (value, bytes)) {
            self.bytes -= old;
            gone.push((key, value));
        }
        self.bytes += bytes;
        self.shrink(&mut gone);
        gone
    }

    /// Forgets every entry whose key is not wanted.
    pub fn retain(&mut self, is_wanted: impl Fn(&K) -> bool)
    where
        K: Clone,
    {
        let unwanted: Vec<K> =
            self.entries.iter().filter(|(key, _)| !is_wanted(key)).map(|(key, _)| key.clone()).collect();
        for key in unwanted {
            self.remove(&key);
        }
    }

    /// States anew how many bytes the value of `key` owns, if it is still there. What had to go comes back.
    pub fn reweigh(&mut self, key: &K, bytes: usize) -> Vec<(K, V)> {
        let mut gone = Vec::new();
        if let Some((_, old)) = self.entries.peek_mut(key) {
            let bytes = bytes.saturating_add(Self::ENTRY);
            self.bytes = (self.bytes - *old).saturating_add(bytes);
            *old = bytes;
            self.shrink(&mut gone);
        }
        gone
    }

    /// Forgets `key`, without counting it as an eviction.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let (value, bytes) = self.entries.pop(key)?;
        self.bytes -= bytes;
        Some(value)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How full the cache is.
    pub fn table_use(&self, name: &'static str) -> TableUse {
        TableUse { name, entries: self.entries.len(), bytes: self.bytes, budget: self.budget }
    }

    /// Bytes in use, an estimate from above.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the cache did so far.
    pub fn counts(&self) -> CacheCounts {
        self.counts
    }

    fn shrink(&mut self, gone: &mut Vec<(K, V)>) {
        while self.bytes > self.budget {
            let Some((key, (value, bytes))) = self.entries.pop_lru() else { break };
            self.bytes -= bytes;
            self.counts.evictions += 1;
            gone.push((key, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Cache = ByteLru<u32, &'static str>;

    /// The least recently used entry goes first, and bytes are what is left.
    #[test]
    fn the_oldest_goes_first() {
        let mut cache = Cache::new(2 * (Cache::ENTRY + 10));
        cache.insert(1, "one", 10);
        cache.insert(2, "two", 10);
        assert_eq!(cache.get(&1), Some(&"one"));
        cache.insert(3, "three", 10);
        assert_eq!([2, 1, 3].map(|key| cache.get(&key).copied()), [None, Some("one"), Some("three")]);
        assert_eq!(cache.bytes(), 2 * (Cache::ENTRY + 10));
        assert_eq!(cache.counts(), CacheCounts { hits: 3, misses: 1, evictions: 1 });
    }

    /// What is forgotten on demand gives its bytes back and counts as no eviction.
    #[test]
    fn entries_are_forgotten() {
        let mut cache = Cache::new(10 * Cache::ENTRY + 100);
        for (key, value) in [(1, "one"), (2, "two"), (3, "three"), (4, "four")] {
            cache.insert(key, value, 10);
        }
        assert_eq!((cache.remove(&4), cache.remove(&4)), (Some("four"), None));
        cache.retain(|key| *key == 2);
        assert_eq!((cache.len(), cache.bytes()), (1, Cache::ENTRY + 10));
        assert_eq!(cache.counts().evictions, 0);
    }

    /// A replaced entry gives its bytes back, a grown one pushes others out, a giant is not kept.
    #[test]
    fn bytes_are_counted() {
        let mut cache = Cache::new(3 * Cache::ENTRY + 100);
        cache.insert(1, "one", 10);
        cache.insert(1, "uno", 20);
        assert_eq!(cache.bytes(), Cache::ENTRY + 20);
        cache.insert(2, "two", 10);
        cache.reweigh(&2, 100 + 2 * Cache::ENTRY);
        assert_eq!([1, 2].map(|key| cache.get(&key).copied()), [None, Some("two")]);
        cache.insert(3, "three", usize::MAX);
        assert_eq!(cache.get(&3), None);
        assert_eq!([1, 2].map(|key| cache.get(&key).copied()), [None, Some("two")]);
    }
}
