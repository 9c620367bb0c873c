//! The bytes of a section, wherever and however the file keeps them: as they are, compressed (gABI, "Section Compression";
//! Go's linker does it unasked), or in a `.zdebug_*` section as binutils wrote them before that was specified.

use object::elf::{ELFCOMPRESS_ZLIB, ELFCOMPRESS_ZSTD, SHF_COMPRESSED};

use super::table::read_bytes;
use super::unpack::{Codec, Packed};
use super::{ElfError, ElfImage, Section};
use crate::symbol::read_at::ReadAt;

/// Bytes of `Elf64_Chdr`: type, reserved, size and alignment of what was compressed.
const HEADER: u64 = 24;
/// Bytes before the zlib stream of a `.zdebug_*` section: `ZLIB`, then the size as a big-endian number.
const OLD_HEADER: u64 = 12;

const WHAT: &str = "compressed section";

/// Where a section's bytes are.
#[derive(Debug)]
pub enum SectionData {
    /// In the file.
    InFile {
        /// Offset of the first byte.
        offset: u64,
        /// Bytes.
        size: u64,
    },
    /// In memory: they were compressed.
    Unpacked(Vec<u8>),
}

impl SectionData {
    /// How many bytes there are.
    pub fn len(&self) -> u64 {
        match self {
            Self::InFile { size, .. } => *size,
            Self::Unpacked(bytes) => bytes.len() as u64,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All bytes, in memory. `source` is the file that the section is of.
    ///
    /// # Errors
    /// [`ElfError::TooLarge`] for more than `limit` bytes, [`ElfError::Malformed`] when they lie outside the file,
    /// [`ElfError::Read`] when it cannot be read.
    pub fn into_bytes(self, source: &dyn ReadAt, limit: u64) -> Result<Vec<u8>, ElfError> {
        match self {
            Self::InFile { offset, size } => read_bytes(source, "section", offset, size, limit),
            Self::Unpacked(bytes) => Ok(bytes),
        }
    }
}

impl ElfImage {
    /// The section called `name` (`.debug_…`), or its older compressed form (`.zdebug_…`); `None` when the file holds
    /// neither. What is compressed is unpacked, `limit` bytes at most, whatever it says of its size; other bytes are not
    /// read.
    ///
    /// # Errors
    /// [`ElfError::TooLarge`] for more than `limit` bytes of what is compressed; [`ElfError::Unsupported`] for another
    /// compression than zlib and zstd; [`ElfError::Malformed`] and [`ElfError::Read`].
    pub fn section_data(
        &self,
        source: &dyn ReadAt,
        name: &str,
        limit: u64,
    ) -> Result<Option<SectionData>, ElfError> {
        if let Some(section) = self.section_in_file(source, name) {
            let is_packed = section.flags.0 & SHF_COMPRESSED.0 != 0;
            return if is_packed {
                unpack(source, section, limit).map(SectionData::Unpacked).map(Some)
            } else {
                Ok(Some(SectionData::InFile { offset: section.file_offset, size: section.size }))
            };
        }
        let Some(rest) = name.strip_prefix(".debug") else { return Ok(None) };
        let Some(section) = self.section_in_file(source, &format!(".zdebug{rest}")) else { return Ok(None) };
        unpack_old(source, section, limit).map(SectionData::Unpacked).map(Some)
    }

    /// Whether the file holds bytes of the section called `name`, compressed or not.
    pub fn has_section(&self, source: &dyn ReadAt, name: &str) -> bool {
        let old = name.strip_prefix(".debug").map(|rest| format!(".zdebug{rest}"));
        let found = |name: &str| self.section_in_file(source, name).is_some();
        found(name) || old.is_some_and(|old| found(&old))
    }

    fn section_in_file(&self, source: &dyn ReadAt, name: &str) -> Option<&Section> {
        self.section_named(source, name).filter(|section| section.is_in_file())
    }
}

/// What a section with `SHF_COMPRESSED` holds.
///
/// # Errors
/// As [`ElfImage::section_data`].
pub(in crate::symbol) fn unpack(
    source: &dyn ReadAt,
    section: &Section,
    limit: u64,
) -> Result<Vec<u8>, ElfError> {
    let header = header(source, section, HEADER)?;
    let word = header.first_chunk().map_or(0, |kind| u32::from_le_bytes(*kind));
    let codec = match object::elf::CompressionType(word) {
        ELFCOMPRESS_ZLIB => Codec::Zlib,
        ELFCOMPRESS_ZSTD => Codec::Zstd,
        _ => return Err(ElfError::Unsupported("a section that is compressed by neither zlib nor zstd")),
    };
    let size =
        header.get(8..).and_then(|size| size.first_chunk()).map_or(0, |size| u64::from_le_bytes(*size));
    packed(section, HEADER, codec).unpack(source, size, limit)
}

/// What a `.zdebug_*` section holds.
fn unpack_old(source: &dyn ReadAt, section: &Section, limit: u64) -> Result<Vec<u8>, ElfError> {
    let header = header(source, section, OLD_HEADER)?;
    let Some(size) = header.strip_prefix(b"ZLIB").and_then(|size| size.first_chunk()) else {
        return Err(ElfError::Malformed { what: WHAT, reason: "does not begin with ZLIB" });
    };
    packed(section, OLD_HEADER, Codec::Zlib).unpack(source, u64::from_be_bytes(*size), limit)
}

fn header(source: &dyn ReadAt, section: &Section, bytes: u64) -> Result<Vec<u8>, ElfError> {
    if section.size < bytes {
        return Err(ElfError::Malformed { what: WHAT, reason: "is too short" });
    }
    read_bytes(source, WHAT, section.file_offset, bytes, bytes)
}

fn packed(section: &Section, header: u64, codec: Codec) -> Packed {
    // Inside the file: its header was read.
    Packed { what: WHAT, codec, offset: section.file_offset + header, size: section.size - header }
}
