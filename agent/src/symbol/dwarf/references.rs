//! Which other units a unit's names are in.
//!
//! A link-time optimiser and dwz let an inlined function refer to its declaration in another unit (`DW_FORM_ref_addr`), or in one
//! of the supplementary file (`DW_FORM_GNU_ref_alt`, `DW_FORM_ref_sup4`). The declaration may refer on.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use gimli::{Abbreviations, AttributeValue, DebugInfoOffset, UnitHeader};

use super::abbreviations;
use super::refused::LinesRefused;
use super::section_reader::SectionReader;
use super::sections::DebugSections;
use super::unit_index::UnitIndex;

/// Entries on the way to a name; [`addr2line`] follows 16.
const MAX_STEPS: usize = 16;
/// Bytes that a unit's header takes while the way is followed, from above.
const OPENED: usize = 256;

/// The file that an entry is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum InFile {
    /// The one with the code's units.
    Main,
    /// The supplementary one.
    Supplement,
}

/// An entry that another one refers to: an offset in `.debug_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reference {
    file: InFile,
    offset: usize,
}

impl Reference {
    /// Where `value` leads, in an entry of the main file; none where it leads to the same unit, or nowhere.
    pub(super) fn of(value: &AttributeValue<SectionReader>) -> Option<Self> {
        match *value {
            AttributeValue::DebugInfoRef(DebugInfoOffset(offset)) => {
                Some(Self { file: InFile::Main, offset })
            }
            AttributeValue::DebugInfoRefSup(DebugInfoOffset(offset)) => {
                Some(Self { file: InFile::Supplement, offset })
            }
            _ => None,
        }
    }
}

/// Numbers of units, in either file.
#[derive(Debug, Default)]
pub(super) struct Referred {
    pub(super) main: BTreeSet<u32>,
    pub(super) supplement: BTreeSet<u32>,
}

/// All units that the entries at `references` are in or lead to. What is read on the way may take `most` bytes. `dwarf` is what
/// `sections` have, in which `index` knows the units.
pub(super) fn units(
    sections: &DebugSections,
    dwarf: &gimli::Dwarf<SectionReader>,
    index: &UnitIndex,
    references: &[Reference],
    most: usize,
) -> Result<Referred, LinesRefused> {
    let supplement = sections.supplement().map(|supplement| &supplement.units).zip(dwarf.sup());
    let mut way = Way { opened: HashMap::new(), tables: HashMap::new(), left: most };
    let mut units = Referred::default();
    for &reference in references {
        let mut next = Some(reference);
        for _ in 0..MAX_STEPS {
            let Some(reference) = next.take() else { break };
            let (index, dwarf, units) = match (reference.file, supplement) {
                (InFile::Main, _) => (index, dwarf, &mut units.main),
                (InFile::Supplement, Some((index, dwarf))) => (index, dwarf, &mut units.supplement),
                (InFile::Supplement, None) => break,
            };
            let Some(number) = index.unit_at(reference.offset as u64) else { break };
            let Some((start, _)) = index.extent(number) else { break };
            units.insert(number);
            let unit = way.open(dwarf, (reference.file, number), start, sections)?;
            next = unit.next(reference).map_err(|error| sections.file.refused(error))?;
        }
    }
    Ok(units)
}

/// Units on the way.
struct Way {
    opened: HashMap<(InFile, u32), Opened>,
    /// Abbreviations by their offset: many units share a table.
    tables: HashMap<(InFile, usize), Arc<Abbreviations>>,
    /// Bytes that may still be taken.
    left: usize,
}

impl Way {
    fn open(
        &mut self,
        dwarf: &gimli::Dwarf<SectionReader>,
        key: (InFile, u32),
        start: u64,
        sections: &DebugSections,
    ) -> Result<&Opened, LinesRefused> {
        let refused = |error| sections.file.refused(error);
        let vacant = match self.opened.entry(key) {
            Entry::Occupied(opened) => return Ok(opened.into_mut()),
            Entry::Vacant(vacant) => vacant,
        };
        let header = dwarf.unit_header(DebugInfoOffset(start as usize)).map_err(refused)?;
        let mut bytes = OPENED;
        let abbreviations = match self.tables.entry((key.0, header.debug_abbrev_offset().0)) {
            Entry::Occupied(table) => table.get().clone(),
            Entry::Vacant(vacant) => {
                bytes += abbreviations::heap_bytes(dwarf, &header).map_err(refused)?;
                if bytes > self.left {
                    return Err(LinesRefused::UnitTooLarge);
                }
                vacant.insert(abbreviations::read(dwarf, &header).map_err(refused)?).clone()
            }
        };
        self.left = self.left.checked_sub(bytes).ok_or(LinesRefused::UnitTooLarge)?;
        Ok(vacant.insert(Opened { header, abbreviations }))
    }
}

struct Opened {
    header: UnitHeader<SectionReader>,
    abbreviations: Arc<Abbreviations>,
}

impl Opened {
    /// Where the entry at `reference` refers to, if it has no name of its own.
    fn next(&self, reference: Reference) -> gimli::Result<Option<Reference>> {
        let Some(local) = DebugInfoOffset(reference.offset).to_unit_offset(&self.header) else {
            return Ok(None);
        };
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
                    next = self.followed(&attribute.value(), reference.file);
                }
                _ => {}
            }
        }
        Ok(next)
    }

    /// Where `value` leads in an entry of this unit, which is in `file`.
    fn followed(&self, value: &AttributeValue<SectionReader>, file: InFile) -> Option<Reference> {
        match *value {
            AttributeValue::UnitRef(local) => {
                let DebugInfoOffset(offset) = local.to_debug_info_offset(&self.header)?;
                Some(Reference { file, offset })
            }
            AttributeValue::DebugInfoRef(DebugInfoOffset(offset)) => Some(Reference { file, offset }),
            // A supplementary file has none of its own.
            _ if file == InFile::Supplement => None,
            _ => Reference::of(value),
        }
    }
}
