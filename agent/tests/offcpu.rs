//! Waits: how long, how often, where and why, against programs that know it of themselves.

mod harness;

use std::thread;
use std::time::Duration;

use harness::agent_run::AgentRun;
use harness::kernel;
use harness::profiled::{LeftOut, Profile, Sample};
use harness::waiting::{self, Waits};

/// Profiles the workload's waits while it does what it is to do.
fn profile(waits: &mut Waits, duration: &str, more: &[&str]) -> (Profile, Vec<u64>, Vec<String>) {
    let (run, numbers) = waits.profile("offcpu", duration, more);
    (run.profile, numbers, run.log)
}

/// Within a fiftieth.
fn is_near(value: u64, truth: u64) -> bool {
    waiting::is_near(value, truth, 50)
}

/// Twenty sleeps of 200 ms: their count to the last, their time to 2 %, each with the function that sleeps and its callers.
#[test]
fn sleeps_are_counted_and_timed() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let mut waits = Waits::start("waits", "naps");
    let (profile, numbers, _) = profile(&mut waits, "6s", &[]);
    let is_nap = |sample| profile.has(sample, "nap") && profile.has(sample, "main");
    let (count, time) = profile.sum(|sample| is_nap(sample) && sample.state.as_deref() == Some("sleep"));
    println!("{count} naps of {time} ns, truth {numbers:?}\n{}", profile.describe());
    assert_eq!(count, 20, "{}", profile.describe());
    assert!(is_near(time, numbers[0]), "{time} against {numbers:?}\n{}", profile.describe());
    let direct_callers = profile.samples.iter().filter(|sample| profile.has(sample, "nap"));
    for sample in direct_callers {
        assert!(sample.truncated.is_none(), "{}", profile.describe());
    }
}

/// Of 20 sleeps of 30 ms and 500 of 1 ms, only the long ones are there if shorter waits are left out; the others are counted, with how long
/// they were, and no stack of theirs stands for anything.
#[test]
fn short_waits_are_left_out_and_counted() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let mut waits = Waits::start("waits", "longshort");
    let (run, numbers) = waits.profile("offcpu", "4s", &["--offcpu-min", "10ms"]);
    let (profile, wakers) = (&run.profile, run.of_profiler("offcpu-wakers"));
    let (books, late, switches) = (&profile.accounting, numbers[0], numbers[1]);
    let sleeps = |function| {
        profile.sum(|sample| profile.has(sample, function) && sample.state.as_deref() == Some("sleep")).0
    };
    let [long, short, unsampled] = ["long_nap", "short_nap", "[stack not sampled]"].map(sleeps);
    println!(
        "{long} long, {short} short, {unsampled} without stack, {late} late, {switches} switches\n{books:?}\n{}",
        profile.describe()
    );
    // On a busy machine a short sleep may be a long one.
    assert!(long <= 20 && short <= late, "{}", profile.describe());
    assert!((20..=20 + late).contains(&(long + short + unsampled)), "{}", profile.describe());
    assert!(long >= 10, "{}", profile.describe());
    let LeftOut { shorter_than, count, nanoseconds } = books.left_out;
    // As many as the kernel says to the thread itself, but for those whose begin or end it did not tell.
    let fewest = switches.saturating_sub(late + books.lost("kernel_skipped"));
    assert!(switches >= 490, "{numbers:?}");
    assert_eq!(shorter_than, 10_000_000);
    assert!(count >= fewest && count >= 400, "{numbers:?} {books:?}");
    // Each as long as it must be, but for what it takes to leave the CPU, and shorter than what is left out.
    assert!(nanoseconds >= fewest * 900_000 && nanoseconds < count * shorter_than, "{books:?}");
    books.assert_balanced();
    wakers.accounting.assert_balanced();
    assert_eq!(wakers.accounting.left_out, books.left_out);
}

/// Waits that would be told of one by one are left out too, if they are shorter than was asked for: with who ended them.
#[test]
fn long_waits_are_left_out_and_counted() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let mut waits = Waits::start("waits", "longshort");
    let (profile, numbers, _) = profile(&mut waits, "4s", &["--offcpu-min", "1s"]);
    let books = &profile.accounting;
    println!("{numbers:?} {books:?}\n{}", profile.describe());
    for function in ["long_nap", "short_nap"] {
        assert_eq!(profile.sum(|sample| profile.has(sample, function)), (0, 0), "{}", profile.describe());
    }
    let fewest = 20 + numbers[1];
    assert!(books.left_out.count + books.lost("kernel_skipped") >= fewest, "{numbers:?} {books:?}");
    books.assert_balanced();
}

/// Tens of thousands of switches a second: each is in the books, waits are as many as the rounds, stacks are taken of some only,
/// and the shares of what is waited for are right.
#[test]
fn frequent_waits_are_scaled_to_exact_totals() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let mut waits = Waits::start("waits", "pingpong");
    let (profile, numbers, log) = profile(&mut waits, "4s", &["--offcpu-budget", "0.1"]);
    let rounds = numbers[0];
    let (count, time) = profile.sum(|sample| profile.has(sample, "wait_for"));
    let unsampled = profile.sum(|sample| profile.has(sample, "[stack not sampled]"));
    let counters: Vec<_> = log.iter().filter(|line| line.contains("SwitchCounters")).collect();
    println!("{rounds} rounds, {count} waits of {time} ns, unsampled {unsampled:?}\n{counters:?}");
    // Each round is two waits, but for those that found their byte there already.
    assert!(count > rounds / 2 && count < rounds * 5 / 2, "{rounds} rounds, {}", profile.describe());
    // The two threads wait by turns: never longer together than the window lasts for both.
    assert!(time < 2 * 4_000_000_000, "{}", profile.describe());
    let lost = profile.accounting.lost.values().sum::<u64>();
    assert!(lost * 100 <= profile.accounting.expected, "{:?}", profile.accounting);
}

/// Of two functions that a thread waits in tens of thousands of times a second, mixed by chance, each has the share that it has in truth, as
/// closely as the number of waits allows whose stacks were taken. All waits together are as many as the kernel says to the thread itself.
#[test]
fn shares_are_as_exact_as_samples_allow() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let mut waits = Waits::start("waits", "shares");
    let (profile, numbers, log) = profile(&mut waits, "4s", &["--offcpu-budget", "1"]);
    let sleeps = |sample: &Sample| sample.state.as_deref() == Some("sleep");
    let slept = |function| profile.sum(|sample| profile.has(sample, function) && sleeps(sample)).0;
    let ([a, b], [true_a, true_b]) = ([slept("wait_in_a"), slept("wait_in_b")], [numbers[0], numbers[1]]);
    let (all, _) = profile.sum(sleeps);
    let truth = true_a as f64 / (true_a + true_b) as f64;
    let found = a as f64 / (a + b) as f64;
    let said = log.iter().rfind(|line| line.contains("sampled sleeps")).expect("it is logged");
    let samples: f64 =
        said.rsplit('=').next().and_then(|number| number.trim().parse().ok()).expect("a number");
    let sigma = (truth * (1.0 - truth) / samples).sqrt();
    println!(
        "{found} of {truth}, sigma {sigma} by {samples} samples; {a} + {b} waits of {true_a} + {true_b}"
    );
    assert!(true_a + true_b > 5_000, "{numbers:?}");
    // Most stacks are not taken, and enough are.
    assert!(samples >= 50.0 && samples * 2.0 < (a + b) as f64, "{samples} of {a} + {b}");
    assert!((found - truth).abs() <= 3.0 * sigma, "{found} is not {truth}, sigma {sigma}");
    // A few waits are not in these functions: those of the start, of the end, and page faults. A wait whose end the kernel did not
    // tell is in the books.
    let (truth, lost) = (true_a + true_b, profile.accounting.lost("kernel_skipped"));
    println!("{all} waits and {lost} skipped, truth {truth}");
    assert!(all <= truth + 5 && truth <= all + lost + 5, "{all} is not {truth}\n{}", profile.describe());
}

/// One wait of a second among tens of thousands of short ones: it is a second, whatever the others were sampled with.
#[test]
fn a_long_wait_does_not_stand_for_others() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let mut waits = Waits::start("waits", "chatty");
    let (profile, ..) = profile(&mut waits, "4s", &["--offcpu-budget", "0.05"]);
    let is_long = |sample| profile.has(sample, "long_wait");
    let (count, time) = profile.sum(is_long);
    // Its stack was taken, or it was not and stands by itself.
    let (others, unsampled) = profile
        .sum(|sample| profile.has(sample, "[stack not sampled]") && sample.state.as_deref() == Some("sleep"));
    println!("{count} {time}, {others} {unsampled}\n{}", profile.describe());
    assert!(is_near(time, 1_000_000_000) || unsampled >= 1_000_000_000, "{}", profile.describe());
    let (_, all) = profile.total_of(waits.pid());
    // Two threads for four seconds each at most.
    assert!(all <= 2 * 4_200_000_000, "{all}");
}

/// Threads that wait for each other since before the agent came are there for all of the window, with what they wait in.
#[test]
fn a_deadlock_is_shown() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let waits = Waits::start("waits", "deadlock");
    thread::sleep(Duration::from_millis(300));
    let pid = waits.pid().to_string();
    let run = AgentRun::start(&["--duration", "2s", "--profilers", "offcpu", "--pid", &pid]);
    let profile = run.finish_with("offcpu").profile;
    for function in ["take_left_then_right", "take_right_then_left"] {
        let (count, time) = profile.sum(|sample| profile.has(sample, function));
        assert_eq!(count, 1, "{function}\n{}", profile.describe());
        assert!((1_900_000_000..4_000_000_000).contains(&time), "{function} {time}\n{}", profile.describe());
    }
}

/// What threads wait and what they run add up to what they live, within 2 %.
#[test]
fn waits_and_work_are_the_whole_time() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let mut waits = Waits::start("waits", "mixed");
    let (profile, numbers, _) = profile(&mut waits, "4s", &[]);
    // The main thread's wait for its signal, and all threads' before and after, are not the workload's.
    let (_, off) =
        profile.sum(|sample| !profile.has(sample, "sigwait") && !profile.has(sample, "do_sigtimedwait"));
    let (wall, cpu) = (numbers[0], numbers[1]);
    println!("off {off} + cpu {cpu} = {} of {wall}", off + cpu);
    assert!(is_near(off + cpu, wall), "{off} + {cpu} against {wall}\n{}", profile.describe());
}
