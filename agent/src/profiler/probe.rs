//! Samples tasks that come by chosen instructions, such as a runtime's own sampling points: every hit is a sample.

use std::path::PathBuf;

use crate::kernel::programs::{Programs, ProgramsError};
use crate::kernel::uprobe::{Uprobe, UprobeError};

/// An instruction of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbePoint {
    /// The file.
    pub file: PathBuf,
    /// Where the instruction begins, in bytes from the file's beginning.
    pub offset: u64,
    /// Only this process; else all.
    pub pid: Option<u32>,
}

/// A probe could not be set.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The kernel refused it.
    #[error(transparent)]
    Uprobe(#[from] UprobeError),
    /// The program could not be loaded.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
}

/// Probes that are set. They are taken away when this is dropped.
#[derive(Debug)]
pub struct ProbeProfiler {
    probes: Vec<Uprobe>,
}

impl ProbeProfiler {
    /// Loads the program and sets the probes; does nothing where there are none.
    pub fn start(programs: &mut Programs, points: &[ProbePoint]) -> Result<Self, ProbeError> {
        let mut probes = Vec::new();
        for ProbePoint { file, offset, pid } in points {
            probes.push(Uprobe::attach(programs.load_probe_sampler()?, file, *offset, *pid)?);
        }
        Ok(Self { probes })
    }

    /// Takes the probes away. No program runs for them any more when this returns.
    pub fn stop(&mut self) {
        self.probes.clear();
    }
}
