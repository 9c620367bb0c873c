//! The neutral profile: what a finished window holds after its addresses have names, and before anyone
//! has chosen a file format.
//!
//! Everything is held once and referred to by index, as in pprof and OTLP, so that every exporter is a
//! plain walk over these tables.

use std::time::{Duration, SystemTime};

use crate::profile::accounting::Accounting;

/// What was sampled. The name is also the stem of the file that the profile is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProfileKind {
    /// Time on a CPU, sampled by a timer.
    Cpu,
}

impl ProfileKind {
    /// The stem of file names and the word in logs: `cpu`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
        }
    }
}

/// The name and unit of one value of every sample, for example `cpu` in `nanoseconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueType {
    /// What is counted, in pprof's vocabulary.
    pub name: &'static str,
    /// Its unit, in pprof's vocabulary.
    pub unit: &'static str,
}

/// A finished profile.
#[derive(Clone, Debug)]
pub struct Profile {
    /// What was sampled.
    pub kind: ProfileKind,
    /// Wall-clock time at which the window began.
    pub started: SystemTime,
    /// Length of the window.
    pub duration: Duration,
    /// One entry for each element of [`Sample::values`]; the last one is what reports rank by.
    pub sample_types: Vec<ValueType>,
    /// What `period` counts.
    pub period_type: ValueType,
    /// How much of `period_type` lies between two samples.
    pub period: i64,
    /// Executables, libraries, the kernel.
    pub modules: Vec<Module>,
    /// Named functions.
    pub functions: Vec<Function>,
    /// Distinct code addresses.
    pub locations: Vec<Location>,
    /// Distinct (task, stack) pairs with their values.
    pub samples: Vec<Sample>,
    /// What should have been sampled, and what became of it.
    pub accounting: Accounting,
}

/// A file (or the kernel, or the vDSO) that code was executed from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Path inside the process's mount namespace, or `[kernel]`, `[vdso]`, `[anon]`.
    pub path: String,
    /// GNU build id in lower-case hex, where the file has one.
    pub build_id: Option<String>,
    /// ELF address at which the executable segment begins; 0 where it is not known.
    pub start: u64,
    /// First ELF address behind the executable segment; 0 where it is not known.
    pub limit: u64,
    /// File offset of the executable segment.
    pub file_offset: u64,
}

impl Module {
    /// The last component of the path, as reports show it.
    pub fn short_name(&self) -> &str {
        match self.path.rsplit_once('/') {
            Some((_, name)) if !name.is_empty() => name,
            _ => &self.path,
        }
    }
}

/// A function, by the name that people read and the name that the file holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Function {
    /// Demangled, or `module+0xoffset` where there is no name. Never a bare address.
    pub name: String,
    /// As it stands in the symbol table.
    pub system_name: String,
    /// Source file, where debug information gives it.
    pub file: Option<String>,
}

/// Where the code of a location runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// Native user code.
    User,
    /// The kernel and its modules and BPF programs.
    Kernel,
    /// Not a code address: a marker such as `[unknown]` or `[stack table full]`.
    Marker,
}

/// One code address, with the functions that stand there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Index into [`Profile::modules`]; `None` for markers.
    pub module: Option<usize>,
    /// ELF address inside the module (kernel: the virtual address); 0 for markers.
    pub address: u64,
    /// User, kernel or marker.
    pub kind: FrameKind,
    /// Innermost inlined function first; the last line is the function that holds the code. Never empty.
    pub lines: Vec<Line>,
}

/// One (possibly inlined) function at a location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Index into [`Profile::functions`].
    pub function: usize,
    /// Source line; 0 where it is not known.
    pub line: u32,
}

/// One stack of one task, with how often it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Indices into [`Profile::locations`], leaf first.
    pub locations: Vec<usize>,
    /// One value for each of [`Profile::sample_types`].
    pub values: Vec<i64>,
    /// Whose stack it is.
    pub labels: Labels,
}

/// Whose stack a sample is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Labels {
    /// Process id (kernel: tgid).
    pub pid: u32,
    /// Name of the process (of its main thread).
    pub comm: String,
    /// Thread id and name, where the profile was taken per thread.
    pub thread: Option<Thread>,
    /// Why the stack is not whole, where it is not: a reason of `truncated{…}`.
    pub truncated: Option<&'static str>,
}

/// One thread of a process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Thread {
    /// Thread id (kernel: pid).
    pub id: u32,
    /// The thread's own name.
    pub name: String,
}
