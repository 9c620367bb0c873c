//! The neutral profile model, and the aggregation of samples into windows.

pub mod accounting;
pub mod model;

#[cfg(test)]
pub(crate) mod example;
