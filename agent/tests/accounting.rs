//! Nothing is lost in silence: the books balance, and on a live kernel say what was made to happen.

mod harness;

use std::process::Command;
use std::thread;
use std::time::Duration;

use harness::agent_run::{AgentRun, profile};
use harness::kernel;
use harness::profiled::Profiled;
use harness::running::{Running, last_cpu};
use harness::workload::Workload;

/// What each CPU's program counted adds up to its runs, its runs and what did not run to its ticks, and all CPUs' to the
/// profile's books.
fn assert_ledgers_add_up(profiled: &Profiled) {
    let ledgers = profiled.ledgers();
    for ledger in &ledgers {
        let fates = ["idle", "not_selected", "emitted", "ring_full", "scratch_busy"];
        let fates: u64 = fates.iter().map(|fate| ledger.number(fate)).sum();
        assert_eq!(ledger.number("fired"), fates, "{ledger:?}");
        let ticks = ["fired", "asleep", "kernel_skipped", "unwatched"].iter().map(|tick| ledger.number(tick));
        let ticks: u64 = ticks.sum();
        assert_eq!(ledger.number("ticks"), ticks, "{ledger:?}");
    }
    let sum = |name| ledgers.iter().map(|ledger| ledger.number(name)).sum::<u64>();
    let books = &profiled.profile.accounting;
    assert_eq!(books.ticks, sum("ticks"));
    assert_eq!(books.idle, sum("idle") + sum("asleep"));
    assert_eq!(books.emitted + books.lost("undecodable"), sum("emitted"));
    assert_eq!(books.lost("cpu_returned"), sum("unwatched"));
    for cause in ["ring_full", "scratch_busy", "kernel_skipped"] {
        assert_eq!(books.lost(cause), sum(cause), "{cause}");
    }
}

/// CPU time that is in the profile for `burner`, as a part of what the kernel charged it.
fn part_of_charge(profiled: &Profiled, burner: &Running, charged: u64) -> f64 {
    let (samples, nanoseconds) = profiled.profile.total_of(burner.pid());
    let part = nanoseconds as f64 / charged as f64;
    println!("{nanoseconds} ns in {samples} samples, {charged} ns charged: {part:.4}");
    part
}

/// A ring that holds a few dozen samples overflows when the agent cannot read it for half a second: what it had no room for
/// is counted, and those that came through stand for all.
#[test]
fn a_tiny_ring_loses_nothing_uncounted() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let burner = Workload::c("spin.c", "spin", &[]).start().claim(last_cpu());
    let mut run = AgentRun::start(&["--duration", "4s", "--ring-size", "4096", "--frequency", "997"]);
    let before = burner.cpu_time();
    thread::sleep(Duration::from_secs(1));
    run.process().pause(Duration::from_millis(500));
    run.wait_for_the_end_of_the_window();
    let charged = burner.cpu_time() - before;
    let profiled = run.finish();

    assert_ledgers_add_up(&profiled);
    let books = &profiled.profile.accounting;
    println!("{books:?}");
    // The ring has room for 50 records with two frames.
    assert!(books.lost("ring_full") > 997 / 2 - 100, "{books:?}");
    assert_eq!(books.lost("undecodable"), 0, "{books:?}");
    let part = part_of_charge(&profiled, &burner, charged);
    assert!((part - 1.0).abs() < 0.05, "{part:.4}, {:?}", profiled.ledger(last_cpu()));
}

/// Another tool's program on a classic tracepoint: while it runs on a CPU, the kernel skips ours there.
const HEAVY_TRACEPOINT: &str = r#"
BEGIN { printf("ready\n"); }
tracepoint:raw_syscalls:sys_enter /comm == "system_calls"/ {
    $i = (uint64)0;
    while ($i < 300) { @at[$i % 8] = nsecs; $i++; }
}
"#;

/// Runs bpftrace with a tracefs of its own, mounted where nobody else sees it.
fn heavy_tracepoint() -> Running {
    const SCRIPT: &str = "mount -t tracefs tracefs /sys/kernel/tracing && exec bpftrace -q -e \"$0\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", SCRIPT, HEAVY_TRACEPOINT]);
    Running::start_until_ready(&mut command)
}

/// While a classic tracepoint program keeps the kernel from running ours, the skipped samples are counted as such, as many
/// are expected as the clock says, and the ones that are left stand for the time that was charged.
#[test]
fn what_the_kernel_skips_is_counted() {
    let Some(_leave) = kernel::alone(&["gcc", "bpftrace", "unshare"]) else { return };
    let cpu = last_cpu();
    let workload = Workload::c("system_calls.c", "system_calls", &[]);
    let burner = workload.start().claim(cpu);
    let tracer = heavy_tracepoint();
    let mut run = AgentRun::start(&["--duration", "8s"]);
    let before = burner.cpu_time();
    run.wait_for_the_end_of_the_window();
    let charged = burner.cpu_time() - before;
    drop(tracer);
    let profiled = run.finish();

    assert_ledgers_add_up(&profiled);
    let ledger = profiled.ledger(cpu);
    println!("{ledger:?}");
    let (ticks, skipped) = (ledger.number("ticks"), ledger.number("kernel_skipped"));
    assert!(skipped > ticks / 5, "{ledger:?}");
    let by_the_clock = profiled.profile.duration_seconds * 99.0;
    assert!((ticks as f64 - by_the_clock).abs() < 5.0, "{by_the_clock} ticks by the clock, {ledger:?}");
    assert!(ledger.number("asleep") + ledger.number("idle") < 5, "{ledger:?}");
    let part = part_of_charge(&profiled, &burner, charged);
    assert!((part - 1.0).abs() < 0.1, "{part:.4}, {ledger:?}");
}

/// On a machine without such disturbance hardly anything is lost, and every sample of a busy CPU is there.
#[test]
fn an_undisturbed_cpu_loses_hardly_anything() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let cpu = last_cpu();
    let _burner = Workload::c("spin.c", "spin", &[]).start().claim(cpu);
    let profiled = profile(&["--duration", "3s"]);
    assert_ledgers_add_up(&profiled);
    let ledger = profiled.ledger(cpu);
    assert!(ledger.number("emitted") * 100 >= ledger.number("ticks") * 97, "{ledger:?}");
}
