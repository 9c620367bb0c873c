//! The resolver and its sources of names.

pub mod kallsyms;
pub mod read_at;
