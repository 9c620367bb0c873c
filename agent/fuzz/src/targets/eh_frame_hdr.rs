//! `.eh_frame_hdr`, with its sorted table, and the `.eh_frame` behind it.

use crate::Target;
use crate::cfi::{self, Place};

pub(super) const TARGET: Target =
    Target { name: "eh_frame_hdr", longest_input: 4 << 10, heap_bytes: cfi::HEAP_BYTES, read };

fn read(input: &[u8]) -> bool {
    cfi::read_section(input, Place::Header)
}
