//! Unwinding: from call frame information (CFI) to the rows that the eBPF program follows, and the same steps in user space.
//!
//! Two halves. What is re-exported here is pure: it knows nothing of processes, mappings or the kernel. A module's CFI is found by
//! [`CfiIndex`] and read on demand through [`ReadAt`]; [`build_page`] makes the rows of one text page; [`step`] follows a row as
//! the eBPF program does; [`full_step`] evaluates what rows cannot express. Formats: DWARF 5 section 6.4; `.eh_frame` and
//! `.eh_frame_hdr` as in the LSB (Linux Standard Base Core 5.0, chapter 10.6).
//!
//! The other half puts it to work: [`arena`] keeps the tables that the program reads, [`finish`] finishes walks that it had to
//! leave, [`unwinder`] is the thread that does both.
//!
//! [`ReadAt`]: crate::symbol::read_at::ReadAt

pub mod arena;
mod call_site;
mod cfi;
mod entry;
pub mod finish;
mod full;
mod go_frame;
mod go_rows;
mod header;
pub mod module_cfi;
mod page;
mod page_fill;
pub mod read_ahead;
mod registers;
mod return_scan;
mod rule_table;
mod scan;
pub mod space;
pub mod stack_slice;
mod step;
mod supplement;
mod trampoline;
mod translate;
pub mod unwinder;
mod window;

#[cfg(test)]
mod tests;

use std::io;

use crate::symbol::elf::ElfError;

pub use call_site::{
    LONGEST_CALL, MUSL_START, MUSL_THREAD_START, is_after_call, is_musl_start, is_musl_thread_start,
    is_signal_trampoline,
};
pub use cfi::CfiIndex;
pub use full::{FullStep, FullStepError, full_step};
pub use go_rows::add_go_rows;
pub use page::{Page, PageStats, build_page};
pub use registers::{Architecture, Frame, Registers};
pub use return_scan::{Return, find_return};
pub use rule_table::RuleTable;
pub use step::{Step, step};
pub use trampoline::add_known_code;

/// How much of a module's CFI is read and kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CfiLimits {
    /// Heap bytes of an index that must be made because the file has none. 8 bytes an FDE.
    pub index_bytes: usize,
    /// Bytes of a section that is read from end to end for that.
    pub scan_bytes: u64,
    /// Bytes that a compressed section may hold; they are kept in memory.
    pub inflated_bytes: u64,
}

impl Default for CfiLimits {
    /// Room for 524,288 functions: several browsers.
    fn default() -> Self {
        Self { index_bytes: 4 << 20, scan_bytes: 128 << 20, inflated_bytes: 8 << 20 }
    }
}

/// Why CFI cannot be used: of a whole file, or of one FDE.
#[derive(Debug, thiserror::Error)]
pub enum CfiError {
    /// The file has none.
    #[error("the file has no call frame information")]
    Absent,
    /// Of a kind that is not read here.
    #[error("unsupported call frame information: {0}")]
    Unsupported(&'static str),
    /// It contradicts itself or ends too early.
    #[error("malformed call frame information: {0}")]
    Malformed(&'static str),
    /// It is larger than [`CfiLimits`] or a fixed limit allow.
    #[error("call frame information too large: {what} takes {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// The part.
        what: &'static str,
        /// Bytes it would take.
        bytes: u64,
        /// Bytes it may take.
        limit: u64,
    },
    /// A section with it cannot be used.
    #[error("cannot use a section with call frame information: {0}")]
    Section(#[from] ElfError),
    /// The file could not be read.
    #[error("cannot read call frame information: {0}")]
    Read(#[from] io::Error),
    /// An entry that the parser refuses.
    #[error("malformed call frame information: {0}")]
    Entry(#[from] gimli::Error),
}
