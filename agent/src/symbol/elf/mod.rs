//! ELF files as sources of names: where code lies, which build it is, which function covers an address.
//!
//! Every file here is foreign and may be hostile. Tables are read in chunks through [`ReadAt`], never the
//! whole file; every table is bounded by the file's length and by [`ElfLimits`]; arithmetic on what the file
//! says is checked. Layouts are those of the generic ABI (gabi, chapters 4 and 5) as [`object::elf`] has
//! them; 64-bit little endian only, which is x86_64 and aarch64.
//!
//! [`ReadAt`]: super::read_at::ReadAt

mod candidates;
mod functions;
mod image;
mod mini;
mod note;
mod plt;
mod section_data;
mod table;
#[cfg(test)]
mod tests;
mod unpack;

use std::io;

pub use functions::{ElfFile, FunctionIndex, NameOrigin, SymbolRef, SymtabKind};
pub use image::{ElfImage, Section, Segment};
pub use mini::mini_debug_info;
pub use section_data::SectionData;
pub(in crate::symbol) use section_data::unpack;

/// How much of a file's tables is read and kept, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElfLimits {
    /// Program and section header tables, each. 64 bytes a section.
    pub header_bytes: u64,
    /// `.symtab` and `.dynsym`, each. 24 bytes a symbol.
    pub symbol_bytes: u64,
    /// Heap bytes of a [`FunctionIndex`]. 12 bytes a function.
    pub index_bytes: usize,
    /// What MiniDebugInfo may hold when it is unpacked; kept only while an index is being built.
    pub mini_bytes: u64,
}

impl Default for ElfLimits {
    /// Room for 65,536 sections, 4 million symbols and 1.4 million functions: a browser with all its symbols.
    fn default() -> Self {
        Self { header_bytes: 4 << 20, symbol_bytes: 96 << 20, index_bytes: 16 << 20, mini_bytes: 32 << 20 }
    }
}

/// Why an ELF file gives no names.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// The file does not start with the ELF magic number, or is too short to.
    #[error("not an ELF file")]
    NotElf,
    /// An ELF file of a kind that is not read here.
    #[error("unsupported ELF file: {0}")]
    Unsupported(&'static str),
    /// The file contradicts itself or ends too early.
    #[error("malformed ELF file: {what} {reason}")]
    Malformed {
        /// The table or field.
        what: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A table is larger than [`ElfLimits`] allow.
    #[error("ELF file too large: {what} takes {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// The table.
        what: &'static str,
        /// Bytes it would take.
        bytes: u64,
        /// Bytes it may take.
        limit: u64,
    },
    /// The file could not be read.
    #[error("cannot read the {what} of an ELF file: {source}")]
    Read {
        /// The table.
        what: &'static str,
        /// The failure of the read.
        source: io::Error,
    },
}
