//! Lines and chains against other readers of DWARF, against programs made for one rule each, and against broken files.

mod differential;
mod files;
mod hostile;
mod oracles;
mod rules;
