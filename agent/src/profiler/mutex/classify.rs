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

/// What compilers append to the names of a function's parts and clones.
const CLONES: [&str; 5] = [".constprop", ".isra", ".part", ".cold", ".lto_priv"];

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
    if evidence.kernel_lock {
        return LockClass::Kernel;
    }
    by_names(evidence.frames).unwrap_or_else(|| by_value(evidence.operation, evidence.value))
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

/// What operation and value say. A value is what a program makes of it: a barrier of glibc waits with the number of its round, which
/// is 2 in its third, and a condition of musl always waits with 2; so names go first.
fn by_value(operation: Option<FutexOperation>, value: u32) -> LockClass {
    match operation.map(|operation| operation.command) {
        Some(FutexCommand::LockPi | FutexCommand::LockPi2) => LockClass::Mutex,
        Some(FutexCommand::WaitRequeuePi) => LockClass::Condition,
        Some(FutexCommand::Wait | FutexCommand::WaitBitset) => match value {
            CONTENDED => LockClass::Mutex,
            // A parked thread of Rust; a semaphore of older versions of musl.
            u32::MAX => LockClass::Park,
            // One of newer versions.
            WAITERS => LockClass::Semaphore,
            value if value & WAITERS != 0 => LockClass::Mutex,
            _ => LockClass::Other,
        },
        _ => LockClass::Other,
    }
}

/// The name as the rules have it: demangled, without template and generic arguments, parameters, what compilers append to clones, and
/// without the underscores and `__GI_` that C libraries put before the names of one and the same function.
pub(super) fn bare(frame: &str) -> Cow<'_, str> {
    match demangle(frame) {
        Cow::Borrowed(name) => tidy(name),
        Cow::Owned(name) => Cow::Owned(tidy(&name).into_owned()),
    }
}

fn tidy(name: &str) -> Cow<'_, str> {
    let name = name.strip_prefix("__GI_").unwrap_or(name).trim_start_matches('_');
    // Functions of assembly in Go, by its linker.
    let name = name.strip_suffix(".abi0").unwrap_or(name);
    let name = CLONES.iter().fold(name, |name, clone| name.find(clone).map_or(name, |at| &name[..at]));
    let Cow::Owned(short) = without_arguments(name) else { return Cow::Borrowed(before_parameters(name)) };
    // `<T as Trait>::function` is the function of T.
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

/// Whether it is `module+0xoffset` or a marker.
fn is_nameless(frame: &str) -> bool {
    let is_hex = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    frame.starts_with('[') || frame.rsplit_once("+0x").is_some_and(|(_, offset)| is_hex(offset))
}
