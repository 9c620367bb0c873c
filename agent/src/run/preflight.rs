//! What is checked before anything is started, so that a mistake costs no window.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};

use crate::cli::ProfileArgs;
use crate::kernel::capabilities::{Capabilities, Capability};
use crate::kernel::programs::{KERNEL_BTF, Selection};
use crate::kernel::release::{KernelRelease, OLDEST};
use crate::run::error::RunError;
use crate::symbol::debug_file::DEBUG_DIRECTORY;

/// Whether this process may profile and this kernel can.
pub fn check_support() -> Result<(), RunError> {
    if let Some(running) = KernelRelease::running().filter(|running| *running < OLDEST) {
        return Err(RunError::Unsupported(format!(
            "this kernel is {running}; profiling needs {OLDEST} or newer (ring buffers, BTF)"
        )));
    }
    let capabilities = Capabilities::effective().map_err(RunError::failed)?;
    if let Some(missing) = missing_capability(capabilities) {
        return Err(RunError::Unsupported(format!(
            "profiling needs CAP_{missing}: run `sudo agent --once`, or give the container CAP_BPF and CAP_PERFMON \
             (`agent check` says more)"
        )));
    }
    if !Path::new(KERNEL_BTF).exists() {
        return Err(RunError::Unsupported(format!(
            "this kernel has no BTF ({KERNEL_BTF} is missing): use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as \
             RHEL, Fedora, Debian, Ubuntu and SUSE ship them"
        )));
    }
    Ok(())
}

/// The first capability that no profiler can do without and that is not there.
pub fn missing_capability(capabilities: Capabilities) -> Option<&'static str> {
    [Capability::Bpf, Capability::Perfmon]
        .into_iter()
        .find(|needed| !capabilities.has(*needed))
        .map(Capability::name)
}

/// Checks the options' values against this machine, and opens what they name.
pub fn check_selection(args: &ProfileArgs) -> Result<Selection, RunError> {
    check_frequency(args.frequency)?;
    check_ring_size(args.ring_size)?;
    check_unwind_table_memory(args.unwind_table_memory)?;
    check_slow_unwinds(args.slow_unwinds)?;
    for pid in &args.pid {
        if !Path::new(&format!("/proc/{pid}/task")).is_dir() {
            return Err(RunError::Usage(format!("--pid {pid}: there is no such process")));
        }
    }
    let cgroups = args.cgroup.iter().map(|path| open_cgroup(path)).collect::<Result<_, _>>()?;
    Ok(Selection { pids: args.pid.clone(), cgroups })
}

/// The debug directories, absolute. One that was asked for must be there; the default one need not.
pub fn check_debug_directories(asked: &[PathBuf]) -> Result<Vec<PathBuf>, RunError> {
    if asked.is_empty() {
        return Ok(vec![PathBuf::from(DEBUG_DIRECTORY)]);
    }
    let check = |path: &PathBuf| {
        if path.is_dir() {
            std::path::absolute(path).map_err(RunError::failed)
        } else {
            Err(RunError::Usage(format!("--debug-dir {}: there is no such directory", path.display())))
        }
    };
    asked.iter().map(check).collect()
}

fn check_frequency(frequency: u32) -> Result<(), RunError> {
    const LIMIT: &str = "/proc/sys/kernel/perf_event_max_sample_rate";
    let limit = fs::read_to_string(LIMIT).ok().and_then(|text| text.trim().parse().ok());
    let limit: u32 = limit.unwrap_or(100_000);
    if frequency == 0 {
        return Err(RunError::Usage("--frequency 0: at least one sample a second is needed".to_owned()));
    }
    if frequency > limit {
        return Err(RunError::Usage(format!(
            "--frequency {frequency}: this kernel allows at most {limit} (sysctl kernel.perf_event_max_sample_rate)"
        )));
    }
    Ok(())
}

fn check_ring_size(size: Option<u32>) -> Result<(), RunError> {
    match size {
        Some(size) if !size.is_power_of_two() || size < 4096 => Err(RunError::Usage(format!(
            "--ring-size {size}: the kernel wants a power of two of at least 4096 bytes"
        ))),
        _ => Ok(()),
    }
}

fn check_unwind_table_memory(bytes: u64) -> Result<(), RunError> {
    const MIB: u64 = 1 << 20;
    const MOST: u64 = 1024 * MIB;
    if bytes.is_multiple_of(MIB) && (MIB..=MOST).contains(&bytes) {
        return Ok(());
    }
    Err(RunError::Usage(format!(
        "--unwind-table-memory {bytes}: whole MiB are needed, from 1048576 (1 MiB) to {MOST} (1 GiB)"
    )))
}

fn check_slow_unwinds(count: u32) -> Result<(), RunError> {
    /// What is sent holds 16 KiB of stack: 160 MiB a second.
    const MOST: u32 = 10_000;
    if count <= MOST {
        return Ok(());
    }
    Err(RunError::Usage(format!("--slow-unwinds {count}: at most {MOST} stacks a second can be sent")))
}

fn open_cgroup(path: &Path) -> Result<File, RunError> {
    let refused = |reason: &str| RunError::Usage(format!("--cgroup {}: {reason}", path.display()));
    let directory = File::open(path).map_err(|error| refused(&error.to_string()))?;
    if !directory.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(refused("not a directory"));
    }
    match fstatfs(&directory) {
        Ok(found) if found.filesystem_type() == CGROUP2_SUPER_MAGIC => Ok(directory),
        _ => Err(refused("not a cgroup v2 directory, such as those below /sys/fs/cgroup")),
    }
}

/// Makes sure that `directory` exists and that files can be made in it.
pub fn check_output(directory: PathBuf) -> Result<PathBuf, RunError> {
    let refused = |error: std::io::Error| {
        RunError::Usage(format!("--output {}: cannot write there: {error}", directory.display()))
    };
    fs::create_dir_all(&directory).map_err(refused)?;
    let probe = directory.join(".nodeprof-write-test");
    File::create(&probe).and_then(|_| fs::remove_file(&probe)).map_err(refused)?;
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(result: Result<impl std::fmt::Debug, RunError>) -> String {
        match result.expect_err("refused") {
            RunError::Usage(reason) => reason,
            other => panic!("not a usage error: {other:?}"),
        }
    }

    /// Frequencies that give no sample or more than the kernel allows are refused with the limit.
    #[test]
    fn frequencies_are_checked() {
        assert!(reason(check_frequency(0)).contains("--frequency 0"));
        assert!(reason(check_frequency(u32::MAX)).contains("perf_event_max_sample_rate"));
        check_frequency(99).expect("allowed");
    }

    /// A ring that the kernel would refuse is refused first.
    #[test]
    fn ring_sizes_are_checked() {
        for size in [0, 4095, 5000, 12288] {
            assert!(reason(check_ring_size(Some(size))).contains("power of two"));
        }
        check_ring_size(Some(8192)).expect("allowed");
    }

    /// Room for unwind tables that is none, is not made of whole blocks, or is more than programs can address is refused, with
    /// what would do; so are more stacks than a ring can carry.
    #[test]
    fn unwind_limits_are_checked() {
        for bytes in [0, 1, 1 << 19, (1 << 20) + 1, (1 << 30) + (1 << 20), u64::MAX] {
            let said = reason(check_unwind_table_memory(bytes));
            assert!(said.starts_with(&format!("--unwind-table-memory {bytes}: whole MiB")), "{said}");
        }
        for bytes in [1 << 20, 8 << 20, 1 << 30] {
            check_unwind_table_memory(bytes).expect("allowed");
        }
        assert!(reason(check_slow_unwinds(10_001)).contains("at most 10000"));
        check_slow_unwinds(0).expect("allowed");
    }

    /// A directory on another file system, a file and a missing path are no cgroups.
    #[test]
    fn cgroups_are_checked() {
        for path in ["/tmp", "/proc/self/status", "/nonexistent"] {
            assert!(reason(open_cgroup(Path::new(path))).contains(path));
        }
    }

    /// A directory below a file cannot be made; one in a temporary directory can, and is left empty.
    #[test]
    fn outputs_are_checked() {
        let directory = tempfile::tempdir().expect("a directory");
        let inner = directory.path().join("a/b");
        check_output(inner.clone()).expect("made");
        assert_eq!(fs::read_dir(inner).expect("a directory").count(), 0);
        fs::write(directory.path().join("file"), "").expect("written");
        assert!(reason(check_output(directory.path().join("file/below"))).contains("cannot write there"));
    }
}
