//! The debug sections of a file.

use std::sync::Arc;

use gimli::{Dwarf, DwarfPackage, SectionId};
use object::elf::SHF_COMPRESSED;

use super::DwarfLimits;
use super::blocks::BlockCache;
use super::compressed::Inflater;
use super::refused::LinesRefused;
use super::section::{FileSlot, Section};
use super::section_reader::SectionReader;
use crate::symbol::elf::ElfImage;
use crate::symbol::read_at::ReadAt;

/// What is read of a main file.
const MAIN: [SectionId; 11] = [
    SectionId::DebugInfo,
    SectionId::DebugAbbrev,
    SectionId::DebugAddr,
    SectionId::DebugAranges,
    SectionId::DebugLine,
    SectionId::DebugLineStr,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
    SectionId::DebugCuIndex,
];
/// What is read of a `.dwo` or `.dwp` file: entries, their names and their ranges. The rest is there because the index of a `.dwp`
/// file refers to it.
const SPLIT: [SectionId; 13] = [
    SectionId::DebugInfo,
    SectionId::DebugAbbrev,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
    SectionId::DebugCuIndex,
    SectionId::DebugTuIndex,
    SectionId::DebugLine,
    SectionId::DebugLoc,
    SectionId::DebugLocLists,
    SectionId::DebugMacinfo,
    SectionId::DebugMacro,
    SectionId::DebugTypes,
];

/// The debug sections of one file, and the place for the file itself.
pub(super) struct DebugSections {
    pub(super) file: Arc<FileSlot>,
    sections: Vec<(SectionId, Arc<Section>)>,
    /// Whether names may be in a supplementary file.
    pub(super) supplemented: bool,
    empty: Arc<Section>,
}

impl DebugSections {
    /// The sections of a program or its debug file.
    pub(super) fn main(
        source: &dyn ReadAt,
        image: &ElfImage,
        cache: &Arc<BlockCache>,
        limits: &DwarfLimits,
    ) -> Result<Self, LinesRefused> {
        Self::find(source, image, cache, limits, &MAIN, |id| Some(id.name()))
    }

    /// The sections of a `.dwo` or `.dwp` file.
    pub(super) fn split(
        source: &dyn ReadAt,
        image: &ElfImage,
        cache: &Arc<BlockCache>,
        limits: &DwarfLimits,
    ) -> Result<Self, LinesRefused> {
        let name = |id: SectionId| match id {
            SectionId::DebugCuIndex | SectionId::DebugTuIndex => Some(id.name()),
            id => id.dwo_name(),
        };
        Self::find(source, image, cache, limits, &SPLIT, name)
    }

    fn find(
        source: &dyn ReadAt,
        image: &ElfImage,
        cache: &Arc<BlockCache>,
        limits: &DwarfLimits,
        wanted: &[SectionId],
        name: impl Fn(SectionId) -> Option<&'static str>,
    ) -> Result<Self, LinesRefused> {
        let file = Arc::new(FileSlot::default());
        let mut sections = Vec::new();
        let mut total: u64 = 0;
        for &id in wanted {
            let header = name(id).and_then(|name| image.section_named(source, name));
            let Some(header) = header.filter(|header| header.is_in_file() && header.size > 0) else {
                continue;
            };
            total = total.saturating_add(header.size);
            if total > limits.module_bytes {
                return Err(LinesRefused::ModuleTooLarge);
            }
            if header.file_offset.checked_add(header.size).is_none_or(|end| end > source.len()) {
                return Err(LinesRefused::Malformed);
            }
            let section = if header.flags.0 & SHF_COMPRESSED.0 != 0 {
                Section::compressed(Inflater::open(source, header)?, file.clone(), cache.clone())
            } else {
                Section::in_file(header.file_offset, header.size, file.clone(), cache.clone())
            };
            sections.push((id, Arc::new(section)));
        }
        let supplemented = image.section_named(source, ".gnu_debugaltlink").is_some();
        Ok(Self { file, sections, supplemented, empty: Arc::new(Section::empty()) })
    }

    /// The section of that kind; an empty one where the file has none.
    pub(super) fn section(&self, id: SectionId) -> Arc<Section> {
        let found = self.sections.iter().find(|(other, _)| *other == id);
        found.map_or(&self.empty, |(_, section)| section).clone()
    }

    /// All sections, as gimli takes them, with `info` for `.debug_info`.
    pub(super) fn dwarf_with(&self, info: &Arc<Section>) -> gimli::Result<Dwarf<SectionReader>> {
        Dwarf::load(|id| {
            let section = if id == SectionId::DebugInfo { info.clone() } else { self.section(id) };
            Ok(SectionReader::new(section))
        })
    }

    /// All sections, as gimli takes them.
    pub(super) fn dwarf(&self) -> gimli::Result<Dwarf<SectionReader>> {
        self.dwarf_with(&self.section(SectionId::DebugInfo))
    }

    /// All sections of a `.dwp` file, as gimli takes them.
    pub(super) fn package(&self) -> gimli::Result<DwarfPackage<SectionReader>> {
        let reader = |id| Ok::<_, gimli::Error>(SectionReader::new(self.section(id)));
        DwarfPackage::load(reader, SectionReader::new(self.empty.clone()))
    }

    /// Bytes on the heap that are not in the cache.
    pub(super) fn heap_bytes(&self) -> usize {
        let each = size_of::<(SectionId, Arc<Section>)>() + 2 * size_of::<usize>();
        let sections = self.sections.iter().map(|(_, section)| section.heap_bytes() + each);
        sections.sum::<usize>() + size_of::<FileSlot>()
    }
}
