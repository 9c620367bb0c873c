//! From symbol tables to one function for each address.

use object::LittleEndian as LE;
use object::elf::{
    ET_REL, SHN_UNDEF, SHT_DYNSYM, SHT_SYMTAB, STB_GLOBAL, STB_GNU_UNIQUE, STB_WEAK, STT_FUNC, STT_GNU_IFUNC,
    STT_NOTYPE, SectionType, Sym64,
};

use super::functions::{Class, ElfFile, Entry, Name, NameOrigin, StringTables, SymbolFiles, SymtabKind};
use super::plt::PltStub;
use super::table::{Strings, Table};
use super::{ElfError, ElfImage, ElfLimits};
use crate::symbol::read_at::ReadAt;

/// Bytes of a name that are compared when two symbols are otherwise equal.
const COMPARED_NAME: usize = 256;

/// Where code lies: address ranges by ascending start.
#[derive(Debug)]
struct CodeRanges(Vec<(u64, u64)>);

impl CodeRanges {
    /// The code sections; the executable segments of a file without section headers.
    fn new(image: &ElfImage) -> Self {
        let sections = image.sections().iter().filter(|section| section.is_code());
        let mut ranges: Vec<_> = sections.map(|s| (s.address, s.address.saturating_add(s.size))).collect();
        if ranges.is_empty() {
            let segments = image.executable_segments();
            ranges.extend(segments.map(|s| (s.address, s.address.saturating_add(s.memory_size))));
        }
        ranges.retain(|(start, end)| start < end);
        ranges.sort_unstable();
        Self(ranges)
    }

    fn base(&self) -> u64 {
        self.0.first().map_or(0, |range| range.0)
    }

    /// The end of the range that contains `address`.
    fn end_of(&self, address: u64) -> Option<u64> {
        let after = self.0.partition_point(|range| range.0 <= address);
        let &(_, end) = self.0.get(after.checked_sub(1)?)?;
        (address < end).then_some(end)
    }
}

/// Every symbol that may name a function.
#[derive(Debug)]
pub(super) struct Candidates {
    code: CodeRanges,
    entries: Vec<Entry>,
    strings: StringTables,
    max_entries: usize,
    skipped: u64,
}

impl Candidates {
    /// Reads both symbol tables.
    pub(super) fn collect(files: &SymbolFiles<'_>, limits: &ElfLimits) -> Result<Self, ElfError> {
        let SymbolFiles { own, symtab: of_symtab, .. } = files;
        if own.image.elf_type() == ET_REL {
            return Err(ElfError::Unsupported("relocatable: its symbols have no addresses"));
        }
        let symtab = SymbolTable::find(of_symtab.source, of_symtab.image, SHT_SYMTAB, limits)?;
        let dynsym = SymbolTable::find(own.source, own.image, SHT_DYNSYM, limits)?;
        let symbols: u64 = [&symtab, &dynsym].into_iter().flatten().map(|table| table.symbols.count()).sum();
        let max_entries = limits.index_bytes / size_of::<Entry>();
        let strings = StringTables {
            symtab: symtab.as_ref().map(|table| table.strings).unwrap_or_default(),
            dynsym: dynsym.as_ref().map(|table| table.strings).unwrap_or_default(),
        };
        let mut candidates = Self {
            code: CodeRanges::new(own.image),
            // Address space only: what is not filled is never touched, and given back by `select`.
            entries: Vec::with_capacity(usize::try_from(symbols).unwrap_or(usize::MAX).min(max_entries)),
            strings,
            max_entries,
            skipped: 0,
        };
        for (file, table, dynamic) in [(of_symtab, symtab, false), (own, dynsym, true)] {
            if let Some(table) = table {
                table.symbols.for_each(file.source, |_, symbol: &Sym64<LE>| {
                    candidates.add_symbol(*file, &table.strings, symbol, dynamic)
                })?;
            }
        }
        Ok(candidates)
    }

    pub(super) fn base(&self) -> u64 {
        self.code.base()
    }

    pub(super) fn strings(&self) -> StringTables {
        self.strings
    }

    pub(super) fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Adds the stub unless it lies outside the code.
    pub(super) fn add_plt_stub(&mut self, stub: &PltStub) -> Result<(), ElfError> {
        self.add(stub.address, u64::from(stub.size), Class::PltStub, stub.name)
    }

    fn add_symbol(
        &mut self,
        file: ElfFile<'_>,
        strings: &Strings,
        symbol: &Sym64<LE>,
        dynamic: bool,
    ) -> Result<(), ElfError> {
        let name = symbol.st_name.get(LE);
        let untyped = is_untyped_function(file.image, symbol).filter(|_| name != 0);
        let Some(untyped) = untyped else { return Ok(()) };
        if untyped && is_label(file.source, strings, name) {
            return Ok(());
        }
        let binding = match symbol.st_bind() {
            STB_GLOBAL | STB_GNU_UNIQUE => 0,
            STB_WEAK => 1,
            _ => 2,
        };
        let class = Class::Symbol { rank: u32::from(untyped) * 3 + binding, dynamic };
        self.add(symbol.st_value.get(LE), symbol.st_size.get(LE), class, name)
    }

    fn add(&mut self, address: u64, size: u64, class: Class, name: u32) -> Result<(), ElfError> {
        let (Some(_), Some(name)) = (self.code.end_of(address), Name::new(class, name)) else {
            self.skipped += 1;
            return Ok(());
        };
        let spread = address - self.base();
        let start = u32::try_from(spread).map_err(|_| ElfError::TooLarge {
            what: "the code's address range",
            bytes: spread,
            limit: u64::from(u32::MAX),
        })?;
        if self.entries.len() >= self.max_entries {
            return Err(ElfError::TooLarge {
                what: "the function index",
                bytes: ((self.entries.len() + 1) * size_of::<Entry>()) as u64,
                limit: (self.max_entries * size_of::<Entry>()) as u64,
            });
        }
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        self.entries.push(Entry { start, size, name });
        Ok(())
    }

    /// Keeps one candidate for each address and gives sizes to those without.
    pub(super) fn select(mut self, files: &SymbolFiles<'_>) -> Box<[Entry]> {
        self.entries.sort_unstable_by_key(|entry| {
            (entry.start, rank(entry), entry.size == 0, entry.name, u32::MAX - entry.size)
        });
        self.break_ties(files);
        self.entries.dedup_by_key(|entry| entry.start);
        let mut sized_end = 0;
        self.entries.retain(|entry| {
            let label = entry.size == 0 && entry.start < sized_end;
            sized_end = sized_end.max(entry.start.saturating_add(entry.size));
            !label
        });
        let starts: Vec<u32> = self.entries.iter().skip(1).map(|entry| entry.start).collect();
        let (code, base) = (&self.code, self.code.base());
        let next_starts = starts.into_iter().map(Some).chain([None]);
        for (entry, next) in self.entries.iter_mut().zip(next_starts) {
            if entry.size == 0 {
                let end = code.end_of(base + u64::from(entry.start)).map_or(u64::MAX, |end| end - base);
                let end = u32::try_from(end).unwrap_or(u32::MAX);
                entry.size = next.map_or(end, |next| next.min(end)).saturating_sub(entry.start);
            }
        }
        self.entries.into_boxed_slice()
    }

    /// Where symbols of the same worth share an address, brings the one with the best name to the front of
    /// its group. This alone reads names, so that a file without aliases costs no read.
    fn break_ties(&mut self, files: &SymbolFiles<'_>) {
        let strings = self.strings;
        // A whole `.symtab` holds what `.dynsym` holds: where both have a symbol of equal worth, only the former's names
        // are compared.
        let repeated = |entry: &Entry| {
            files.kind == SymtabKind::Whole && is_symbol(entry) && entry.name.origin() == NameOrigin::Own
        };
        let worth = |entry: &Entry| (entry.start, rank(entry), entry.size == 0, repeated(entry));
        for group in self.entries.chunk_by_mut(|a, b| a.start == b.start) {
            let Some(first) = group.first().map(&worth) else { continue };
            let ties = group.iter().take_while(|entry| worth(entry) == first).count();
            if ties < 2 {
                continue;
            }
            let tied = group.get(..ties).unwrap_or_default();
            let best = (0..ties).zip(tied).min_by_key(|(_, entry)| {
                let name =
                    strings.read(files.source_of(entry.name), entry.name, COMPARED_NAME).unwrap_or_default();
                let underscores = name.iter().take_while(|&&byte| byte == b'_').count();
                // A name that cannot be read comes last.
                (name.is_empty(), underscores, name.len(), name)
            });
            if let Some((best, _)) = best {
                group.swap(0, best);
            }
        }
    }
}

fn rank(entry: &Entry) -> u32 {
    match entry.name.class() {
        Class::Symbol { rank, .. } => rank,
        Class::PltStub => Class::MAX_RANK + 1,
    }
}

fn is_symbol(entry: &Entry) -> bool {
    matches!(entry.name.class(), Class::Symbol { .. })
}

/// `Some(false)` for a function, `Some(true)` for an untyped symbol in code, None for all else.
fn is_untyped_function(image: &ElfImage, symbol: &Sym64<LE>) -> Option<bool> {
    let section = symbol.st_shndx.get(LE);
    match symbol.st_type() {
        STT_FUNC | STT_GNU_IFUNC if section != SHN_UNDEF => Some(false),
        STT_NOTYPE => {
            let section = image.sections().get(usize::from(section.index()?))?;
            section.is_code().then_some(true)
        }
        _ => None,
    }
}

/// Mapping symbols (`$x`, `$d`: "ELF for the Arm 64-bit Architecture", section 5.5.2) and the assembler's
/// local labels.
fn is_label(source: &dyn ReadAt, strings: &Strings, name: u32) -> bool {
    let start = strings.read(source, u64::from(name), 2).unwrap_or_default();
    start.is_empty() || start.starts_with(b"$") || start.starts_with(b".L")
}

/// A symbol table and its string table.
#[derive(Debug)]
pub(super) struct SymbolTable {
    /// Records of type [`Sym64`].
    pub(super) symbols: Table,
    pub(super) strings: Strings,
}

impl SymbolTable {
    /// The first section of type `kind`; None when there is none or its bytes are in another file.
    pub(super) fn find(
        source: &dyn ReadAt,
        image: &ElfImage,
        kind: SectionType,
        limits: &ElfLimits,
    ) -> Result<Option<Self>, ElfError> {
        let Some(section) = image.sections().iter().find(|section| section.kind == kind) else {
            return Ok(None);
        };
        let what = "symbol table";
        let count = section.size / size_of::<Sym64<LE>>() as u64;
        let symbols = Table::new::<Sym64<LE>>(source, what, section.file_offset, count, limits.symbol_bytes)?;
        let strings = image
            .sections()
            .get(section.link as usize)
            .ok_or(ElfError::Malformed { what, reason: "has no string table" })?;
        Ok(Some(Self { symbols, strings: Strings::new(source, strings.file_offset, strings.size) }))
    }
}
