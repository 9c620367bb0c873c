//! The resolver and its sources of names.

pub mod frame;
pub mod read_at;
pub mod unresolved;
