//! What can go wrong between the agent and its programs.

use std::io;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;

use crate::kernel::btf::BtfError;

/// The eBPF side could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ProgramsError {
    /// The kernel refused a map, or the object is not what this agent expects.
    #[error("cannot load the eBPF object: {0}")]
    Object(#[from] Box<EbpfError>),
    /// The kernel refused a program.
    #[error("the kernel refused the eBPF program {name}: {source}")]
    Program {
        /// The program.
        name: &'static str,
        /// What the kernel answered, with the verifier's log where there is one.
        #[source]
        source: Box<ProgramError>,
    },
    /// A map could not be used.
    #[error("eBPF map {name}: {source}")]
    Map {
        /// The map.
        name: &'static str,
        /// What the kernel answered.
        #[source]
        source: MapError,
    },
    /// A map could not be mapped into memory.
    #[error("mmap of eBPF map {name}: {source}")]
    Mmap {
        /// The map.
        name: &'static str,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// The object has no such part: it was built from other sources than the agent.
    #[error("the eBPF object has no {0}; rebuild it with `cargo xtask build-ebpf`")]
    Missing(&'static str),
    /// The kernel does not say how its structures look.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// The kernel's type information lacks what a program has to know.
    #[error("the kernel's BTF does not describe {0} as this agent knows it")]
    UnknownKernel(&'static str),
    /// More was selected than the kernel's tables hold.
    #[error("at most {limit} {what} can be selected, not {count}")]
    TooMany {
        /// `processes` or `cgroups`.
        what: &'static str,
        /// How many there may be.
        limit: u32,
        /// How many there are.
        count: usize,
    },
}
