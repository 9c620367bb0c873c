//! Which tasks are profiled: decided by the programs, before a stack is walked.

use std::fs::File;
use std::os::fd::AsRawFd as _;

use agent_ebpf::{MAX_CGROUPS, MAX_PIDS};
use aya::Ebpf;
use aya::maps::{CgroupArray, HashMap, MapData};

use super::ProgramsError;

/// Which tasks to profile. Nothing selected: all.
#[derive(Debug, Default)]
pub struct Selection {
    /// Processes.
    pub pids: Vec<u32>,
    /// Open directories of cgroups (v2); tasks in and below them.
    pub cgroups: Vec<File>,
}

impl Selection {
    /// Whether the kernel's tables hold it.
    pub(super) fn check(&self) -> Result<(), ProgramsError> {
        check_limit("processes", self.pids.len(), MAX_PIDS)?;
        check_limit("cgroups", self.cgroups.len(), MAX_CGROUPS)
    }

    /// Puts it into the kernel's tables.
    pub(super) fn apply(&self, ebpf: &mut Ebpf) -> Result<(), ProgramsError> {
        select_pids(ebpf, &self.pids)?;
        select_cgroups(ebpf, &self.cgroups)
    }
}

fn check_limit(what: &'static str, count: usize, limit: u32) -> Result<(), ProgramsError> {
    if count > limit as usize { Err(ProgramsError::TooMany { what, limit, count }) } else { Ok(()) }
}

fn select_pids(ebpf: &mut Ebpf, pids: &[u32]) -> Result<(), ProgramsError> {
    const NAME: &str = "SELECTED_PIDS";
    let failed = |source| ProgramsError::Map { name: NAME, source };
    let map = ebpf.map_mut(NAME).ok_or(ProgramsError::Missing(NAME))?;
    let mut selected: HashMap<&mut MapData, u32, u8> = map.try_into().map_err(failed)?;
    pids.iter().try_for_each(|pid| selected.insert(pid, 1, 0)).map_err(failed)
}

fn select_cgroups(ebpf: &mut Ebpf, cgroups: &[File]) -> Result<(), ProgramsError> {
    const NAME: &str = "SELECTED_CGROUPS";
    let failed = |source| ProgramsError::Map { name: NAME, source };
    let map = ebpf.map_mut(NAME).ok_or(ProgramsError::Missing(NAME))?;
    let mut selected: CgroupArray<&mut MapData> = map.try_into().map_err(failed)?;
    (0..)
        .zip(cgroups)
        .try_for_each(|(slot, directory)| selected.set(slot, directory.as_raw_fd(), 0))
        .map_err(failed)
}
