//! Which other units a unit's names are in.
//!
//! A link-time optimiser and dwz let an inlined function refer to its declaration in another unit (`DW_FORM_ref_addr`). The
//! declaration may refer on.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use gimli::{Abbreviations, AttributeValue, DebugInfoOffset, UnitHeader};

use super::abbreviations;
use super::section_reader::SectionReader;
use super::unit_index::UnitIndex;

/// Entries on the way to a name; [`addr2line`] follows 16.
const MAX_STEPS: usize = 16;

/// The numbers of all units that the entries at `references` in `.debug_info` are in or lead to.
pub(super) fn units(
    dwarf: &gimli::Dwarf<SectionReader>,
    index: &UnitIndex,
    references: &[usize],
) -> gimli::Result<BTreeSet<u32>> {
    let mut units = BTreeSet::new();
    let mut opened = HashMap::new();
    for &reference in references {
        let mut next = Some(reference);
        for _ in 0..MAX_STEPS {
            let Some(offset) = next.take() else { break };
            let Some(number) = index.unit_at(offset as u64) else { break };
            units.insert(number);
            let unit = match opened.entry(number) {
                Entry::Occupied(opened) => opened.into_mut(),
                Entry::Vacant(vacant) => {
                    let Some((start, _)) = index.extent(number) else { break };
                    vacant.insert(Opened::new(dwarf, start)?)
                }
            };
            next = unit.next(offset)?;
        }
    }
    Ok(units)
}

struct Opened {
    header: UnitHeader<SectionReader>,
    abbreviations: Arc<Abbreviations>,
}

impl Opened {
    fn new(dwarf: &gimli::Dwarf<SectionReader>, start: u64) -> gimli::Result<Self> {
        let header = dwarf.unit_header(DebugInfoOffset(start as usize))?;
        let abbreviations = abbreviations::read(dwarf, &header)?;
        Ok(Self { header, abbreviations })
    }

    /// Where the entry at `offset` refers to, if it has no name of its own.
    fn next(&self, offset: usize) -> gimli::Result<Option<usize>> {
        let Some(local) = DebugInfoOffset(offset).to_unit_offset(&self.header) else { return Ok(None) };
        let mut entries = self.header.entries_raw(&self.abbreviations, Some(local))?;
        let Some(abbreviation) = entries.read_abbreviation()? else { return Ok(None) };
        let mut next = None;
        for spec in abbreviation.attributes() {
            let attribute = entries.read_attribute(*spec)?;
            match attribute.name() {
                gimli::DW_AT_linkage_name | gimli::DW_AT_MIPS_linkage_name | gimli::DW_AT_name => {
                    return Ok(None);
                }
                gimli::DW_AT_abstract_origin | gimli::DW_AT_specification => {
                    next = match attribute.value() {
                        AttributeValue::DebugInfoRef(DebugInfoOffset(offset)) => Some(offset),
                        AttributeValue::UnitRef(local) => {
                            local.to_debug_info_offset(&self.header).map(|offset| offset.0)
                        }
                        _ => None,
                    };
                }
                _ => {}
            }
        }
        Ok(next)
    }
}
