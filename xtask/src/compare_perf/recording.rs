//! One window, recorded by the agent and by perf at once.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use super::leaf::{Leaf, Tally};
use super::perf_script;
use crate::agent_profile::Profile;
use crate::agent_run::{FinishedRun, RunningAgent};
use crate::{command, log_time};

/// Writes its process id to a file and becomes the program that its arguments name.
const WITH_PID: &str = "echo $$ > \"$0\" && exec \"$@\"";

/// The profiles of one window, by leaf, and the agent's books.
pub(crate) struct Recording {
    pub(crate) perf: Tally,
    pub(crate) agent: Tally,
    /// Samples that the agent should have, its own included.
    pub(crate) expected: u64,
    /// Samples that it has.
    pub(crate) emitted: u64,
}

/// Records `duration` seconds of the process `pid`, or of everything but the profilers and the idle loop.
///
/// perf starts the agent, and so records before and after it; of its samples those from the agent's window count. Two
/// windows that are apart by a second, as those of two programs that are started on a busy machine may be, would show
/// different loads.
pub(crate) fn record(agent: &Path, directory: &Path, duration: f64, pid: Option<u32>) -> Result<Recording> {
    let (data, pid_file) = (directory.join("perf.data"), directory.join("pid"));
    let mut perf = Command::new("perf");
    perf.args(["record", "--quiet", "--freq=99", "--all-cpus", "--event=cpu-clock", "--clockid=realtime"]);
    perf.args(build_id_options()?).arg("--output").arg(&data);
    perf.args(["--", "sh", "-c", WITH_PID]).arg(&pid_file).arg(agent);
    perf.args(["--once", "--profilers=cpu", "--format=json", &format!("--duration={duration}"), "--output"])
        .arg(directory);
    perf.args(pid.map(|pid| format!("--pid={pid}")));
    eprintln!("+ {}", command::line(&perf));
    let running = RunningAgent::start(perf, directory)?;
    let perf_pid = running.pid();
    let finished = running.finish()?;
    let profile = finished.profile()?;
    let agent_pid = fs::read_to_string(&pid_file)?.trim().parse()?;

    let profilers = [agent_pid, i64::from(perf_pid), i64::from(std::process::id())];
    let wanted = |sample: i64| match pid {
        Some(pid) => sample == i64::from(pid),
        // Process 0 is the idle loop.
        None => sample != 0 && !profilers.contains(&sample),
    };
    let window = window(&finished, &profile)?;
    Ok(Recording {
        perf: perf_tally(&data, &window, wanted)?,
        agent: agent_tally(&profile, wanted),
        expected: profile.accounting.expected,
        emitted: profile.accounting.emitted,
    })
}

/// How perf is to deal with build ids: take them from the kernel where it tells them (5.12), else leave them.
///
/// As soon as one perf event on the machine asks for build ids in mappings, and the agent's does, the kernel marks also the
/// mappings of older events that did not ask as having one (`perf_event_mmap_output` never takes
/// `PERF_RECORD_MISC_MMAP_BUILD_ID` back). perf then reads device and inode as a build id of impossible length,
/// and 6.1 crashes on that. Who asks is safe.
pub(crate) fn build_id_options() -> Result<&'static [&'static str]> {
    let mut probe = Command::new("perf");
    probe.args(["record", "--quiet", "--buildid-mmap", "--all-cpus", "--event=dummy", "--output=/dev/null"]);
    let supported = command::query(probe.args(["--", "true"]))?.is_some();
    // perf's own cache of build ids would be left in the home directory.
    Ok(if supported {
        // What is inside of BPF programs is not asked for: perf 6.1 cannot read its own file then, for some programs.
        &["--buildid-mmap", "--no-buildid-cache", "--no-bpf-event"]
    } else {
        &["--no-buildid", "--no-buildid-cache"]
    })
}

/// From when the agent's timers were armed to the window's end.
pub(crate) fn window(run: &FinishedRun, profile: &Profile) -> Result<[SystemTime; 2]> {
    let (armed, _) = run.logged("registered profiler: cpu")?;
    let began = log_time::parse(&profile.started).context("the profile does not say when it began")?;
    Ok([armed, began + Duration::try_from_secs_f64(profile.duration_seconds)?])
}

fn perf_tally(data: &Path, window: &[SystemTime; 2], wanted: impl Fn(i64) -> bool) -> Result<Tally> {
    let mut script = Command::new("perf");
    script.args(["script", "--no-demangle", "--fields=pid,time,ip,sym,dso", "--input"]).arg(data);
    let output = command::query(&mut script)?;
    let output = output.with_context(|| format!("`{}` failed", command::line(&script)))?;
    let [begin, end] = window;
    let mut tally = Tally::new();
    for sample in perf_script::parse(&output)? {
        let time = SystemTime::UNIX_EPOCH + sample.time;
        if (begin..end).contains(&&time) && wanted(sample.pid) {
            *tally.entry(Leaf::new(sample.symbol, sample.dso)).or_default() += 1;
        }
    }
    Ok(tally)
}

fn agent_tally(profile: &Profile, wanted: impl Fn(i64) -> bool) -> Tally {
    let mut tally = Tally::new();
    for leaf in profile.leaves().filter(|leaf| wanted(leaf.pid)) {
        *tally.entry(Leaf::new(leaf.symbol, leaf.module)).or_default() += leaf.count;
    }
    tally
}
