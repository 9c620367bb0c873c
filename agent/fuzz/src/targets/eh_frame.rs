//! `.eh_frame` in a file without `.eh_frame_hdr`: read from end to end.

use crate::Target;
use crate::cfi::{self, Place};

pub(super) const TARGET: Target =
    Target { name: "eh_frame", longest_input: 4 << 10, heap_bytes: cfi::HEAP_BYTES, read };

fn read(input: &[u8]) -> bool {
    cfi::read_section(input, Place::EhFrame)
}
