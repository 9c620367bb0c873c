//! Small ELF files around sections, so that the engine's changes all hit what the sections hold.

/// Where the first section's bytes are in the file: behind the headers.
pub(crate) const BODY: u64 = 256;
/// Where code is linked for, and how many bytes of it there are. The file holds none of them.
pub(crate) const TEXT: u64 = 0x40_1000;
/// See [`TEXT`].
pub(crate) const TEXT_BYTES: u64 = 0x2000;

const PROGRAM_HEADERS: u16 = 2;
/// `SHT_PROGBITS`.
pub(crate) const PROGBITS: u32 = 1;
/// `SHT_RELA`.
pub(crate) const RELA: u32 = 4;
const STRTAB: u32 = 3;
const NOBITS: u32 = 8;
/// `SHF_EXECINSTR`.
const CODE: u64 = 4;
/// `SHF_ALLOC`.
pub(crate) const ALLOC: u64 = 2;
/// `SHF_COMPRESSED`.
pub(crate) const COMPRESSED: u64 = 1 << 11;
/// `e_machine` of x86-64 and of arm64.
pub(crate) const X86_64: u16 = 62;
/// See [`X86_64`].
pub(crate) const AARCH64: u16 = 183;

/// A section; the bytes follow those of the one before.
#[derive(Clone, Debug)]
pub(crate) struct Section<'a> {
    pub(crate) name: &'a str,
    pub(crate) kind: u32,
    pub(crate) flags: u64,
    pub(crate) body: &'a [u8],
}

impl<'a> Section<'a> {
    /// One that is not loaded.
    pub(crate) fn new(name: &'a str, body: &'a [u8]) -> Self {
        Self { name, kind: PROGBITS, flags: 0, body }
    }
}

/// What the file says of itself beside its sections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) machine: u16,
    /// The address at which the loader maps all sections, if it does.
    pub(crate) loaded_at: Option<u64>,
    /// Whether there are section headers.
    pub(crate) headers: bool,
}

/// The file: code, which has no bytes, as in a separate debug file, and `sections`.
pub(crate) fn carry(shape: Shape, sections: &[Section<'_>]) -> Vec<u8> {
    let size: u64 = sections.iter().map(|section| section.body.len() as u64).sum();
    let names_at = BODY + size;
    let mut names = b"\0.text\0".to_vec();
    let mut headers = section_header(0, 0, [0; 4]);
    headers.extend(section_header(1, NOBITS, [ALLOC | CODE, TEXT, BODY, TEXT_BYTES]));
    let mut at = BODY;
    for Section { name, kind, flags, body } in sections {
        let address = shape.loaded_at.map_or(0, |address| address + at - BODY);
        headers.extend(section_header(names.len(), *kind, [*flags, address, at, body.len() as u64]));
        names.extend(name.bytes().chain([0]));
        at += body.len() as u64;
    }
    headers.extend(section_header(0, STRTAB, [0, 0, names_at, names.len() as u64]));
    let count = if shape.headers { sections.len() as u16 + 3 } else { 0 };
    let mut file = Vec::with_capacity(names_at as usize + names.len() + headers.len());
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    for half in [3, shape.machine, 1, 0] {
        file.extend(half.to_le_bytes());
    }
    for word in [0, 64, if shape.headers { names_at + names.len() as u64 } else { 0 }] {
        file.extend(word.to_le_bytes());
    }
    file.extend([0; 4]);
    for half in [64, 56, PROGRAM_HEADERS, 64, count, count.saturating_sub(1)] {
        file.extend(half.to_le_bytes());
    }
    let (data_kind, data) = shape.loaded_at.map_or((0, 0), |address| (1, address));
    for (kind, flags, [offset, address, in_file, bytes]) in
        [(1_u32, 5_u32, [BODY, TEXT, 0, TEXT_BYTES]), (data_kind, 4, [BODY, data, size, size])]
    {
        file.extend(kind.to_le_bytes());
        file.extend(flags.to_le_bytes());
        for word in [offset, address, address, in_file, bytes, 8] {
            file.extend(word.to_le_bytes());
        }
    }
    file.resize(BODY as usize, 0);
    for section in sections {
        file.extend(section.body);
    }
    if shape.headers {
        file.extend(names);
        file.extend(headers);
    }
    file
}

/// `place` is flags, address, file offset, size.
fn section_header(name: usize, kind: u32, place: [u64; 4]) -> Vec<u8> {
    let words = place.into_iter().chain([0, 1, 0]).flat_map(u64::to_le_bytes);
    (name as u32).to_le_bytes().into_iter().chain(kind.to_le_bytes()).chain(words).collect()
}
