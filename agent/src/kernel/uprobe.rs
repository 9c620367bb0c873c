//! Uprobes: a program that runs whenever a task executes an instruction of a file.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use perf_event_open_sys as sys;
use perf_event_open_sys::bindings as abi;

/// Where the kernel says which number its uprobes have among kinds of events (4.17+).
const KIND: &str = "/sys/bus/event_source/devices/uprobe/type";

/// A probe could not be set.
#[derive(Debug, thiserror::Error)]
#[error("{operation} for a probe at {}+{offset:#x} failed: {source}", .file.display())]
pub struct UprobeError {
    /// The system call, or the file that was read.
    pub operation: &'static str,
    /// The file with the instruction.
    pub file: PathBuf,
    /// Where the instruction begins in it, in bytes.
    pub offset: u64,
    /// What the kernel answered.
    #[source]
    pub source: io::Error,
}

/// A uprobe. Taken away on drop.
#[derive(Debug)]
pub struct Uprobe {
    _event: OwnedFd,
}

impl Uprobe {
    /// Runs `program`, a loaded program of type `uprobe`, whenever a task executes the instruction at byte `offset` of `file`: a
    /// task of process `pid`, or any. (`perf_uprobe` in `kernel/events/core.c`. On kernels that have the mend for CVE-2025-38466
    /// this takes CAP_SYS_ADMIN.)
    pub fn attach(
        program: BorrowedFd<'_>,
        file: &Path,
        offset: u64,
        pid: Option<u32>,
    ) -> Result<Self, UprobeError> {
        let failed = |operation, source| UprobeError { operation, file: file.to_owned(), offset, source };
        let kind = fs::read_to_string(KIND).map_err(|error| failed(KIND, error))?;
        let kind = kind.trim().parse().map_err(|error| failed(KIND, io::Error::other(error)))?;
        let path = CString::new(file.as_os_str().as_bytes());
        let path = path.map_err(|error| failed("perf_event_open", error.into()))?;
        let mut attributes = abi::perf_event_attr {
            size: size_of::<abi::perf_event_attr>() as u32,
            type_: kind,
            ..Default::default()
        };
        attributes.__bindgen_anon_3.uprobe_path = path.as_ptr() as u64;
        attributes.__bindgen_anon_4.probe_offset = offset;
        // An event is a process's or a CPU's. The program runs on every CPU all the same: it belongs to the probe.
        let (pid, cpu) = pid.map_or((-1, 0), |pid| (pid.cast_signed(), -1));
        let flags = libc::c_ulong::from(abi::PERF_FLAG_FD_CLOEXEC);
        // SAFETY: a valid structure of the size that it states; the path outlives the call, which keeps no pointer.
        let fd = unsafe { sys::perf_event_open(&raw mut attributes, pid, cpu, -1, flags) };
        if fd < 0 {
            return Err(failed("perf_event_open", io::Error::last_os_error()));
        }
        // SAFETY: the kernel just handed out this descriptor.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: both descriptors are open; the kernel takes its own reference on the program.
        if unsafe { sys::ioctls::SET_BPF(event.as_raw_fd(), program.as_raw_fd() as u32) } < 0 {
            return Err(failed("ioctl(PERF_EVENT_IOC_SET_BPF)", io::Error::last_os_error()));
        }
        // SAFETY: the descriptor is a perf event.
        if unsafe { sys::ioctls::ENABLE(event.as_raw_fd(), 0) } < 0 {
            return Err(failed("ioctl(PERF_EVENT_IOC_ENABLE)", io::Error::last_os_error()));
        }
        Ok(Self { _event: event })
    }
}
