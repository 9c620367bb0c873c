//! What people look at: rankings and tables.

pub mod quantity;
pub mod ranking;
