//! Source lines and inlined functions from DWARF (versions 2 to 5), in bounded memory.
//!
//! [`addr2line`] does the reading, but on little at a time. Its `Context` keeps what it has parsed and never gives it
//! back, and making one reads the root of every unit of a file. So each [`UnitLines`] is a context of its own that sees one unit:
//! the rest of `.debug_info` is hidden from it (see [`view`]), but for the units that this one refers to. Which unit covers an
//! address says a [`UnitIndex`], 16 bytes a range. Sections are never loaded: everything reads through one cache of blocks
//! ([`BlockCache`]), also compressed sections, which are inflated from the nearest of a few saved states. Only what zstd has compressed
//! is unpacked whole, if it is little.
//!
//! Files are foreign and may be hostile: sizes are refused by their numbers, each look-up may read so many blocks and
//! no more, and what cannot be done is counted by cause ([`LinesRefused`]). The frame keeps its name from the symbol table then.
//!
//! [`UnitLines`]: unit::UnitLines
//! [`UnitIndex`]: unit_index::UnitIndex
//! [`BlockCache`]: blocks::BlockCache

mod abbreviations;
mod blocks;
mod cache;
mod compressed;
mod debug_lines;
mod linked;
mod references;
mod refused;
mod root;
mod section;
mod section_reader;
mod sections;
mod split;
mod supplement;
#[cfg(test)]
pub(in crate::symbol) mod tests;
mod unit;
mod unit_index;
mod unit_scan;
mod view;

pub use cache::{DwarfCache, DwarfUse};
pub use debug_lines::{DebugLines, SharedSource, SourceLine};
pub use linked::LinkedFiles;
pub use refused::LinesRefused;

/// How much of a file's debug information is read and kept. Beyond that there are names without lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DwarfLimits {
    /// Bytes of a file's debug sections, as they lie in the file.
    pub module_bytes: u64,
    /// Units of a file. 8 bytes each.
    pub units: usize,
    /// Heap bytes of the index of a file's units. 16 bytes a range.
    pub index_bytes: usize,
    /// Blocks (of 16 KiB) that making that index may read.
    pub index_blocks: u64,
    /// Bytes of a unit's entries, and of its line program.
    pub unit_bytes: u64,
    /// Blocks that a look-up may read.
    pub lookup_blocks: u64,
    /// Bytes of all of a file's sections that are compressed by zstd, unpacked. They are held for the length of a look-up, and
    /// twice while one is unpacked.
    pub unpacked_bytes: u64,
}

impl DwarfLimits {
    /// Limits for files of up to `module_bytes` of debug information.
    pub fn new(module_bytes: u64) -> Self {
        Self {
            module_bytes,
            units: 1 << 18,
            index_bytes: 4 << 20,
            index_blocks: 1 << 18,
            unit_bytes: 16 << 20,
            lookup_blocks: 1 << 14,
            unpacked_bytes: 16 << 20,
        }
    }
}
