//! One window of a program's stacks, recorded by the agent and by `perf record --call-graph dwarf` at once.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use super::ending::{Classifier, Ending};
use super::perf_script::{self, PerfStacks};
use super::stacks::{Stack, Stacks};
use crate::agent_profile::Profile;
use crate::agent_run::RunningAgent;
use crate::command;
use crate::compare_perf::leaf::Leaf;
use crate::compare_perf::recording::{build_id_options, window};

/// Pages of perf's ring on each CPU: 64 MiB. A sample takes 64 KiB with its stack; the default ring holds eight.
const PERF_RING: &str = "--mmap-pages=64M";
/// Frames of a stack that `perf script` unwinds; its default is 127.
const PERF_DEPTH: &str = "--max-stack=1024";

/// The cause of the agent's losses that did not fire: the kernel did not run its program. perf, whose timer is the same, has such
/// too and does not know.
const NOT_FIRED: &str = "kernel_skipped";

/// Both profilers' stacks of one program in one window.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    pub(crate) perf: Stacks,
    pub(crate) agent: Stacks,
    /// The agent's losses on the whole machine, by cause.
    pub(crate) agent_lost: Vec<(String, u64)>,
    /// Samples that the agent itself marks as cut short.
    pub(crate) marked: u64,
}

/// Records `duration` seconds of the processes called `comm`; perf copies `dump` bytes of stack a sample.
///
/// perf starts the agent, and so records before and after it; of its samples those from the agent's window count.
pub(crate) fn record(
    agent: &Path,
    directory: &Path,
    duration: f64,
    comm: &str,
    dump: u32,
) -> Result<Recording> {
    let data = directory.join("perf.data");
    let mut perf = Command::new("perf");
    perf.args(["record", "--quiet", "--freq=99", "--all-cpus", "--event=cpu-clock", "--clockid=realtime"]);
    perf.arg(format!("--call-graph=dwarf,{dump}")).arg(PERF_RING);
    perf.args(build_id_options()?).arg("--output").arg(&data).arg("--").arg(agent);
    perf.args(["--once", "--profilers=cpu", "--format=json", &format!("--duration={duration}"), "--output"])
        .arg(directory);
    eprintln!("+ {}", command::line(&perf));
    let finished = RunningAgent::start(perf, directory)?.finish()?;
    let profile = finished.profile()?;
    let window = window(&finished, &profile)?;

    let mut script = Command::new("perf");
    script.args(["script", "--no-demangle", "--no-inline", "--show-lost-events", PERF_DEPTH]);
    script.args(["--fields=comm,pid,time,ip,sym,dso", "--input"]).arg(&data);
    let output = command::query(&mut script)?;
    let output = output.with_context(|| format!("`{}` failed", command::line(&script)))?;
    Ok(stacks(&perf_script::parse(&output)?, &profile, window, comm))
}

/// Takes the samples of the program out of both recordings.
///
/// perf names threads and the agent processes, so each tells which processes are the program's, and both sides use what both tell.
fn stacks(perf: &PerfStacks<'_>, profile: &Profile, window: [SystemTime; 2], comm: &str) -> Recording {
    let [begin, end] =
        window.map(|time| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO));
    let named = perf.samples.iter().filter(|sample| sample.comm == comm).map(|sample| sample.pid);
    let ours = profile.user_stacks().filter(|stack| stack.comm == Some(comm)).map(|stack| stack.pid);
    let mut pids: HashSet<i64> = named.chain(ours).collect();
    pids.remove(&-1);

    let mut classifier = Classifier::default();
    let mut recording = Recording::default();
    for sample in &perf.samples {
        let is_program = pids.contains(&sample.pid) || (sample.pid == -1 && sample.comm == comm);
        if is_program && (begin..end).contains(&sample.time) {
            let frames = sample.frames.iter().map(|frame| (frame.symbol, frame.dso, frame.file_offset));
            recording.perf.stacks.push(stack(&mut classifier, frames, 1));
        }
    }
    recording.perf.lost = share(perf.lost, recording.perf.fired(), perf.samples.len() as u64);
    for sample in profile.user_stacks().filter(|sample| pids.contains(&sample.pid)) {
        let frames = sample.frames.iter().map(|frame| (frame.symbol, frame.module, frame.file_offset));
        let mut stack = stack(&mut classifier, frames, sample.count);
        if sample.truncated.is_some() {
            recording.marked += sample.count;
            // What the agent itself calls cut is not made whole by a name.
            if stack.ending == Ending::Whole {
                stack.ending = Ending::Cut;
            }
        }
        recording.agent.stacks.push(stack);
    }
    let lost = profile.accounting.lost.iter().filter(|(_, count)| **count > 0);
    recording.agent_lost = lost.map(|(cause, count)| (cause.clone(), *count)).collect();
    let fired = recording.agent_lost.iter().filter(|(cause, _)| cause != NOT_FIRED);
    let lost = fired.map(|(_, count)| count).sum();
    recording.agent.lost = share(lost, recording.agent.fired(), profile.accounting.emitted);
    recording
}

/// What of `lost` samples, of which nobody knows whose they were, falls to a program that has `samples` of `all` others; rounded up.
fn share(lost: u64, samples: u64, all: u64) -> u64 {
    (lost * samples).div_ceil(all.max(1))
}

/// A stack of frames (symbol, module, place in the file) that come leaf first.
fn stack<'a>(
    classifier: &mut Classifier,
    frames: impl DoubleEndedIterator<Item = (Option<&'a str>, Option<&'a str>, u64)>,
    count: u64,
) -> Stack {
    let mut outermost = None;
    let named = frames.rev().map(|(symbol, module, file_offset)| {
        outermost.get_or_insert(file_offset);
        Leaf::new(symbol, module)
    });
    let frames: Vec<Leaf> = named.collect();
    let ending = classifier.ending(frames.first().zip(outermost));
    Stack { frames, ending, count }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program's part of the machine's losses is that of its samples, and never rounded away.
    #[test]
    fn losses_are_shared_out() {
        assert_eq!(
            [share(0, 10, 100), share(100, 10, 100), share(1, 10, 100), share(5, 0, 0)],
            [0, 10, 1, 0]
        );
    }
}
