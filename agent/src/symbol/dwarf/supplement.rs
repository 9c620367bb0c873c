//! The supplementary file of a debug file (`.gnu_debugaltlink`, DWARF 5, §7.3.6), into which dwz moves what several debug files have
//! in common: names, and the declarations of functions that are inlined.

use std::collections::BTreeSet;
use std::sync::Arc;

use gimli::SectionId;

use super::DwarfLimits;
use super::blocks::BlockCache;
use super::debug_lines::SharedSource;
use super::refused::LinesRefused;
use super::section::Section;
use super::section_reader::SectionReader;
use super::sections::DebugSections;
use super::unit_index::UnitIndex;
use super::view::View;
use crate::symbol::elf::{ElfImage, ElfLimits};

/// A supplementary file: its sections, and where its units begin.
pub(super) struct Supplement {
    pub(super) sections: DebugSections,
    pub(super) units: UnitIndex,
    len: u64,
}

impl Supplement {
    /// Reads the headers of all units.
    pub(super) fn open(
        source: SharedSource,
        cache: &Arc<BlockCache>,
        limits: &DwarfLimits,
    ) -> Result<Self, LinesRefused> {
        let image = ElfImage::parse(&*source, &ElfLimits::default()).map_err(|_| LinesRefused::Malformed)?;
        let sections = DebugSections::main(&*source, &image, cache, limits)?;
        let len = source.len();
        sections.file.attach(source, limits.index_blocks);
        let refused = |error| sections.file.refused(error);
        let dwarf = sections.dwarf().map_err(refused)?;
        let units = UnitIndex::of_units(&dwarf, limits).map_err(refused)??;
        Ok(Self { sections, units, len })
    }

    /// Lets a look-up read `source`, if it is still the file that was opened.
    pub(super) fn attach(&self, source: SharedSource, blocks: u64) {
        if source.len() == self.len {
            self.sections.file.attach(source, blocks);
        }
    }

    /// The file as a context sees it that asks for entries of `units` and for strings, and what it takes on the heap.
    pub(super) fn with_units(
        &self,
        units: &BTreeSet<u32>,
    ) -> gimli::Result<(usize, gimli::Dwarf<SectionReader>)> {
        // A context looks at the roots of type units here too: it finds no abbreviations, and goes on.
        let view = View::only(&self.units.extents(units), u32::MAX);
        let info = Section::view(self.sections.section(SectionId::DebugInfo), view);
        let bytes = info.heap_bytes();
        let mut dwarf = self.sections.dwarf_with(&Arc::new(info))?;
        dwarf.populate_abbreviations_cache(gimli::AbbreviationsCacheStrategy::Duplicates);
        Ok((bytes, dwarf))
    }

    /// Bytes on the heap that are not in the cache.
    pub(super) fn heap_bytes(&self) -> usize {
        size_of::<Self>() + self.sections.heap_bytes() + self.units.heap_bytes()
    }
}
