//! A CPU that goes away and comes back during a window.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use agent::kernel::cpus;
use agent::kernel::programs::{Programs, Selection, Sizes, Variant};
use agent::kernel::sideband::Sideband;
use agent::profiler::cpu::CpuProfiler;
use harness::agent_run::AgentRun;
use harness::running::{Running, last_cpu};
use harness::workload::Workload;
use harness::{kernel, require};

/// A CPU that can be switched off; it is on again when this is dropped, whatever happens.
struct Switch {
    cpu: u32,
    file: PathBuf,
}

impl Switch {
    /// The switch of the last CPU, if it has one: CPU 0 usually has not.
    fn of_last_cpu() -> Option<Self> {
        let cpu = last_cpu();
        let file = PathBuf::from(format!("/sys/devices/system/cpu/cpu{cpu}/online"));
        (cpu > 0 && file.exists()).then_some(Self { cpu, file })
    }

    fn off(&self) {
        fs::write(&self.file, "0").expect("the CPU can be switched off");
        assert!(!self.is_on());
    }

    fn on(&self) {
        fs::write(&self.file, "1").expect("the CPU can be switched on");
        assert!(self.is_on());
    }

    fn is_on(&self) -> bool {
        cpus::online().expect("sysfs is there").contains(&self.cpu)
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        if !self.is_on() {
            self.on();
        }
    }
}

/// Profiles for six seconds in which the CPU is away for `away`, beginning after one; a burner runs there before, another one
/// after. The second one must be in the profile, but for the time until the agent looks again.
fn profile_with_a_gap(away: Duration) {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let switch = Switch::of_last_cpu();
    if !require("a CPU that can be switched off", switch.is_some()) {
        return;
    }
    let switch = switch.expect("there is one");
    let workload = Workload::c("spin.c", "spin", &[]);
    let before = workload.start().claim(switch.cpu);
    let before_pid = before.pid();
    let mut run = AgentRun::start(&["--duration", "6s"]);
    // The timers are running.
    let used = before.cpu_time();
    thread::sleep(Duration::from_secs(1));
    let used_before = before.cpu_time() - used;
    drop(before);
    switch.off();
    thread::sleep(away);
    switch.on();
    let after: Running = workload.start().claim(switch.cpu);
    run.wait_for_the_end_of_the_window();
    let charged = after.cpu_time() as f64;
    let profiled = run.finish();

    let ledger = profiled.ledger(switch.cpu);
    println!("{ledger:?}\n{:?}", profiled.profile.accounting);
    let (samples, nanoseconds) = profiled.profile.total_of(after.pid());
    // The agent looks once a second which CPUs there are.
    let least = charged - 1.2e9;
    assert!(nanoseconds as f64 > least, "{samples} samples, {nanoseconds} ns of {charged} ns: {ledger:?}");
    assert!((nanoseconds as f64) < charged * 1.05, "{nanoseconds} ns of {charged} ns: {ledger:?}");
    // What it was not sampled for is in the books: samples and losses make up what both were charged, to the few ticks by which the
    // kernel's own account of busy time is off.
    let period = 1e9 / 99.0;
    let lost = ledger.number("unwatched") + ledger.number("kernel_skipped");
    let known = samples + profiled.profile.total_of(before_pid).0 + lost;
    let due = (charged + used_before as f64) / period;
    assert!((known as f64 - due).abs() < due * 0.08 + 10.0, "{known} of {due:.0} ticks: {ledger:?}");
    assert_eq!(profiled.profile.accounting.lost("cpu_returned"), ledger.number("unwatched"));
    assert!(ledger.number("unwatched") as f64 * period < 1.4e9, "the agent looks once a second: {ledger:?}");
    let sampled: BTreeSet<u32> = profiled.ledgers().iter().map(|ledger| ledger.cpu).collect();
    assert_eq!(sampled, cpus::online().expect("sysfs is there"));
}

/// A CPU that is away for two seconds: the agent notices both, the run succeeds, the books balance, and what runs on the CPU
/// after its return is sampled.
#[test]
fn a_cpu_that_returns_is_sampled_again() {
    profile_with_a_gap(Duration::from_secs(2));
}

/// A list of CPUs that is out of date, because one went offline after it was read, is no error: the others are sampled, and that one
/// as soon as it is back.
#[test]
fn a_stale_list_of_cpus_is_no_error() {
    let Some(_leave) = kernel::alone(&[]) else { return };
    let switch = Switch::of_last_cpu();
    if !require("a CPU that can be switched off", switch.is_some()) {
        return;
    }
    let switch = switch.expect("there is one");
    let list = cpus::online().expect("sysfs is there");
    let rest = &list - &BTreeSet::from([switch.cpu]);
    let sizes = Sizes {
        probes: false,
        switches: None,
        faults: None,
        ring_bytes: 1 << 16,
        possible_cpus: cpus::possible_count().expect("sysfs is there"),
        variant: Variant::of_kernel(),
        slices_per_second: 1,
        arena_blocks: 1,
    };
    let mut programs = Programs::create(sizes, &Selection::default()).expect("the object loads");
    switch.off();
    let mut sideband = Sideband::open(&list, 16 << 10).expect("the others have a side-band");
    let mut cpu = CpuProfiler::start(&mut programs, &list, 99).expect("the others are sampled");
    assert_eq!((cpu.cpus(), sideband.descriptors().count()), (rest.clone(), rest.len()));
    switch.on();
    sideband.add_cpu(switch.cpu).expect("it is back");
    cpu.follow_cpus(&mut programs, &list).expect("it is back");
    assert_eq!((cpu.cpus(), sideband.descriptors().count()), (list.clone(), list.len()));
}

/// A CPU that is back before the agent looks again: its timer stopped all the same, and must be started again.
#[test]
fn a_cpu_that_is_back_at_once_is_sampled_again() {
    profile_with_a_gap(Duration::from_millis(50));
}

/// Page faults on a CPU that was away for a moment are sampled as soon as the agent has looked which CPUs there are.
#[test]
fn page_faults_of_a_cpu_that_returns_are_sampled() {
    const PROCESSES: u64 = 20;
    const BYTES: u64 = 16 << 20;
    let Some(_leave) = kernel::alone(&["gcc", "taskset"]) else { return };
    let switch = Switch::of_last_cpu();
    if !require("a CPU that can be switched off", switch.is_some()) {
        return;
    }
    let switch = switch.expect("there is one");
    let workload = Workload::plain("gcc", "page_faults.c", "page_faults", &["-O2"]);
    let mut run = AgentRun::start(&["--duration", "8s", "--profilers", "memory"]);
    switch.off();
    switch.on();
    run.wait_for("the set of online CPUs changed");
    thread::sleep(Duration::from_millis(200));
    for _ in 0..PROCESSES {
        let mut touch = Command::new("taskset");
        touch.args(["-c", &switch.cpu.to_string()]).arg(workload.program()).arg("short");
        assert!(touch.status().expect("it runs").success());
    }
    let profile = run.finish_with("pagefaults").profile;
    let short = profile
        .samples
        .iter()
        .filter(|sample| profile.stack(sample).any(|frame| frame.name == "short_touch"));
    let resident: u64 = short.map(|sample| sample.values()[1]).sum();
    let (truth, samples) = ((PROCESSES * BYTES) as f64, (PROCESSES * BYTES / 4096) as f64 / 64.0);
    println!("{resident} of {truth}");
    assert!((resident as f64 / truth - 1.0).abs() <= 3.0 / samples.sqrt(), "{resident} of {truth}");
}
