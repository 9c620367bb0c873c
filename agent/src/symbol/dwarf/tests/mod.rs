//! Lines and chains against other readers of DWARF, against programs made for one rule each, and against broken files.

pub(in crate::symbol) mod differential;
pub(in crate::symbol) mod files;
mod hostile;
pub(in crate::symbol) mod oracles;
mod rules;
