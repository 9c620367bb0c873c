//! The neutral profile model, and the aggregation of samples into windows.

pub mod accounting;
pub mod fault_window;
pub mod finish;
pub mod model;
pub mod stack_table;
pub mod wait_window;
pub mod waking;
pub mod window;
pub mod windows;

#[cfg(test)]
pub(crate) mod example;
