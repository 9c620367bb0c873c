//! What page faults say of processes' memory beside what the kernel says.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::process::resident::Resident;
use crate::profile::fault_window::{FaultWindow, Memory};
use crate::profile::model::{MemoryBytes, MemoryGrowth};
use crate::profiler::collector::Collector;
use crate::run::session::FaultBooks;

/// The growth of every sampled process, the largest estimates first. Nothing is scaled to the kernel's count: what was freed is not in
/// it, and what was mapped without a fault is.
pub(super) fn of(
    window: &FaultWindow,
    weight: impl Fn(u32) -> f64,
    books: &FaultBooks,
    collector: &Collector,
) -> Vec<MemoryGrowth> {
    let [had, has] = &books.resident;
    let comm =
        |pid| collector.processes().comm(pid).map_or_else(|| "[unknown]".to_owned(), |comm| comm.to_string());
    let growth = |(pid, estimates): (u32, BTreeMap<Memory, f64>)| {
        let bytes = |memory| estimates.get(&memory).map_or(0, |bytes: &f64| bytes.round() as i64);
        let estimated =
            MemoryBytes { anon: bytes(Memory::Anon), file: bytes(Memory::File), shmem: bytes(Memory::Shmem) };
        let (counted, is_new) = counted(had.get(&pid), has.get(&pid));
        let estimated_unknown = bytes(Memory::Unknown);
        MemoryGrowth { pid, comm: comm(pid), estimated, estimated_unknown, counted, is_new }
    };
    let mut all: Vec<_> = window.estimates(weight).into_iter().map(growth).collect();
    all.sort_by_key(|growth| (Reverse(growth.estimated.total() + growth.estimated_unknown), growth.pid));
    all
}

/// By how much a process has grown from what it `had`, and whether it is new: it was not there, or another had its number.
fn counted(had: Option<&Resident>, has: Option<&Resident>) -> (Option<MemoryBytes>, bool) {
    let Some(has) = has else { return (None, had.is_none()) };
    let same = had.filter(|had| had.began == has.began);
    let before = same.copied().unwrap_or_default();
    let difference = |has: u64, had: u64| has.cast_signed() - had.cast_signed();
    let grown = MemoryBytes {
        anon: difference(has.anon, before.anon),
        file: difference(has.file, before.file),
        shmem: difference(has.shmem, before.shmem),
    };
    (Some(grown), same.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process grows from what it had; one that was not there has all that it has, and so has another one with its number; of one
    /// that has ended nothing is known.
    #[test]
    fn growth_is_a_difference() {
        let at = |began, anon| Resident { began, anon, file: 10, shmem: 0 };
        let bytes = |anon, file| Some(MemoryBytes { anon, file, shmem: 0 });
        assert_eq!(counted(Some(&at(1, 50)), Some(&at(1, 20))), (bytes(-30, 0), false));
        assert_eq!(counted(None, Some(&at(1, 20))), (bytes(20, 10), true));
        assert_eq!(counted(Some(&at(1, 50)), Some(&at(2, 20))), (bytes(20, 10), true));
        assert_eq!(counted(Some(&at(1, 50)), None), (None, false));
    }
}
