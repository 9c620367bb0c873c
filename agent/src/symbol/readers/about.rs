//! What readers are asked about.

use std::sync::Arc;

use crate::process::module::{Module, ModuleId, ModuleKey};

/// Whose files are read. What is asked about one subject is done one after another, about different ones at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A module.
    Module(ModuleId),
    /// A part of what is asked about a module at once.
    ModulePart(ModuleId, usize),
    /// A process: what it has written for others to read.
    Process(u32),
}

/// A subject, and what is to be said of it when it does not answer.
#[derive(Clone, Debug)]
pub struct About {
    pub(super) subject: Subject,
    /// The file system, if it is of the kind that hangs as a whole: one without a block device, like NFS, FUSE and overlays.
    pub(super) device: Option<u64>,
    pub(super) path: Arc<str>,
    pub(super) pid: u32,
}

impl About {
    /// The files of `module`.
    pub fn module(module: &Module) -> Self {
        let (path, device) = match &module.key {
            ModuleKey::File { path, hint } => {
                (path.clone(), (libc::major(hint.device) == 0 && hint.device != 0).then_some(hint.device))
            }
            _ => ("[memory]".into(), None),
        };
        Self { subject: Subject::Module(module.id), device, path, pid: module.witness.pid }
    }

    /// Part `number` of what is asked about this module, which may be read beside the other parts; `None` where the file system is of
    /// the kind that hangs as a whole, and would have several readers hang.
    #[must_use]
    pub fn part(&self, number: usize) -> Option<Self> {
        match self.subject {
            Subject::Module(id) if self.device.is_none() => {
                Some(Self { subject: Subject::ModulePart(id, number), ..self.clone() })
            }
            _ => None,
        }
    }

    /// The files of a module that is not in the table of modules any more.
    pub fn retired(id: ModuleId) -> Self {
        Self { subject: Subject::Module(id), device: None, path: "[retired module]".into(), pid: 0 }
    }

    /// What the process `pid` has written.
    pub fn process(pid: u32) -> Self {
        Self { subject: Subject::Process(pid), device: None, path: "[process]".into(), pid }
    }

    /// The subject.
    pub fn subject(&self) -> Subject {
        self.subject
    }
}
