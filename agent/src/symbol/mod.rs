//! The resolver and its sources of names.

pub mod demangle;
pub mod elf;
pub mod kallsyms;
pub mod read_at;
pub mod vdso;
