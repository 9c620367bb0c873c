//! Programs that wait in futex(2): what their threads ask of it, by /proc, and the stacks of their waits, by the agent.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use agent::profiler::mutex::FutexOperation;

use super::agent_run::AgentRun;
use super::profiled::{Profile, Profiled, Sample};
use super::running::Running;

/// What waits of one process were seen.
#[derive(Debug, Default)]
pub(crate) struct FutexWaits {
    /// Functions of user stacks, leaf first, of waits in futex(2), and how many had them.
    pub(crate) stacks: BTreeMap<Vec<String>, u64>,
    /// The same of stacks that are cut.
    pub(crate) cut: BTreeMap<Vec<String>, u64>,
    /// What threads were found to ask of futex(2), operation and value, and how often.
    pub(crate) questions: BTreeMap<(FutexOperation, u32), u64>,
}

impl FutexWaits {
    /// Those whose stack has a function with `function` in its name.
    pub(crate) fn in_function(&self, function: &str) -> impl Iterator<Item = (&[String], u64)> {
        with_function(&self.stacks, function)
    }

    /// The same of stacks that are cut beyond it.
    pub(crate) fn cut_beyond(&self, function: &str) -> impl Iterator<Item = (&[String], u64)> {
        with_function(&self.cut, function)
    }

    /// What threads asked in most cases: in a tenth of all at least. All where none is so frequent.
    pub(crate) fn usual_questions(&self) -> Vec<(FutexOperation, u32)> {
        let all: u64 = self.questions.values().sum();
        let most = self.questions.values().max().copied().unwrap_or_default();
        let usual = self.questions.iter().filter(|(_, count)| **count >= most.min(all / 10));
        usual.map(|(question, _)| *question).collect()
    }
}

fn with_function<'a>(
    stacks: &'a BTreeMap<Vec<String>, u64>,
    function: &str,
) -> impl Iterator<Item = (&'a [String], u64)> {
    let has = move |stack: &&Vec<String>| stack.iter().any(|frame| frame.contains(function));
    stacks.iter().filter(move |(stack, _)| has(stack)).map(|(stack, count)| (stack.as_slice(), *count))
}

/// Starts `commands`, which say when they are ready, and lets the agent profile their waits for `duration` with `arguments`, while the
/// threads called `waiter`, or all where no name is asked for, are looked at.
pub(crate) fn observe(
    commands: &mut [Command],
    waiter: Option<&str>,
    duration: Duration,
    arguments: &[&str],
) -> Vec<FutexWaits> {
    let programs: Vec<_> = commands.iter_mut().map(Running::start_until_ready).collect();
    let pids: Vec<u32> = programs.iter().map(Running::pid).collect();
    observe_processes(&pids, waiter, duration, arguments)
}

/// The same for processes that run already.
pub(crate) fn observe_processes(
    pids: &[u32],
    waiter: Option<&str>,
    duration: Duration,
    arguments: &[&str],
) -> Vec<FutexWaits> {
    let window = format!("{}ms", duration.as_millis());
    let words: Vec<String> = pids.iter().flat_map(|pid| ["--pid".to_owned(), pid.to_string()]).collect();
    let words = words.iter().map(String::as_str);
    let common = ["--duration", &window, "--profilers", "offcpu"];
    let run = AgentRun::start(
        &common.into_iter().chain(words).chain(arguments.iter().copied()).collect::<Vec<_>>(),
    );
    let began = Instant::now();
    let mut waits: Vec<FutexWaits> = pids.iter().map(|_| FutexWaits::default()).collect();
    while began.elapsed() < duration {
        for (pid, waits) in pids.iter().zip(&mut waits) {
            for question in questions(*pid, waiter) {
                *waits.questions.entry(question).or_default() += 1;
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
    let Profiled { profile, .. } = run.finish_with("offcpu");
    for (pid, waits) in pids.iter().zip(&mut waits) {
        for sample in profile.of(*pid).filter(|sample| sample.state.as_deref() == Some("sleep")) {
            if !profile.stack(sample).any(|frame| frame.kind == "kernel" && frame.name.contains("futex")) {
                continue;
            }
            let stacks = if sample.truncated.is_none() { &mut waits.stacks } else { &mut waits.cut };
            *stacks.entry(user_stack(&profile, sample)).or_default() += sample.count();
        }
    }
    waits
}

fn user_stack(profile: &Profile, sample: &Sample) -> Vec<String> {
    profile.stack(sample).filter(|frame| frame.kind == "user").map(|frame| frame.name.to_owned()).collect()
}

/// What threads of `pid` that are asleep in futex(2) just now asked for.
fn questions(pid: u32, waiter: Option<&str>) -> Vec<(FutexOperation, u32)> {
    // Threads, and the process, may end while they are looked at.
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let threads = threads.filter_map(|thread| Some(thread.ok()?.path()));
    let asked = threads.filter_map(|thread| {
        if let Some(waiter) = waiter {
            let name = fs::read_to_string(thread.join("comm")).ok()?;
            if name.trim_end() != waiter {
                return None;
            }
        }
        question(&fs::read_to_string(thread.join("syscall")).ok()?)
    });
    asked.collect()
}

/// Reads `/proc/PID/syscall`: number and arguments, or `running`.
fn question(line: &str) -> Option<(FutexOperation, u32)> {
    let mut words = line.split(' ');
    let is_futex = words.next()?.parse() == Ok(libc::SYS_futex);
    // The address.
    words.next()?;
    let mut word = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    // Both are 32 bits wide, whatever the caller left in the upper half.
    let (operation, value) = (word()? as u32, word()? as u32);
    is_futex.then_some(())?;
    Some((FutexOperation::parse(operation)?, value))
}
