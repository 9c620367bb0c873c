//! The tables that the eBPF unwinder reads and the agent fills, all of them mmapped arrays of plain words.
//!
//! There is no BPF hash map among them: a look-up in a table of our own costs a few loads instead of a helper call, and the
//! agent changes it without a system call, which would make the kernel skip programs on that CPU.
//!
//! Who reads must be ready for a change at any moment. Whatever a table leads to (a run in the arena) begins with a header that
//! says what it is; the header is checked *after* reading, and a run is used for something else only when
//! every program that could have found it has ended (see [`crate::CpuCounters`]).

/// Words of an arena block; a block is one value of an array map. A run never crosses into another block.
pub const BLOCK_WORDS: u32 = 1 << 18;
/// Words that arena space is handed out in.
pub const RUN_WORDS: u32 = 64;
/// Words of the header that every allocation begins with.
pub const HEADER_WORDS: u32 = 4;

/// Index of the header's first word: low half of what the allocation holds ([`page_key`], or the process id).
pub const HEADER_LOW: u32 = 0;
/// Index of the header's second word: high half of [`page_key`], or [`MAPPINGS`].
pub const HEADER_HIGH: u32 = 1;
/// Index of the header's third word: rows or mappings that follow.
pub const HEADER_COUNT: u32 = 2;
/// Index of the header's fourth word: the epoch in which a program last used it.
pub const HEADER_HIT: u32 = 3;
/// Second header word of an allocation that holds a process's mappings. No module has this number.
pub const MAPPINGS: u32 = u32::MAX;

/// Most rows of one text page.
pub const MAX_ROWS: u32 = 4096;
/// Steps of a binary search over [`MAX_ROWS`] or [`MAX_MAPPINGS`] entries.
pub const SEARCH_STEPS: u32 = 12;
/// Most mappings of one process; of a process with more, those that samples hit.
pub const MAX_MAPPINGS: u32 = 4096;
/// Words of one mapping: start address (2), length in pages, first page in the file, module, flags.
pub const MAPPING_WORDS: u32 = 6;
/// Bytes of a page in a mapping's length and file offset.
pub const MAPPING_PAGE: u64 = 4096;
/// Flag of a mapping without a file: no rows, frame pointers only.
pub const MAPPING_ANONYMOUS: u32 = 1;

/// Rules that the rule table holds.
pub const MAX_RULES: u32 = 1 << 14;
/// Slots of the page table, in sets of [`SET_SLOTS`].
pub const PAGE_SLOTS: u32 = 1 << 14;
/// Slots of the process table, in sets of [`SET_SLOTS`].
pub const PROCESS_SLOTS: u32 = 1 << 12;
/// Slots among which a key may stand.
pub const SET_SLOTS: u32 = 8;

/// One slot of the page or the process table. Key 0: free. The agent writes `place` first, then `key`, and takes the key away
/// before it changes the place.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// [`page_key`], or the process id.
    pub key: u64,
    /// Where the allocation's header lies in the arena, in words, times 2^32; plus its count.
    pub place: u64,
}

/// The key of text page `page` of `module`.
pub const fn page_key(module: u32, page: u32) -> u64 {
    ((module as u64 + 1) << 32) | page as u64
}

/// First slot of the set that `key` belongs to, in a table of `slots` (a power of two).
pub const fn set_of(key: u64, slots: u32) -> u32 {
    let mixed = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed >> 40) as u32) & (slots - 1) & !(SET_SLOTS - 1)
}

/// Packs a [`Slot::place`].
pub const fn place(first: u32, count: u32) -> u64 {
    (first as u64) << 32 | count as u64
}

const _: () = {
    assert!(size_of::<Slot>() == 16);
    assert!(1 << SEARCH_STEPS == MAX_ROWS && MAX_ROWS == MAX_MAPPINGS);
    assert!(BLOCK_WORDS.is_multiple_of(RUN_WORDS));
    assert!(HEADER_WORDS + MAX_MAPPINGS * MAPPING_WORDS < BLOCK_WORDS);
};
