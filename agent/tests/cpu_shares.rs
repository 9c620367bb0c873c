//! A known workload on a live kernel: shares and CPU time are the true ones.

mod harness;

use harness::agent_run::AgentRun;
use harness::kernel;
use harness::running::last_cpu;
use harness::workload::Workload;

/// A program that burns 70 % and 30 % of a pinned CPU in two functions is shown with these shares (3σ), and with the CPU
/// time that the kernel charged it during the window (3 %).
#[test]
fn shares_and_time_are_the_true_ones() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let workload = Workload::c("shares.c", "shares", &[]);
    let burner = workload.start().claim(last_cpu());
    let mut run = AgentRun::start(&["--duration", "10s"]);
    let before = burner.cpu_time();
    run.wait_for_the_end_of_the_window();
    let charged = (burner.cpu_time() - before) as f64;
    let profile = run.finish().profile;

    let (samples, nanoseconds) = profile.total_of(burner.pid());
    let seventy = profile.count_with(burner.pid(), |frame| frame.name == "burn_seventy") as f64;
    let thirty = profile.count_with(burner.pid(), |frame| frame.name == "burn_thirty") as f64;
    let both = seventy + thirty;
    assert!(both > 0.99 * samples as f64, "{both} of {samples} samples are in the two functions");
    let sigma = (0.7 * 0.3 / both).sqrt();
    let share = seventy / both;
    assert!((share - 0.7).abs() < 3.0 * sigma, "share {share:.4}, sigma {sigma:.4}, {samples} samples");

    let ratio = nanoseconds as f64 / charged;
    assert!((ratio - 1.0).abs() < 0.03, "{nanoseconds} ns in the profile, {charged} ns charged: {ratio:.4}");
    println!("share {share:.4} ± {sigma:.4}, time {ratio:.4} of what was charged, {samples} samples");
}
