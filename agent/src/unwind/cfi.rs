//! Where a file keeps its CFI, and which FDEs cover an address.

use super::entry::{Entries, EntrySection, Extent, SectionKind};
use super::header::{Function, Header, HeaderTable};
use super::registers::Architecture;
use super::scan::ScannedTable;
use super::window::Window;
use super::{CfiError, CfiLimits};
use crate::symbol::elf::{ElfImage, Section, SectionData};
use crate::symbol::read_at::ReadAt;

/// Bytes read at once from a sorted table.
const TABLE_WINDOW: usize = 8;

/// Segments that are looked at. Files have a handful; a hostile one may have tens of thousands.
pub(super) const MAX_SEGMENTS: usize = 64;

/// The CFI of one ELF file: where it lies. Holds none of its bytes; an index of functions only where the file has none.
#[derive(Debug)]
pub struct CfiIndex {
    entries: EntrySection,
    functions: Functions,
}

#[derive(Debug)]
enum Functions {
    Header(HeaderTable),
    Scanned(ScannedTable),
}

impl CfiIndex {
    /// Finds the CFI of a file: `.eh_frame` by `.eh_frame_hdr` (of the program headers, else of the sections), else by
    /// reading all of `.eh_frame`, else all of `.debug_frame`. `image` has the headers of the same file; of a separate debug
    /// file it has the addresses of the code, though not its bytes.
    ///
    /// # Errors
    /// [`CfiError::Absent`] when there is none; otherwise why what there is cannot be used.
    pub fn open(source: &dyn ReadAt, image: &ElfImage, limits: &CfiLimits) -> Result<Self, CfiError> {
        let architecture =
            Architecture::of(image.machine()).ok_or(CfiError::Unsupported("another architecture"))?;
        let header = unwind_header(source, image).map(|at| Header::read(&mut window(source), at));
        if let Some(Ok(Header { table: Ok(table), .. })) = &header
            && table.count > 0
        {
            let (kind, extents) = (SectionKind::EhFrame, loaded(image));
            let entries = EntrySection { architecture, kind, extents, inflated: None };
            return Ok(Self { entries, functions: Functions::Header(*table) });
        }
        let start = header.and_then(Result::ok).map(|header| header.eh_frame);
        let of_eh_frame = eh_frame(source, image, start)
            .map_or(Err(CfiError::Absent), |candidate| Self::scan(source, image, candidate, limits));
        of_eh_frame.or_else(|problem| match Self::open_debug_frame(source, image, limits) {
            Err(CfiError::Absent) => Err(problem),
            other => other,
        })
    }

    /// Indexes `.debug_frame` alone, by reading all of it: a supplement to an `.eh_frame` that does not cover everything.
    ///
    /// # Errors
    /// As [`CfiIndex::open`].
    pub fn open_debug_frame(
        source: &dyn ReadAt,
        image: &ElfImage,
        limits: &CfiLimits,
    ) -> Result<Self, CfiError> {
        let candidate = debug_frame(source, image, limits)?.ok_or(CfiError::Absent)?;
        Self::scan(source, image, candidate, limits)
    }

    /// Reads `candidate` from end to end.
    fn scan(
        source: &dyn ReadAt,
        image: &ElfImage,
        candidate: Candidate,
        limits: &CfiLimits,
    ) -> Result<Self, CfiError> {
        let Candidate { kind, extent, inflated } = candidate;
        let architecture =
            Architecture::of(image.machine()).ok_or(CfiError::Unsupported("another architecture"))?;
        let entries = EntrySection { architecture, kind, extents: Box::new([extent]), inflated };
        let table = ScannedTable::scan(source, &entries, extent, image, limits)?;
        if table.count() == 0 {
            return Err(CfiError::Absent);
        }
        Ok(Self { entries, functions: Functions::Scanned(table) })
    }

    /// The file's machine.
    pub fn architecture(&self) -> Architecture {
        self.entries.architecture
    }

    /// Functions (FDEs) that the index leads to, as the file says.
    pub fn function_count(&self) -> u64 {
        match &self.functions {
            Functions::Header(table) => table.count,
            Functions::Scanned(table) => table.count() as u64,
        }
    }

    /// Heap bytes held.
    pub fn heap_bytes(&self) -> usize {
        let scanned = match &self.functions {
            Functions::Header(_) => 0,
            Functions::Scanned(table) => table.heap_bytes(),
        };
        let inflated = self.entries.inflated.as_ref().map_or(0, Vec::capacity);
        scanned + inflated + size_of_val(&*self.entries.extents)
    }

    /// The functions that may cover addresses in `from..to`, `most` at most, sorted by start. Of two at one address the last
    /// counts.
    pub(super) fn covering(
        &self,
        source: &dyn ReadAt,
        from: u64,
        to: u64,
        most: usize,
    ) -> Result<Vec<Function>, CfiError> {
        match &self.functions {
            Functions::Header(table) => table.covering(&mut window(source), from, to, most),
            Functions::Scanned(table) => Ok(table.covering(from, to, most)),
        }
    }

    /// A reader of FDEs, which loads `budget` bytes of them at most.
    pub(super) fn entries<'a>(&'a self, source: &'a dyn ReadAt, budget: u64) -> Entries<'a> {
        Entries::new(source, &self.entries, budget)
    }
}

fn window(source: &dyn ReadAt) -> Window<'_> {
    Window::new(source, TABLE_WINDOW)
}

/// Where `.eh_frame_hdr` lies. In a separate debug file the program header leads nowhere; the section says so.
fn unwind_header(source: &dyn ReadAt, image: &ElfImage) -> Option<Extent> {
    let section = image.section_named(source, ".eh_frame_hdr");
    if section.is_some_and(|section| !section.is_in_file()) {
        return None;
    }
    let of_segment = image.unwind_header().map(|segment| Extent {
        address: segment.address,
        file_offset: segment.file_offset,
        size: segment.file_size,
    });
    of_segment.or_else(|| section.map(extent_of))
}

/// A section that may have entries. Of a compressed one the extent lies in what it held.
struct Candidate {
    kind: SectionKind,
    extent: Extent,
    inflated: Option<Vec<u8>>,
}

/// `.eh_frame`, which begins at `start` in a file without section headers.
fn eh_frame(source: &dyn ReadAt, image: &ElfImage, start: Option<u64>) -> Option<Candidate> {
    let section = image.section_named(source, ".eh_frame").filter(|section| section.is_in_file());
    let extent = section.map(extent_of).or_else(|| rest_of_segment(image, start?))?;
    Some(Candidate { kind: SectionKind::EhFrame, extent, inflated: None })
}

fn extent_of(section: &Section) -> Extent {
    Extent { address: section.address, file_offset: section.file_offset, size: section.size }
}

/// `.debug_frame`, which is not loaded: its addresses are offsets in the section.
fn debug_frame(
    source: &dyn ReadAt,
    image: &ElfImage,
    limits: &CfiLimits,
) -> Result<Option<Candidate>, CfiError> {
    let kind = SectionKind::DebugFrame;
    let Some(data) = image.section_data(source, ".debug_frame", limits.inflated_bytes)? else {
        return Ok(None);
    };
    let size = data.len();
    let (file_offset, inflated) = match data {
        SectionData::InFile { offset, .. } => (offset, None),
        SectionData::Unpacked(bytes) => (0, Some(bytes)),
    };
    Ok(Some(Candidate { kind, extent: Extent { address: 0, file_offset, size }, inflated }))
}

/// All that is loaded: a linker or an optimizer may have left entries outside `.eh_frame` (BOLT does).
fn loaded(image: &ElfImage) -> Box<[Extent]> {
    let in_file = image.segments().iter().filter(|segment| segment.file_size > 0);
    let extent = |segment: &crate::symbol::elf::Segment| Extent {
        address: segment.address,
        file_offset: segment.file_offset,
        size: segment.file_size,
    };
    in_file.take(MAX_SEGMENTS).map(extent).collect()
}

/// From `address` to the end of what is loaded with it: `.eh_frame` of a file without section headers.
fn rest_of_segment(image: &ElfImage, address: u64) -> Option<Extent> {
    loaded(image).iter().find_map(|extent| {
        let into = address.checked_sub(extent.address).filter(|&into| into < extent.size)?;
        let file_offset = extent.file_offset.checked_add(into)?;
        Some(Extent { address, file_offset, size: extent.size - into })
    })
}
