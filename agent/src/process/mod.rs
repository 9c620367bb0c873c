//! Processes and what they map: known by the side-band, read once from `/proc` at the start.

pub mod mappings;
pub mod maps;
pub mod module;
pub mod page;
pub mod resident;
pub mod scan;
pub mod sleeper;
pub mod table;
