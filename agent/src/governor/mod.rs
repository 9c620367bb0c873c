//! The agent's own memory, measured and kept within its budget.

pub mod heap;
