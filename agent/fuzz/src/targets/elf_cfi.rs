//! ELF files as sources of unwind information: how headers, segments and sections lead to it.

use agent::symbol::elf::{ElfImage, ElfLimits};

use crate::{Target, cfi};

pub(super) const TARGET: Target =
    Target { name: "elf_cfi", longest_input: 8 << 10, heap_bytes: cfi::HEAP_BYTES_INFLATED, read };

fn read(input: &[u8]) -> bool {
    ElfImage::parse(&input, &ElfLimits::default()).is_ok_and(|image| cfi::read(input, &image))
}
