//! What all modules' debug information shares: the blocks, and the units that were parsed.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::DwarfLimits;
use super::blocks::BlockCache;
use super::refused::{LinesRefused, RefusedCounts};
use super::unit::UnitLines;
use crate::symbol::byte_lru::{ByteLru, CacheCounts};

/// A module's number, a unit's number in it.
pub(super) type UnitKey = (u32, u32);
/// A unit, or why it cannot be read.
pub(super) type Unit = Arc<Mutex<Result<UnitLines, LinesRefused>>>;

/// The caches of all [`DebugLines`](super::DebugLines), within one budget.
pub struct DwarfCache {
    pub(super) limits: DwarfLimits,
    pub(super) blocks: Arc<BlockCache>,
    units: Mutex<ByteLru<UnitKey, Unit>>,
    /// Bytes that one unit may take.
    pub(super) unit_budget: usize,
    pub(super) refused: RefusedCounts,
    next_module: AtomicU32,
}

/// How full the caches are and what they did.
#[derive(Clone, Copy, Debug, Default)]
pub struct DwarfUse {
    /// Bytes of blocks of files.
    pub block_bytes: usize,
    /// What the cache of blocks did.
    pub block_counts: CacheCounts,
    /// Bytes of parsed units.
    pub unit_bytes: usize,
    /// What the cache of units did.
    pub unit_counts: CacheCounts,
    /// Look-ups that gave no line, in the order of [`LinesRefused::ALL`].
    pub refused: [u64; LinesRefused::ALL.len()],
}

impl DwarfCache {
    /// Empty caches of at most `budget` bytes: a quarter for blocks, the rest for units.
    pub fn new(budget: usize, limits: DwarfLimits) -> Arc<Self> {
        let blocks = budget / 4;
        let units = budget - blocks;
        Arc::new(Self {
            limits,
            blocks: Arc::new(BlockCache::new(blocks)),
            units: Mutex::new(ByteLru::new(units)),
            unit_budget: units,
            refused: RefusedCounts::default(),
            next_module: AtomicU32::new(0),
        })
    }

    /// How full the caches are and what they did.
    pub fn memory_use(&self) -> DwarfUse {
        let (block_bytes, block_counts) = self.blocks.usage();
        let units = self.lock();
        DwarfUse {
            block_bytes,
            block_counts,
            unit_bytes: units.bytes(),
            unit_counts: units.counts(),
            refused: self.refused.get(),
        }
    }

    pub(super) fn register(&self) -> u32 {
        self.next_module.fetch_add(1, Ordering::Relaxed)
    }

    /// The unit, if it is there.
    pub(super) fn unit(&self, key: UnitKey) -> Option<Unit> {
        self.lock().get(&key).cloned()
    }

    /// Keeps `unit`, or states anew what it takes.
    pub(super) fn keep(&self, key: UnitKey, unit: &Unit, bytes: usize) {
        let mut units = self.lock();
        if units.peek(&key).is_some() {
            units.reweigh(&key, bytes);
        } else {
            units.insert(key, unit.clone(), bytes);
        }
    }

    fn lock(&self) -> MutexGuard<'_, ByteLru<UnitKey, Unit>> {
        // The cache is whole between any two operations on it.
        self.units.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
