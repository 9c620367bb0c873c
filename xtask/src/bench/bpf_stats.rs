//! What the kernel says about the run time of another process's BPF programs.
//!
//! With `kernel.bpf_stats_enabled` the kernel sums up each program's run time. `/proc/PID/fdinfo/N` of a program's
//! descriptor shows it (`bpf_prog_show_fdinfo` in `kernel/bpf/syscall.c`), without a tool and without a name.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";
/// `BPF_PROG_TYPE_PERF_EVENT` in `include/uapi/linux/bpf.h`.
const PERF_EVENT: u64 = 7;

/// Statistics that are switched on; as they were before when dropped.
pub(crate) struct BpfStats {
    before: String,
}

impl BpfStats {
    /// Switches them on.
    pub(crate) fn enable() -> Result<Self> {
        let before = fs::read_to_string(SWITCH).with_context(|| format!("cannot read {SWITCH}"))?;
        fs::write(SWITCH, "1").with_context(|| format!("cannot write {SWITCH}"))?;
        Ok(Self { before })
    }
}

impl Drop for BpfStats {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SWITCH, &self.before) {
            eprintln!("cannot set {SWITCH} back to {}: {error}", self.before.trim());
        }
    }
}

/// What a program has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ProgramRuns {
    pub(crate) run_time_ns: u64,
    pub(crate) runs: u64,
}

impl ProgramRuns {
    /// Of the program of type `perf_event` that process `pid` has loaded and that ran most; `None` if there is none,
    /// or the process is gone.
    pub(crate) fn of_sampler(pid: u32) -> Option<Self> {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fdinfo")).ok()?.flatten();
        // A descriptor may be closed between the listing and the reading.
        let texts = descriptors.filter_map(|descriptor| fs::read_to_string(descriptor.path()).ok());
        texts.filter_map(|text| parse(&text)).max_by_key(|program| program.runs)
    }
}

/// The programs that a process has at tracepoints. A link's descriptor has the tracepoint's name and the program's number
/// (`bpf_raw_tp_link_show_fdinfo`), a program's has its run time; a program may outlive its link.
#[derive(Debug, Default)]
pub(crate) struct TracepointRuns {
    programs: BTreeMap<String, u64>,
    runs: BTreeMap<u64, ProgramRuns>,
}

impl TracepointRuns {
    /// Takes in what process `pid` shows now; what it no longer shows stays as it was.
    pub(crate) fn look(&mut self, pid: u32) {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return };
        for text in descriptors.flatten().filter_map(|descriptor| fs::read_to_string(descriptor.path()).ok())
        {
            self.take_in(&text);
        }
    }

    fn take_in(&mut self, fdinfo: &str) {
        let Some(id) = number(fdinfo, "prog_id") else { return };
        if let Some(tracepoint) = value(fdinfo, "tp_name") {
            self.programs.insert(tracepoint.to_owned(), id);
        } else if let (Some(run_time_ns), Some(runs)) =
            (number(fdinfo, "run_time_ns"), number(fdinfo, "run_cnt"))
        {
            self.runs.insert(id, ProgramRuns { run_time_ns, runs });
        }
    }

    /// What the program at `tracepoint` has done; `None` if there was none.
    pub(crate) fn at(&self, tracepoint: &str) -> Option<ProgramRuns> {
        self.runs.get(self.programs.get(tracepoint)?).copied()
    }
}

fn value<'a>(fdinfo: &'a str, name: &str) -> Option<&'a str> {
    let line = fdinfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(str::trim)
}

fn number(fdinfo: &str, name: &str) -> Option<u64> {
    value(fdinfo, name)?.parse().ok()
}

fn parse(fdinfo: &str) -> Option<ProgramRuns> {
    if number(fdinfo, "prog_type") != Some(PERF_EVENT) {
        return None;
    }
    Some(ProgramRuns { run_time_ns: number(fdinfo, "run_time_ns")?, runs: number(fdinfo, "run_cnt")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FDINFO: &str = "pos:\t0\nflags:\t02000002\nmnt_id:\t16\nino:\t54\nprog_type:\t7\nprog_jited:\t1\n\
        prog_tag:\t0a1b2c3d4e5f6071\nmemlock:\t8192\nprog_id:\t42\nrun_time_ns:\t123456\nrun_cnt:\t78\n\
        recursion_misses:\t0\nverified_insns:\t900\n";

    /// The text of a perf_event program as Linux 6.18 shows it; other programs and other descriptors are none.
    #[test]
    fn program_descriptors_are_recognised() {
        assert_eq!(parse(FDINFO), Some(ProgramRuns { run_time_ns: 123_456, runs: 78 }));
        assert_eq!(parse(&FDINFO.replace("prog_type:\t7", "prog_type:\t17")), None);
        assert_eq!(parse("pos:\t0\nflags:\t02\nmnt_id:\t16\n"), None);
    }

    /// Programs are found by their links' tracepoints, in whatever order both are seen, and stay when the link is gone; the last
    /// reading counts. The link's text is that of Linux 6.18.
    #[test]
    fn programs_are_found_by_their_tracepoints() {
        let link = "pos:\t0\nlink_type:\traw_tracepoint\nlink_id:\t9\nprog_tag:\t0a1b2c3d4e5f6071\nprog_id:\t42\ntp_name:\tsched_switch\n";
        let mut programs = TracepointRuns::default();
        programs.take_in(FDINFO);
        assert_eq!(programs.at("sched_switch"), None);
        programs.take_in(link);
        assert_eq!(programs.at("sched_switch"), Some(ProgramRuns { run_time_ns: 123_456, runs: 78 }));
        programs.take_in(&FDINFO.replace("run_cnt:\t78", "run_cnt:\t79"));
        programs.take_in(&FDINFO.replace("prog_id:\t42", "prog_id:\t43"));
        assert_eq!(programs.at("sched_switch"), Some(ProgramRuns { run_time_ns: 123_456, runs: 79 }));
        assert_eq!(programs.at("sched_waking"), None);
    }

    /// A process without programs and one that does not exist have no sampler.
    #[test]
    fn other_processes_have_no_sampler() {
        assert_eq!(ProgramRuns::of_sampler(std::process::id()), None);
        assert_eq!(ProgramRuns::of_sampler(u32::MAX), None);
    }
}
