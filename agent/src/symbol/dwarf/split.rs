//! Split DWARF (DWARF 5, §7.3.5; `-gsplit-dwarf`): entries in a `.dwo` file for each unit, or all of them in one `.dwp` file.

use std::sync::Arc;

use addr2line::SplitDwarfLoad;
use gimli::{DwoId, Reader as _};

use super::DwarfLimits;
use super::blocks::BlockCache;
use super::debug_lines::SharedSource;
use super::linked::LinkedFiles;
use super::refused::LinesRefused;
use super::section::FileSlot;
use super::section_reader::SectionReader;
use super::sections::DebugSections;
use super::unit_scan::{self, UnitCost};
use crate::symbol::elf::{ElfImage, ElfLimits};

/// Bytes of a path; the kernel takes no longer one.
const MAX_PATH: usize = 4096;

/// Where a unit's entries are, so that the file can be opened anew for the next look-up.
pub(super) struct SplitUnit {
    path: Arc<str>,
    len: u64,
    file: Arc<FileSlot>,
    package: bool,
    bytes: usize,
}

impl SplitUnit {
    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes + self.path.len()
    }

    /// What `error` means here; `main` is the file of the skeleton.
    pub(super) fn refused(&self, main: &FileSlot, error: gimli::Error) -> LinesRefused {
        match self.file.refused(error) {
            LinesRefused::Unreadable => main.refused(error),
            cause => cause,
        }
    }
}

/// What a look-up needs to follow a skeleton unit, and the files that it opened.
pub(super) struct SplitUnits<'a> {
    pub(super) files: &'a dyn LinkedFiles,
    pub(super) cache: &'a Arc<BlockCache>,
    pub(super) limits: &'a DwarfLimits,
    attached: Vec<Arc<FileSlot>>,
}

type Load = SplitDwarfLoad<SectionReader>;
type Dwarf = gimli::Dwarf<SectionReader>;
/// A unit's entries, where they are, and what they will take.
type Loaded = (Arc<Dwarf>, SplitUnit, UnitCost);

impl<'a> SplitUnits<'a> {
    pub(super) fn new(
        files: &'a dyn LinkedFiles,
        cache: &'a Arc<BlockCache>,
        limits: &'a DwarfLimits,
    ) -> Self {
        Self { files, cache, limits, attached: Vec::new() }
    }

    /// Opens the file of `split` again.
    pub(super) fn reopen(&mut self, split: &SplitUnit) -> Result<(), LinesRefused> {
        let source = if split.package {
            self.files.package().map(|(_, source)| source)
        } else {
            self.files.open(&split.path)
        };
        let source =
            source.filter(|source| source.len() == split.len).ok_or(LinesRefused::SplitFileMissing)?;
        self.attach(&split.file, source);
        Ok(())
    }

    /// The entries of the skeleton unit that `load` is of, if they take `most` bytes at most.
    pub(super) fn load(&mut self, load: &Load, most: usize) -> Result<Loaded, LinesRefused> {
        if let Some(found) = self.in_package(load, most)? {
            return Ok(found);
        }
        let path = path(load).ok_or(LinesRefused::SplitFileMissing)?;
        let source = self.files.open(&path).ok_or(LinesRefused::SplitFileMissing)?;
        let (sections, split) = self.sections(source, path.into(), false)?;
        let mut dwarf = sections.dwarf().map_err(|error| sections.file.refused(error))?;
        dwarf.make_dwo(&load.parent);
        let cost = self.check(&sections.file, &dwarf, load.dwo_id, most)?;
        Ok((Arc::new(dwarf), split, cost))
    }

    /// The same from the `.dwp` file. None where there is none, or the unit is not in it.
    fn in_package(&mut self, load: &Load, most: usize) -> Result<Option<Loaded>, LinesRefused> {
        let Some((path, source)) = self.files.package() else { return Ok(None) };
        let (sections, split) = self.sections(source, path, true)?;
        let refused = |error| sections.file.refused(error);
        let package = sections.package().map_err(refused)?;
        let Some(dwarf) = package.find_cu(load.dwo_id, &load.parent).map_err(refused)? else {
            return Ok(None);
        };
        let cost = self.check(&sections.file, &dwarf, load.dwo_id, most)?;
        Ok(Some((Arc::new(dwarf), split, cost)))
    }

    fn sections(
        &mut self,
        source: SharedSource,
        path: Arc<str>,
        package: bool,
    ) -> Result<(DebugSections, SplitUnit), LinesRefused> {
        let image = ElfImage::parse(&*source, &ElfLimits::default()).map_err(|_| LinesRefused::Malformed)?;
        let sections = DebugSections::split(&*source, &image, self.cache, self.limits)?;
        let split = SplitUnit {
            path,
            len: source.len(),
            file: sections.file.clone(),
            package,
            bytes: sections.heap_bytes(),
        };
        self.attach(&sections.file, source);
        Ok((sections, split))
    }

    /// Makes sure that the first unit is the one that is looked for, which [`addr2line`] takes it to be, and that it can be read.
    fn check(
        &self,
        file: &FileSlot,
        dwarf: &Dwarf,
        id: DwoId,
        most: usize,
    ) -> Result<UnitCost, LinesRefused> {
        let header = dwarf.units().next().map_err(|error| file.refused(error))?;
        let header = header.ok_or(LinesRefused::SplitFileMissing)?;
        let (unit, mut cost) = unit_scan::root(dwarf, file, header, self.limits)?;
        if unit.dwo_id != Some(id) {
            return Err(LinesRefused::SplitFileMissing);
        }
        unit_scan::whole(dwarf, file, &unit, &mut cost, most)?;
        Ok(cost)
    }

    fn attach(&mut self, file: &Arc<FileSlot>, source: SharedSource) {
        file.attach(source, self.limits.lookup_blocks);
        self.attached.push(file.clone());
    }
}

impl Drop for SplitUnits<'_> {
    fn drop(&mut self) {
        for file in &self.attached {
            file.detach();
        }
    }
}

/// The path of the `.dwo` file, absolute.
fn path(load: &Load) -> Option<String> {
    let text = |reader: &SectionReader| reader.to_string_lossy().ok().map(std::borrow::Cow::into_owned);
    let name = text(load.path.as_ref()?)?;
    let path =
        if name.starts_with('/') { name } else { format!("{}/{name}", text(load.comp_dir.as_ref()?)?) };
    (path.starts_with('/') && path.len() < MAX_PATH && !path.contains('\0')).then_some(path)
}
