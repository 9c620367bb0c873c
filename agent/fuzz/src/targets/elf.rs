//! ELF files: headers, build id, symbols, PLT stubs, known code.

use agent::symbol::elf::{ElfImage, ElfLimits, FunctionIndex};
use agent::unwind::{Page, add_known_code};
use agent_ebpf::rule::{Rule, TEXT_PAGE};

use crate::Target;

pub(super) const TARGET: Target = Target { name: "elf", longest_input: 8 << 10, heap_bytes: 1 << 20, read };

fn read(input: &[u8]) -> bool {
    let limits = limits(input);
    let Ok(image) = ElfImage::parse(&input, &limits) else { return false };
    for offset in [0, 0x1000, input.len() as u64, u64::MAX] {
        image.file_offset_to_address(offset);
    }
    for segment in image.segments() {
        assert!(segment.file_offset.checked_add(segment.file_size).is_some());
        assert!(segment.address.checked_add(segment.memory_size).is_some());
    }
    for page in [0, 1, u64::MAX / TEXT_PAGE] {
        let mut rows = Page { rows: vec![(0, Rule::default())], ..Page::default() };
        if add_known_code(&input, &image, page, &mut rows).is_ok() {
            crate::cfi::check_rows(&rows);
        }
    }
    functions(input, &image, &limits)
}

/// A byte of the padding in `e_ident` says whether the limits are so small that they are reached.
fn limits(input: &[u8]) -> ElfLimits {
    if input.get(15).is_some_and(|&byte| byte != 0) {
        ElfLimits { header_bytes: 640, symbol_bytes: 480, index_bytes: 120, mini_bytes: 256 }
    } else {
        ElfLimits::default()
    }
}

fn functions(input: &[u8], image: &ElfImage, limits: &ElfLimits) -> bool {
    let Ok(index) = FunctionIndex::build(&input, image, limits) else { return false };
    assert!(index.heap_bytes() <= limits.index_bytes);
    let mut last = None;
    for symbol in index.iter() {
        assert!(last < Some(symbol.start), "one function for each start, ascending");
        last = Some(symbol.start);
        // Names may lie outside the file: that is an error, not a panic.
        let _ = index.name(&input, &symbol);
        let covering = index.lookup(symbol.start);
        assert!(symbol.size == 0 || covering == Some(symbol));
        let _ = index.lookup(symbol.start.wrapping_add(symbol.size));
    }
    !index.is_empty()
}
