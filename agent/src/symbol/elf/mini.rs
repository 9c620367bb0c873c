//! MiniDebugInfo: an ELF file with the functions that `.dynsym` has not, compressed by xz, in the section `.gnu_debugdata`
//! (GDB's manual, "MiniDebugInfo"). RHEL, Fedora and UBI ship it in nearly every program and library.

use super::unpack::{Codec, Packed};
use super::{ElfError, ElfImage, ElfLimits};
use crate::symbol::read_at::ReadAt;

/// The file that the file's `.gnu_debugdata` holds; `None` when it has none.
///
/// # Errors
/// [`ElfError::TooLarge`] when it holds more than [`ElfLimits::mini_bytes`], [`ElfError::Malformed`] when it cannot be unpacked,
/// [`ElfError::Read`] when it cannot be read.
pub fn mini_debug_info(
    source: &dyn ReadAt,
    image: &ElfImage,
    limits: &ElfLimits,
) -> Result<Option<Vec<u8>>, ElfError> {
    let section = image.section_named(source, ".gnu_debugdata").filter(|section| section.is_in_file());
    let Some(section) = section else { return Ok(None) };
    let what = "MiniDebugInfo";
    let packed = Packed { what, codec: Codec::Xz, offset: section.file_offset, size: section.size };
    packed.unpack_up_to(source, limits.mini_bytes).map(Some)
}
