//! Go's own tables, which every Go program carries, stripped or not: which function covers an address, with what inlined and
//! from which line, and how far the stack pointer has moved at each instruction.
//!
//! The format is the runtime's own (`runtime/symtab.go`, `runtime/runtime2.go`, `cmd/link/internal/ld/pcln.go`) and not promised to
//! anybody. Three layouts are read, told by the magic number: Go 1.16 and 1.17, Go 1.18 and 1.19, Go 1.20 and later. 64-bit
//! little endian only.
//!
//! Nothing of the tables is kept: a look-up is a binary search by reads, and each reads a bounded number of bytes.

mod find;
mod function;
mod header;
mod lines;
mod module_data;
mod pc_values;
mod reader;
mod table;
#[cfg(test)]
pub(crate) mod tests;

use std::borrow::Cow;
use std::io;

pub use function::{GoFrame, GoRecord};
pub use lines::GoLine;
pub use table::{GoFunction, GoReader, GoTable};

/// How much of a file is read for its Go tables, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoLimits {
    /// Of segments that are searched for the tables' magic number, where no section says where they are, and for the pointer
    /// that leads to the base of the inlining tables.
    pub search_bytes: u64,
    /// Of relocations, which position independent programs may need for the same. 24 bytes each.
    pub relocation_bytes: u64,
    /// Of each kind of table, for one look-up or one text page.
    pub lookup_bytes: u64,
}

impl Default for GoLimits {
    /// Room for programs of several hundred megabytes.
    fn default() -> Self {
        Self { search_bytes: 256 << 20, relocation_bytes: 64 << 20, lookup_bytes: 4 << 20 }
    }
}

/// Why a file's Go tables cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GoTableError {
    /// Of a kind that is not read here.
    #[error("unsupported Go tables: {0}")]
    Unsupported(&'static str),
    /// They contradict themselves or end too early.
    #[error("malformed Go tables: {0}")]
    Malformed(&'static str),
    /// Something takes more bytes than [`GoLimits`] allow.
    #[error("Go tables too large: {what} takes more than {limit} bytes")]
    TooLarge {
        /// The part.
        what: &'static str,
        /// Bytes it may take.
        limit: u64,
    },
    /// The file could not be read.
    #[error("cannot read Go tables: {0}")]
    Read(#[from] io::Error),
}

/// A function's name as Go's own profiles show it: with `[...]` for type parameters, which may be longer than all the rest
/// (`runtime.funcNameForPrint`).
pub fn shown_name(name: &str) -> Cow<'_, str> {
    let parameters = name.find('[').zip(name.rfind(']')).filter(|(open, close)| open < close);
    match parameters.and_then(|(open, close)| name.get(..open).zip(name.get(close + 1..))) {
        Some((before, after)) => Cow::Owned(format!("{before}[...]{after}")),
        None => Cow::Borrowed(name),
    }
}
