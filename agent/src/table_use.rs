//! How full the agent's tables are: one line for each map, cache, queue and table that grows with what happens on the machine.

/// How full a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableUse {
    /// Which one.
    pub name: &'static str,
    /// Entries in it.
    pub entries: usize,
    /// Bytes that they take; for memory that is always there, what is in use of it.
    pub bytes: usize,
    /// Bytes that they may take.
    pub budget: usize,
}
