//! Stacks of tasks that come by a probe: walked in the task's own context, where programs are preempted and interrupted by timers.

mod harness;

use std::process::Command;
use std::time::Duration;

use agent::profile::finish::{Finished, finish};
use agent::profile::model::Sample;
use agent::profile::window::Window;
use agent::profiler::probe::ProbePoint;
use harness::function::file_offset;
use harness::kernel;
use harness::running::Running;
use harness::session::InProcess;
use harness::workload::Workload;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const THREADS: u64 = 4;
const CALLS: u64 = 5000;

/// Every hit of a probe is a sample, and the books hold that to the last one; walks are as whole as a timer's, from the watched
/// function, whose direct caller is there, to the thread's start, and the timer's of the same threads are whole too.
#[test]
fn every_hit_is_a_sample_with_a_whole_stack() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let workload = Workload::plain("gcc", "stacks/watched.c", "watched", &["-pthread"]);
    let mut command = Command::new(workload.program());
    let mut running = Running::start_until_ready(command.args([THREADS.to_string(), CALLS.to_string()]));
    let point = ProbePoint {
        file: workload.program().to_owned(),
        offset: file_offset(workload.program(), "watched"),
        pid: None,
    };
    let mut agent = InProcess::start_with_probes(&["--frequency", "199"], 4 << 20, &[point]);
    agent.collect(Duration::from_millis(200));
    let pid = running.pid();
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGUSR1).expect("it runs");
    while running.child().try_wait().expect("a child").is_none() {
        agent.collect(Duration::from_millis(200));
    }
    // What was in the rings at the end, and walks that were still being finished.
    agent.collect(Duration::from_secs(1));
    let windows = agent.end_windows();

    let hits = of(&windows.probes, &agent, pid);
    let total: u64 = hits.iter().map(|stack| stack.count).sum();
    let whole = |stack: &&Stack| {
        !stack.is_cut
            && stack.functions.starts_with(&["watched", "middle", "outer", "thread"].map(str::to_owned))
    };
    let whole: u64 = hits.iter().filter(whole).map(|stack| stack.count).sum();
    println!("{total} hits, {whole} with whole stacks, {hits:#?}");
    assert_eq!(total, THREADS * CALLS);
    // The first ones bring the agent more slices of stack than it takes in a second.
    assert!(whole * 100 >= total * 97, "{whole} of {total}: {hits:#?}");

    let on_cpu = of(&windows.cpu, &agent, pid);
    let total: u64 = on_cpu.iter().map(|stack| stack.count).sum();
    let cut: u64 = on_cpu.iter().filter(|stack| stack.is_cut).map(|stack| stack.count).sum();
    println!("{total} timer samples, {cut} cut");
    assert!(total > 0 && cut * 20 <= total, "{cut} of {total}: {on_cpu:#?}");
}

/// A stack by its functions, leaf first.
#[derive(Debug)]
struct Stack {
    functions: Vec<String>,
    count: u64,
    is_cut: bool,
}

fn of(window: &Window, agent: &InProcess, pid: u32) -> Vec<Stack> {
    let finished = finish(window, &agent.resolver, |line| vec![line.count.total().cast_signed()]);
    let theirs = finished.samples.iter().filter(|sample| sample.labels.pid == pid);
    theirs.map(|sample| stack(&finished, sample)).collect()
}

fn stack(finished: &Finished, sample: &Sample) -> Stack {
    let lines = sample.locations.iter().flat_map(|location| &finished.locations[*location].lines);
    Stack {
        functions: lines.map(|line| finished.functions[line.function].name.clone()).collect(),
        count: sample.values[0].cast_unsigned(),
        is_cut: sample.labels.truncated.is_some(),
    }
}
