//! Abbreviations of a unit, held to what they may cost.

use std::sync::Arc;

use gimli::{Abbreviations, Reader as _, UnitHeader};

use super::section_reader::SectionReader;

/// Attributes of an abbreviation that take no byte in an entry: real ones have ten or so. Without a bound, an entry of one byte
/// could be a million attributes of work.
const MAX_FREE_ATTRIBUTES: usize = 64;
/// Bytes of a unit's abbreviations. Real ones are 2 KiB, or 100 where units were optimised together.
const MAX_BYTES: usize = 256 << 10;

/// Heap bytes of an abbreviation, in which there is room for five attributes, and of each attribute where there are more.
const ABBREVIATION: usize = 112;
const ATTRIBUTE: usize = 16;

/// The abbreviations of the unit with this `header`.
pub(super) fn read(
    dwarf: &gimli::Dwarf<SectionReader>,
    header: &UnitHeader<SectionReader>,
) -> gimli::Result<Arc<Abbreviations>> {
    let table = gimli::DebugAbbrev::from(table(dwarf, header)?);
    Ok(Arc::new(table.abbreviations(gimli::DebugAbbrevOffset(0))?))
}

/// Heap bytes that the abbreviations of the unit with this `header` take, from above.
pub(super) fn heap_bytes(
    dwarf: &gimli::Dwarf<SectionReader>,
    header: &UnitHeader<SectionReader>,
) -> gimli::Result<usize> {
    let mut table = table(dwarf, header)?;
    let (mut bytes, mut next) = (0, 1);
    loop {
        // A table may also end with its section.
        let code = if table.is_empty() { 0 } else { table.read_uleb128()? };
        if code == 0 {
            return Ok(bytes);
        }
        // Compilers number them from 1 on. Others are in a tree, whose nodes may be half empty.
        bytes += if code == next { ABBREVIATION } else { 2 * ABBREVIATION };
        next += u64::from(code == next);
        let (_tag, _has_children) = (table.read_uleb128()?, table.read_u8()?);
        let mut attributes: usize = 0;
        loop {
            let (name, form) = (table.read_uleb128()?, table.read_uleb128()?);
            if form == u64::from(gimli::DW_FORM_implicit_const.0) {
                table.read_sleb128()?;
            }
            if (name, form) == (0, 0) {
                break;
            }
            attributes += 1;
        }
        if attributes > 5 {
            bytes += attributes.next_power_of_two() * ATTRIBUTE;
        }
    }
}

fn table(
    dwarf: &gimli::Dwarf<SectionReader>,
    header: &UnitHeader<SectionReader>,
) -> gimli::Result<SectionReader> {
    use gimli::Section as _;
    let mut section = dwarf.debug_abbrev.reader().clone();
    section.skip(header.debug_abbrev_offset().0)?;
    section.truncate(section.len().min(MAX_BYTES))?;
    Ok(section)
}

/// Whether entries with this `abbreviation` are no more work than their bytes say.
pub(super) fn is_plausible(abbreviation: &gimli::Abbreviation) -> bool {
    let free = |form| matches!(form, gimli::DW_FORM_implicit_const | gimli::DW_FORM_flag_present);
    abbreviation.attributes().iter().filter(|spec| free(spec.form())).count() <= MAX_FREE_ATTRIBUTES
}
