//! A perf event as an owned file descriptor: opening, switching on and off, counting, attaching a program.

use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use perf_event_open_sys as sys;
use perf_event_open_sys::bindings as abi;

/// `PERF_FLAG_FD_CLOEXEC`: the descriptor is not handed to child processes.
const FD_CLOEXEC: libc::c_ulong = abi::PERF_FLAG_FD_CLOEXEC as libc::c_ulong;

/// A perf event could not be opened or used.
#[derive(Debug, thiserror::Error)]
#[error("{operation} of the {event} event on CPU {cpu} failed: {source}")]
pub struct PerfEventError {
    /// The system call, with the request of an `ioctl`.
    pub operation: &'static str,
    /// `cpu-clock`, `page-faults` or `side-band`.
    pub event: &'static str,
    /// The CPU it was for.
    pub cpu: u32,
    /// What the kernel answered.
    #[source]
    pub source: io::Error,
}

impl PerfEventError {
    /// Whether it failed because the CPU is offline (`find_get_context` in `kernel/events/core.c`).
    pub fn cpu_is_offline(&self) -> bool {
        self.source.raw_os_error() == Some(libc::ENODEV)
    }
}

/// A perf event that counts on one CPU, whichever task runs there. Closed, and so detached, on drop.
#[derive(Debug)]
pub struct PerfEvent {
    file: std::fs::File,
    event: &'static str,
    cpu: u32,
}

/// What an event has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimedCount {
    /// How much.
    pub count: u64,
    /// Nanoseconds for which it was enabled while its CPU was online.
    pub enabled: u64,
}

impl PerfEvent {
    /// A software timer that fires every `period` nanoseconds of CPU `cpu`'s time, idle time included. It
    /// is not yet running. (`PERF_COUNT_SW_CPU_CLOCK`, `perf_swevent_hrtimer` in `kernel/events/core.c`.)
    pub fn cpu_clock(cpu: u32, period: u64) -> Result<Self, PerfEventError> {
        let mut attributes = software_event(abi::PERF_COUNT_SW_CPU_CLOCK);
        attributes.__bindgen_anon_1.sample_period = period;
        Self::open(attributes, "cpu-clock", cpu)
    }

    /// Fires at every `period`th page fault on CPU `cpu`, when the fault begins. It is not yet running. Its count is read by
    /// [`PerfEvent::timed_count`]. (`PERF_COUNT_SW_PAGE_FAULTS`, `do_user_addr_fault` in `arch/x86/mm/fault.c`.)
    pub fn page_faults(cpu: u32, period: u64) -> Result<Self, PerfEventError> {
        let mut attributes = software_event(abi::PERF_COUNT_SW_PAGE_FAULTS);
        attributes.__bindgen_anon_1.sample_period = period;
        attributes.read_format = u64::from(abi::PERF_FORMAT_TOTAL_TIME_ENABLED);
        Self::open(attributes, "page-faults", cpu)
    }

    /// An event that never fires: it carries the side-band records of everything that runs on `cpu`, with
    /// `CLOCK_MONOTONIC` times. It is not yet running.
    ///
    /// Mappings carry the device and inode of their file. Build ids (5.12+) are not asked for: the kernel would then flag
    /// everybody's mappings as having one, and other people's `perf` would take inodes for build ids, and crash.
    pub fn side_band(cpu: u32, wakeup_bytes: u32) -> Result<Self, PerfEventError> {
        let mut attributes = software_event(abi::PERF_COUNT_SW_DUMMY);
        attributes.sample_type = u64::from(abi::PERF_SAMPLE_TIME);
        attributes.set_sample_id_all(1);
        attributes.set_mmap(1);
        attributes.set_mmap2(1);
        attributes.set_comm(1);
        attributes.set_comm_exec(1);
        attributes.set_task(1);
        attributes.set_ksymbol(1);
        attributes.set_use_clockid(1);
        attributes.clockid = libc::CLOCK_MONOTONIC;
        attributes.set_watermark(1);
        attributes.__bindgen_anon_2.wakeup_watermark = wakeup_bytes;
        Self::open(attributes, "side-band", cpu)
    }

    fn open(
        mut attributes: abi::perf_event_attr,
        event: &'static str,
        cpu: u32,
    ) -> Result<Self, PerfEventError> {
        const ANY_PROCESS: libc::pid_t = -1;
        const NO_GROUP: libc::c_int = -1;
        let on_cpu = cpu.cast_signed();
        // SAFETY: `attributes` is a valid structure whose `size` is its size; the call keeps no pointer.
        let fd =
            unsafe { sys::perf_event_open(&raw mut attributes, ANY_PROCESS, on_cpu, NO_GROUP, FD_CLOEXEC) };
        if fd < 0 {
            let source = io::Error::last_os_error();
            return Err(PerfEventError { operation: "perf_event_open", event, cpu, source });
        }
        // SAFETY: the kernel just handed us this descriptor; nobody else owns it.
        let file = unsafe { OwnedFd::from_raw_fd(fd) }.into();
        Ok(Self { file, event, cpu })
    }

    /// The CPU that the event counts on.
    pub fn cpu(&self) -> u32 {
        self.cpu
    }

    /// Runs `program`, a loaded program of type `perf_event`, whenever the event fires.
    pub fn attach(&self, program: BorrowedFd<'_>) -> Result<(), PerfEventError> {
        // SAFETY: both descriptors are open; the kernel takes its own reference on the program.
        let result = unsafe { sys::ioctls::SET_BPF(self.file.as_raw_fd(), program.as_raw_fd() as u32) };
        self.checked(result, "ioctl(PERF_EVENT_IOC_SET_BPF)")
    }

    /// Starts counting and firing.
    pub fn enable(&self) -> Result<(), PerfEventError> {
        // SAFETY: the descriptor is a perf event.
        let result = unsafe { sys::ioctls::ENABLE(self.file.as_raw_fd(), 0) };
        self.checked(result, "ioctl(PERF_EVENT_IOC_ENABLE)")
    }

    /// Stops counting and firing; when this returns, no program is running for the event any more.
    pub fn disable(&self) -> Result<(), PerfEventError> {
        // SAFETY: the descriptor is a perf event.
        let result = unsafe { sys::ioctls::DISABLE(self.file.as_raw_fd(), 0) };
        self.checked(result, "ioctl(PERF_EVENT_IOC_DISABLE)")
    }

    /// What the event counted so far: for `cpu-clock`, the nanoseconds for which it was enabled while its
    /// CPU was online.
    pub fn count(&self) -> Result<u64, PerfEventError> {
        let mut value = [0; 8];
        (&self.file).read_exact(&mut value).map_err(|source| self.error("read", source))?;
        Ok(u64::from_ne_bytes(value))
    }

    /// What an event that tells its time has counted so far.
    pub fn timed_count(&self) -> Result<TimedCount, PerfEventError> {
        let mut values = [0; 16];
        (&self.file).read_exact(&mut values).map_err(|source| self.error("read", source))?;
        let [count, enabled] = values.as_chunks::<8>().0 else { return Ok(TimedCount::default()) };
        Ok(TimedCount { count: u64::from_ne_bytes(*count), enabled: u64::from_ne_bytes(*enabled) })
    }

    fn checked(&self, result: libc::c_int, operation: &'static str) -> Result<(), PerfEventError> {
        if result < 0 { Err(self.error(operation, io::Error::last_os_error())) } else { Ok(()) }
    }

    fn error(&self, operation: &'static str, source: io::Error) -> PerfEventError {
        PerfEventError { operation, event: self.event, cpu: self.cpu, source }
    }
}

impl AsFd for PerfEvent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn software_event(config: abi::perf_sw_ids) -> abi::perf_event_attr {
    let mut attributes = abi::perf_event_attr {
        type_: abi::PERF_TYPE_SOFTWARE,
        size: size_of::<abi::perf_event_attr>() as u32,
        config: u64::from(config),
        ..Default::default()
    };
    attributes.set_disabled(1);
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A CPU that does not exist gives an error that names the call, the event and the CPU.
    #[test]
    fn an_error_names_the_call() {
        let error = PerfEvent::cpu_clock(1 << 20, 10_000_000).expect_err("there is no such CPU");
        let text = error.to_string();
        assert!(text.starts_with("perf_event_open of the cpu-clock event on CPU 1048576 failed"), "{text}");
    }
}
