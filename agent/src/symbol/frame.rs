//! A frame: one code address in a form that outlives the process it was seen in.

use std::hash::{Hash, Hasher};

use crate::process::module::ModuleId;

/// Where a frame's code is. Two frames with the same value have the same name.
///
/// A frame other than a stack's leaf is a return address; it is held as the address before, which lies in the
/// call, so that a call at a function's very end is not taken for the next function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// In the kernel, one of its modules or a BPF program.
    Kernel {
        /// Virtual address.
        address: u64,
    },
    /// In a file's code, or the vDSO's.
    User {
        /// Whose code.
        module: ModuleId,
        /// Offset in the file.
        file_offset: u64,
        /// Whether the frame was guessed from what looks like a return address.
        guessed: bool,
    },
    /// In memory without a file: a JIT's code.
    Anonymous {
        /// Process id.
        pid: u32,
        /// Which address space it was in, as in [`agent_ebpf::SampleHeader::image`]: a process number is used again, and exec keeps it.
        image: u64,
        /// First address of the mapping.
        start: u64,
        /// Virtual address.
        address: u64,
        /// Whether the frame was guessed from what looks like a return address.
        guessed: bool,
    },
    /// In no mapping that is known of the process.
    Unmapped,
    /// In a process of which nothing is known.
    UnknownProcess,
    /// Stands for a whole stack that the aggregator had no room for.
    StackTableFull,
    /// Stands for a user stack that was not taken: of many waits of a task, only some have theirs taken.
    StackNotSampled,
    /// Stands for an interrupt: no task did what is told of.
    Interrupt,
}

/// As derived, in fewer steps: the caches of names hash each frame several times.
impl Hash for Frame {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (offset, rest) = match *self {
            Self::User { module, file_offset, guessed } => {
                (file_offset, u64::from(module.number()) << 8 | u64::from(guessed) << 4)
            }
            Self::Kernel { address } => (address, 1),
            // The rest of what tells it apart is the same for most.
            Self::Anonymous { pid, address, .. } => (address, u64::from(pid) << 8 | 2),
            Self::Unmapped => (0, 3),
            Self::UnknownProcess => (0, 4),
            Self::StackTableFull => (0, 5),
            Self::StackNotSampled => (0, 6),
            Self::Interrupt => (0, 7),
        };
        state.write_u64(offset);
        state.write_u64(rest);
    }
}

/// What has to be looked into for a frame, and where in it the frame is: frames in this order are named quickest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FramePlace {
    pub(super) subject: FrameSubject,
    offset: u64,
}

/// What has to be looked into for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FrameSubject {
    /// No foreign file.
    None,
    /// A module's.
    Module(ModuleId),
    /// What a process has written.
    Process(u32),
}

impl Frame {
    /// The module whose code it is, where it is one's.
    pub(super) fn module(self) -> Option<ModuleId> {
        match self {
            Self::User { module, .. } => Some(module),
            _ => None,
        }
    }

    /// Where in its module's file the code is; 0 where it is no module's.
    pub(super) fn file_offset(self) -> u64 {
        match self {
            Self::User { file_offset, .. } => file_offset,
            _ => 0,
        }
    }

    pub(super) fn place(self) -> FramePlace {
        let (subject, offset) = match self {
            Self::Kernel { address } => (FrameSubject::None, address),
            Self::User { module, file_offset, .. } => (FrameSubject::Module(module), file_offset),
            Self::Anonymous { pid, address, .. } => (FrameSubject::Process(pid), address),
            Self::Unmapped
            | Self::UnknownProcess
            | Self::StackTableFull
            | Self::StackNotSampled
            | Self::Interrupt => (FrameSubject::None, 0),
        };
        FramePlace { subject, offset }
    }

    /// Whether the frame was guessed.
    pub fn is_guessed(self) -> bool {
        matches!(self, Self::User { guessed: true, .. } | Self::Anonymous { guessed: true, .. })
    }
}
