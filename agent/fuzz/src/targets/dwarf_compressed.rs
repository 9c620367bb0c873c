//! DWARF in compressed sections, of which a few bytes can become as much as is allowed.

use crate::{Target, dwarf};

/// Beside the caches' budget: at most 17 states of a decoder for each of a dozen sections, of which inputs of this length fill no more
/// than a few; a unit's table of files, from 256 KiB at most, is 14 MiB, and so are its abbreviations; either is there twice.
pub(super) const TARGET: Target =
    Target { name: "dwarf_compressed", longest_input: 8 << 10, heap_bytes: dwarf::BUDGET + (64 << 20), read };

fn read(input: &[u8]) -> bool {
    dwarf::read(input, true)
}
