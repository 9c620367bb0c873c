//! The mutex profile of programs that wait for one kind of thing each: glibc's, musl's, Rust's, C++'s and parking_lot's locks are in it as
//! what they are, and what is no lock is not.

mod harness;

use std::process::Command;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use harness::agent_run::AgentRun;
use harness::kernel;
use harness::profiled::{Profile, Profiled};
use harness::running::Running;
use harness::workload::Workload;

/// Waits of five milliseconds in two seconds, at least.
const FEWEST: u64 = 20;

/// Contentions of a program that waits for no lock, some 350 times: its events' own mutexes are met now and then, more often on a busy
/// machine.
const STRAY: u64 = 100;

/// Profiles locks in `pids` for two seconds: who waited, and who held.
fn profile(pids: &[u32]) -> [Profile; 2] {
    let words: Vec<String> = pids.iter().flat_map(|pid| ["--pid".to_owned(), pid.to_string()]).collect();
    let common = ["--duration", "2s", "--profilers", "mutex"];
    let arguments: Vec<&str> = common.into_iter().chain(words.iter().map(String::as_str)).collect();
    let run: Profiled = AgentRun::start(&arguments).finish_with("mutex");
    let holders = run.of_profiler("mutex-holders");
    [run.profile, holders]
}

/// Contentions of process `pid` by kind of lock: those that waited, and those that were let in by a holder.
fn contentions(profile: &Profile, pid: u32, lock: &str) -> u64 {
    let is_it =
        |sample: &&harness::profiled::Sample| sample.pid == pid && sample.lock.as_deref() == Some(lock);
    profile.samples.iter().filter(is_it).map(harness::profiled::Sample::count).sum()
}

/// Runs `workload` in each mode, and asserts what its threads wait for in the profile: a lock of that kind, or none.
fn check(workload: &Workload, cases: &[(&str, Option<&str>)]) {
    let start = |(mode, _): &(&str, _)| {
        let mut command: Command = workload.command();
        Running::start_until_ready(command.arg(mode))
    };
    let programs: Vec<Running> = cases.iter().map(start).collect();
    let pids: Vec<u32> = programs.iter().map(Running::pid).collect();
    let [waiters, holders] = profile(&pids);
    for ((mode, lock), pid) in cases.iter().zip(pids) {
        let all: u64 = waiters.of(pid).map(harness::profiled::Sample::count).sum();
        let Some(lock) = lock else {
            println!("{mode}: {all} contentions");
            assert!(all < STRAY, "{mode}\n{}", waiters.describe());
            continue;
        };
        let (waited, held) = (contentions(&waiters, pid, lock), contentions(&holders, pid, lock));
        println!("{mode}: {waited} of {all} contentions are {lock}, {held} have a holder");
        assert!(waited >= FEWEST && waited * 10 >= all * 9, "{mode}\n{}", waiters.describe());
        assert!(held >= FEWEST, "{mode}\n{}", holders.describe());
    }
}

/// Mutexes of each kind and read-write locks of glibc are contention; conditions, semaphores, barriers and joins are not.
#[test]
fn glibc() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let workload = Workload::plain("gcc", "locks/pthread.c", "pthread", &["-pthread"]);
    let (mutex, rwlock) = (Some("mutex"), Some("rwlock"));
    let cases = [
        ("mutex", mutex),
        ("recursive", mutex),
        ("pi", mutex),
        ("timed", mutex),
        ("reader", rwlock),
        ("writer", rwlock),
        ("condition", None),
        ("semaphore", None),
        ("barrier", None),
        ("join", None),
    ];
    check(&workload, &cases);
}

/// The same of musl, in a static program without unwind information.
#[test]
fn musl() {
    let Some(_leave) = kernel::alone(&["musl-gcc"]) else { return };
    let workload = Workload::plain("musl-gcc", "locks/pthread.c", "pthread", &["-static"]);
    check(&workload, &[("mutex", Some("mutex")), ("pi", Some("mutex")), ("condition", None), ("join", None)]);
}

/// The same of Rust's standard library.
#[test]
fn rust() {
    let Some(_leave) = kernel::alone(&["rustc"]) else { return };
    let workload = Workload::rust_release("locks/locks.rs", "locks");
    let cases = [("mutex", Some("mutex")), ("writer", Some("rwlock")), ("condition", None), ("park", None)];
    check(&workload, &cases);
}

/// parking_lot's mutexes are contention by the functions around its parking, and its conditions are not.
#[test]
fn parking_lot() {
    let Some(_leave) = kernel::alone(&[]) else { return };
    let (mutex, ended) = (::parking_lot::Mutex::new(()), AtomicBool::new(false));
    let (said, condition) = (::parking_lot::Mutex::new(false), ::parking_lot::Condvar::new());
    let brief = || thread::sleep(Duration::from_millis(5));
    let goes_on = || !ended.load(Ordering::Relaxed);
    let found = StdMutex::new(None);
    thread::scope(|scope| {
        scope.spawn(|| {
            while goes_on() {
                drop(mutex.lock());
                thread::sleep(Duration::from_millis(1));
            }
        });
        scope.spawn(|| {
            while goes_on() {
                let held = mutex.lock();
                brief();
                drop(held);
                thread::sleep(Duration::from_millis(1));
            }
        });
        scope.spawn(|| {
            while goes_on() {
                let mut word = said.lock();
                while !*word {
                    condition.wait(&mut word);
                }
                *word = false;
            }
        });
        scope.spawn(|| {
            while goes_on() {
                brief();
                *said.lock() = true;
                condition.notify_one();
            }
            // Whoever still waits is let go.
            *said.lock() = true;
            condition.notify_one();
        });
        let profiles = profile(&[std::process::id()]);
        ended.store(true, Ordering::Relaxed);
        if let Ok(mut found) = found.lock() {
            *found = Some(profiles);
        }
    });
    let found = found.into_inner().expect("nobody panicked while holding it");
    let [waiters, holders] = found.expect("it was profiled");
    let own = std::process::id();
    let counts = [&waiters, &holders].map(|profile| contentions(profile, own, "mutex"));
    println!("{counts:?} contentions");
    assert!(counts.iter().all(|count| *count >= FEWEST), "{}", waiters.describe());
    let (waits, _) = waiters.sum(|sample| waiters.stack(sample).any(|frame| frame.name.contains("Condvar")));
    assert!(waits < STRAY, "{}", waiters.describe());
}
