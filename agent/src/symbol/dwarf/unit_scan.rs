//! What a unit will cost before [`addr2line`] reads it: memory, the nesting that it follows by recursion, and which other units it
//! refers to. All of it is foreign input, and the library has no bounds of its own.

use gimli::{AttributeValue, Reader as _, Unit, UnitHeader};

use super::DwarfLimits;
use super::abbreviations;
use super::references::Reference;
use super::refused::LinesRefused;
use super::section::FileSlot;
use super::section_reader::SectionReader;

/// Inlining in inlining that is followed. Real code stays below 100.
const MAX_NESTING: usize = 256;
/// Bytes of the tables of directories and files in front of a line program, each of which may name a file in 3 bytes.
const MAX_LINE_HEADER: usize = 256 << 10;

/// Bytes that a context takes for each thing, from above; `tests::weights` compares them with what is really allocated.
const FUNCTION: usize = 144;
const INLINED: usize = 72;
const RANGE: usize = 32;
const FILE: usize = 160;
/// A range of a root.
const UNIT_RANGE: usize = 40;
/// A row takes 24 bytes, and 2.4 bytes of line program on average.
const PROGRAM_BYTE: usize = 12;

/// What a unit takes and needs.
#[derive(Debug, Default)]
pub(super) struct UnitCost {
    functions: usize,
    function_ranges: usize,
    /// Bytes of what is inlined in all functions, and in the function with the most of it.
    inlined_bytes: usize,
    most_inlined_bytes: usize,
    program_bytes: usize,
    files: usize,
    path_bytes: usize,
    abbreviation_bytes: usize,
    /// Ranges of the root entry.
    ranges: usize,
    /// Entries of other units that this one refers to for names.
    pub(super) references: Vec<Reference>,
}

impl UnitCost {
    /// Heap bytes of a context with this unit after `look_ups` of its addresses: what is inlined in a function is read when the
    /// function is asked for.
    pub(super) fn heap_bytes(&self, look_ups: usize) -> usize {
        let functions = self.functions * FUNCTION + self.function_ranges * RANGE;
        let inlined = self.inlined_bytes.min(self.most_inlined_bytes.saturating_mul(look_ups));
        // While they are gathered they may be there twice.
        let references = 2 * self.references.len() * size_of::<Reference>();
        self.root_bytes()
            + self.program_bytes * PROGRAM_BYTE
            + self.path_bytes
            + functions
            + inlined
            + references
    }

    /// Heap bytes of a context with no more than this unit's root.
    pub(super) fn root_bytes(&self) -> usize {
        let unit = self.abbreviation_bytes + size_of::<Unit<SectionReader>>();
        self.files * FILE + self.ranges * UNIT_RANGE + unit
    }

    /// Says that another unit has the same abbreviations, which are then there once.
    pub(super) fn share_abbreviations(&mut self) {
        self.abbreviation_bytes = 0;
    }
}

type Dwarf = gimli::Dwarf<SectionReader>;

/// Reads the root of a unit: what a unit costs that is only referred to.
pub(super) fn root(
    dwarf: &Dwarf,
    file: &FileSlot,
    header: UnitHeader<SectionReader>,
    limits: &DwarfLimits,
) -> Result<(Unit<SectionReader>, UnitCost), LinesRefused> {
    let refused = |error| file.refused(error);
    if header.length_including_self() as u64 > limits.unit_bytes {
        return Err(LinesRefused::UnitTooLarge);
    }
    let abbreviations = abbreviations::read(dwarf, &header).map_err(refused)?;
    let abbreviation_bytes = abbreviations::heap_bytes(dwarf, &header).map_err(refused)?;
    let mut cost = UnitCost { abbreviation_bytes, ..UnitCost::default() };
    check_line_header(dwarf, &header, &abbreviations, limits, file, &mut cost)?;
    let unit = Unit::new_with_abbreviations(dwarf, header, abbreviations).map_err(refused)?;
    cost.ranges = root_ranges(dwarf, &unit, limits.index_bytes / UNIT_RANGE).map_err(refused)?;
    cost.files = unit.line_program.as_ref().map_or(0, |program| program.header().file_names().len());
    Ok((unit, cost))
}

/// Reads a whole unit, which may take `most` bytes.
pub(super) fn whole(
    dwarf: &Dwarf,
    file: &FileSlot,
    unit: &Unit<SectionReader>,
    cost: &mut UnitCost,
    most: usize,
) -> Result<(), LinesRefused> {
    let refused = |error| file.refused(error);
    add_paths(dwarf, unit, cost, most).map_err(refused)?;
    let mut nested = Nested::default();
    let mut entries = unit.entries_raw(None).map_err(refused)?;
    while !entries.is_empty() {
        // One function at least must fit.
        if cost.heap_bytes(1) > most {
            return Err(LinesRefused::UnitTooLarge);
        }
        let depth = entries.next_depth();
        let Some(abbreviation) = entries.read_abbreviation().map_err(refused)? else { continue };
        if !abbreviations::is_plausible(abbreviation) {
            return Err(LinesRefused::UnitTooLarge);
        }
        match abbreviation.tag() {
            gimli::DW_TAG_inlined_subroutine => {
                let code = code(dwarf, unit, &mut entries, abbreviation, cost, most).map_err(refused)?;
                let bytes = INLINED + code.unwrap_or(0) * RANGE;
                nested.enter(depth, bytes)?;
                cost.inlined_bytes += bytes;
                cost.most_inlined_bytes = cost.most_inlined_bytes.max(nested.bytes);
            }
            gimli::DW_TAG_subprogram => {
                let code = code(dwarf, unit, &mut entries, abbreviation, cost, most).map_err(refused)?;
                cost.functions += usize::from(code.is_some());
                cost.function_ranges += code.unwrap_or(0);
                nested = Nested::default();
            }
            _ => entries.skip_attributes(abbreviation.attributes()).map_err(refused)?,
        }
    }
    cost.references.sort_unstable();
    cost.references.dedup();
    Ok(())
}

/// What is inlined in the function that is being read.
#[derive(Default)]
struct Nested {
    /// Depths of the inlined functions that are open.
    open: Vec<isize>,
    bytes: usize,
}

impl Nested {
    fn enter(&mut self, depth: isize, bytes: usize) -> Result<(), LinesRefused> {
        while self.open.last().is_some_and(|outer| *outer >= depth) {
            self.open.pop();
        }
        self.open.push(depth);
        self.bytes += bytes;
        if self.open.len() > MAX_NESTING { Err(LinesRefused::UnitTooLarge) } else { Ok(()) }
    }
}

/// Reads the attributes of a function: how many ranges of code it has, and which other unit it refers to. None of a function without
/// code.
fn code(
    dwarf: &Dwarf,
    unit: &Unit<SectionReader>,
    entries: &mut gimli::EntriesRaw<'_, SectionReader>,
    abbreviation: &gimli::Abbreviation,
    cost: &mut UnitCost,
    most: usize,
) -> gimli::Result<Option<usize>> {
    let mut code = None;
    for spec in abbreviation.attributes() {
        match spec.name() {
            gimli::DW_AT_abstract_origin | gimli::DW_AT_specification => {
                cost.references.extend(Reference::of(&entries.read_attribute(*spec)?.value()));
            }
            gimli::DW_AT_ranges => {
                let value = entries.read_attribute(*spec)?.value();
                code = Some(count_ranges(dwarf, unit, value, most / RANGE)?);
            }
            name => {
                if name == gimli::DW_AT_low_pc && code.is_none() {
                    code = Some(1);
                }
                entries.skip_attributes(std::slice::from_ref(spec))?;
            }
        }
    }
    Ok(code)
}

/// Holds the line program and its header to the limits by the lengths that they state.
fn check_line_header(
    dwarf: &Dwarf,
    header: &UnitHeader<SectionReader>,
    abbreviations: &gimli::Abbreviations,
    limits: &DwarfLimits,
    file: &FileSlot,
    cost: &mut UnitCost,
) -> Result<(), LinesRefused> {
    use gimli::Section as _;
    let lengths = || -> gimli::Result<Option<(usize, usize)>> {
        let mut entries = header.entries_raw(abbreviations, None)?;
        let Some(abbreviation) = entries.read_abbreviation()? else { return Ok(None) };
        for spec in abbreviation.attributes() {
            let attribute = entries.read_attribute(*spec)?;
            if attribute.name() != gimli::DW_AT_stmt_list {
                continue;
            }
            let AttributeValue::DebugLineRef(offset) = attribute.value() else { continue };
            let mut program = dwarf.debug_line.reader().clone();
            program.skip(offset.0)?;
            // DWARF 5, §6.2.4: unit_length, version, since version 5 two sizes, header_length.
            let (unit, format) = program.read_initial_length()?;
            if program.read_u16()? >= 5 {
                program.skip(2)?;
            }
            return Ok(Some((unit, program.read_length(format)?)));
        }
        Ok(None)
    };
    let Some((program, tables)) = lengths().map_err(|error| file.refused(error))? else { return Ok(()) };
    if program as u64 > limits.unit_bytes || tables > MAX_LINE_HEADER {
        return Err(LinesRefused::UnitTooLarge);
    }
    cost.program_bytes = program.saturating_sub(tables);
    Ok(())
}

/// Adds up the paths that a context composes of directory and name for each file, up to `most` bytes.
fn add_paths(
    dwarf: &Dwarf,
    unit: &Unit<SectionReader>,
    cost: &mut UnitCost,
    most: usize,
) -> gimli::Result<()> {
    let Some(program) = &unit.line_program else { return Ok(()) };
    let header = program.header();
    let length = |value| dwarf.attr_string(unit, value).map(|text| text.len());
    let directory = unit.comp_dir.as_ref().map_or(0, gimli::Reader::len);
    let mut directories = Vec::new();
    for value in header.include_directories() {
        directories.push(length(value.clone())?);
    }
    for file in header.file_names() {
        let index = file.directory_index() as usize;
        let index = if header.version() < 5 { index.wrapping_sub(1) } else { index };
        let below = directories.get(index).copied().unwrap_or(0);
        cost.path_bytes += directory + below + length(file.path_name())? + 2;
        if cost.path_bytes > most {
            return Ok(());
        }
    }
    Ok(())
}

/// Ranges for which a context makes room for a unit: twice as many as the root entry has, as the list grows by doubling. Counted up to
/// `most`.
fn root_ranges(dwarf: &Dwarf, unit: &Unit<SectionReader>, most: usize) -> gimli::Result<usize> {
    let mut entries = unit.entries_raw(None)?;
    let Some(abbreviation) = entries.read_abbreviation()? else { return Ok(0) };
    for spec in abbreviation.attributes() {
        let attribute = entries.read_attribute(*spec)?;
        if attribute.name() == gimli::DW_AT_ranges {
            return Ok(2 * count_ranges(dwarf, unit, attribute.value(), most)?);
        }
    }
    Ok(1)
}

/// The length of a list of ranges, `most` at most.
fn count_ranges(
    dwarf: &Dwarf,
    unit: &Unit<SectionReader>,
    value: AttributeValue<SectionReader>,
    most: usize,
) -> gimli::Result<usize> {
    let Some(offset) = dwarf.attr_ranges_offset(unit, value)? else { return Ok(0) };
    let mut ranges = dwarf.raw_ranges(unit, offset)?;
    let mut count = 0;
    while count <= most && ranges.next()?.is_some() {
        count += 1;
    }
    Ok(count)
}
