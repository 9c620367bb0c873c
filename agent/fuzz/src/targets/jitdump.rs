//! Jitdumps, which runtimes write.

use agent::symbol::jit::MapFormat;

use crate::{Target, code_map};

pub(super) const TARGET: Target =
    Target { name: "jitdump", longest_input: 2 << 10, heap_bytes: code_map::HEAP_BYTES, read };

/// The input: where the dump is cut (one byte, times 4), whether the table is small (one), the dump.
fn read(input: &[u8]) -> bool {
    let &[cut, small, ref dump @ ..] = input else { return false };
    let read = code_map::read(MapFormat::Jitdump, dump, usize::from(cut) * 4, small & 1 != 0);
    code_map::look_up(&read.in_pieces, dump, addresses(dump));
    if read.at_once.refused().is_some() {
        assert!(read.at_once.is_empty(), "of a file that is refused nothing is believed");
    }
    if !read.at_once.is_full() && !read.in_pieces.is_full() {
        // A record that is not whole yet waits for the rest of it.
        assert_eq!(read.at_once.offset(), read.in_pieces.offset());
    }
    code_map::look_up(&read.at_once, dump, addresses(dump)) > 0
}

/// All that could be an address: every number of eight bytes at a multiple of four.
fn addresses(dump: &[u8]) -> impl Iterator<Item = u64> {
    let at = |at: usize| dump.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes));
    (40..dump.len()).step_by(4).filter_map(at).take(512)
}
