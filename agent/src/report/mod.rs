//! What people look at: rankings and tables.

pub mod honesty;
pub mod layout;
pub mod quantity;
pub mod ranking;
pub mod table;
