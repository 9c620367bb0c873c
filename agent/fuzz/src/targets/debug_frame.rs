//! `.debug_frame`, compressed or not.

use crate::Target;
use crate::cfi::{self, Place};

pub(super) const TARGET: Target =
    Target { name: "debug_frame", longest_input: 9 << 10, heap_bytes: cfi::HEAP_BYTES_INFLATED, read };

fn read(input: &[u8]) -> bool {
    cfi::read_section(input, Place::DebugFrame)
}
