//! From a stack, and what futex(2) was asked for, to the class of the wait.

use std::borrow::Cow;

use super::lock_class::LockClass;
use super::operation::{FutexCommand, FutexOperation};
use super::rules::{Role, row_of};
use crate::symbol::demangle::{demangle, without_arguments};

/// Frames that are looked at, from the leaf: libraries' layers of locks are less deep.
const MOST_FRAMES: usize = 32;
/// Frames without a name that may stand before the first that says something: functions that a stripped library does not export.
const MOST_NAMELESS: usize = 3;
/// The value that says "taken, and somebody waits" in mutexes of glibc, Rust, Go, GLib and most that were written after them.
const CONTENDED: u32 = 2;
/// The bit that says so where the rest of the value tells the holder: musl's mutexes, glibc's robust ones.
const WAITERS: u32 = 1 << 31;

/// The bit by which the locks of musl's `FILE`s say so.
const STDIO_WAITERS: u32 = 1 << 30;
/// Functions between a wait and the kernel that only musl has, and what its shared library is called.
const MUSL: [&str; 4] = ["syscall_cp_c", "syscall_cp_asm", "timedwait_cp", "futexwait"];
const MUSL_LIBRARIES: [&str; 2] = ["ld-musl-", "libc.musl-"];
/// What compilers append to the names of a function's parts and clones.
const CLONES: [&str; 5] = [".constprop", ".isra", ".part", ".cold", ".lto_priv"];

/// What stands behind the name of a function that was found by guessing.
const GUESSED: &str = " [guessed]";

/// What is known of a wait.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence<'a> {
    /// What futex(2) was asked for, where the thread was in it.
    pub operation: Option<FutexOperation>,
    /// The value with which the thread expected to wait; means something for [`FutexCommand::Wait`] and
    /// [`FutexCommand::WaitBitset`] only.
    pub value: u32,
    /// Functions of the user's stack, leaf first, inlined ones too: demangled, short, or as linkers write them.
    pub frames: &'a [&'a str],
    /// Whether the kernel said that the thread waits for a lock of its own.
    pub kernel_lock: bool,
}

/// What kind of thing the thread waits for. Names decide; where they say nothing, operation and value do.
pub fn classify(evidence: &Evidence<'_>) -> LockClass {
    let Evidence { operation, value, frames, kernel_lock } = *evidence;
    if kernel_lock {
        return LockClass::Kernel;
    }
    by_names(frames).unwrap_or_else(|| match operation.map(|operation| operation.command) {
        Some(FutexCommand::LockPi | FutexCommand::LockPi2) => LockClass::Mutex,
        Some(FutexCommand::WaitRequeuePi) => LockClass::Condition,
        Some(FutexCommand::Wait | FutexCommand::WaitBitset) if is_musl(frames) => by_value_of_musl(value),
        Some(FutexCommand::Wait | FutexCommand::WaitBitset) => by_value(value),
        _ => LockClass::Other,
    })
}

/// Goes from the leaf outwards as long as frames belong to the wait.
fn by_names(frames: &[&str]) -> Option<LockClass> {
    let mut class = None;
    let mut nameless = 0;
    for frame in frames.iter().take(MOST_FRAMES) {
        match row_of(&bare(frame), class).map(|row| row.role) {
            Some(Role::Layer) => {}
            Some(Role::Leaf(decided) | Role::Over(_, decided)) => class = Some(decided),
            None if class.is_none() && nameless < MOST_NAMELESS && is_nameless(frame) => nameless += 1,
            None => break,
        }
    }
    class
}

/// What the value says. It is what a program makes of it: a barrier of glibc waits with the number of its round, which is 2 in some,
/// and conditions and atomics with counters; so names go first.
fn by_value(value: u32) -> LockClass {
    match value {
        CONTENDED => LockClass::Mutex,
        // A parked thread of Rust.
        u32::MAX => LockClass::Park,
        // A semaphore of musl's newer versions, a future of libstdc++.
        WAITERS => LockClass::Semaphore,
        value if value & WAITERS != 0 => LockClass::Mutex,
        _ => LockClass::Other,
    }
}

/// What it says in musl, whose stacks are often cut: its functions have no unwind information. No mutex of its own waits with
/// 2, but conditions, and threads that wait for another's end.
fn by_value_of_musl(value: u32) -> LockClass {
    match value {
        CONTENDED => LockClass::Condition,
        // Of older versions, or a lock for reading.
        u32::MAX | WAITERS => LockClass::Semaphore,
        value if value & (WAITERS | STDIO_WAITERS) != 0 => LockClass::Mutex,
        _ => LockClass::Other,
    }
}

/// Whether the thread went into the kernel by musl.
fn is_musl(frames: &[&str]) -> bool {
    let leaves = frames.iter().take(MUSL.len());
    leaves.into_iter().any(|frame| {
        MUSL.contains(&&*bare(frame).short) || MUSL_LIBRARIES.iter().any(|library| frame.starts_with(library))
    })
}

/// A function's name as the rules have it.
#[derive(Clone, Debug)]
pub(super) struct BareName<'a> {
    /// Demangled, without template and generic arguments, parameters, what compilers append to clones, and without the underscores and
    /// `__GI_` that C libraries put before the names of one and the same function.
    pub(super) short: Cow<'a, str>,
    /// Demangled, with arguments.
    pub(super) full: Cow<'a, str>,
}

/// What the rules look at of `frame`.
pub(super) fn bare(frame: &str) -> BareName<'_> {
    let full = demangle(frame.strip_suffix(GUESSED).unwrap_or(frame));
    let short = match &full {
        Cow::Borrowed(name) => tidy(name),
        Cow::Owned(name) => Cow::Owned(tidy(name).into_owned()),
    };
    BareName { short, full }
}

fn tidy(name: &str) -> Cow<'_, str> {
    let name = name.strip_prefix("__GI_").unwrap_or(name).trim_start_matches('_');
    // Functions of assembly in Go, by its linker.
    let name = name.strip_suffix(".abi0").unwrap_or(name);
    let name = CLONES.iter().fold(name, |name, clone| name.find(clone).map_or(name, |at| &name[..at]));
    let Cow::Owned(short) = without_arguments(name) else { return Cow::Borrowed(before_parameters(name)) };
    // `<T>::function` and `<T as Trait>::function` are the function of T.
    let of_type = short.strip_prefix('<').and_then(|rest| rest.split_once('>'));
    let short = match of_type {
        Some((of, function)) => format!("{}{function}", of.split(" as ").next().unwrap_or(of)),
        None => short,
    };
    Cow::Owned(before_parameters(&short).to_owned())
}

/// Other tools' names have parameters: `f(int)`. `(anonymous namespace)::f`, `operator()` and Go's `pkg.(*T).f` have none.
fn before_parameters(name: &str) -> &str {
    let begins = |at: usize| {
        let before = &name[..at];
        !before.is_empty() && !["::", ".", "operator"].iter().any(|end| before.ends_with(end))
    };
    name.find('(').filter(|at| begins(*at)).map_or(name, |at| &name[..at])
}

/// Whether it is `module+0xoffset`, a marker, or one that may not be there at all.
fn is_nameless(frame: &str) -> bool {
    let is_hex = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    frame.ends_with(GUESSED)
        || frame.starts_with('[')
        || frame.rsplit_once("+0x").is_some_and(|(_, offset)| is_hex(offset))
}
