//! MiniDebugInfo: an ELF file packed by xz, in `.gnu_debugdata`.

use agent::symbol::elf::{ElfFile, ElfImage, ElfLimits, FunctionIndex, SymtabKind, mini_debug_info};

use crate::carrier::{self, Section, Shape, X86_64};
use crate::{Target, xz};

/// What is unpacked may be [`UNPACKED`], for a moment three times, and again in the decoder's dictionary, which
/// grows likewise. The decoder itself takes some 100 KiB, and an index less than the file.
pub(super) const TARGET: Target =
    Target { name: "mini_debug_info", longest_input: 4 << 10, heap_bytes: 1 << 20, read };

const UNPACKED: u64 = 64 << 10;

/// Bits of the first byte of an input.
mod variant {
    /// The rest is what LZMA2 makes of the file, around which the container is put: checksums then let the engine's changes through.
    pub(super) const BARE: u8 = 1;
    /// The reader has small limits.
    pub(super) const SMALL_LIMITS: u8 = 2;
}

fn read(input: &[u8]) -> bool {
    let Some((&variant, packed)) = input.split_first() else { return false };
    let stream;
    let section = if variant & variant::BARE != 0 {
        stream = xz::contain(packed);
        &stream
    } else {
        packed
    };
    let shape = Shape { machine: X86_64, loaded_at: None, headers: true };
    let file = carrier::carry(shape, &[Section::new(".gnu_debugdata", section)]);
    let mini_bytes = if variant & variant::SMALL_LIMITS != 0 { 512 } else { UNPACKED };
    let limits = ElfLimits { mini_bytes, ..ElfLimits::default() };
    let image = match ElfImage::parse(&file, &limits) {
        Ok(image) => image,
        Err(error) => panic!("the carrier is a good file: {error}"),
    };
    match mini_debug_info(&file, &image, &limits) {
        Ok(Some(mini)) => {
            assert!(mini.len() as u64 <= mini_bytes);
            functions(ElfFile { source: &file, image: &image }, &mini, &limits);
            true
        }
        Ok(None) => panic!("the section is there"),
        Err(_) => false,
    }
}

/// Asks the file that was packed for its functions, as for those of the module.
fn functions(own: ElfFile<'_>, mini: &Vec<u8>, limits: &ElfLimits) {
    let Ok(image) = ElfImage::parse(mini, limits) else { return };
    let symtab = ElfFile { source: mini, image: &image };
    let Ok(index) = FunctionIndex::build_with_symtab(own, symtab, SymtabKind::Rest, limits) else { return };
    assert!(index.heap_bytes() <= limits.index_bytes);
    for symbol in index.iter() {
        let _ = index.name(mini, &symbol);
        assert!(symbol.size == 0 || index.lookup(symbol.start) == Some(symbol));
    }
}
