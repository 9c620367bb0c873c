//! Writes small ELF files with any CFI.
//!
//! Layout: text at file offset and address 0x1000..0x9000, then CFI at 0x9000, then section headers.

use super::super::{CfiError, CfiIndex, CfiLimits, Page, build_page};
use crate::symbol::elf::{ElfImage, ElfLimits};

pub(super) const TEXT: u64 = 0x1000;
pub(super) const TEXT_END: u64 = 0x9000;
/// Where CFI begins: `.eh_frame_hdr` first, when there is one.
pub(super) const CFI: u64 = TEXT_END;

/// A function with its CFI program, in DWARF's bytes.
#[derive(Clone)]
pub(super) struct Function {
    pub(super) start: u64,
    pub(super) len: u64,
    pub(super) program: Vec<u8>,
    /// Whether its CIE has the augmentation `S`.
    pub(super) signal: bool,
}

pub(super) fn function(start: u64, len: u64, program: &[u8]) -> Function {
    Function { start, len, program: program.to_vec(), signal: false }
}

/// How a file says where its CFI is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A sorted table, known by a program header; no sections.
    Header,
    /// Both without a table: `.eh_frame_hdr` only says where `.eh_frame` begins.
    HeaderWithoutTable,
    /// `.eh_frame` in a section, no header.
    EhFrame,
    /// `.debug_frame` of this version of CIE.
    DebugFrame(u8),
    /// `.debug_frame`, compressed by zlib.
    Compressed,
}

/// Starts with the CFA at `rsp+8` and the return address below it; code counts in 1, data in -8.
fn cie(kind: Shape, signal: bool) -> Vec<u8> {
    let mut body = match kind {
        Shape::DebugFrame(version) => [&0xffff_ffff_u32.to_le_bytes()[..], &[version, 0]].concat(),
        Shape::Compressed => [&0xffff_ffff_u32.to_le_bytes()[..], &[1, 0]].concat(),
        _ if signal => b"\0\0\0\0\x01zRS\0".to_vec(),
        _ => b"\0\0\0\0\x01zR\0".to_vec(),
    };
    if kind == Shape::DebugFrame(4) {
        body.extend([8, 0]);
    }
    body.extend([1, 0x78, 16]);
    if !matches!(kind, Shape::DebugFrame(_) | Shape::Compressed) {
        body.extend([1, 0x1b]);
    }
    body.extend([0x0c, 7, 8, 0x90, 1]);
    entry(body)
}

fn entry(mut body: Vec<u8>) -> Vec<u8> {
    body.resize((body.len() + 4).next_multiple_of(8) - 4, 0);
    [&(body.len() as u32).to_le_bytes()[..], &body].concat()
}

/// The entries, the first at address `at` (in `.debug_frame`: at 0), and the address of each function's FDE.
fn entries(functions: &[Function], kind: Shape, at: u64) -> (Vec<u8>, Vec<u64>) {
    let debug = matches!(kind, Shape::DebugFrame(_) | Shape::Compressed);
    let mut bytes = cie(kind, false);
    let signal_cie = bytes.len();
    bytes.extend(cie(kind, true));
    let mut addresses = Vec::new();
    for function in functions {
        let here = bytes.len();
        addresses.push(at + here as u64);
        let cie = if function.signal { signal_cie } else { 0 };
        let mut body = Vec::new();
        if debug {
            body.extend((cie as u32).to_le_bytes());
            body.extend(function.start.to_le_bytes());
            body.extend(function.len.to_le_bytes());
        } else {
            body.extend((here as u32 + 4 - cie as u32).to_le_bytes());
            body.extend((function.start.wrapping_sub(at + here as u64 + 8) as u32).to_le_bytes());
            body.extend((function.len as u32).to_le_bytes());
            body.push(0);
        }
        body.extend(&function.program);
        bytes.extend(entry(body));
    }
    bytes.extend([0; 4]);
    (bytes, addresses)
}

/// `.eh_frame_hdr`: version, encodings, start of `.eh_frame`, and the table.
fn header(functions: &[Function], fdes: &[u64], eh_frame: u64, table: bool) -> Vec<u8> {
    let mut bytes = if table { vec![1, 0x1b, 0x03, 0x3b] } else { vec![1, 0x1b, 0xff, 0xff] };
    bytes.extend((eh_frame.wrapping_sub(CFI + 4) as u32).to_le_bytes());
    if table {
        bytes.extend((functions.len() as u32).to_le_bytes());
        let mut pairs: Vec<(u64, u64)> =
            functions.iter().map(|f| f.start).zip(fdes.iter().copied()).collect();
        pairs.sort_unstable();
        for (start, fde) in pairs {
            bytes.extend((start.wrapping_sub(CFI) as u32).to_le_bytes());
            bytes.extend((fde.wrapping_sub(CFI) as u32).to_le_bytes());
        }
    }
    bytes
}

/// Bytes of `.eh_frame_hdr` for this many functions.
fn header_len(functions: usize, table: bool) -> u64 {
    if table { 12 + 8 * functions as u64 } else { 8 }
}

/// The file.
pub(super) fn write(functions: &[Function], kind: Shape) -> Vec<u8> {
    let has_header = matches!(kind, Shape::Header | Shape::HeaderWithoutTable);
    let table = kind == Shape::Header;
    let head = if has_header { header_len(functions.len(), table) } else { 0 };
    let debug = matches!(kind, Shape::DebugFrame(_) | Shape::Compressed);
    let (entry_bytes, fdes) = entries(functions, kind, if debug { 0 } else { CFI + head });
    let mut cfi = if has_header { header(functions, &fdes, CFI + head, table) } else { Vec::new() };
    assert_eq!(cfi.len() as u64, head);
    cfi.extend(entry_bytes);
    if kind == Shape::Compressed {
        cfi = compressed(&cfi);
    }

    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([3, 0, 62, 0, 1, 0, 0, 0]);
    let sections_at = CFI + cfi.len() as u64;
    let sections: u16 = if has_header { 0 } else { 3 };
    for word in [0, 64, if has_header { 0 } else { sections_at }] {
        file.extend(u64::to_le_bytes(word));
    }
    file.extend([0; 4]);
    let programs: u16 = if has_header { 3 } else { 2 };
    for half in [64, 56, programs, 64, sections, 2_u16.min(sections)] {
        file.extend(half.to_le_bytes());
    }
    let segments =
        [(1_u32, 5_u32, TEXT, TEXT_END - TEXT), (1, 4, CFI, cfi.len() as u64), (0x6474_e550, 4, CFI, head)];
    for (kind, flags, at, size) in &segments[..usize::from(programs)] {
        file.extend(kind.to_le_bytes());
        file.extend(flags.to_le_bytes());
        for word in [*at, *at, *at, *size, *size, 8] {
            file.extend(word.to_le_bytes());
        }
    }
    file.resize(CFI as usize, 0);
    file.extend(cfi);
    if !has_header {
        write_sections(&mut file, kind, sections_at);
    }
    file
}

/// `Elf64_Chdr` for zlib, and what it speaks of.
fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut section: Vec<u8> =
        [1, bytes.len() as u64, 1].iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut zlib = flate2::read::ZlibEncoder::new(bytes, flate2::Compression::default());
    std::io::Read::read_to_end(&mut zlib, &mut section).unwrap();
    section
}

/// Three headers: none, the one with CFI, the names.
fn write_sections(file: &mut Vec<u8>, kind: Shape, at: u64) {
    let (name, flags, address): (&[u8], u64, u64) = match kind {
        Shape::EhFrame => (b"\0.eh_frame\0", 2, CFI),
        Shape::Compressed => (b"\0.debug_frame\0", 1 << 11, 0),
        _ => (b"\0.debug_frame\0", 0, 0),
    };
    let names_at = at + 3 * 64;
    for (name, kind, [flags, address, offset, size]) in [
        (0_u32, 0_u32, [0; 4]),
        (1, 1, [flags, address, CFI, at - CFI]),
        (0, 3, [0, 0, names_at, name.len() as u64]),
    ] {
        file.extend(name.to_le_bytes());
        file.extend(kind.to_le_bytes());
        for word in [flags, address, offset, size, 0, 1, 0] {
            file.extend(word.to_le_bytes());
        }
        // `sh_link` and `sh_info` are one word above.
    }
    file.extend(name);
}

pub(super) fn open(file: &[u8]) -> Result<(ElfImage, CfiIndex), CfiError> {
    let file = &file;
    let image = ElfImage::parse(file, &ElfLimits::default()).unwrap();
    let index = CfiIndex::open(file, &image, &CfiLimits::default())?;
    Ok((image, index))
}

/// The rows of the page with the start of the text.
pub(super) fn first_page(file: &[u8]) -> Page {
    let (image, index) = open(file).unwrap();
    build_page(&file, &index, &image, TEXT / agent_ebpf::rule::TEXT_PAGE).unwrap()
}
