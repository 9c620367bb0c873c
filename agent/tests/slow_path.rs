//! The slow path of user stacks is for what is new.

mod harness;

use std::process::Command;

use harness::agent_run::profile;
use harness::kernel;
use harness::running::Running;
use harness::workload::{self, Workload};

/// Of a C program and a Python program that do the same all the time, less than 1 % of the stacks are finished in user space
/// once half of the window is over; and in the first second there are some, so that it is known that they are counted.
#[test]
fn steady_programs_leave_the_slow_path() {
    let Some(_leave) = kernel::alone(&["gcc", "python3"]) else { return };
    let chain = Workload::plain("gcc", "stacks/chain.c", "steady", &[]);
    let compiled = chain.start();
    let interpreted = Running::start(Command::new("python3").arg(workload::source("burn.py")));
    let pids = [compiled.pid(), interpreted.pid()].map(|pid| format!("--pid={pid}"));
    let found = profile(&["--duration=12s", "--frequency=199", &pids[0], &pids[1]]);

    let seconds: Vec<_> = found
        .log
        .iter()
        .filter(|line| line.contains("user stacks in a second"))
        .map(|line| counts(line))
        .collect();
    assert!(seconds.len() >= 8, "a line a second: {seconds:?}");
    assert!(seconds[0].1 > 0, "everything is new in the first second: {seconds:?}");
    let late = &seconds[seconds.len() / 2..];
    let (walked, slow) = late.iter().fold((0, 0), |sum, second| (sum.0 + second.0, sum.1 + second.1));
    println!("{slow} of {walked} in the second half; {seconds:?}");
    assert!(walked > 300, "{walked} stacks");
    assert!(slow * 100 < walked, "{slow} of {walked} stacks took the slow path: {seconds:?}");
}

/// How many stacks were walked, and how many of them finished in user space, by a line of the agent's log.
fn counts(line: &str) -> (u64, u64) {
    let field = |name: &str| {
        let value = line.split([' ', ',']).find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {line:?}"))
    };
    (field("walked"), field("slow"))
}
