//! The rules, each name of them, on stacks as they are found.

use std::collections::HashSet;

use super::LockClass::{self, Condition, Kernel, Mutex, Other, Park, Semaphore};
use super::classify::bare;
use super::examples::{C, CPP, Example, RUNTIMES, RUST};
use super::rules::{ROWS, Role, is_like, row_of};
use super::{Evidence, FutexOperation, classify};

// The numbers of `include/uapi/linux/futex.h`.
const WAIT: u32 = 0;
const WAKE: u32 = 1;
const FD: u32 = 2;
const LOCK_PI: u32 = 6;
const WAIT_BITSET: u32 = 9;
const WAIT_REQUEUE_PI: u32 = 11;
const LOCK_PI2: u32 = 13;
const PRIVATE: u32 = 128;
const REALTIME: u32 = 256;

fn frames(example: &'static str) -> Vec<&'static str> {
    example.split(" < ").collect()
}

fn named(frames: &[&str]) -> LockClass {
    classify(&Evidence { frames, ..Evidence::default() })
}

fn futex(operation: u32, value: u32, frames: &[&str]) -> LockClass {
    let operation = FutexOperation::parse(operation);
    classify(&Evidence { operation, value, frames, ..Evidence::default() })
}

fn check(examples: &[Example]) {
    for (class, stack) in examples {
        assert_eq!(named(&frames(stack)), *class, "{stack}");
    }
}

/// Stacks of the C libraries.
#[test]
fn c_libraries_are_known() {
    check(C);
}

/// Stacks of Rust's library and of crates.
#[test]
fn rust_is_known() {
    check(RUST);
}

/// Stacks of C++'s libraries, and of those for parallel loops.
#[test]
fn cpp_is_known() {
    check(CPP);
}

/// Stacks of runtimes and servers.
#[test]
fn runtimes_are_known() {
    check(RUNTIMES);
}

/// Every name of every row is on a stack above, where its row is what applies.
#[test]
fn every_rule_has_an_example() {
    let mut used = HashSet::new();
    for (_, stack) in [C, RUST, CPP, RUNTIMES].concat() {
        let mut class = None;
        for frame in frames(stack) {
            let name = bare(frame);
            let Some(row) = row_of(&name, class) else { continue };
            used.extend(
                row.names.iter().filter(|pattern| is_like(&name, pattern)).map(|name| (row.of, name)),
            );
            if let Role::Leaf(of) | Role::Over(_, of) = row.role {
                class = Some(of);
            }
        }
    }
    let rules = ROWS.iter().flat_map(|row| row.names.iter().map(|name| (row.of, name)));
    let unused: Vec<_> = rules.filter(|rule| !used.contains(rule)).collect();
    assert!(unused.is_empty(), "{unused:#?}");
}

/// What names say does not depend on operation and value: neither on those of a mutex nor on those of anything else.
#[test]
fn names_go_before_values() {
    for (class, stack) in [C, RUST, CPP, RUNTIMES].concat() {
        let frames = frames(stack);
        for (operation, value) in
            [(WAIT, 2), (LOCK_PI, 0), (WAIT_BITSET, 0), (WAIT, u32::MAX), (WAIT_REQUEUE_PI, 7)]
        {
            assert_eq!(futex(PRIVATE + operation, value, &frames), class, "{operation} {value} {stack}");
        }
    }
}

/// Without names, or with those of the program only, operation and value decide.
#[test]
fn values_decide_where_names_say_nothing() {
    let nothing: [&[&str]; 4] = [
        &[],
        &["work", "main"],
        &["syscall", "my_own_lock", "pthread_cond_wait"],
        &["app+0x10", "app+0x20", "app+0x30", "app+0x40", "pthread_cond_wait"],
    ];
    for frames in nothing {
        for operation in [WAIT, WAIT_BITSET, PRIVATE, PRIVATE + WAIT_BITSET, PRIVATE + REALTIME + WAIT_BITSET]
        {
            assert_eq!(futex(operation, 2, frames), Mutex, "{frames:?}");
            assert_eq!(futex(operation, 0x8000_0010, frames), Mutex, "{frames:?}");
            assert_eq!(futex(operation, u32::MAX, frames), Park, "{frames:?}");
            assert_eq!(futex(operation, 0x8000_0000, frames), Semaphore, "{frames:?}");
            for value in [0, 1, 3, 4, 1000] {
                assert_eq!(futex(operation, value, frames), Other, "{value} {frames:?}");
            }
        }
        for operation in [LOCK_PI, PRIVATE + LOCK_PI, PRIVATE + LOCK_PI2] {
            assert_eq!(futex(operation, 0, frames), Mutex, "{frames:?}");
        }
        assert_eq!(futex(PRIVATE + WAIT_REQUEUE_PI, 2, frames), Condition, "{frames:?}");
        assert_eq!(futex(PRIVATE + WAKE, 2, frames), Other, "a wake waits for nothing: {frames:?}");
        assert_eq!(futex(FD, 2, frames), Other, "{frames:?}");
    }
}

/// What the kernel says of its own locks goes before all else.
#[test]
fn kernel_locks_are_the_kernels() {
    let evidence = Evidence { kernel_lock: true, frames: &["pthread_cond_wait"], ..Evidence::default() };
    assert_eq!(classify(&evidence), Kernel);
}

/// Names that only contain, or are contained in, those of the rules are others.
#[test]
fn similar_names_are_others() {
    for name in [
        "my_pthread_mutex_lock",
        "pthread_mutex_unlock",
        "pthread_mutex_lock_stats",
        "std::synchronised",
        "lockers",
    ] {
        assert_eq!(named(&[name]), Other, "{name}");
    }
}
