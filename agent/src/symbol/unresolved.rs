//! Why a frame has no name. Each such frame is counted under one of these.

/// Why a frame has no function name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UnresolvedReason {
    /// The file has no symbol that covers the address.
    Stripped,
    /// The file or the process was gone before it could be read.
    Gone,
    /// The file could not be read (permissions, I/O error, not a regular file).
    Unreadable,
    /// The file is not an ELF file that makes sense.
    Malformed,
    /// Code in memory that no file holds (a JIT), and no map of it.
    Anonymous,
    /// The process was never known: it ended before anything about it could be learnt.
    UnknownProcess,
    /// The address lies in no mapping that is known of the process.
    Unmapped,
    /// The kernel hides its addresses, or has no symbol there.
    KernelHidden,
}

impl UnresolvedReason {
    /// Every reason, in the order in which reports list them.
    pub const ALL: [Self; 8] = [
        Self::Stripped,
        Self::Gone,
        Self::Unreadable,
        Self::Malformed,
        Self::Anonymous,
        Self::UnknownProcess,
        Self::Unmapped,
        Self::KernelHidden,
    ];

    /// The value of the `reason` label in metrics, logs and profiles.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stripped => "stripped",
            Self::Gone => "gone",
            Self::Unreadable => "unreadable",
            Self::Malformed => "malformed",
            Self::Anonymous => "anonymous",
            Self::UnknownProcess => "unknown_process",
            Self::Unmapped => "unmapped",
            Self::KernelHidden => "kernel_hidden",
        }
    }
}
