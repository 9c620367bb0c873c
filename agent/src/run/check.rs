//! `agent check`: what works on this kernel with these privileges, what does not, and what to do about it.
//!
//! Everything is tried for real: events are opened, the program is loaded. Nothing is left behind.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write};
use std::path::Path;

use crate::kernel::capabilities::{Capabilities, Capability};
use crate::kernel::cpus;
use crate::kernel::perf_event::PerfEvent;
use crate::kernel::programs::{KERNEL_BTF, Programs, Selection, Sizes, Variant};
use crate::kernel::release::{KernelRelease, OLDEST};
use crate::kernel::sideband::Sideband;
use crate::profiler::offcpu;
use crate::run::error::RunError;
use crate::run::output::ignore_closed_pipe;

/// Inode of the initial PID namespace (`PROC_PID_INIT_INO` in `include/linux/proc_ns.h`).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// What one check found.
struct Finding {
    what: &'static str,
    verdict: Verdict,
    /// What was seen; for what does not work also what to do.
    detail: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Works,
    /// Profiling works, but something is missing from the profiles.
    Less,
    /// Nothing can be profiled.
    Fails,
}

/// Checks everything and prints what was found; `Unsupported` when nothing can be profiled.
pub fn run(out: &mut dyn Write) -> Result<(), RunError> {
    let findings = [
        kernel(),
        btf(),
        capabilities(),
        timer(),
        program(),
        side_band(),
        kernel_symbols(),
        mapped_files(),
        pid_namespace(),
        cgroups(),
    ];
    ignore_closed_pipe(print(out, &findings)).map_err(RunError::failed)?;
    if findings.iter().any(|finding| finding.verdict == Verdict::Fails) {
        return Err(RunError::Unsupported(
            "the cpu profiler cannot run here; see the lines marked FAIL".to_owned(),
        ));
    }
    Ok(())
}

fn print(out: &mut dyn Write, findings: &[Finding]) -> io::Result<()> {
    for Finding { what, verdict, detail } in findings {
        let mark = match verdict {
            Verdict::Works => "ok",
            Verdict::Less => "LESS",
            Verdict::Fails => "FAIL",
        };
        writeln!(out, "{mark:<5} {what:<16} {detail}")?;
    }
    let works = findings.iter().all(|finding| finding.verdict != Verdict::Fails);
    writeln!(out, "\nprofilers: cpu {}", if works { "works" } else { "does not work" })
}

fn works(what: &'static str, detail: impl Into<String>) -> Finding {
    Finding { what, verdict: Verdict::Works, detail: detail.into() }
}

fn less(what: &'static str, detail: impl Into<String>) -> Finding {
    Finding { what, verdict: Verdict::Less, detail: detail.into() }
}

fn fails(what: &'static str, detail: impl Into<String>) -> Finding {
    Finding { what, verdict: Verdict::Fails, detail: detail.into() }
}

fn kernel() -> Finding {
    match KernelRelease::running() {
        Some(running) if running < OLDEST => {
            fails("kernel", format!("{running}: too old, {OLDEST} or newer is needed"))
        }
        Some(running) => works("kernel", running.to_string()),
        None => less("kernel", "its version cannot be told from uname"),
    }
}

fn btf() -> Finding {
    if Path::new(KERNEL_BTF).exists() {
        works("BTF", KERNEL_BTF)
    } else {
        fails("BTF", format!("{KERNEL_BTF} is missing: use a kernel built with CONFIG_DEBUG_INFO_BTF=y"))
    }
}

fn capabilities() -> Finding {
    let have = match Capabilities::effective() {
        Ok(have) => have,
        Err(error) => return less("capabilities", format!("cannot be read: {error}")),
    };
    let missing = |wanted: &[Capability]| {
        let names = wanted
            .iter()
            .filter(|wanted| !have.has(**wanted))
            .map(|missing| format!("CAP_{}", missing.name()));
        names.collect::<Vec<_>>().join(", ")
    };
    let needed = missing(&[Capability::Bpf, Capability::Perfmon]);
    let wanted = missing(&[
        Capability::SysPtrace,
        Capability::Syslog,
        Capability::CheckpointRestore,
        Capability::DacReadSearch,
    ]);
    match (needed.is_empty(), wanted.is_empty()) {
        (true, true) => works("capabilities", "all that are needed"),
        (true, false) => {
            less("capabilities", format!("{wanted} missing: some processes or names stay unknown; add them"))
        }
        (false, _) => fails("capabilities", format!("{needed} missing: run as root (sudo) or add them")),
    }
}

fn timer() -> Finding {
    let opened = cpus::online().map_err(|error| error.to_string()).and_then(|online| {
        let cpu = online.first().copied().unwrap_or(0);
        PerfEvent::cpu_clock(cpu, 10_000_000).map(|_| online.len()).map_err(|error| error.to_string())
    });
    match opened {
        Ok(count) => works("cpu timer", format!("cpu-clock events on {count} CPUs")),
        Err(error) => fails(
            "cpu timer",
            format!("{error}: needs CAP_PERFMON, and a seccomp profile that allows perf_event_open"),
        ),
    }
}

fn program() -> Finding {
    let sizes = Sizes {
        ring_bytes: 1 << 16,
        probes: true,
        switches: Some(offcpu::sizes(64 << 10, 0.01, 0)),
        faults: None,
        possible_cpus: cpus::possible_count().unwrap_or(1),
        variant: Variant::of_kernel(),
        slices_per_second: 1,
        arena_blocks: 1,
    };
    let loaded = Programs::create(sizes, &Selection::default()).and_then(|mut programs| {
        programs.load_cpu_sampler()?;
        programs.load_fault_sampler()?;
        programs.load_probe_sampler().map(drop)
    });
    match loaded {
        Ok(()) => works("eBPF programs", "load"),
        Err(error) => fails(
            "eBPF programs",
            format!("{error}: needs CAP_BPF and CAP_PERFMON, and a seccomp profile that allows bpf"),
        ),
    }
}

fn side_band() -> Finding {
    let opened = cpus::online().map_err(|error| error.to_string()).and_then(|online| {
        let first = online.into_iter().take(1).collect();
        Sideband::open(&first, 16 << 10).map(drop).map_err(|error| error.to_string())
    });
    match opened {
        Ok(()) => works("side-band", "mappings, forks and exits are told as they happen"),
        Err(error) => fails("side-band", error),
    }
}

fn kernel_symbols() -> Finding {
    let visible = fs::File::open("/proc/kallsyms").map(|file| {
        let lines = BufReader::new(file).lines().take(1000).map_while(Result::ok);
        lines
            .filter_map(|line| u64::from_str_radix(line.split(' ').next()?, 16).ok())
            .any(|address| address != 0)
    });
    match visible {
        Ok(true) => works("kernel symbols", "/proc/kallsyms shows addresses"),
        Ok(false) => less(
            "kernel symbols",
            "hidden, so kernel functions have no names: add CAP_SYSLOG, or set sysctl kernel.kptr_restrict to 1 or 0",
        ),
        Err(error) => {
            less("kernel symbols", format!("/proc/kallsyms: {error}: kernel functions have no names"))
        }
    }
}

fn mapped_files() -> Finding {
    let readable = fs::read_dir("/proc/self/map_files")
        .and_then(|mut links| links.next().unwrap_or(Err(io::ErrorKind::NotFound.into())))
        .and_then(|link| fs::File::open(link.path()));
    match readable {
        Ok(_) => works("mapped files", "/proc/PID/map_files can be followed"),
        Err(error) => less(
            "mapped files",
            format!("/proc/PID/map_files: {error}: deleted files have no names; add CAP_CHECKPOINT_RESTORE"),
        ),
    }
}

fn pid_namespace() -> Finding {
    match fs::read_link("/proc/self/ns/pid") {
        Ok(namespace) if namespace.as_os_str() == INITIAL_PID_NAMESPACE => {
            works("PID namespace", "the host's")
        }
        Ok(_) => less(
            "PID namespace",
            "not the host's, so processes stay unknown: run with hostPID: true (docker: --pid=host)",
        ),
        Err(error) => less("PID namespace", format!("cannot be told: {error}")),
    }
}

fn cgroups() -> Finding {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, path, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| path.to_owned())
    });
    match mount {
        Some(path) => works("cgroup v2", format!("{path}; --cgroup takes directories below it")),
        None => less("cgroup v2", "not mounted: --cgroup cannot be used"),
    }
}
