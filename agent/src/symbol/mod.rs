//! The resolver and its sources of names.

pub mod elf;
pub mod kallsyms;
pub mod read_at;
