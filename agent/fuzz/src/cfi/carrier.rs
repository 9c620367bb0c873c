//! A small ELF file around a section of call frame information, so that the engine's changes all hit the section.

/// What the section is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// `.eh_frame_hdr` and `.eh_frame`, known by a program header.
    Header,
    /// `.eh_frame`.
    EhFrame,
    /// `.debug_frame`.
    DebugFrame,
}

/// Bits of the byte that says how the section is carried.
mod variant {
    /// The file is for arm64, else for x86-64.
    pub(super) const AARCH64: u8 = 1;
    /// The section is compressed: it begins with `Elf64_Chdr`.
    pub(super) const COMPRESSED: u8 = 2;
    /// The reader has small limits.
    pub(super) const SMALL_LIMITS: u8 = 4;
}

/// Text and section are mapped as in the files that the unwinder's tests write: text of two pages and a bit, which has no bytes
/// here, and the section right behind it.
const TEXT: u64 = 0x1000;
const SECTION: u64 = 0x9000;
/// Where the section lies in the file: behind the headers.
const SECTION_OFFSET: u64 = 256;

const PROGRAM_HEADERS: u16 = 3;
const NAMES: &[u8] = b"\0.eh_frame\0.debug_frame\0";

/// The file.
pub(crate) fn carry(section: &[u8], place: Place, variant: u8) -> Vec<u8> {
    let size = section.len() as u64;
    let names_at = SECTION_OFFSET + size;
    let sections_at = names_at + NAMES.len() as u64;
    let mut file = Vec::with_capacity(sections_at as usize + 3 * 64);
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0");
    file.extend([variant & variant::SMALL_LIMITS, 0]);
    let machine: u16 = if variant & variant::AARCH64 == 0 { 62 } else { 183 };
    for half in [3, machine, 1, 0] {
        file.extend(half.to_le_bytes());
    }
    for word in [0, 64, sections_at] {
        file.extend(word.to_le_bytes());
    }
    file.extend([0; 4]);
    for half in [64, 56, PROGRAM_HEADERS, 64, 3, 2] {
        file.extend(half.to_le_bytes());
    }
    let header_kind = if place == Place::Header { 0x6474_e550 } else { 0 };
    for (kind, flags, [offset, address, bytes]) in [
        (1_u32, 5_u32, [TEXT, TEXT, SECTION - TEXT]),
        (1, 4, [SECTION_OFFSET, SECTION, size]),
        (header_kind, 4, [SECTION_OFFSET, SECTION, size]),
    ] {
        file.extend(kind.to_le_bytes());
        file.extend(flags.to_le_bytes());
        for word in [offset, address, address, bytes, bytes, 8] {
            file.extend(word.to_le_bytes());
        }
    }
    file.resize(SECTION_OFFSET as usize, 0);
    file.extend(section);
    file.extend(NAMES);
    let compressed = if variant & variant::COMPRESSED == 0 { 0 } else { 1 << 11 };
    // Names are offsets in `NAMES`; one whose section is known by the program header is not repeated.
    let (name, flags, address) = match place {
        Place::Header => (0, 0, 0),
        Place::EhFrame => (1, 2, SECTION),
        Place::DebugFrame => (11, compressed, 0),
    };
    let no_section = section_header(0, 0, [0; 4]);
    let cfi = section_header(name, 1, [flags, address, SECTION_OFFSET, size]);
    let names = section_header(0, 3, [0, 0, names_at, NAMES.len() as u64]);
    file.extend([no_section, cfi, names].concat());
    file
}

/// `place` is flags, address, file offset, size.
fn section_header(name: u32, kind: u32, place: [u64; 4]) -> Vec<u8> {
    let words = place.into_iter().chain([0, 1, 0]).flat_map(u64::to_le_bytes);
    name.to_le_bytes().into_iter().chain(kind.to_le_bytes()).chain(words).collect()
}
