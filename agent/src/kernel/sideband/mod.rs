//! The perf side-band: what happens to processes, as it happens.
//!
//! A dummy event on each online CPU carries `MMAP2`, `COMM`, `FORK` and `EXIT` records. Unlike reading
//! `/proc`, this also knows processes that live for a few milliseconds. `KSYMBOL` records tell of BPF programs.

pub mod record;
mod ring;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use self::record::{KernelCode, ProcessEvent, Record};
use self::ring::EventRing;
use crate::kernel::perf_event::{PerfEvent, PerfEventError};

/// The side-band could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SidebandError {
    /// The event could not be opened or switched on.
    #[error(transparent)]
    Event(#[from] PerfEventError),
    /// Its ring could not be mapped.
    #[error("cannot map the {bytes}-byte side-band ring of CPU {cpu}: {source}")]
    Ring {
        /// Size of the ring.
        bytes: usize,
        /// The CPU.
        cpu: u32,
        /// What the kernel answered; `EPERM` means that `kernel.perf_event_mlock_kb` is used up.
        #[source]
        source: io::Error,
    },
}

/// The side-band of every online CPU.
pub struct Sideband {
    rings: Vec<EventRing>,
    ring_bytes: usize,
    kernel: Vec<KernelCode>,
    lost: u64,
    undecodable: u64,
}

impl Sideband {
    /// Opens the side-band of `cpus`, each with a ring of `ring_bytes` (a power of two of pages). Records
    /// flow from here on.
    pub fn open(cpus: &BTreeSet<u32>, ring_bytes: usize) -> Result<Self, SidebandError> {
        let mut sideband =
            Self { rings: Vec::new(), ring_bytes, kernel: Vec::new(), lost: 0, undecodable: 0 };
        for cpu in cpus {
            sideband.add_cpu(*cpu)?;
        }
        Ok(sideband)
    }

    /// Adds a CPU that came online. One that left keeps its ring until [`Sideband::remove_cpu`]. Nothing happens when the CPU is
    /// offline again: nothing happens on it either.
    pub fn add_cpu(&mut self, cpu: u32) -> Result<(), SidebandError> {
        let bytes = self.ring_bytes;
        let event = match PerfEvent::side_band(cpu, (bytes / 2) as u32) {
            Err(error) if error.cpu_is_offline() => return Ok(()),
            opened => opened?,
        };
        let ring =
            EventRing::new(event, bytes).map_err(|source| SidebandError::Ring { bytes, cpu, source })?;
        ring.event().enable()?;
        self.rings.push(ring);
        Ok(())
    }

    /// Forgets a CPU that went offline. Drain first: what is still in its ring is lost.
    pub fn remove_cpu(&mut self, cpu: u32) {
        self.rings.retain(|ring| ring.event().cpu() != cpu);
    }

    /// Appends everything that happened since the last call to `events`, in no particular order.
    pub fn drain(&mut self, events: &mut Vec<ProcessEvent>) {
        let Self { rings, kernel, lost, undecodable, .. } = self;
        for ring in rings {
            ring.drain(|bytes| match record::decode(bytes) {
                Record::Process(event) => events.push(event),
                Record::Kernel(code) => kernel.extend(code),
                Record::Lost(count) => *lost += count,
                Record::Other => *undecodable += 1,
            });
        }
    }

    /// Kernel code that was loaded between the two last calls of [`Sideband::drain`], and was not taken yet.
    pub fn take_kernel_code(&mut self) -> Vec<KernelCode> {
        std::mem::take(&mut self.kernel)
    }

    /// Records that the kernel could not write because a ring was full.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Records that could not be decoded.
    pub fn undecodable(&self) -> u64 {
        self.undecodable
    }

    /// Descriptors that become readable when a ring is half full.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.rings.iter().map(|ring| ring.event().as_fd())
    }
}
