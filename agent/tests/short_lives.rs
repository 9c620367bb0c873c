//! Processes that live for 20 ms: gone long before anybody could read about them in /proc.

mod harness;

use std::collections::HashSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

use harness::agent_run::AgentRun;
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
