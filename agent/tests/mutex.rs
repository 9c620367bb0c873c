//! Waits for locks, and who ends waits, against a program that knows it of itself.

mod harness;

use std::path::Path;

use agent::kernel::btf::Btf;
use agent::kernel::programs::KERNEL_BTF;
use harness::profiled::{Profile, Sample};
use harness::waiting::{Waits, is_near};
use harness::{kernel, require};

/// The function of the workload that is nearest to the leaf.
fn own_function<'a>(profile: &'a Profile, sample: &'a Sample) -> &'a str {
    let own = profile.stack(sample).find(|frame| frame.module.ends_with("/contention"));
    own.map_or("", |frame| frame.name)
}

/// Two hundred times a thread waits ten milliseconds for a mutex: as many contentions, the waiter's time to a twentieth, the functions
/// that wanted the lock and that let go of it as direct callers.
#[test]
fn waiters_and_holders_are_told() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let mut waits = Waits::start("contention", "held");
    let (run, numbers) = waits.profile("mutex", "6s", &[]);
    let holders = run.of_profiler("mutex-holders");
    let waiters = &run.profile;
    println!("{numbers:?}\n{}\n{}", waiters.describe(), holders.describe());
    let of = |profile: &Profile, function: &str| {
        let (named, _) = profile.sum(|sample| own_function(profile, sample) == function);
        // The first stacks come before the unwinder's tables know that code, and a busy machine is slow to tell them.
        let (cut, _) =
            profile.sum(|sample| sample.truncated.is_some() && own_function(profile, sample) != function);
        (named, cut)
    };
    let (count, delay) = waiters.sum(|sample| sample.lock.as_deref() == Some("mutex"));
    assert_eq!(count, 200, "{}", waiters.describe());
    assert!(is_near(delay, numbers[0], 20), "{delay} against {numbers:?}");
    let (wanted, cut) = of(waiters, "want_the_lock");
    assert!(wanted >= 150 && wanted + cut == 200, "{}", waiters.describe());
    let (count, held) = holders.sum(|sample| sample.lock.as_deref() == Some("mutex"));
    assert_eq!(count + holders.accounting.lost("waker_unseen"), 200, "{}", holders.describe());
    let (released, cut) = of(&holders, "let_go");
    assert!(released >= 150 && released + cut == count, "{}", holders.describe());
    let callers = |sample| holders.has(sample, "hold");
    let (called, _) = holders.sum(callers);
    assert!(called >= 150 && called <= released, "{}", holders.describe());
    assert!(held <= delay, "{held} until the waking, {delay} until the thread ran");
    let pid = waits.pid();
    assert!(holders.samples.iter().all(|sample| sample.woken.as_ref().is_some_and(|woken| woken.pid == pid)));
    assert!(!run.file("offcpu.json").exists(), "nobody asked for it");
}

/// Conditions, barriers (whose rounds count through a mutex's value) and semaphores are no contention; they are shown when asked for.
#[test]
fn waits_for_events_are_no_contention() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let run = |more: &[&str]| {
        let mut waits = Waits::start("contention", "others");
        waits.profile("mutex", "3s", more).0
    };
    let contention = run(&[]).profile;
    for (function, most) in [("at_barrier", 0), ("at_semaphore", 0), ("at_condition", 2)] {
        // The condition's mutex may be met while the other thread has it.
        let (count, _) = contention.sum(|sample| contention.has(sample, function));
        assert!(count <= most, "{function}\n{}", contention.describe());
    }
    let all = run(&["--futex-classes", "all"]).profile;
    for (function, lock) in
        [("at_condition", "condition"), ("at_barrier", "barrier"), ("at_semaphore", "semaphore")]
    {
        let (count, _) = all.sum(|sample| all.has(sample, function) && sample.lock.as_deref() == Some(lock));
        // Some find what they want there already, some are woken and have to wait again.
        assert!((20..=150).contains(&count), "{function} {count}\n{}", all.describe());
    }
}

/// A hundred times a thread wakes another one by a pipe: the function that writes is charged with as many waits, and with what the
/// other one waited.
#[test]
fn wakers_are_charged_with_the_waits_that_they_end() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let mut waits = Waits::start("contention", "pipe");
    let (run, numbers) = waits.profile("offcpu", "4s", &[]);
    let wakers = run.of_profiler("offcpu-wakers");
    println!("{numbers:?}\n{}", wakers.describe());
    let is_call = |sample| wakers.has(sample, "call_it") && own_function(&wakers, sample) == "tell";
    let (count, time) = wakers.sum(is_call);
    // The first wakings come before the unwinder's tables know that code: their stacks are cut.
    let is_cut = |sample: &Sample| sample.comm == "contention" && sample.truncated.is_some();
    let (cut, _) = wakers.sum(is_cut);
    assert!((75..=100).contains(&count) && count + cut >= 100, "{count} and {cut}\n{}", wakers.describe());
    let truth = numbers[0] * count / 100;
    assert!(is_near(time, truth, 10), "{time} against {truth}\n{}", wakers.describe());
    // Naps end by a timer.
    let (naps, _) = wakers.sum(|sample| wakers.has(sample, "[interrupt]") && sample.pid == 0);
    assert!(naps >= 100, "{}", wakers.describe());
}

/// A wait for a mutex that a timer ends has nobody to be charged with it.
#[test]
fn waits_that_time_out_have_no_holder() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let mut waits = Waits::start("contention", "timeout");
    let (run, numbers) = waits.profile("mutex", "3s", &[]);
    let (waiters, holders) = (&run.profile, run.of_profiler("mutex-holders"));
    let (count, _) = waiters.sum(|sample| sample.lock.as_deref() == Some("mutex"));
    let (timed, _) = waiters.sum(|sample| sample.ended.as_deref() == Some("timer"));
    assert_eq!(count, numbers[0], "{}", waiters.describe());
    assert_eq!(timed + holders.accounting.lost("waker_unseen"), count, "{}", waiters.describe());
    assert_eq!(holders.samples.len(), 0, "{}", holders.describe());
}

/// Locks of the kernel that sleep are among the locks, with those who wait and those who let go.
#[test]
fn locks_of_the_kernel_are_told() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let btf = Btf::of_kernel(Path::new(KERNEL_BTF)).expect("readable");
    if !require("contention_begin (Linux 5.19)", btf.tracepoint_pointers("contention_begin").is_some()) {
        return;
    }
    let mut waits = Waits::start("contention", "file");
    let (run, _) = waits.profile("mutex", "4s", &[]);
    let holders = run.of_profiler("mutex-holders");
    for profile in [&run.profile, &holders] {
        let is_write = |sample| own_function(profile, sample) == "write_block";
        let (count, time) =
            profile.sum(|sample| sample.lock.as_deref() == Some("kernel") && is_write(sample));
        assert!(count > 0 && time > 0, "{}", profile.describe());
    }
}
