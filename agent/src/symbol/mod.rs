//! The resolver and its sources of names.

pub mod byte_lru;
mod closable_file;
pub mod content;
pub mod debug_file;
pub mod demangle;
pub mod dwarf;
mod edition;
pub mod elf;
pub mod frame;
mod generation;
pub mod gopclntab;
pub mod jit;
pub mod kallsyms;
mod kernel_names;
pub mod module_file;
mod module_lines;
mod module_names;
pub(crate) mod module_source;
mod module_symbols;
mod packed_names;
pub mod read_at;
pub mod readers;
pub mod resolver;
mod root_directory;
pub mod symbols;
pub mod unresolved;
pub mod vdso;
