//! The debug sections of a file.

use std::sync::{Arc, OnceLock};

use gimli::{Dwarf, DwarfPackage, SectionId};
use object::elf::SHF_COMPRESSED;

use super::DwarfLimits;
use super::blocks::BlockCache;
use super::compressed::Compressed;
use super::refused::LinesRefused;
use super::section::{FileSlot, Section};
use super::section_reader::SectionReader;
use super::supplement::Supplement;
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
    pub(super) is_supplemented: bool,
    /// That file, when it was found.
    supplement: OnceLock<Box<Supplement>>,
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
        let (mut total, mut unpacked): (u64, u64) = (0, 0);
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
                match Compressed::open(source, header)? {
                    Compressed::Zlib(inflater) => Section::compressed(inflater, file.clone(), cache.clone()),
                    Compressed::Zstd(len) => {
                        unpacked = unpacked.saturating_add(len);
                        if unpacked > limits.unpacked_bytes {
                            return Err(LinesRefused::ModuleTooLarge);
                        }
                        Section::whole(header, len, file.clone(), cache.clone())
                    }
                }
            } else {
                Section::in_file(header.file_offset, header.size, file.clone(), cache.clone())
            };
            sections.push((id, Arc::new(section)));
        }
        let is_supplemented = image.section_named(source, ".gnu_debugaltlink").is_some();
        let (supplement, empty) = (OnceLock::new(), Arc::new(Section::empty()));
        Ok(Self { file, sections, is_supplemented, supplement, empty })
    }

    /// The section of that kind; an empty one where the file has none.
    pub(super) fn section(&self, id: SectionId) -> Arc<Section> {
        let found = self.sections.iter().find(|(other, _)| *other == id);
        found.map_or(&self.empty, |(_, section)| section).clone()
    }

    /// Sections as a context of a few units takes them, with `info` for `.debug_info`. There is no `.debug_aranges`: a context
    /// would make a list of its sets, those of the whole file, and units say themselves what they cover.
    pub(super) fn dwarf_with(&self, info: &Arc<Section>) -> gimli::Result<Dwarf<SectionReader>> {
        Dwarf::load(|id| {
            let section = match id {
                SectionId::DebugInfo => info.clone(),
                SectionId::DebugAranges => self.empty.clone(),
                id => self.section(id),
            };
            Ok(SectionReader::new(section))
        })
    }

    /// All sections, those of the supplementary file too, as gimli takes them.
    pub(super) fn dwarf(&self) -> gimli::Result<Dwarf<SectionReader>> {
        let mut dwarf = Dwarf::load(|id| Ok::<_, gimli::Error>(SectionReader::new(self.section(id))))?;
        if let Some(supplement) = self.supplement() {
            dwarf.set_sup(supplement.sections.dwarf()?);
        }
        Ok(dwarf)
    }

    /// Takes `supplement` for the file that names may be in.
    pub(super) fn supplement_with(&self, supplement: Supplement) {
        self.file.supplemented_by(&supplement.sections.file);
        // It is looked for once.
        let _known = self.supplement.set(Box::new(supplement));
    }

    /// The supplementary file, if it was found.
    pub(super) fn supplement(&self) -> Option<&Supplement> {
        self.supplement.get().map(Box::as_ref)
    }

    /// Forgets the files until the next look-up.
    pub(super) fn detach(&self) {
        self.file.detach();
        if let Some(supplement) = self.supplement() {
            supplement.sections.file.detach();
        }
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
        sections.sum::<usize>() + size_of::<FileSlot>() + self.supplement().map_or(0, Supplement::heap_bytes)
    }
}
