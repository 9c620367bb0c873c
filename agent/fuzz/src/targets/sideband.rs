//! Records of the perf side-band, in which processes choose their paths and names.

use agent::kernel::sideband::record::{Record, decode};

use crate::Target;

pub(super) const TARGET: Target = Target { name: "sideband", longest_input: 512, heap_bytes: 8 << 10, read };

fn read(input: &[u8]) -> bool {
    decode(input) != Record::Other
}
