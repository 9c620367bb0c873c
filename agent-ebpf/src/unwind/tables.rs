//! Reading the unwind tables: process → mappings, (module, text page) → rows, row → rule.

use agent_ebpf::rule::Rule;
use agent_ebpf::tables::{
    BLOCK_WORDS, HEADER_COUNT, HEADER_HIGH, HEADER_HIT, HEADER_LOW, HEADER_WORDS, MAPPING_PAGE,
    MAPPING_WORDS, MAPPINGS, MAX_RULES, PAGE_SLOTS, PROCESS_SLOTS, SEARCH_STEPS, SET_SLOTS, Slot, page_key,
    set_of,
};
use agent_ebpf::{Cursor, rule};
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;

/// `BPF_F_MMAPABLE` (5.5+).
const MMAPABLE: u32 = 1 << 10;

/// The arena. Large values, so that a run of rows lies in one; the agent sets their number before loading.
#[map]
static ARENA: Array<[u32; BLOCK_WORDS as usize]> = Array::with_max_entries(1, MMAPABLE);

/// Rules by index.
#[map]
static RULES: Array<[Rule; MAX_RULES as usize]> = Array::with_max_entries(1, MMAPABLE);

/// Text pages whose rows are in the arena.
#[map]
static PAGE_TABLE: Array<[Slot; PAGE_SLOTS as usize]> = Array::with_max_entries(1, MMAPABLE);

/// Processes whose mappings are in the arena.
#[map]
static PROCESS_TABLE: Array<[Slot; PROCESS_SLOTS as usize]> = Array::with_max_entries(1, MMAPABLE);

/// What the agent counts up from time to time, so that it can tell what was used lately.
#[map]
static EPOCH: Array<u32> = Array::with_max_entries(1, MMAPABLE);

/// A block of the arena, read at masked places.
#[derive(Clone, Copy)]
struct Block(*const u32);

impl Block {
    /// The block that the arena's word `index` lies in.
    #[inline(always)]
    fn of(index: u32) -> Option<Self> {
        ARENA.get_ptr(index / BLOCK_WORDS).map(|block| Self(block.cast()))
    }

    /// Word `index` of the arena, which must lie in this block: the mask makes it so, and the verifier sees that.
    #[inline(always)]
    fn word(self, index: u32) -> u32 {
        // SAFETY: the masked index lies in the block. Volatile: the agent may write at any moment.
        unsafe { core::ptr::read_volatile(self.0.add((index & (BLOCK_WORDS - 1)) as usize)) }
    }

    #[inline(always)]
    fn double_word(self, index: u32) -> u64 {
        u64::from(self.word(index)) | u64::from(self.word(index + 1)) << 32
    }

    /// Marks the allocation at `first` as used in the present epoch. Written only on change: its cache line stays shared.
    #[inline(always)]
    fn mark_hit(self, first: u32) {
        let Some(epoch) = EPOCH.get_ptr(0) else { return };
        // SAFETY: a map value.
        let epoch = unsafe { core::ptr::read_volatile(epoch) };
        let index = first + HEADER_HIT;
        if self.word(index) != epoch {
            let index = (index & (BLOCK_WORDS - 1)) as usize;
            // SAFETY: the masked index lies in the block, which is a writable map value.
            unsafe { core::ptr::write_volatile(self.0.add(index).cast_mut(), epoch) };
        }
    }
}

/// Looks a key up in the set of slots that it belongs to: its place, or 0.
#[inline(always)]
fn find(table: *const Slot, slots: u32, key: u64) -> u64 {
    let set = set_of(key, slots);
    for way in 0..SET_SLOTS {
        let index = ((set + way) & (slots - 1)) as usize;
        // SAFETY: the masked index lies in the table; volatile because the agent writes at any moment.
        unsafe {
            let slot = table.add(index);
            if core::ptr::read_volatile(&raw const (*slot).key) == key {
                return core::ptr::read_volatile(&raw const (*slot).place);
            }
        }
    }
    0
}

/// Finds the mappings of process `pid` if they are those of `image`; else leaves none in the cursor.
#[inline(always)]
pub(super) fn find_mappings(cursor: &mut Cursor, pid: u32, image: u64) {
    cursor.mappings_count = 0;
    let Some(table) = PROCESS_TABLE.get_ptr(0) else { return };
    let place = find(table.cast(), PROCESS_SLOTS, u64::from(pid));
    let first = (place >> 32) as u32;
    let count = place as u32;
    let Some(block) = Block::of(first) else { return };
    let ours = block.word(first + HEADER_LOW) == pid && block.word(first + HEADER_HIGH) == MAPPINGS;
    if count == 0 || !ours || block.double_word(first + HEADER_WORDS) != image {
        return;
    }
    block.mark_hit(first);
    cursor.mappings_first = first;
    cursor.mappings_count = count;
}

/// Finds the mapping that holds `pc` and puts it into the cursor.
#[inline(always)]
pub(super) fn find_mapping(cursor: &mut Cursor, pc: u64) -> bool {
    let Some(block) = Block::of(cursor.mappings_first) else { return false };
    // The image comes before the mappings.
    let base = cursor.mappings_first + HEADER_WORDS + 2;
    let index = last_not_above(&raw mut cursor.search, cursor.mappings_count, |index| {
        block.double_word(base + index * MAPPING_WORDS) <= pc
    });
    let Some(index) = index else { return false };
    let at = base + index * MAPPING_WORDS;
    let start = block.double_word(at);
    let end = start + u64::from(block.word(at + 2)) * MAPPING_PAGE;
    if pc < start || pc >= end {
        return false;
    }
    cursor.mapping_start = start;
    cursor.mapping_end = end;
    cursor.mapping_file = u64::from(block.word(at + 3)) * MAPPING_PAGE;
    cursor.mapping_module = block.word(at + 4);
    cursor.mapping_flags = block.word(at + 5);
    true
}

/// Finds the rows of `pc`'s text page and puts their place into the cursor; false when they are not in the arena.
#[inline(always)]
pub(super) fn find_page(cursor: &mut Cursor, file_offset: u64) -> bool {
    let key = page_key(cursor.mapping_module, (file_offset / rule::TEXT_PAGE) as u32);
    if cursor.page_key == key {
        return true;
    }
    let Some(table) = PAGE_TABLE.get_ptr(0) else { return false };
    let place = find(table.cast(), PAGE_SLOTS, key);
    if place == 0 {
        return false;
    }
    cursor.page_key = key;
    cursor.page_first = (place >> 32) as u32;
    cursor.page_rows = place as u32;
    true
}

/// The rule that holds at `file_offset` of the cursor's text page; `None` when the page was taken away meanwhile.
#[inline(always)]
pub(super) fn rule_at(cursor: &mut Cursor, file_offset: u64) -> Option<Rule> {
    let block = Block::of(cursor.page_first)?;
    let offset = (file_offset & (rule::TEXT_PAGE - 1)) as u16;
    let wanted = rule::row(offset, u16::MAX);
    let base = cursor.page_first + HEADER_WORDS;
    let cell = &raw mut cursor.search;
    let row = match last_not_above(cell, cursor.page_rows, |index| block.word(base + index) <= wanted) {
        Some(index) => block.word(base + index),
        // Before the first row: no information.
        None => rule::row(0, 0),
    };
    let rules = RULES.get_ptr(0)?.cast::<Rule>();
    let index = (u32::from(rule::row_rule(row)) & (MAX_RULES - 1)) as usize;
    // SAFETY: the masked index lies in the table.
    let rule = unsafe { core::ptr::read_volatile(rules.add(index)) };
    // Only now is it certain what was read: the page may have been taken away at any moment before.
    let found = u64::from(block.word(cursor.page_first + HEADER_HIGH)) << 32
        | u64::from(block.word(cursor.page_first + HEADER_LOW));
    let whole = block.word(cursor.page_first + HEADER_COUNT) == cursor.page_rows;
    if found != cursor.page_key || !whole {
        cursor.page_key = 0;
        return None;
    }
    block.mark_hit(cursor.page_first);
    Some(rule)
}

/// The last of `count` sorted entries for which `not_above` holds, in a fixed number of steps.
///
/// LLVM turns every way of writing this into branches that leave `reached` with one of two constants, so a verifier that
/// knows register contents would have to look at each of 4,096 outcomes. It does not know what maps hold: the value goes
/// through the scratch record at each step, and all outcomes are one state again.
#[inline(always)]
fn last_not_above(cell: *mut u32, count: u32, not_above: impl Fn(u32) -> bool) -> Option<u32> {
    // `reached` is how many entries are known to be not above.
    // SAFETY: `cell` is a field of the claimed scratch record; volatile, or LLVM would keep it in a register.
    unsafe { core::ptr::write_volatile(cell, 0) };
    for step in 0..SEARCH_STEPS {
        // SAFETY: as above.
        let reached = unsafe { core::ptr::read_volatile(cell) };
        let candidate = reached + (1 << (SEARCH_STEPS - 1 - step));
        if candidate <= count && not_above(candidate - 1) {
            // SAFETY: as above.
            unsafe { core::ptr::write_volatile(cell, candidate) };
        }
    }
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile(cell) }.checked_sub(1)
}
