//! The kernel's own symbols, packed.
//!
//! Read once from `/proc/kallsyms` and kept in about a third of what a `Vec<(u64, String)>` takes: names are
//! sorted and front-coded ([`names`]), addresses are 32-bit offsets from the base of a segment, and a
//! module's name is stored once for each run of its symbols. A lookup is three binary searches and the
//! decoding of at most 16 names; nothing is hashed.

mod load;
mod names;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::mem::size_of_val;

use names::FrontCoded;

/// A code symbol is taken to cover at most this many bytes when nothing follows it closer.
///
/// kallsyms has no sizes. Without a limit every address between the kernel's text and its modules would be
/// named after the last function of the text.
pub const MAX_SYMBOL_BYTES: u64 = 1 << 20;

/// Why there are no kernel symbols.
#[derive(Debug, thiserror::Error)]
pub enum KallsymsError {
    /// `/proc/kallsyms` cannot be opened or read.
    #[error("cannot read /proc/kallsyms: {0}")]
    Read(#[from] io::Error),
    /// The kernel shows zeroes in place of addresses to this process.
    #[error(
        "the kernel hides its addresses (all are zero in /proc/kallsyms): give the agent CAP_SYSLOG, or set \
         `sysctl kernel.kptr_restrict` to 1 with CAP_SYSLOG or to 0"
    )]
    Restricted,
    /// Not one line describes a code symbol.
    #[error("no code symbol in /proc/kallsyms ({skipped_lines} lines are malformed)")]
    NoSymbols {
        /// Lines that could not be parsed.
        skipped_lines: u64,
    },
    /// More symbols, or more bytes of names, than 32-bit offsets and a plausible kernel allow.
    #[error("/proc/kallsyms is implausibly large: more than {limit} {what}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How many were accepted.
        limit: u64,
    },
}

/// The function that contains an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelSymbol<'a> {
    /// As the kernel has it: `.llvm.123` and `.cold` suffixes are kept.
    pub name: String,
    /// The module's name without brackets; `bpf` for BPF programs; None for the kernel image itself.
    pub module: Option<&'a str>,
    /// Address of the function's first byte.
    pub start: u64,
}

/// Heap bytes by component; their sum is [`Kallsyms::heap_bytes`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// The offsets of the symbols from their segments' bases, and the segments.
    pub addresses: usize,
    /// The front-coded names.
    pub names: usize,
    /// From a symbol to its name: ranks, and the block table of the names.
    pub index: usize,
    /// Module names and the runs of symbols that belong to them.
    pub modules: usize,
}

/// `CONFIG_PREFIX_SYMBOLS` gives every function a second symbol for the padding before it, named `__pfx_` and
/// the function's name: half of a kernel's symbols. Such a symbol is kept as its function's name with
/// [`PREFIXED`] set in the rank.
const PREFIX: &[u8] = b"__pfx_";
const PREFIXED: u32 = 1 << 31;

/// Symbols `first..` (up to the next segment's `first`) lie within 4 GiB above `base`.
#[derive(Clone, Copy, Debug)]
struct Segment {
    base: u64,
    first: u32,
}

/// Symbols `first..` (up to the next run's `first`) belong to `module`, an index into the module names.
#[derive(Clone, Copy, Debug)]
struct ModuleRun {
    first: u32,
    module: Option<u16>,
}

/// The code symbols of the kernel, its modules and its BPF programs, one for each address.
#[derive(Debug)]
pub struct Kallsyms {
    segments: Box<[Segment]>,
    /// By ascending address: distance from the segment's base.
    offsets: Box<[u32]>,
    /// Parallel to `offsets`: the name's rank among the sorted names, and the bit [`PREFIXED`].
    ranks: Box<[u32]>,
    names: FrontCoded,
    runs: Box<[ModuleRun]>,
    modules: Box<[Box<str>]>,
    skipped_lines: u64,
}

impl Kallsyms {
    /// Reads the running kernel's `/proc/kallsyms`.
    pub fn load() -> Result<Self, KallsymsError> {
        Self::read(BufReader::with_capacity(64 * 1024, File::open("/proc/kallsyms")?))
    }

    /// Reads lines of the form `ffffffff81000000 T name\t[module]` (`kernel/kallsyms.c: s_show`).
    ///
    /// Types other than `t T w W` are ignored, malformed lines are skipped and counted. Of several names at
    /// one address a global one is kept before a local one, then the shorter, then the alphabetically first.
    pub fn read(reader: impl BufRead) -> Result<Self, KallsymsError> {
        load::read(reader)
    }

    /// Number of symbols, which is the number of distinct addresses.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Never true for a value made by [`Kallsyms::read`], which refuses an empty table.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Lines that could not be parsed.
    pub fn skipped_lines(&self) -> u64 {
        self.skipped_lines
    }

    /// Heap bytes held, exact.
    pub fn heap_bytes(&self) -> usize {
        let MemoryUse { addresses, names, index, modules } = self.memory_use();
        addresses + names + index + modules
    }

    /// Heap bytes held, by component.
    pub fn memory_use(&self) -> MemoryUse {
        MemoryUse {
            addresses: size_of_val(&*self.offsets) + size_of_val(&*self.segments),
            names: self.names.text_bytes(),
            index: size_of_val(&*self.ranks) + self.names.index_bytes(),
            modules: size_of_val(&*self.runs)
                + size_of_val(&*self.modules)
                + self.modules.iter().map(|name| name.len()).sum::<usize>(),
        }
    }

    /// The symbol with the greatest start at or below `address`, unless `address` is
    /// [`MAX_SYMBOL_BYTES`] or more past that start; None below the first symbol.
    pub fn lookup(&self, address: u64) -> Option<KernelSymbol<'_>> {
        let index = self.index_of(address)?;
        let start = self.start_of(index)?;
        if address.checked_sub(start)? >= MAX_SYMBOL_BYTES {
            return None;
        }
        Some(KernelSymbol { name: self.name_of(index)?, module: self.module_of(index), start })
    }

    /// Index of the symbol with the greatest start at or below `address`.
    fn index_of(&self, address: u64) -> Option<usize> {
        let after = self.segments.partition_point(|segment| segment.base <= address);
        let segment = self.segments.get(after.checked_sub(1)?)?;
        let first = segment.first as usize;
        let end = self.segments.get(after).map_or(self.offsets.len(), |next| next.first as usize);
        let offset = u32::try_from(address - segment.base).unwrap_or(u32::MAX);
        let below = self.offsets.get(first..end)?.partition_point(|&start| start <= offset);
        (first + below).checked_sub(1)
    }

    fn start_of(&self, index: usize) -> Option<u64> {
        let after = self.segments.partition_point(|segment| segment.first as usize <= index);
        let base = self.segments.get(after.checked_sub(1)?)?.base;
        base.checked_add(u64::from(*self.offsets.get(index)?))
    }

    fn name_of(&self, index: usize) -> Option<String> {
        let rank = *self.ranks.get(index)?;
        let mut name = self.names.get(rank & !PREFIXED)?;
        if rank & PREFIXED != 0 {
            name.splice(..0, PREFIX.iter().copied());
        }
        Some(into_string(name))
    }

    fn module_of(&self, index: usize) -> Option<&str> {
        let after = self.runs.partition_point(|run| run.first as usize <= index);
        let module = self.runs.get(after.checked_sub(1)?)?.module?;
        self.modules.get(usize::from(module)).map(AsRef::as_ref)
    }
}

/// Kernel names are ASCII but for what a malformed table holds.
fn into_string(name: Vec<u8>) -> String {
    String::from_utf8(name).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}
