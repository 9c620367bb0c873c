//! Uretprobes that a test puts on a workload's functions, as another tool on the machine might.

use std::ffi::CString;
use std::fs;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use perf_event_open_sys as sys;

use super::function::file_offset;

/// A uretprobe; gone when this is dropped.
pub(crate) struct Uretprobe {
    _event: OwnedFd,
}

impl Uretprobe {
    /// Probes the returns of `function` of the program `file` in process `pid`: counts them, and does nothing else.
    /// (`perf_uprobe` in `kernel/events/core.c`; bit 0 of the configuration says that returns are meant.)
    pub(crate) fn attach(file: &Path, function: &str, pid: u32) -> Self {
        let kind = fs::read_to_string("/sys/bus/event_source/devices/uprobe/type").expect("uprobes");
        let path = CString::new(file.as_os_str().as_bytes()).expect("no NUL");
        let mut attributes = sys::bindings::perf_event_attr {
            size: size_of::<sys::bindings::perf_event_attr>() as u32,
            type_: kind.trim().parse().expect("a number"),
            config: 1,
            ..Default::default()
        };
        attributes.__bindgen_anon_3.uprobe_path = path.as_ptr() as u64;
        attributes.__bindgen_anon_4.probe_offset = file_offset(file, function);
        // SAFETY: a valid structure of the size that it states; the path outlives the call.
        let fd = unsafe { sys::perf_event_open(&raw mut attributes, pid.cast_signed(), -1, -1, 0) };
        assert!(fd >= 0, "uretprobe on {function}: {}", std::io::Error::last_os_error());
        // SAFETY: the kernel just handed out this descriptor.
        Self { _event: unsafe { OwnedFd::from_raw_fd(fd) } }
    }
}
