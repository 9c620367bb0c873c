//! Compressed sections (ELF gABI, "Section Compression"): Go's linker compresses `.debug_frame`, which is all the CFI that it
//! writes.

use std::io::{self, Read};

use flate2::read::ZlibDecoder;
use object::elf::ELFCOMPRESS_ZLIB;

use super::CfiError;
use crate::symbol::elf::Section;
use crate::symbol::read_at::ReadAt;

/// Bytes of `Elf64_Chdr`: type, reserved, size and alignment of what was compressed.
const HEADER: usize = 24;
/// Bytes read at once.
const CHUNK: usize = 16 << 10;

/// What `section` holds, which is `limit` bytes at most, whatever it says.
///
/// # Errors
/// When it cannot be read or is malformed, larger than `limit`, or compressed by something else than zlib.
pub(super) fn inflate(source: &dyn ReadAt, section: &Section, limit: u64) -> Result<Vec<u8>, CfiError> {
    let mut header = [0; HEADER];
    if section.size < HEADER as u64 {
        return Err(CfiError::Malformed("a compressed section is too short"));
    }
    source.read_exact_at(section.file_offset, &mut header)?;
    let &[a, b, c, d, _, _, _, _, ref rest @ ..] = &header;
    if u32::from_le_bytes([a, b, c, d]) != ELFCOMPRESS_ZLIB.0 {
        return Err(CfiError::Unsupported("a section that is not compressed by zlib"));
    }
    let size = rest.first_chunk().map_or(0, |size| u64::from_le_bytes(*size));
    if size > limit {
        return Err(CfiError::TooLarge { what: "a compressed section", bytes: size, limit });
    }
    let start = section.file_offset.saturating_add(HEADER as u64);
    let end = section.file_offset.saturating_add(section.size).min(source.len());
    let compressed = io::BufReader::with_capacity(CHUNK, Stretch { source, at: start, end });
    let mut bytes = Vec::new();
    ZlibDecoder::new(compressed).take(size).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != size {
        return Err(CfiError::Malformed("a compressed section is shorter than it says"));
    }
    bytes.shrink_to_fit();
    Ok(bytes)
}

/// A part of a source, read from its beginning to its end.
struct Stretch<'a> {
    source: &'a dyn ReadAt,
    at: u64,
    end: u64,
}

impl Read for Stretch<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.end.saturating_sub(self.at).min(buffer.len() as u64) as usize;
        self.source.read_exact_at(self.at, buffer.get_mut(..len).unwrap_or_default())?;
        self.at = self.at.saturating_add(len as u64);
        Ok(len)
    }
}
