//! The engine: LLVM's libFuzzer around one of the targets. `cargo xtask fuzz` builds and runs it.
//!
//! `fuzz` alone lists the targets; `fuzz NAME [ARGUMENT…]` runs one, with libFuzzer's arguments (`-help=1` lists them; a file is
//! an input to try).

use std::env;
use std::ffi::{CString, c_char, c_int};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use std::sync::OnceLock;

use agent_fuzz::Target;
use agent_fuzz::targets::TARGETS;
use libfuzzer_sys::fuzz_target;

/// What libFuzzer itself bounds: resident memory, its corpus included, and seconds for an execution, which takes
/// well below a millisecond. The heap is bounded by the target.
const LIMITS: [&str; 3] = ["-rss_limit_mb=512", "-timeout=5", "-report_slow_units=1"];

static CHOSEN: OnceLock<&Target> = OnceLock::new();

fuzz_target!(|input: &[u8]| {
    if let Some(target) = CHOSEN.get() {
        target.execute(input);
    }
});

type Execute = unsafe extern "C" fn(*const u8, usize) -> c_int;

unsafe extern "C" {
    /// `FuzzerInterface.h`: fuzzing as a function, for programs that have a `main` of their own. Does not return.
    fn LLVMFuzzerRunDriver(count: *mut c_int, arguments: *mut *mut *mut c_char, execute: Execute) -> c_int;
    /// `libfuzzer_sys` defines it; it calls what [`fuzz_target`] makes.
    fn LLVMFuzzerTestOneInput(input: *const u8, length: usize) -> c_int;
}

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let Some(name) = arguments.next() else {
        for target in TARGETS {
            println!("{}", target.name);
        }
        return ExitCode::SUCCESS;
    };
    let Some(target) = TARGETS.iter().find(|target| name == target.name) else {
        eprintln!("no fuzz target {}", name.display());
        return ExitCode::FAILURE;
    };
    let target = CHOSEN.get_or_init(|| target);
    let limits = LIMITS.iter().map(|limit| (*limit).to_owned());
    let limits = limits.chain([format!("-max_len={}", target.longest_input)]).map(String::into_bytes);
    // What is given counts: of two that contradict each other libFuzzer takes the last. libFuzzer starts itself again by the
    // first when it minimizes.
    let words = [env::args_os().next().unwrap_or_default().into_vec()];
    let words = words.into_iter().chain(limits).chain(arguments.map(OsStringExt::into_vec));
    run(words.filter_map(|word| CString::new(word).ok()).collect())
}

fn run(words: Vec<CString>) -> ExitCode {
    let mut pointers: Vec<*mut c_char> = words.into_iter().map(CString::into_raw).collect();
    let Ok(mut count) = c_int::try_from(pointers.len()) else { return ExitCode::FAILURE };
    pointers.push(std::ptr::null_mut());
    let mut arguments = pointers.as_mut_ptr();
    // SAFETY: as many strings as `count` says, with a null behind them, that live on: they are never freed.
    // `LLVMFuzzerTestOneInput` takes any bytes.
    let status = unsafe { LLVMFuzzerRunDriver(&raw mut count, &raw mut arguments, LLVMFuzzerTestOneInput) };
    u8::try_from(status).map_or(ExitCode::FAILURE, ExitCode::from)
}
