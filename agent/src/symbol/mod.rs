//! The resolver and its sources of names.

pub mod byte_lru;
pub mod demangle;
pub mod elf;
pub mod frame;
pub mod kallsyms;
pub mod module_file;
pub(crate) mod module_source;
mod module_symbols;
pub mod read_at;
pub mod resolver;
pub mod symbols;
pub mod unresolved;
pub mod vdso;
