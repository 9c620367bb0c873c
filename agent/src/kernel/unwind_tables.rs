//! The tables of the eBPF unwinder, from the agent's side: what `agent_ebpf::tables` says, written so that a program that
//! reads at the same moment sees the old or the new, or finds out that it saw neither.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use agent_ebpf::rule::Rule;
use agent_ebpf::tables::{
    HEADER_COUNT, HEADER_HIT, HEADER_WORDS, PAGE_SLOTS, PROCESS_SLOTS, SET_SLOTS, set_of,
};

use crate::kernel::shared_array::SharedArray;

/// The arena and the tables that lead into it.
pub struct UnwindTables {
    /// Rows of text pages and mappings of processes.
    pub arena: SharedArray,
    /// Rules by index.
    pub rules: SharedArray,
    /// Text page → place in the arena.
    pub pages: SlotTable,
    /// Process → place in the arena.
    pub processes: SlotTable,
    /// What programs mark as used.
    pub epoch: SharedArray,
}

impl UnwindTables {
    /// Writes `words` to the arena at word `first`. Nothing that a program can find may lie there.
    pub fn write(&self, first: u32, words: &[u32]) {
        for (index, word) in (first as usize..).zip(words) {
            self.arena.word(index).store(*word, Ordering::Relaxed);
        }
    }

    /// Whether the allocation at word `first` is `words`, header included, whenever it was last used.
    pub fn holds(&self, first: u32, words: &[u32]) -> bool {
        (first as usize..).zip(words).enumerate().all(|(place, (index, word))| {
            place == HEADER_HIT as usize || self.arena.word(index).load(Ordering::Relaxed) == *word
        })
    }

    /// Makes the header at word `first` something that no key matches: who has read what follows it finds out.
    pub fn erase_header(&self, first: u32) {
        for index in 0..HEADER_HIT as usize {
            self.arena.word(first as usize + index).store(0, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
    }

    /// The epoch in which a program last used the allocation at word `first`.
    pub fn last_hit(&self, first: u32) -> u32 {
        self.arena.word((first + HEADER_HIT) as usize).load(Ordering::Relaxed)
    }

    /// The last row not above `wanted` of the rows at word `first`.
    pub fn row_not_above(&self, first: u32, wanted: u32) -> Option<u32> {
        let row =
            |index: u32| self.arena.word((first + HEADER_WORDS + index) as usize).load(Ordering::Relaxed);
        let (mut known, mut count) = (0, self.count_at(first));
        while count > 0 {
            let half = count.div_ceil(2);
            if row(known + half - 1) <= wanted {
                known += half;
                count -= half;
            } else {
                count = half - 1;
            }
        }
        known.checked_sub(1).map(row)
    }

    /// How many rows or mappings the allocation at word `first` has.
    pub fn count_at(&self, first: u32) -> u32 {
        self.arena.word((first + HEADER_COUNT) as usize).load(Ordering::Relaxed)
    }

    /// The present epoch.
    pub fn present_epoch(&self) -> u32 {
        self.epoch.word(0).load(Ordering::Relaxed)
    }

    /// Begins a new epoch.
    pub fn begin_epoch(&self) {
        self.epoch.word(0).fetch_add(1, Ordering::Relaxed);
    }

    /// Writes a rule. No row that a program can find may have this index with another meaning.
    pub fn write_rule(&self, index: u16, rule: Rule) {
        let Rule { kind, fp, cfa_offset, fp_offset, ra_offset } = rule;
        let [cfa0, cfa1] = cfa_offset.to_le_bytes();
        let [fp0, fp1] = fp_offset.to_le_bytes();
        let [ra0, ra1] = ra_offset.to_le_bytes();
        let bytes = [kind, fp, cfa0, cfa1, fp0, fp1, ra0, ra1];
        self.rules.double_word(usize::from(index)).store(u64::from_le_bytes(bytes), Ordering::Release);
    }
}

/// A table of slots in sets: a key stands in one of the slots of its set.
pub struct SlotTable {
    slots: SharedArray,
    count: u32,
}

/// Why a key could not be put into its set: it is full. The places of all that stand there, for the caller to choose whom to send away.
#[derive(Debug, PartialEq, Eq)]
pub struct SetFull {
    /// Keys in the set.
    pub keys: Vec<u64>,
}

impl SlotTable {
    /// The table of text pages in `slots`.
    pub fn of_pages(slots: SharedArray) -> Self {
        Self { slots, count: PAGE_SLOTS }
    }

    /// The table of processes in `slots`.
    pub fn of_processes(slots: SharedArray) -> Self {
        Self { slots, count: PROCESS_SLOTS }
    }

    /// Makes `key` lead to `place`, in place of what it led to before.
    pub fn publish(&self, key: u64, place: u64) -> Result<(), SetFull> {
        let slot = match self.slot_of(key) {
            Some(slot) => {
                self.key(slot).store(0, Ordering::SeqCst);
                slot
            }
            None => self.free_slot(key).ok_or_else(|| self.full(key))?,
        };
        self.place(slot).store(place, Ordering::SeqCst);
        self.key(slot).store(key, Ordering::SeqCst);
        Ok(())
    }

    /// Makes `key` lead nowhere.
    pub fn remove(&self, key: u64) {
        if let Some(slot) = self.slot_of(key) {
            self.key(slot).store(0, Ordering::SeqCst);
        }
    }

    /// Whether `key` can be published without sending another one away.
    pub fn has_room(&self, key: u64) -> bool {
        self.slot_of(key).or_else(|| self.free_slot(key)).is_some()
    }

    /// Slots in all.
    pub fn slots(&self) -> usize {
        self.count as usize
    }

    /// Slots in use.
    pub fn used(&self) -> usize {
        (0..self.count).filter(|slot| self.key(*slot).load(Ordering::Relaxed) != 0).count()
    }

    fn set(&self, key: u64) -> Range<u32> {
        let first = set_of(key, self.count);
        first..first + SET_SLOTS
    }

    fn slot_of(&self, key: u64) -> Option<u32> {
        self.set(key).find(|slot| self.key(*slot).load(Ordering::Relaxed) == key)
    }

    fn free_slot(&self, key: u64) -> Option<u32> {
        self.set(key).find(|slot| self.key(*slot).load(Ordering::Relaxed) == 0)
    }

    fn full(&self, key: u64) -> SetFull {
        SetFull { keys: self.set(key).map(|slot| self.key(slot).load(Ordering::Relaxed)).collect() }
    }

    fn key(&self, slot: u32) -> &AtomicU64 {
        self.slots.double_word(slot as usize * 2)
    }

    fn place(&self, slot: u32) -> &AtomicU64 {
        self.slots.double_word(slot as usize * 2 + 1)
    }
}
