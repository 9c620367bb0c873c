//! The mutex profiler: what threads wait for inside futex(2), and which of it is contention.

mod classify;
#[cfg(test)]
mod examples;
pub mod lock_class;
pub mod operation;
pub mod rules;
#[cfg(test)]
mod tests;

pub use self::classify::{Evidence, classify};
pub use self::lock_class::LockClass;
pub use self::operation::{FutexCommand, FutexOperation};
