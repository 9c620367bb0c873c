//! The ways to run: once; and `check`, which only tells what would work.

pub mod books;
pub mod check;
pub mod error;
mod growth;
pub mod once;
pub mod output;
pub mod preflight;
mod progress;
pub mod session;
