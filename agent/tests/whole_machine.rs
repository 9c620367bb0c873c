//! The main job: everything that runs on a machine, with names.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use harness::agent_run::AgentRun;
use harness::profiled::{Frame, Profile, Profiled, Sample};
use harness::running::Running;
use harness::workload::{self, Workload};
use harness::{kernel, require};
use tempfile::TempDir;

/// A compiler that compiles one large file over and over, until this is dropped.
struct Compiling {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    _directory: TempDir,
}

impl Compiling {
    fn start(compiler: &'static str, arguments: &[&str], source: &str, ending: &str) -> Self {
        let directory = TempDir::new().expect("a directory");
        let file = directory.path().join("large").with_extension(ending);
        fs::write(&file, source).expect("written");
        let mut command = Command::new(compiler);
        command.args(arguments).arg("-o").arg(directory.path().join("out")).arg(file);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let status = Running::start(&mut command).wait_at_most(std::time::Duration::from_mins(1));
                assert!(status.success(), "{command:?}");
            }
        });
        Self { stop, thread: Some(thread), _directory: directory }
    }

    /// Ends the compiler when it is through; whether it always succeeded.
    fn finish(&mut self) -> bool {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().is_none_or(|thread| thread.join().is_ok())
    }
}

impl Drop for Compiling {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Functions that keep an optimiser busy for a while.
fn large_c() -> String {
    let mut source = String::new();
    for number in 0..100 {
        writeln!(
            source,
            "int f{number}(int *a, int n) {{ int s = {number}; for (int i = 0; i < n; i++) {{ \
             a[i] = a[i] * {number} + s; if (a[i] & 1) s += a[i] / (i + 1); else s ^= i << 3; }} return s; }}"
        )
        .expect("a string takes all");
    }
    source
}

fn large_rust() -> String {
    let mut source = String::new();
    for number in 0..60 {
        writeln!(
            source,
            "pub fn f{number}(a: &mut [u32]) -> u32 {{ a.iter_mut().enumerate().map(|(i, x)| {{ \
             *x = x.wrapping_mul({number}).rotate_left(i as u32); format!(\"{{x}}\").len() as u32 }}).sum() }}"
        )
        .expect("a string takes all");
    }
    source
}

/// Asserts that there are samples which `is_theirs` accepts, and that of these at least `percent` have a frame that `is_it`
/// accepts.
#[track_caller]
fn assert_named(
    profile: &Profile,
    percent: u64,
    is_theirs: impl Fn(&Sample) -> bool,
    is_it: impl Fn(Frame<'_>) -> bool,
) {
    let theirs = || profile.samples.iter().filter(|sample| is_theirs(sample));
    let with = theirs().filter(|sample| profile.stack(sample).any(&is_it));
    let (all, right) = (theirs().map(Sample::count).sum::<u64>(), with.map(Sample::count).sum::<u64>());
    assert!(all >= 30, "{all} samples");
    assert!(right * 100 >= all * percent, "{right} of {all} samples");
}

/// Samples of this process.
fn of(running: &Running) -> impl Fn(&Sample) -> bool {
    let pid = running.pid();
    move |sample| sample.pid == pid
}

/// Samples of all processes with this name.
fn called(name: &'static str) -> impl Fn(&Sample) -> bool {
    move |sample| sample.comm == name
}

/// `0x` and hexadecimal digits, and nothing else.
fn is_bare_address(name: &str) -> bool {
    name.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// No format calls anything by a bare address.
fn assert_no_bare_address(profiled: &Profiled) {
    assert!(is_bare_address("0x7f00deadbeef") && !is_bare_address("libc.so.6+0x1f00"), "the check checks");
    let bare = profiled.profile.functions.iter().find(|function| is_bare_address(&function.name));
    assert!(bare.is_none(), "{:?}", bare.map(|function| &function.name));
    let pprof = profiled.pprof();
    for function in &pprof.function {
        let name = pprof.string_table.get(function.name as usize).expect("an index into the strings");
        assert!(!name.is_empty() && !is_bare_address(name), "{name:?}");
    }
    assert!(
        pprof.location.iter().all(|location| !location.line.is_empty()),
        "viewers show those as addresses"
    );
    for line in profiled.text("cpu.folded").lines() {
        let (stack, _) = line.rsplit_once(' ').expect("a stack and its value");
        let bare = stack.split(';').find(|frame| is_bare_address(frame.trim_end_matches("_[k]")));
        assert_eq!(bare, None, "{line}");
    }
    let table = profiled.text("cpu.txt");
    assert!(!table.split_whitespace().any(is_bare_address), "{table}");
}

/// The reference reader reads the file, and shows the functions that this test knows.
fn assert_pprof_reads(file: &Path) {
    let output = Command::new("go").args(["tool", "pprof", "-top", "-nodecount=1000"]).arg(file).output();
    let output = output.expect("go runs");
    let top = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(top.contains("Type: cpu") && top.contains("main.burn") && top.contains("Furnace"), "{top}");
    // The functions are in the last column, the addresses of others would stand there too.
    let names = top.lines().filter_map(|line| line.split_whitespace().nth(5));
    assert_eq!(names.into_iter().find(|name| is_bare_address(name)), None, "{top}");
}

/// With two compilers, a Python script, a Go program and a Rust program running, `agent --once` names the hot functions of
/// each; kernel frames have names; nothing anywhere is called by a bare address; `go tool pprof` reads the file.
#[test]
fn everything_on_the_machine_has_names() {
    let Some(_leave) = kernel::alone(&["gcc", "go", "rustc"]) else { return };
    // Not the first in the path, which may be a script that starts another.
    let python = Path::new("/usr/bin/python3");
    if !require("/usr/bin/python3", python.exists()) {
        return;
    }
    let go = Workload::go("burn.go", "burn_go");
    let rust = Workload::rust("burn.rs", "burn_rust");
    let python = Running::start(Command::new(python).arg(workload::source("burn.py")));
    let (go, rust) = (go.start(), rust.start());
    let mut c_compiler = Compiling::start("gcc", &["-O2", "-c"], &large_c(), "c");
    let mut rust_compiler =
        Compiling::start("rustc", &["-O", "--crate-type=lib", "--emit=obj"], &large_rust(), "rs");
    let profiled = AgentRun::start(&[]).finish();
    assert!(c_compiler.finish() && rust_compiler.finish(), "the compilers had something to do");

    let profile = &profiled.profile;
    assert!((9.9..11.0).contains(&profile.duration_seconds), "ten seconds are the default");
    assert_named(profile, 90, of(&go), |frame| frame.name == "main.burn");
    // The newer of the two manglings tells the type, the older one its parameter: Furnace<u32> or Furnace<Fuel>.
    let (start, end) = ("<burn::furnace::Furnace<", "> as burn::furnace::Burn>::burn");
    assert_named(profile, 90, of(&rust), |frame| frame.name.starts_with(start) && frame.name.ends_with(end));
    // Debian strips python3 and cc1; what python3 exports has names.
    assert_named(profile, 90, of(&python), |frame| frame.module.contains("/python3"));
    assert_named(profile, 10, of(&python), |frame| frame.name == "_PyEval_EvalFrameDefault");
    assert_named(profile, 90, called("cc1"), |frame| {
        frame.module.ends_with("/cc1") || frame.kind == "kernel"
    });
    assert_named(profile, 90, called("rustc"), |frame| frame.named);

    let kernel: Vec<_> = profile.frames().filter(|frame| frame.kind == "kernel").collect();
    assert!(kernel.len() > 100 && kernel.iter().any(|frame| frame.module == "[kernel]"));
    let nameless = kernel.iter().find(|frame| !frame.named).map(|frame| frame.name);
    assert_eq!(nameless, None);
    assert_eq!(profile.accounting.unresolved("kernel_hidden"), 0);
    assert_no_bare_address(&profiled);
    assert_pprof_reads(&profiled.file("cpu.pb.gz"));
}
