//! DWARF: the index of units, the look at a unit before it is parsed, lines and inlined functions, split units.

use crate::{Target, dwarf};

/// The caches' budget, and beside it what is there only while a unit is opened: a file takes 160 bytes for three of the input
/// and an abbreviation 112, either twice (when it is looked at, and in the unit), or 0.6 MiB each.
pub(super) const TARGET: Target =
    Target { name: "dwarf", longest_input: 6 << 10, heap_bytes: dwarf::BUDGET + (3 << 20), read };

fn read(input: &[u8]) -> bool {
    dwarf::read(input, false)
}
