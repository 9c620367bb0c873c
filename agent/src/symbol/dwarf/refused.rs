//! Why a frame has a name but no line.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why debug information gave nothing for an address. Each such look-up is counted under one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LinesRefused {
    /// The file has no debug information.
    NoDebugInfo,
    /// No unit covers the address: it was built without debug information.
    NotCovered,
    /// The file's debug information is larger than the operator allows.
    ModuleTooLarge,
    /// The unit that covers the address is larger than is read.
    UnitTooLarge,
    /// Compressed by something else than zlib and zstd.
    Compression,
    /// The `.dwo` or `.dwp` file was not found, or is of another build.
    SplitFileMissing,
    /// Names are in a supplementary file (`.gnu_debugaltlink`), which was not found or cannot be used. Lines are there.
    SupplementaryFile,
    /// The file contradicts itself, or is of a version that is not known.
    Malformed,
    /// The file could not be read.
    Unreadable,
    /// A look-up took more reading than it may.
    TooMuchWork,
}

impl LinesRefused {
    /// Every cause, in the order in which reports list them.
    pub const ALL: [Self; 10] = [
        Self::NoDebugInfo,
        Self::NotCovered,
        Self::ModuleTooLarge,
        Self::UnitTooLarge,
        Self::Compression,
        Self::SplitFileMissing,
        Self::SupplementaryFile,
        Self::Malformed,
        Self::Unreadable,
        Self::TooMuchWork,
    ];

    /// The value of the `cause` label in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoDebugInfo => "no_debug_info",
            Self::NotCovered => "not_covered",
            Self::ModuleTooLarge => "module_too_large",
            Self::UnitTooLarge => "unit_too_large",
            Self::Compression => "compression",
            Self::SplitFileMissing => "split_file_missing",
            Self::SupplementaryFile => "supplementary_file",
            Self::Malformed => "malformed",
            Self::Unreadable => "unreadable",
            Self::TooMuchWork => "too_much_work",
        }
    }
}

impl From<gimli::Error> for LinesRefused {
    fn from(error: gimli::Error) -> Self {
        match error {
            // Which of the two it was says `FileSlot`, where it came from.
            gimli::Error::Io => Self::Unreadable,
            _ => Self::Malformed,
        }
    }
}

/// Look-ups that gave nothing, by cause.
#[derive(Debug, Default)]
pub(super) struct RefusedCounts([AtomicU64; LinesRefused::ALL.len()]);

impl RefusedCounts {
    pub(super) fn count(&self, cause: LinesRefused) {
        if let Some(count) = self.0.get(cause as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn get(&self) -> [u64; LinesRefused::ALL.len()] {
        self.0.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}
