//! Classes of waits.

/// What kind of thing a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LockClass {
    /// A lock with one holder: mutexes, monitors, interpreter locks.
    Mutex,
    /// A lock with readers and writers.
    RwLock,
    /// A lock of the kernel.
    Kernel,
    /// Somebody else initialises what all want.
    Once,
    /// A condition variable or event: something is to happen.
    Condition,
    /// A semaphore. What is used as a lock cannot be told from what counts work to do.
    Semaphore,
    /// A barrier or latch: others are to arrive.
    Barrier,
    /// The end of a thread.
    Join,
    /// To be woken: a parked thread, a wait for an atomic to change.
    Park,
    /// Work: a thread of a pool or a runtime that has nothing to do.
    Idle,
    /// What is not known.
    Other,
}

impl LockClass {
    /// All classes, contention first.
    pub const ALL: [Self; 11] = [
        Self::Mutex,
        Self::RwLock,
        Self::Kernel,
        Self::Once,
        Self::Condition,
        Self::Semaphore,
        Self::Barrier,
        Self::Join,
        Self::Park,
        Self::Idle,
        Self::Other,
    ];

    /// Whether somebody holds what the thread waits for, and lets it go when done: what a mutex profile is about.
    pub fn is_contention(self) -> bool {
        matches!(self, Self::Mutex | Self::RwLock | Self::Kernel | Self::Once)
    }

    /// The value of the label `lock`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mutex => "mutex",
            Self::RwLock => "rwlock",
            Self::Kernel => "kernel",
            Self::Once => "once",
            Self::Condition => "condition",
            Self::Semaphore => "semaphore",
            Self::Barrier => "barrier",
            Self::Join => "join",
            Self::Park => "park",
            Self::Idle => "idle",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Each class is in the list once and has a name of its own; contention stands first.
    #[test]
    fn classes_are_told_apart() {
        let names: HashSet<_> = LockClass::ALL.iter().map(|class| class.name()).collect();
        assert_eq!(names.len(), LockClass::ALL.len());
        assert!(LockClass::ALL.is_sorted_by_key(|class| !class.is_contention()));
    }
}
