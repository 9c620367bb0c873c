//! Names of functions, as linkers write them.

use agent::symbol::demangle::{MAX_INPUT, MAX_OUTPUT, demangle, without_arguments};

use crate::Target;

pub(super) const TARGET: Target =
    Target { name: "demangle", longest_input: 2 << 10, heap_bytes: 16 << 20, read };

fn read(input: &[u8]) -> bool {
    let raw = String::from_utf8_lossy(input);
    let name = demangle(&raw);
    // What the name is about is bounded; its suffix is the file's own and short.
    assert!(name.len() <= MAX_OUTPUT + MAX_INPUT.min(raw.len()));
    for name in [&*name, &*raw] {
        assert!(without_arguments(name).len() <= name.len());
    }
    name != raw
}
