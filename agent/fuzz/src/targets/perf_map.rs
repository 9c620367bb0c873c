//! Perf maps, which runtimes write.

use agent::symbol::jit::MapFormat;

use crate::{Target, code_map};

pub(super) const TARGET: Target =
    Target { name: "perf_map", longest_input: 2 << 10, heap_bytes: code_map::HEAP_BYTES, read };

/// The input: where the map is cut (one byte, times 4), whether the table is small (one), the map.
fn read(input: &[u8]) -> bool {
    let &[cut, small, ref map @ ..] = input else { return false };
    let small = small & 1 != 0;
    let read = code_map::read(MapFormat::PerfMap, map, usize::from(cut) * 4, small);
    let named = code_map::look_up(&read.at_once, map, addresses(map));
    code_map::look_up(&read.in_pieces, map, addresses(map));
    if !read.at_once.is_full() && !read.in_pieces.is_full() {
        // However the writer's buffer cuts lines, the outcome is the same.
        assert_eq!(read.at_once.offset(), read.in_pieces.offset());
        assert_eq!(read.at_once.bad(), read.in_pieces.bad());
        for address in addresses(map) {
            assert_eq!(read.at_once.find(address), read.in_pieces.find(address), "{address:#x}");
        }
    }
    named > 0
}

/// The numbers that lines begin with.
fn addresses(map: &[u8]) -> impl Iterator<Item = u64> {
    map.split(|&byte| byte == b'\n').take(64).filter_map(|line| {
        let number = line.split(u8::is_ascii_whitespace).find(|field| !field.is_empty())?;
        let digits = number.strip_prefix(b"0x").unwrap_or(number);
        u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    })
}
