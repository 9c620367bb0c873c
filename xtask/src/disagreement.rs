//! A comparison that could be made and came out against one of its sides.

use std::fmt;

/// What two sides disagree on. The task's exit status is [`Disagreement::STATUS`]: a verdict, not a failure to reach one.
#[derive(Debug)]
pub(crate) struct Disagreement(pub(crate) String);

impl Disagreement {
    /// Exit status of a task that ends with a verdict, as the agent's own.
    pub(crate) const STATUS: u8 = 4;
}

impl fmt::Display for Disagreement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Disagreement {}
