//! The one cache of file contents: blocks of sections, least recently used ones go first.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::symbol::byte_lru::{ByteLru, CacheCounts};

/// Bytes of a block: a unit is read in a few system calls, and a string costs no more than a page or four.
pub(super) const BLOCK: u64 = 16 << 10;

/// A stretch of a section.
#[derive(Debug)]
pub(super) struct Block {
    /// Offset in the section of the first byte.
    pub(super) start: u64,
    pub(super) bytes: Box<[u8]>,
}

/// Blocks of all sections of all files.
#[derive(Debug)]
pub(super) struct BlockCache {
    blocks: Mutex<ByteLru<(u32, u32), Arc<Block>>>,
    next_section: AtomicU32,
}

impl BlockCache {
    /// An empty cache of at most `budget` bytes.
    pub(super) fn new(budget: usize) -> Self {
        Self { blocks: Mutex::new(ByteLru::new(budget)), next_section: AtomicU32::new(0) }
    }

    /// A number for a section whose blocks are to be kept here. Four billion of them last for ever.
    pub(super) fn register(&self) -> u32 {
        self.next_section.fetch_add(1, Ordering::Relaxed)
    }

    /// Block number `index` of `section`.
    pub(super) fn get(&self, section: u32, index: u32) -> Option<Arc<Block>> {
        self.lock().get(&(section, index)).cloned()
    }

    pub(super) fn insert(&self, section: u32, index: u32, block: Arc<Block>) {
        let bytes = block.bytes.len() + size_of::<Block>() + 2 * size_of::<usize>();
        self.lock().insert((section, index), block, bytes);
    }

    /// Bytes in use and what the cache did so far.
    pub(super) fn usage(&self) -> (usize, CacheCounts) {
        let blocks = self.lock();
        (blocks.bytes(), blocks.counts())
    }

    fn lock(&self) -> MutexGuard<'_, ByteLru<(u32, u32), Arc<Block>>> {
        // The cache is whole between any two operations on it.
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
