//! The resolver and its sources of names.

pub mod read_at;
