//! Processes that live for 20 ms: gone long before anybody could read about them in /proc.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::collections::HashSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

use harness::agent_run::AgentRun;
use harness::call_chain::{MAIN, THREAD, Want, chain, ends_as};
use harness::kernel;
use harness::workload::Workload;

/// At least 99 % of the samples of processes that live for 20 ms belong to a process that is known, under its own name and
/// with named functions, and at least 95 % have their whole stack; and all their time is in the profile, because none is lost
/// uncounted.
#[test]
fn processes_that_live_20_ms_are_known() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let workload = Workload::c("short_life.c", "short_life", &["-static"]);
    // Such a process ends before the kernel has its mappings, so each of its samples is finished in user space; the default
    // budget for that is less than 499 a second.
    let args = ["--duration", "8s", "--frequency", "499", "--slow-unwinds", "1000"];
    let mut run = AgentRun::start(&args);
    let began = Instant::now();
    let mut pids = HashSet::new();
    while began.elapsed() < Duration::from_secs(6) {
        let mut child = workload.command().stdin(Stdio::null()).spawn().expect("it starts");
        pids.insert(child.id());
        assert!(child.wait().expect("it ends").success());
    }
    run.wait_for_the_end_of_the_window();
    let profile = run.finish().profile;

    let theirs = profile.samples.iter().filter(|sample| pids.contains(&sample.pid));
    let (mut all, mut known, mut whole, mut in_function, mut nanoseconds) = (0, 0, 0, 0, 0);
    for sample in theirs {
        let count = sample.count();
        all += count;
        nanoseconds += sample.nanoseconds();
        whole += if sample.truncated.is_none() { count } else { 0 };
        let named = profile.stack(sample).next().is_some_and(|leaf| leaf.named && leaf.kind != "marker");
        // Between fork and exec, the process is still one of this test's.
        let own_name = sample.comm == "short_life" || sample.comm.starts_with("short_lives");
        if own_name && named {
            known += count;
        } else {
            let stack: Vec<_> = profile.stack(sample).map(|frame| frame.name).collect();
            println!("{} {count} {stack:?}", sample.comm);
        }
        if sample.comm == "short_life" && profile.stack(sample).any(|frame| frame.name == "burn_briefly") {
            in_function += count;
        }
    }
    println!(
        "{} processes, {all} samples, {known} known, {whole} whole, {in_function} in burn_briefly",
        pids.len()
    );
    assert!(pids.len() > 100 && all > 1000, "{} processes, {all} samples", pids.len());
    assert!(known * 100 >= all * 99, "{known} of {all} samples are of a known process");
    assert!(whole * 100 >= all * 95, "{whole} of {all} samples have their whole stack");
    assert!(in_function * 100 >= all * 90, "{in_function} of {all} samples are in the function that burns");
    assert_eq!(profile.accounting.unresolved("unknown_process"), 0, "{:?}", profile.accounting);

    // Each burns 20 ms, and then needs a little to begin and to end.
    let least = pids.len() as f64 * 20e6;
    let ratio = nanoseconds as f64 / least;
    let sigma = 1.0 / (all as f64).sqrt();
    assert!(
        (1.0 - 3.0 * sigma..1.15 + 3.0 * sigma).contains(&ratio),
        "{ratio:.4} of {least} ns, sigma {sigma:.4}"
    );
    println!("time {ratio:.4} of 20 ms each");
}

/// Runs `workload` again and again for three seconds under the agent, and asserts that at least 95 % of the stacks with `leaf` on top
/// go on with `callers`: these processes' mappings are never in the kernel in time, so all that is known of their stacks is what was
/// copied of them.
fn assert_whole(workload: &Workload, leaf: &str, callers: &[Want]) {
    let args = ["--duration", "5s", "--frequency", "199", "--slow-unwinds", "1000", "--no-lines"];
    let mut run = AgentRun::start(&args);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        let mut child = workload.command().stdin(Stdio::null()).spawn().expect("it starts");
        assert!(child.wait().expect("it ends").success());
    }
    run.wait_for_the_end_of_the_window();
    let profile = run.finish().profile;

    let (mut all, mut whole) = (0, 0);
    for sample in &profile.samples {
        let stack: Vec<_> = profile.stack(sample).filter(|frame| frame.kind != "kernel").collect();
        let Some(burning) = stack.iter().position(|frame| frame.name == leaf) else { continue };
        all += sample.count();
        let is_whole = sample.truncated.is_none() && stack.len() - burning == callers.len() + 1;
        whole += sample.count() * u64::from(is_whole && ends_as(&stack[burning + 1..], callers));
    }
    println!("{whole} of {all} stacks of {leaf} are whole");
    assert!(all >= 100, "{all} samples");
    assert!(whole * 100 >= all * 95, "{whole} of {all} stacks are whole");
}

/// Stacks of processes that live for 20 ms are whole also when they are deeper than one slice of stack.
#[test]
fn deep_stacks_of_short_lives_are_whole() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let workload = Workload::plain("gcc", "deep_short_life.c", "deep_life", &[]);
    assert_whole(&workload, "burn_deep", &chain(&[&["descend"; 24][..], &["main"]].concat(), MAIN));
}

/// So are stacks whose innermost function runs less than a red zone above the end of the stack's memory.
#[test]
fn stacks_at_the_edge_of_their_memory_are_whole() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let workload = Workload::plain("gcc", "edge_short_life.c", "edge_life", &["-pthread"]);
    assert_whole(&workload, "burn_at_the_edge", &chain(&["step_to_the_edge", "thread_main"], THREAD));
}
