//! Why a frame has no name. Each such frame is counted under one of these.

/// Why a frame has no function name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UnresolvedReason {
    /// Neither the file nor a debug file of it has a symbol that covers the address.
    Stripped,
    /// The file or the process was gone before it could be read.
    Gone,
    /// The file could not be read (permissions, I/O error, not a regular file).
    Unreadable,
    /// The file, or what it should have had the name in, is no ELF file that makes sense.
    Malformed,
    /// The file's symbols take more bytes than are granted to one file.
    OverBudget,
    /// Code in memory that no file holds, in a process in which nothing is known that makes code, and which has written no map.
    Anonymous,
    /// Code that a runtime (a JIT) has made, and that no perf map or jitdump of the process names.
    JitWithoutMap,
    /// The process was never known: it ended before anything about it could be learnt.
    UnknownProcess,
    /// The address lies in no mapping that is known of the process.
    Unmapped,
    /// The kernel hides its addresses, or has no symbol there.
    KernelHidden,
    /// More files are mapped on this machine than the table of modules has room for.
    ModuleTableFull,
    /// The file system that the file is on did not answer in time.
    Stalled,
}

impl UnresolvedReason {
    /// Every reason, in the order in which reports list them.
    pub const ALL: [Self; 12] = [
        Self::Stripped,
        Self::Gone,
        Self::Unreadable,
        Self::Malformed,
        Self::OverBudget,
        Self::Anonymous,
        Self::JitWithoutMap,
        Self::UnknownProcess,
        Self::Unmapped,
        Self::KernelHidden,
        Self::ModuleTableFull,
        Self::Stalled,
    ];

    /// The value of the `reason` label in metrics, logs and profiles.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stripped => "stripped",
            Self::Gone => "gone",
            Self::Unreadable => "unreadable",
            Self::Malformed => "malformed",
            Self::OverBudget => "over_budget",
            Self::Anonymous => "anonymous",
            Self::JitWithoutMap => "jit_without_map",
            Self::UnknownProcess => "unknown_process",
            Self::Unmapped => "unmapped",
            Self::KernelHidden => "kernel_hidden",
            Self::ModuleTableFull => "module_table_full",
            Self::Stalled => "stalled",
        }
    }
}
