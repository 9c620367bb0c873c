//! Which function covers an address: an index of 12 bytes a function that leaves the names in the file.
//!
//! A stripped file has no `.symtab`, but another file may have it: a separate debug file, or the one that is packed into
//! `.gnu_debugdata`. Addresses in those are the same, sections have the same numbers and flags, and only the symbol table's bytes
//! are there. What is code, `.dynsym` and the PLT are always the module's own.

use std::borrow::Cow;
use std::io;
use std::mem::size_of_val;

use super::candidates::Candidates;
use super::table::Strings;
use super::{ElfError, ElfImage, ElfLimits, plt};
use crate::symbol::read_at::ReadAt;

/// How far back an enclosing symbol is searched for when the nearest one has ended, in symbols.
///
/// Only a file whose symbols overlap wildly needs more; it gets no name there instead of a slow lookup.
const MAX_ENCLOSED: usize = 4096;

/// A function of an ELF file; its name is read with [`FunctionIndex::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SymbolRef {
    /// Link-time address of the first byte.
    pub start: u64,
    /// Bytes covered. For a symbol without a size: up to the next symbol or the end of its section.
    pub size: u64,
    name: Name,
}

impl SymbolRef {
    /// Which file the name lies in. It matters only where the index was built from two.
    pub fn origin(&self) -> NameOrigin {
        self.name.origin()
    }

    /// Brings `symbols` into the order in which their files have the names, those of one file together.
    pub fn in_order_of_names(symbols: &mut [Self]) {
        symbols.sort_unstable_by_key(|symbol| (symbol.origin() == NameOrigin::Own, symbol.name.offset()));
    }
}

/// Where a function's name is: an offset into a string table, and above it a [`Class`] in four bits.
///
/// In this order the first of several symbols at one address is the one to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name(u32);

/// What kind of symbol an entry came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// From a symbol table; `rank` is 0 for a global function, higher the less its name is worth (at most
    /// [`Class::MAX_RANK`]).
    Symbol { rank: u32, dynamic: bool },
    /// A PLT stub; the name is that of the dynamic symbol it calls.
    PltStub,
}

impl Class {
    pub(super) const MAX_RANK: u32 = 5;
    const PLT_BITS: u32 = 15;
}

impl Name {
    const OFFSET_BITS: u32 = 28;

    /// None when `offset` needs more than 28 bits (a string table over 256 MiB).
    pub(super) fn new(class: Class, offset: u32) -> Option<Self> {
        let class = match class {
            Class::Symbol { rank, dynamic } => rank.min(Class::MAX_RANK) * 2 + u32::from(dynamic),
            Class::PltStub => Class::PLT_BITS,
        };
        (offset >> Self::OFFSET_BITS == 0).then_some(Self(class << Self::OFFSET_BITS | offset))
    }

    pub(super) fn class(self) -> Class {
        match self.0 >> Self::OFFSET_BITS {
            Class::PLT_BITS => Class::PltStub,
            bits => Class::Symbol { rank: bits / 2, dynamic: bits % 2 == 1 },
        }
    }

    pub(super) fn origin(self) -> NameOrigin {
        match self.class() {
            Class::Symbol { dynamic: false, .. } => NameOrigin::Symtab,
            Class::Symbol { dynamic: true, .. } | Class::PltStub => NameOrigin::Own,
        }
    }

    fn offset(self) -> u64 {
        u64::from(self.0 & ((1 << Self::OFFSET_BITS) - 1))
    }
}

/// A function: 12 bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Distance of the first byte from the index's base.
    pub(super) start: u32,
    pub(super) size: u32,
    pub(super) name: Name,
}

/// The string tables that names are read from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StringTables {
    pub(super) symtab: Strings,
    pub(super) dynsym: Strings,
}

impl StringTables {
    /// `source` is the file that `name` lies in: [`Name::origin`] says which.
    pub(super) fn read(&self, source: &dyn ReadAt, name: Name, max: usize) -> io::Result<Vec<u8>> {
        let mut bytes = self.table(name.origin()).read(source, name.offset(), max)?;
        bytes.truncate(finish(name, &bytes).len());
        Ok(bytes)
    }

    /// Tells `found` the names of the `symbols`, of which all are in `source`, in their order.
    fn read_all(
        &self,
        source: &dyn ReadAt,
        symbols: &[SymbolRef],
        found: &mut dyn FnMut(&SymbolRef, io::Result<&[u8]>),
    ) {
        let Some(first) = symbols.first() else { return };
        let offsets: Vec<u64> = symbols.iter().map(|symbol| symbol.name.offset()).collect();
        let mut symbols = symbols.iter();
        self.table(first.origin()).read_all(source, &offsets, Strings::MAX_NAME, &mut |bytes| {
            if let Some(symbol) = symbols.next() {
                found(symbol, bytes.map(|bytes| finish(symbol.name, bytes)));
            }
        });
    }

    fn table(&self, origin: NameOrigin) -> &Strings {
        match origin {
            NameOrigin::Own => &self.dynsym,
            NameOrigin::Symtab => &self.symtab,
        }
    }
}

/// The bytes of `name` without a version.
fn finish(name: Name, bytes: &[u8]) -> &[u8] {
    let length = if name.origin() == NameOrigin::Symtab { without_version(bytes) } else { bytes.len() };
    bytes.get(..length).unwrap_or(bytes)
}

/// How much of a name of `.symtab` is left without the version that linkers append to it there (`fopen@@GLIBC_2.2.5`); in
/// `.dynsym` it stands apart.
fn without_version(name: &[u8]) -> usize {
    name.iter().position(|&byte| byte == b'@').filter(|&at| at > 0).unwrap_or(name.len())
}

/// The files that an index is built from.
pub(super) struct SymbolFiles<'a> {
    pub(super) own: ElfFile<'a>,
    /// The one whose `.symtab` is read.
    pub(super) symtab: ElfFile<'a>,
    pub(super) kind: SymtabKind,
}

impl SymbolFiles<'_> {
    pub(super) fn source_of(&self, name: Name) -> &dyn ReadAt {
        match name.origin() {
            NameOrigin::Symtab => self.symtab.source,
            NameOrigin::Own => self.own.source,
        }
    }
}

/// A file with symbols: its bytes and its headers.
#[derive(Clone, Copy)]
pub struct ElfFile<'a> {
    /// The bytes.
    pub source: &'a dyn ReadAt,
    /// The headers.
    pub image: &'a ElfImage,
}

/// What a `.symtab` in another file than the module's own holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SymtabKind {
    /// All symbols, those of `.dynsym` among them: a separate debug file's.
    Whole,
    /// What is not in `.dynsym`: MiniDebugInfo's.
    Rest,
}

/// Which file a function's name is to be read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameOrigin {
    /// The file that the index's `.symtab` is in.
    Symtab,
    /// The module's own file.
    Own,
}

/// The functions of one ELF file by address.
#[derive(Debug)]
pub struct FunctionIndex {
    base: u64,
    /// By ascending start, one for each start.
    entries: Box<[Entry]>,
    /// The greatest size: an enclosing symbol cannot start further before an address.
    max_size: u32,
    strings: StringTables,
    skipped: u64,
}

impl FunctionIndex {
    /// Reads `.symtab` and `.dynsym` of `source`, whose headers are `image`, and names its PLT stubs.
    ///
    /// Taken are functions, indirect functions, and named untyped symbols of executable sections (assembly)
    /// but for mapping symbols and local labels. Of several at one address the first in this order is kept:
    /// typed before untyped, global before weak before local, with a size before without, from `.symtab`
    /// before from `.dynsym`, fewer leading underscores, shorter, alphabetical. A symbol without a size that
    /// lies inside one with a size is a label in it and is dropped; elsewhere it covers what follows up to
    /// the next symbol or the end of its section.
    ///
    /// # Errors
    /// [`ElfError::Malformed`] for symbol tables outside the file, [`ElfError::TooLarge`] for more symbols
    /// than the limits allow or code spread over more than 4 GiB, [`ElfError::Unsupported`] for relocatable
    /// files, whose symbols have no addresses. A file without symbols gives an empty index.
    pub fn build(source: &dyn ReadAt, image: &ElfImage, limits: &ElfLimits) -> Result<Self, ElfError> {
        let own = ElfFile { source, image };
        Self::of(&SymbolFiles { own, symtab: own, kind: SymtabKind::Whole }, limits)
    }

    /// As [`FunctionIndex::build`], for a module whose `.symtab` is in another file. Code, `.dynsym` and PLT stubs are still
    /// those of `own`.
    ///
    /// # Errors
    /// As [`FunctionIndex::build`], for either file.
    pub fn build_with_symtab(
        own: ElfFile<'_>,
        symtab: ElfFile<'_>,
        kind: SymtabKind,
        limits: &ElfLimits,
    ) -> Result<Self, ElfError> {
        Self::of(&SymbolFiles { own, symtab, kind }, limits)
    }

    fn of(files: &SymbolFiles<'_>, limits: &ElfLimits) -> Result<Self, ElfError> {
        let mut candidates = Candidates::collect(files, limits)?;
        // Stubs are a bonus: broken relocations do not cost the functions their names.
        for stub in plt::stubs(files.own.source, files.own.image, limits).unwrap_or_default() {
            candidates.add_plt_stub(&stub)?;
        }
        let strings = candidates.strings();
        let (base, skipped) = (candidates.base(), candidates.skipped());
        let entries = candidates.select(files);
        let max_size = entries.iter().map(|entry| entry.size).max().unwrap_or(0);
        Ok(Self { base, entries, max_size, strings, skipped })
    }

    /// Whether any function comes from `.symtab`: without one the file is stripped, and another may know more.
    pub fn has_symtab(&self) -> bool {
        self.entries.iter().any(|entry| entry.name.origin() == NameOrigin::Symtab)
    }

    /// File offset and bytes of the string table with the names of `.symtab`, in the file that has it.
    pub fn symtab_names(&self) -> (u64, u64) {
        self.strings.symtab.range()
    }

    /// Number of functions.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the file has no function symbol at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Function symbols left out because they lie outside all code or their names outside 256 MiB.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Heap bytes held.
    pub fn heap_bytes(&self) -> usize {
        size_of_val(&*self.entries)
    }

    /// All functions by ascending address.
    pub fn iter(&self) -> impl Iterator<Item = SymbolRef> {
        self.entries.iter().map(|entry| self.symbol(entry))
    }

    /// The innermost function that covers the link-time `address`: the one with the greatest start of those
    /// that have not ended before it.
    pub fn lookup(&self, address: u64) -> Option<SymbolRef> {
        let offset = u32::try_from(address.checked_sub(self.base)?).ok()?;
        self.covering(offset, self.entries.partition_point(|entry| entry.start <= offset))
    }

    /// [`FunctionIndex::lookup`] of each of `addresses`. Where they ascend, each search begins where the last one ended.
    pub fn lookup_all(&self, addresses: &[u64]) -> Vec<Option<SymbolRef>> {
        let (mut last, mut after) = (0, 0);
        let look_up = |address: &u64| {
            let offset = u32::try_from(address.checked_sub(self.base)?).ok()?;
            if offset < last {
                after = 0;
            }
            last = offset;
            let rest = self.entries.get(after..)?;
            // Twice as far each time: most are near, and a far one costs no more than a search of everything.
            let mut step = 1;
            while rest.get(step).is_some_and(|entry| entry.start <= offset) {
                step *= 2;
            }
            let within = rest.get(step / 2..rest.len().min(step + 1)).unwrap_or_default();
            after += step / 2 + within.partition_point(|entry| entry.start <= offset);
            self.covering(offset, after)
        };
        addresses.iter().map(look_up).collect()
    }

    /// What covers `offset`, where `after` entries begin at it or before.
    fn covering(&self, offset: u32, after: usize) -> Option<SymbolRef> {
        let before = self.entries.get(..after)?.iter().rev().take(MAX_ENCLOSED);
        let covering = before
            .take_while(|entry| offset - entry.start < self.max_size)
            .find(|entry| offset - entry.start < entry.size)?;
        Some(self.symbol(covering))
    }

    /// The name as it stands in the file, without a version: not demangled, at most 64 KiB of it, bytes that are not UTF-8
    /// replaced; `name@plt` for a PLT stub. `source` is the file that the index was built from; of two the one that
    /// [`SymbolRef::origin`] says.
    pub fn name(&self, source: &dyn ReadAt, symbol: &SymbolRef) -> io::Result<String> {
        Ok(text(symbol, &self.strings.read(source, symbol.name, Strings::MAX_NAME)?).into_owned())
    }

    /// Tells `found` the name of each of `symbols`, in their order, as [`FunctionIndex::name`] gives it. `symbols` are all of one
    /// [origin](SymbolRef::origin), and `source` is the file that this says. In the order that
    /// [`SymbolRef::in_order_of_names`] makes, names which lie close together cost one read.
    pub fn names(
        &self,
        source: &dyn ReadAt,
        symbols: &[SymbolRef],
        found: &mut dyn FnMut(&SymbolRef, io::Result<&str>),
    ) {
        self.strings.read_all(source, symbols, &mut |symbol, name| match name {
            Ok(name) => found(symbol, Ok(&text(symbol, name))),
            Err(error) => found(symbol, Err(error)),
        });
    }

    fn symbol(&self, entry: &Entry) -> SymbolRef {
        // The sum was an address in the file: it does not wrap.
        let start = self.base.wrapping_add(u64::from(entry.start));
        SymbolRef { start, size: u64::from(entry.size), name: entry.name }
    }
}

fn text<'a>(symbol: &SymbolRef, name: &'a [u8]) -> Cow<'a, str> {
    let name = String::from_utf8_lossy(name);
    if symbol.name.class() == Class::PltStub { Cow::Owned(format!("{name}@plt")) } else { name }
}
