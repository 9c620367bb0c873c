//! Abbreviations of a unit, held to what they may cost.

use std::sync::Arc;

use gimli::{Abbreviations, Reader as _, UnitHeader};

use super::section_reader::SectionReader;

/// Attributes of an abbreviation that take no byte in an entry: real ones have ten or so. Without a bound, an entry of one byte
/// could be a million attributes of work.
const MAX_FREE_ATTRIBUTES: usize = 64;
/// Bytes of a unit's abbreviations. Real ones are 2 KiB, or 100 where units were optimised together.
const MAX_BYTES: usize = 256 << 10;

/// The abbreviations of the unit with this `header`.
pub(super) fn read(
    dwarf: &gimli::Dwarf<SectionReader>,
    header: &UnitHeader<SectionReader>,
) -> gimli::Result<Arc<Abbreviations>> {
    use gimli::Section as _;
    let mut section = dwarf.debug_abbrev.reader().clone();
    section.skip(header.debug_abbrev_offset().0)?;
    section.truncate(section.len().min(MAX_BYTES))?;
    let abbreviations = gimli::DebugAbbrev::from(section).abbreviations(gimli::DebugAbbrevOffset(0))?;
    Ok(Arc::new(abbreviations))
}

/// Whether entries with this `abbreviation` are no more work than their bytes say.
pub(super) fn is_plausible(abbreviation: &gimli::Abbreviation) -> bool {
    let free = |form| matches!(form, gimli::DW_FORM_implicit_const | gimli::DW_FORM_flag_present);
    abbreviation.attributes().iter().filter(|spec| free(spec.form())).count() <= MAX_FREE_ATTRIBUTES
}

/// How many there are: compilers number them from 1 on.
pub(super) fn count(abbreviations: &Abbreviations) -> usize {
    (1..=MAX_BYTES as u64).take_while(|code| abbreviations.get(*code).is_some()).count()
}
