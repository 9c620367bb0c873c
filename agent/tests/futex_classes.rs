//! The rules that tell what a thread waits for, against programs that wait for one kind of thing each.

mod harness;

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use agent::profiler::mutex::LockClass::{
    self, Barrier, Condition, Idle, Join, Mutex, Once, Other, Park, RwLock, Semaphore,
};
use agent::profiler::mutex::{Evidence, FutexOperation, classify};
use harness::futex_waits::{FutexWaits, observe, observe_processes};
use harness::kernel;
use harness::workload::{Workload, source};
use tempfile::TempDir;

/// A mode of a workload, what it waits for, and what the leaf would say with operation and value alone.
type Case = (&'static str, LockClass, LockClass);

/// Waits that each case has at least; most have hundreds.
const FEWEST: u64 = 20;

/// A program with its cases.
struct Program<'a> {
    workload: &'a Workload,
    cases: &'a [Case],
    /// Function right at the kernel of a stack that is cut there; none where it has no name.
    leaf: &'a [String],
    /// Whether it runs where there are no debug files.
    without_debug_files: bool,
}

impl<'a> Program<'a> {
    /// The usual: waits of five milliseconds.
    fn new(workload: &'a Workload, cases: &'a [Case]) -> Self {
        Self { workload, cases, leaf: &[], without_debug_files: false }
    }

    /// Runs all cases at the same time, with `arguments` for the agent, and checks each.
    fn check(&self, arguments: &[&str]) {
        let command = |(mode, ..): &Case| {
            let mut command = self.workload.command();
            if self.without_debug_files {
                command = Command::new("unshare");
                let hide =
                    "if [ -d /usr/lib/debug ]; then mount -t tmpfs none /usr/lib/debug; fi && exec \"$@\"";
                command.args(["--mount", "sh", "-c", hide, "sh"]).arg(self.workload.program());
            }
            command.arg(mode);
            command
        };
        let mut commands: Vec<Command> = self.cases.iter().map(command).collect();
        let waits = observe(&mut commands, Some("waiter"), Duration::from_secs(2), arguments);
        for (case, waits) in self.cases.iter().zip(&waits) {
            self.check_case(*case, waits);
        }
    }

    /// Asserts that the waits of a case are of its class, by names, and of the other without them.
    fn check_case(&self, (mode, class, cut): Case, waits: &FutexWaits) {
        let mut seen = 0;
        // What a stack has down to there tells the class, whole or not.
        for (stack, count) in waits.in_function("wait_for_it").chain(waits.cut_beyond("wait_for_it")) {
            let classes = class_of(stack, waits);
            // Rust's conditions take their mutex again when they are woken.
            let again = stack.iter().any(|frame| frame.contains("lock_contended"));
            let class = if again { Mutex } else { class };
            assert!(classes.iter().all(|found| *found == class), "{mode}: {classes:?} {stack:?}");
            seen += count;
        }
        // Of a library whose stacks are cut, the leaf.
        let is_cut = |stack: &[String]| {
            stack.len() == 1 && class_of(stack, waits).iter().all(|found| [cut, class].contains(found))
        };
        let at_the_leaf = waits.cut.iter().filter(|(stack, _)| !self.leaf.is_empty() && is_cut(stack));
        seen += at_the_leaf.map(|(_, count)| count).sum::<u64>();
        let (questions, guesses) = (waits.usual_questions(), class_of(self.leaf, waits));
        println!(
            "{mode}: {seen} waits, {:?}, without names {guesses:?}",
            &questions[..questions.len().min(4)]
        );
        assert!(seen >= FEWEST && !questions.is_empty(), "{mode}: {seen} waits: {waits:#?}");
        assert!(guesses.contains(&cut), "{mode}: {guesses:?} {waits:#?}");
    }
}

/// The classes of waits with `frames` and each operation and value that are usual.
fn class_of(frames: &[String], waits: &FutexWaits) -> Vec<LockClass> {
    let frames: Vec<&str> = frames.iter().map(String::as_str).collect();
    let questions = waits.usual_questions();
    let class = |(operation, value)| {
        classify(&Evidence { operation: Some(operation), value, frames: &frames, kernel_lock: false })
    };
    questions.into_iter().map(class).collect()
}

const PTHREAD: &str = "locks/pthread.c";

/// glibc's waits, with the names of its debug file where that is installed.
const GLIBC: [Case; 15] = [
    ("mutex", Mutex, Mutex),
    ("recursive", Mutex, Mutex),
    ("robust", Mutex, Mutex),
    ("pi", Mutex, Mutex),
    ("timed", Mutex, Mutex),
    ("reader", RwLock, Other),
    ("writer", RwLock, Mutex),
    ("condition", Condition, Other),
    ("timed-condition", Condition, Other),
    ("semaphore", Semaphore, Other),
    ("timed-semaphore", Semaphore, Other),
    // Of every other barrier's rounds the number is 2.
    ("barrier", Barrier, Mutex),
    ("join", Join, Other),
    ("once", Once, Other),
    ("stdio", Mutex, Mutex),
];

/// Each kind of wait of glibc is of its class: a barrier in the round that looks like a mutex, too.
#[test]
fn glibc_waits_are_classed() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let workload = Workload::plain("gcc", PTHREAD, "pthread", &["-pthread"]);
    Program::new(&workload, &GLIBC).check(&[]);
}

/// The same by the names that the library exports, which is all that most machines have.
#[test]
fn glibc_waits_are_classed_by_exported_names() {
    let Some(_leave) = kernel::alone(&["gcc", "unshare"]) else { return };
    let workload = Workload::plain("gcc", PTHREAD, "pthread", &["-pthread"]);
    let program = Program { without_debug_files: true, ..Program::new(&workload, &GLIBC) };
    program.check(&["--debug-dir", workload.directory().to_str().expect("UTF-8")]);
}

/// Each kind of wait of musl is, in a static program. By values alone, its conditions and joins would be mutexes.
#[test]
fn musl_waits_are_classed() {
    let Some(_leave) = kernel::alone(&["musl-gcc"]) else { return };
    let program = Workload::plain("musl-gcc", PTHREAD, "pthread", &["-static"]);
    let cases = [
        ("mutex", Mutex, Mutex),
        ("recursive", Mutex, Mutex),
        ("robust", Mutex, Mutex),
        ("pi", Mutex, Mutex),
        ("timed", Mutex, Mutex),
        ("reader", RwLock, Semaphore),
        ("writer", RwLock, Mutex),
        ("condition", Condition, Condition),
        ("timed-condition", Condition, Condition),
        ("semaphore", Semaphore, Semaphore),
        ("barrier", Barrier, Other),
        ("join", Join, Condition),
        ("once", Once, Other),
        ("stdio", Mutex, Mutex),
    ];
    let leaf = ["__syscall_cp_c".to_owned()];
    // There is no unwind information: stacks are cut at the leaf where the agent did not come before the wait was over.
    Program { leaf: &leaf, ..Program::new(&program, &cases) }.check(&[]);
}

/// Each kind of wait of Rust's standard library is.
#[test]
fn rust_waits_are_classed() {
    let Some(_leave) = kernel::alone(&["rustc"]) else { return };
    let program = Workload::rust_release("locks/locks.rs", "locks");
    let cases = [
        ("mutex", Mutex, Mutex),
        ("reader", RwLock, Other),
        ("park", Park, Park),
        ("once", Once, Other),
        ("writer", RwLock, Other),
        ("condition", Condition, Other),
        ("join", Join, Other),
    ];
    Program::new(&program, &cases).check(&[]);
}

/// Each kind of wait of C++'s standard library is.
#[test]
fn cpp_waits_are_classed() {
    let Some(_leave) = kernel::alone(&["g++"]) else { return };
    let program = Workload::plain("g++", "locks/locks.cc", "locks", &["-std=c++20", "-pthread"]);
    let cases = [
        ("mutex", Mutex, Mutex),
        ("reader", RwLock, Other),
        ("condition", Condition, Other),
        ("semaphore", Semaphore, Other),
        ("latch", Barrier, Other),
        ("future", Condition, Semaphore),
    ];
    Program::new(&program, &cases).check(&[]);
}

/// Idle threads of Go's runtime are idle, those that wait for one of its locks are not.
#[test]
fn go_waits_are_classed() {
    let Some(_leave) = kernel::alone(&["go"]) else { return };
    let workload = Workload::go("locks/idle.go", "idle");
    let command = |mode| {
        let mut command = workload.command();
        command.arg(mode);
        command
    };
    let mut commands = [command("idle"), command("contended")];
    let waits = observe(&mut commands, None, Duration::from_secs(3), &[]);
    let count = |waits: &FutexWaits, function, class| {
        let mut count = 0;
        for (stack, waited) in waits.in_function(function) {
            let classes = class_of(stack, waits);
            assert!(classes.iter().all(|found| *found == class), "{classes:?} {stack:?}");
            count += waited;
        }
        count
    };
    let [idle, contended] = &waits[..] else { panic!("two programs") };
    let idle_counts = [count(idle, "runtime.futexsleep", Idle), count(idle, "runtime.notesleep", Idle)];
    let locked = count(contended, "runtime.lock2", Mutex);
    println!("{idle_counts:?} idle, {locked} locked, {:?}", contended.usual_questions());
    assert!(idle_counts.iter().all(|count| *count >= FEWEST), "{idle_counts:?} {idle:#?}");
    assert!(locked >= FEWEST, "{contended:#?}");
}

/// Java's monitors are mutexes, parked threads and `Object.wait` are not, though all are conditions to the C library.
#[test]
fn java_waits_are_classed() {
    let Some(_leave) = kernel::alone(&["java", "javac"]) else { return };
    let classes = TempDir::new().expect("a directory");
    let mut javac = Command::new("javac");
    let output = javac.arg("-d").arg(classes.path()).arg(source("locks/Locks.java")).output().expect("javac");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let cases = [
        ("monitor", "ObjectMonitor::enter", Mutex),
        ("park", "Unsafe_Park", Park),
        ("wait", "ObjectMonitor::wait", Condition),
    ];
    let command = |(mode, ..): &(&str, &str, LockClass)| {
        let mut java = Command::new("java");
        java.args(["-XX:+PreserveFramePointer", "-cp"]).arg(classes.path()).args(["Locks", mode]);
        java
    };
    let mut commands: Vec<_> = cases.iter().map(command).collect();
    let waits = observe(&mut commands, Some("waiter"), Duration::from_secs(3), &[]);
    for ((mode, function, class), waits) in cases.into_iter().zip(&waits) {
        let mut seen = 0;
        for (stack, count) in waits.in_function(function).chain(waits.cut_beyond(function)) {
            let classes = class_of(stack, waits);
            assert!(classes.iter().all(|found| *found == class), "{mode}: {classes:?} {stack:?}");
            seen += count;
        }
        println!("{mode}: {seen} waits, {:?}", waits.usual_questions());
        assert!(seen >= FEWEST, "{mode}: {waits:#?}");
    }
}

/// What parking_lot's threads wait for here.
#[derive(Default)]
struct ParkingLot {
    mutex: parking_lot::Mutex<()>,
    rwlock: parking_lot::RwLock<()>,
    said: parking_lot::Mutex<bool>,
    condition: parking_lot::Condvar,
    ended: AtomicBool,
}

impl ParkingLot {
    #[inline(never)]
    fn waits_for_mutex(&self) {
        drop(self.mutex.lock());
    }

    #[inline(never)]
    fn waits_to_read(&self) {
        drop(self.rwlock.read());
    }

    #[inline(never)]
    fn waits_for_word(&self) {
        let mut said = self.said.lock();
        while !*said {
            self.condition.wait(&mut said);
        }
        *said = false;
    }

    fn repeat(&self, turn: impl Fn()) {
        while !self.ended.load(Ordering::Relaxed) {
            turn();
            thread::sleep(Duration::from_millis(1));
        }
        // Whoever still waits is let go.
        *self.said.lock() = true;
        self.condition.notify_all();
    }
}

/// parking_lot's locks are told apart by the functions around its parking: its operation and value are always the same.
#[test]
fn parking_lot_waits_are_classed() {
    let Some(_leave) = kernel::alone(&[]) else { return };
    let lot = ParkingLot::default();
    let brief = || thread::sleep(Duration::from_millis(5));
    let waits = thread::scope(|scope| {
        scope.spawn(|| lot.repeat(|| lot.waits_for_mutex()));
        scope.spawn(|| lot.repeat(|| lot.waits_to_read()));
        scope.spawn(|| lot.repeat(|| lot.waits_for_word()));
        scope.spawn(|| {
            lot.repeat(|| {
                let _held = lot.mutex.lock();
                brief();
            });
        });
        scope.spawn(|| {
            lot.repeat(|| {
                let _held = lot.rwlock.write();
                brief();
            });
        });
        scope.spawn(|| {
            lot.repeat(|| {
                brief();
                *lot.said.lock() = true;
                lot.condition.notify_one();
            });
        });
        let own = [std::process::id()];
        let waits = observe_processes(&own, None, Duration::from_secs(2), &[]);
        lot.ended.store(true, Ordering::Relaxed);
        waits
    });
    let [waits] = &waits[..] else { panic!("one process") };
    for (function, class) in
        [("waits_for_mutex", Mutex), ("waits_to_read", RwLock), ("waits_for_word", Condition)]
    {
        let mut seen = 0;
        for (stack, count) in waits.in_function(function) {
            let frames: Vec<&str> = stack.iter().map(String::as_str).collect();
            let found = classify(&Evidence {
                operation: FutexOperation::parse(128),
                value: 1,
                frames: &frames,
                kernel_lock: false,
            });
            assert_eq!(found, class, "{function}: {stack:?}");
            seen += count;
        }
        println!("{function}: {seen} waits");
        assert!(seen >= FEWEST, "{function}: {waits:#?}");
    }
}
