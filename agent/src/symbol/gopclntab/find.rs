//! Where a file has its Go tables.

use super::header::{Extent, HEADER_BYTES, Header};
use super::reader::Reader;
use super::{GoLimits, GoTableError};
use crate::symbol::elf::{ElfImage, Segment};
use crate::symbol::read_at::ReadAt;

/// Names that linkers give the section; the second one in position independent programs.
const SECTIONS: [&str; 2] = [".gopclntab", ".data.rel.ro.gopclntab"];
/// Sections by which a Go program is told where the C linker has put the tables among other data (position independent programs
/// that it linked, before Go 1.26).
const MARKS: [&str; 2] = [".go.buildinfo", ".note.go.buildid"];
/// Linkers align the tables to 32 bytes, those of Go 1.26 and later to 8.
const ALIGNMENT: usize = 8;
/// Bytes searched at a time.
const CHUNK: usize = 64 << 10;
/// Segments that are searched. Files have a handful.
pub(super) const MAX_SEGMENTS: usize = 16;

/// The tables: of the section that is called so; else by their magic number, in a file without sections and in one that other
/// sections show to be of Go's making. None in a file that is not.
pub(super) fn find(
    source: &dyn ReadAt,
    image: &ElfImage,
    limits: &GoLimits,
) -> Result<Option<Extent>, GoTableError> {
    if image.sections().is_empty() {
        return search(source, image, limits);
    }
    let Some(section) = SECTIONS.iter().find_map(|name| image.section_named(source, name)) else {
        let is_go = MARKS.iter().any(|name| image.section_named(source, name).is_some());
        return if is_go { search(source, image, limits) } else { Ok(None) };
    };
    // A separate debug file has the header but not the bytes.
    let table = Extent { address: section.address, file_offset: section.file_offset, size: section.size };
    Ok(Some(table).filter(|_| section.is_in_file() && section.size > 0))
}

/// Segments that hold data: they are searched for what no header leads to.
pub(super) fn data_segments(image: &ElfImage) -> impl DoubleEndedIterator<Item = &Segment> {
    let segments = image.segments().get(..MAX_SEGMENTS).unwrap_or(image.segments());
    segments.iter().filter(|segment| !segment.executable && segment.file_size > 0)
}

/// Calls `visit` with the bytes of `segment` from each aligned offset on, at least `len` of them, until it finds something. `left`
/// are the bytes that may still be searched.
pub(super) fn search_segment<T>(
    source: &dyn ReadAt,
    segment: &Segment,
    (alignment, len): (usize, usize),
    left: &mut u64,
    mut visit: impl FnMut(u64, &[u8]) -> Option<T>,
) -> Result<Option<T>, GoTableError> {
    let end = segment.file_offset.saturating_add(segment.file_size).min(source.len());
    // What is aligned is the address; the first aligned byte of the segment.
    let mut at = segment.file_offset.saturating_add(segment.address.wrapping_neg() % alignment as u64);
    let mut chunk = Vec::new();
    while at < end && *left > 0 {
        let wanted = (end - at).min((CHUNK + len) as u64).min(*left);
        chunk.resize(wanted as usize, 0);
        source.read_exact_at(at, &mut chunk)?;
        *left -= wanted;
        for offset in (0..CHUNK).step_by(alignment) {
            let Some(bytes) = chunk.get(offset..).filter(|bytes: &&[u8]| <[u8]>::len(bytes) >= len) else {
                break;
            };
            if let Some(found) = visit(at + offset as u64, bytes) {
                return Ok(Some(found));
            }
        }
        at += CHUNK as u64;
    }
    Ok(None)
}

fn search(source: &dyn ReadAt, image: &ElfImage, limits: &GoLimits) -> Result<Option<Extent>, GoTableError> {
    let mut left = limits.search_bytes;
    for segment in data_segments(image) {
        let found = search_segment(source, segment, (ALIGNMENT, 8), &mut left, |file_offset, bytes| {
            let start = bytes.first_chunk::<8>()?;
            if !Header::is_start(*start) {
                return None;
            }
            let into = file_offset - segment.file_offset;
            let size = segment.file_size - into;
            let table = Extent { address: segment.address.checked_add(into)?, file_offset, size };
            let mut reader = Reader::new(source, "the header", HEADER_BYTES, HEADER_BYTES as u64);
            Header::read(&mut reader, table).is_ok().then_some(table)
        })?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}
