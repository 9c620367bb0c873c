//! One file for each target.
//!
//! To add one: a file `NAME.rs` here with a constant `TARGET`, a line in each of the two lists below, and a directory `seeds/NAME`
//! with at least one small input that the reader accepts and one that it refuses. Nothing else needs to know of it. An input that
//! broke something becomes a seed, named for what it is.

mod code;
mod debug_frame;
mod debug_link;
mod demangle;
mod dwarf;
mod dwarf_compressed;
mod eh_frame;
mod eh_frame_hdr;
mod elf;
mod elf_cfi;
mod gopclntab;
mod jitdump;
mod kallsyms;
mod maps;
mod mini_debug_info;
mod perf_map;
mod printable;
mod sample_ring;
mod sideband;

use crate::Target;

/// All targets, by name.
pub const TARGETS: &[Target] = &[
    code::TARGET,
    debug_frame::TARGET,
    demangle::TARGET,
    debug_link::TARGET,
    dwarf::TARGET,
    dwarf_compressed::TARGET,
    eh_frame::TARGET,
    eh_frame_hdr::TARGET,
    elf::TARGET,
    elf_cfi::TARGET,
    gopclntab::TARGET,
    jitdump::TARGET,
    kallsyms::TARGET,
    maps::TARGET,
    mini_debug_info::TARGET,
    perf_map::TARGET,
    printable::TARGET,
    sample_ring::TARGET,
    sideband::TARGET,
];
