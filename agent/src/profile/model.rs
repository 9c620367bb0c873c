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
    /// Time off the CPUs: waits, timed by the scheduler's switches.
    OffCpu,
    /// Memory that became resident, by the kernel's page faults.
    PageFaults,
    /// The same by who ended the waits.
    OffCpuWakers,
    /// Waits for locks, by who waited.
    Mutex,
    /// The same by who held the locks.
    MutexHolders,
}

impl ProfileKind {
    /// The stem of file names and the word in logs: `cpu`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::OffCpu => "offcpu",
            Self::PageFaults => "pagefaults",
            Self::OffCpuWakers => "offcpu-wakers",
            Self::Mutex => "mutex",
            Self::MutexHolders => "mutex-holders",
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
    /// Name of the node; empty where it is not known.
    pub host: String,
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
    /// Of a profile of page faults: what it estimates beside what the kernel says, by process; the largest estimates first.
    pub memory_growth: Vec<MemoryGrowth>,
}

/// Memory of a process by kind, in bytes. Negative where there is less than there was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryBytes {
    /// The process's own.
    pub anon: i64,
    /// Files'.
    pub file: i64,
    /// Shared memory.
    pub shmem: i64,
}

impl MemoryBytes {
    /// Of all kinds.
    pub fn total(&self) -> i64 {
        self.anon.saturating_add(self.file).saturating_add(self.shmem)
    }
}

/// A process's memory in the window, twice. The two differ by what was freed, and by what became resident without a page fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryGrowth {
    /// Process id.
    pub pid: u32,
    /// Name of the process.
    pub comm: String,
    /// What became resident, by the profile.
    pub estimated: MemoryBytes,
    /// The same of which the kind is not known.
    pub estimated_unknown: i64,
    /// By how much the kernel's own count of what is resident has grown; `None` where the process has ended.
    pub counted: Option<MemoryBytes>,
    /// Whether the process began within the window: then what it had when it began, its parent's, is in `counted`.
    pub is_new: bool,
}

impl Profile {
    /// The value that reports rank by: its index in [`Sample::values`] and its type. `None` if the profile
    /// has no sample types.
    pub fn ranked_value(&self) -> Option<(usize, ValueType)> {
        self.sample_types.iter().copied().enumerate().next_back()
    }

    /// Sum of one value over all samples; 0 if there is no such value.
    pub fn total(&self, value_index: usize) -> i64 {
        self.samples.iter().map(|sample| sample.value(value_index)).fold(0, i64::saturating_add)
    }
}

/// A file (or the kernel, or the vDSO) that code was executed from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Module {
    /// Path inside the process's mount namespace, or `[kernel]`, `[vdso]`, `[jit]`, `[anon]`.
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

impl Function {
    /// Whether the function has a real name, not `module+0xoffset`.
    pub fn is_named(&self) -> bool {
        !is_placeholder(&self.name)
    }
}

/// Whether `name` is `module+0xoffset`: what a function without a name is called.
pub fn is_placeholder(name: &str) -> bool {
    name.rsplit_once("+0x")
        .is_some_and(|(_, offset)| !offset.is_empty() && offset.bytes().all(|byte| byte.is_ascii_hexdigit()))
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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

impl Sample {
    /// One of the sample's values; 0 if there is no such value.
    pub fn value(&self, value_index: usize) -> i64 {
        self.values.get(value_index).copied().unwrap_or(0)
    }
}

/// Whose stack a sample is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Labels {
    /// Process id (kernel: tgid).
    pub pid: u32,
    /// Name of the process (of its main thread).
    pub comm: String,
    /// Thread id and name, where the profile was taken per thread.
    pub thread: Option<Thread>,
    /// Why the stack is not whole, where it is not: a reason of `truncated{…}`.
    pub truncated: Option<&'static str>,
    /// Why the thread did not run, in a profile of waits: `runnable`, `sleep`, `disk`, `io` or `stopped`.
    pub state: Option<&'static str>,
    /// What a page fault made resident, in a profile of page faults: `anon`, `file`, `shmem`, `unknown` or `unchanged`.
    pub memory: Option<&'static str>,
    /// What kind of lock the thread waited for, in a profile of locks: `mutex`, `rwlock`, `kernel`, ….
    pub lock: Option<&'static str>,
    /// What ended a wait for a lock without a holder's doing: `timer` or `signal`.
    pub ended: Option<&'static str>,
    /// Whose wait the stack ended, in a profile of wakers or holders.
    pub woken: Option<WokenTask>,
}

/// A process whose wait was ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WokenTask {
    /// Process id.
    pub pid: u32,
    /// Its name.
    pub comm: String,
}

/// One thread of a process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Thread {
    /// Thread id (kernel: pid).
    pub id: u32,
    /// The thread's own name.
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `module+0xoffset` counts as no name; names that merely contain a plus or hex digits are names.
    #[test]
    fn placeholders_are_told_from_names() {
        let named =
            |name: &str| Function { name: name.into(), system_name: String::new(), file: None }.is_named();
        assert!(!named("libc.so.6+0x1f00"));
        assert!(!named("[kernel]+0xffffffff81000000"));
        assert!(named("operator+"));
        assert!(named("main"));
        assert!(named("f+0x"));
        assert!(named("f+0x12.cold"));
    }

    /// Reports show the file's name, or the whole path where it has no last component.
    #[test]
    fn short_names_of_modules() {
        let short = |path: &str| {
            let module = Module { path: path.into(), build_id: None, start: 0, limit: 0, file_offset: 0 };
            module.short_name().to_owned()
        };
        assert_eq!(short("/usr/lib/libc.so.6"), "libc.so.6");
        assert_eq!(short("[kernel]"), "[kernel]");
        assert_eq!(short("/odd/"), "/odd/");
    }
}
