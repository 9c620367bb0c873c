//! The program that samples page faults: its constants, and loading.

use std::fs;
use std::os::fd::BorrowedFd;

use agent_ebpf::{FaultCounters, VmaOffsets};
use aya::EbpfLoader;
use aya::programs::PerfEvent;

use super::{Programs, ProgramsError};
use crate::kernel::btf::Btf;
use crate::kernel::counters::CounterMap;

/// Which page faults are sampled: an event for each of `periods` runs the program on every CPU, and the program takes a sample of
/// `kept` in 2³² of its runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultSampling {
    /// Faults between two runs, of either event.
    pub periods: [u64; 2],
    /// Of 2³² runs, how many take a sample.
    pub kept: u64,
}

/// What the program has to know.
pub(super) struct FaultConstants {
    kept: u64,
    huge_pages: u32,
    vma: [u32; 7],
}

impl FaultConstants {
    /// Looks it up. Where a kernel does not tell how it describes mappings, the program does not ask for them.
    pub(super) fn of_kernel(btf: &Btf, sampling: Option<FaultSampling>) -> Self {
        let kept = sampling.map_or(0, |sampling| sampling.kept);
        Self { kept, huge_pages: huge_pages(), vma: vma_offsets(btf).unwrap_or_default() }
    }

    /// Hands it to the program.
    pub(super) fn pass_on<'a>(&'a self, possible_cpus: u32, loader: &mut EbpfLoader<'a>) {
        loader
            .override_global("FAULTS_KEPT", &self.kept, true)
            .override_global("HUGE_PAGES", &self.huge_pages, true)
            .override_global("VMA_OFFSETS", &self.vma, true)
            .map_max_entries("FAULT_COUNTERS", possible_cpus);
    }
}

impl Programs {
    /// Loads the program that samples page faults, to be attached to perf events.
    pub fn load_fault_sampler(&mut self) -> Result<BorrowedFd<'_>, ProgramsError> {
        self.load::<PerfEvent>(["page_fault", "page_fault_legacy"])
    }

    /// What that program counts. Once.
    pub fn take_fault_counters(&mut self) -> Result<CounterMap<FaultCounters>, ProgramsError> {
        self.take_counters("FAULT_COUNTERS")
    }
}

/// [`VmaOffsets`] as the program holds it.
fn vma_offsets(btf: &Btf) -> Option<[u32; 7]> {
    Some([
        btf.member_offset("vm_area_struct", "vm_start")?,
        btf.member_offset("vm_area_struct", "vm_end")?,
        btf.member_offset("vm_area_struct", "vm_flags")?,
        btf.member_offset("vm_area_struct", "vm_file")?,
        btf.member_offset("file", "f_inode")?,
        btf.member_offset("inode", "i_sb")?,
        btf.member_offset("super_block", "s_magic")?,
    ])
}

const _: () = assert!(size_of::<VmaOffsets>() == size_of::<[u32; 7]>());

/// How the kernel gives huge pages (`Documentation/admin-guide/mm/transhuge.rst`), 0: not, 1: to mappings that ask for them, 2: to all.
/// From 6.8 on each size has a setting of its own, which may refer to that of all.
fn huge_pages() -> u32 {
    const DIRECTORY: &str = "/sys/kernel/mm/transparent_hugepage";
    let chosen = |file: &str| {
        let text = fs::read_to_string(format!("{DIRECTORY}/{file}")).ok()?;
        let (_, rest) = text.split_once('[')?;
        rest.split_once(']').map(|(word, _)| word.to_owned())
    };
    let own = chosen("hugepages-2048kB/enabled").filter(|word| word != "inherit");
    match own.or_else(|| chosen("enabled")).as_deref() {
        Some("always") => 2,
        Some("madvise") => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::programs::KERNEL_BTF;

    /// The members that tell of a mapping are where the kernel's type information says: the mapping's beginning is its first word, and
    /// its end the second.
    #[test]
    fn mappings_are_described() {
        let Ok(btf) = Btf::of_kernel(KERNEL_BTF.as_ref()) else { return };
        let offsets = vma_offsets(&btf).expect("every kernel from 5.10 on has them");
        assert_eq!(offsets[..2], [0, 8]);
        assert!(offsets[2..].iter().all(|offset| *offset > 0), "{offsets:?}");
    }
}
