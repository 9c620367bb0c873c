//! Whole user stacks of programs without frame pointers, from the leaf to the thread's start, on a live kernel.
//!
//! A window's programs share two CPUs or so, and a case needs some dozen samples. All samples of a window count, also those before
//! the tables are warm: a walk that meets a cold page is finished by the agent, and whole as well.

mod harness;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use harness::agent_run::AgentRun;
use harness::call_chain::Want::{In, Name};
use harness::call_chain::{MAIN, MAIN_STATIC, THREAD, below, chain, ends_as, is_guessed, is_in};
use harness::kernel;
use harness::profiled::{Frame, Profile, Sample};
use harness::running::Running;
use harness::stripped::Stripped;
use harness::workload::Workload;
use nix::sys::signal::Signal;

/// Samples without which a case proves nothing.
const ENOUGH: u64 = 30;

/// A process that is being profiled.
struct Case {
    running: Running,
    workload: Workload,
}

impl Case {
    fn start(workload: Workload) -> Self {
        Self::start_with(workload, &[])
    }

    fn start_with(workload: Workload, arguments: &[&OsStr]) -> Self {
        Self { running: workload.start_with(arguments), workload }
    }

    /// Starts `command`, which comes to run `program`.
    fn start_command(program: &Path, workload: Workload, command: &mut Command) -> Self {
        let running = Running::start(command.stdout(Stdio::null()));
        Self { running: running.wait_for_program(program), workload }
    }

    /// A C program without frame pointers.
    fn c(name: &str, program: &str, flags: &[&str]) -> Workload {
        Workload::plain("gcc", &format!("stacks/{name}.c"), program, flags)
    }

    /// User frames of each stack, leaf first, with the sample; samples of the kernel's own making apart.
    fn stacks<'a>(&self, profile: &'a Profile) -> Vec<(&'a Sample, Vec<Frame<'a>>)> {
        let stack = |sample| profile.stack(sample).filter(|frame| frame.kind != "kernel").collect();
        profile.of(self.running.pid()).map(|sample| (sample, stack(sample))).collect()
    }

    /// Asserts that 99 % of the samples have a stack that `is_whole` accepts and that is not marked as truncated; how many
    /// there are of each stack's leaf.
    ///
    /// One bad sample is let pass with fewer than a hundred: a share of one percent cannot be told apart there.
    fn assert_whole(
        &self,
        profile: &Profile,
        is_whole: impl Fn(&[Frame<'_>]) -> bool,
    ) -> BTreeMap<String, u64> {
        self.assert_samples(profile, |sample, stack| sample.truncated.is_none() && is_whole(stack))
    }

    fn assert_samples(
        &self,
        profile: &Profile,
        is_right: impl Fn(&Sample, &[Frame<'_>]) -> bool,
    ) -> BTreeMap<String, u64> {
        let program = self.workload.program().display();
        let (mut total, mut wrong, mut report, mut leaves) = (0, 0, Vec::new(), BTreeMap::new());
        for (sample, stack) in self.stacks(profile) {
            total += sample.count();
            let names: Vec<_> = stack.iter().map(|frame| frame.name).collect();
            *leaves.entry(names.first().copied().unwrap_or("").to_owned()).or_default() += sample.count();
            if !is_right(sample, &stack) {
                wrong += sample.count();
                report.push(format!("{} × {:?} {}", sample.count(), sample.truncated, names.join(" < ")));
            }
        }
        let report = report.join("\n");
        println!("{program}: {wrong} of {total} wrong\n{report}");
        assert!(total >= ENOUGH, "{program}: {total} samples");
        assert!(wrong <= (total / 100).max(1), "{program}: {wrong} of {total} stacks are wrong:\n{report}");
        leaves
    }
}

/// Profiles the processes of `cases` for three seconds; `meanwhile` runs when samples are being taken.
fn profile(cases: &[&Case], meanwhile: impl FnOnce()) -> Profile {
    let pids: Vec<_> = cases.iter().map(|case| case.running.pid().to_string()).collect();
    // What is inlined is no frame of the stack that is walked.
    let mut arguments = vec!["--duration", "3s", "--frequency", "199", "--no-lines"];
    arguments.extend(pids.iter().flat_map(|pid| ["--pid", pid.as_str()]));
    let run = AgentRun::start(&arguments);
    meanwhile();
    run.finish().profile
}

const FIVE: [&str; 6] = ["leaf", "fourth", "third", "second", "first", "main"];

/// A chain of five C functions is whole in every way of linking: dynamic, static, static-pie, and stripped, where the functions
/// have no names but are as many.
#[test]
fn chains_of_c_are_whole_however_they_are_linked() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let dynamic = Case::start(Case::c("chain", "dynamic", &[]));
    let fixed = Case::start(Case::c("chain", "fixed", &["-static", "-no-pie"]));
    let static_pie = Case::start(Case::c("chain", "static-pie", &["-static-pie"]));
    let stripped = Case::start(Case::c("chain", "stripped", &["-s"]));
    let found = profile(&[&dynamic, &fixed, &static_pie, &stripped], || ());

    let leaves = dynamic.assert_whole(&found, |stack| ends_as(stack, &chain(&FIVE, MAIN)));
    assert!(leaves["leaf"] > leaves.values().sum::<u64>() * 8 / 10, "{leaves:?}");
    fixed.assert_whole(&found, |stack| ends_as(stack, &chain(&FIVE, MAIN_STATIC)));
    static_pie.assert_whole(&found, |stack| ends_as(stack, &chain(&FIVE, MAIN_STATIC)));

    let ours = In("stripped");
    let nameless = [&[ours; 6], &MAIN[..2], &[ours]].concat();
    stripped.assert_whole(&found, |stack| {
        ends_as(stack, &nameless) && !stack.iter().any(|frame| is_in(frame, "stripped") && frame.named)
    });
    let full = stripped.stacks(&found).iter().filter(|(_, stack)| stack.len() == nameless.len()).count();
    assert!(full > 0, "the leaf's stacks have as many frames as the dynamic program's");
}

/// Stacks of a second thread, of frames whose size is known at run time only, and of code that was made at run time with frame
/// pointers between functions without, are whole.
#[test]
fn stacks_of_threads_odd_frames_and_made_code_are_whole() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let thread = Case::start(Case::c("thread", "thread", &[]));
    let sizes = Case::start(Case::c("frame_sizes", "sizes", &[]));
    let made = Case::start(Case::c("jit", "made", &[]));
    let found = profile(&[&thread, &sizes, &made], || ());

    let names = chain(&["leaf", "middle", "thread_main"], THREAD);
    thread.assert_whole(&found, |stack| ends_as(stack, &names));
    let names = chain(&["leaf", "inner", "outer", "main"], MAIN);
    sizes.assert_whole(&found, |stack| ends_as(stack, &names));

    // The made function's code is told by its offset in the mapping: behind the calls at 0xa and 256 bytes on.
    let names = chain(&["leaf", "[anon]+0x10b", "[anon]+0xb", "call_made", "main"], MAIN);
    made.assert_whole(&found, |stack| ends_as(stack, &names));
}

/// Stacks across a frame of 600,000 bytes are whole: the program walks them by itself. No copied slice reaches over that frame, so the
/// few samples before the tables are warm end there, and say so.
#[test]
fn stacks_across_a_far_frame_are_whole() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let case = Case::start(Case::c("far", "far", &[]));
    let found = profile(&[&case], || ());
    let names = chain(&["leaf", "wide", "main"], MAIN);
    case.assert_samples(&found, |sample, stack| match sample.truncated.as_deref() {
        None => ends_as(stack, &names),
        cause => cause == Some("slice"),
    });
    let stacks = case.stacks(&found);
    let (all, cut) = stacks.iter().fold((0, 0), |(all, cut), (sample, _)| {
        (all + sample.count(), cut + if sample.truncated.is_some() { sample.count() } else { 0 })
    });
    assert!(cut * 10 <= all, "{cut} of {all} stacks end at the far frame");
}

/// A stack of 120 recursive frames is whole; of 1,000 the 127 innermost are kept, and it is said that there were more.
#[test]
fn recursions_are_whole_up_to_the_limit_of_frames() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let shallow = Case::start_with(Case::c("recursion", "shallow", &[]), &[OsStr::new("120")]);
    let deep = Case::start_with(Case::c("recursion", "deep", &[]), &[OsStr::new("1000")]);
    let found = profile(&[&shallow, &deep], || ());

    let names = chain(&[&["recurse"; 120][..], &["main"]].concat(), MAIN);
    shallow.assert_whole(&found, |stack| stack.len() == names.len() && ends_as(stack, &names));
    deep.assert_samples(&found, |sample, stack| {
        let right = stack.len() == 127 && stack.iter().all(|frame| frame.name == "recurse");
        right && sample.truncated.as_deref() == Some("depth")
    });
}

/// A signal handler's stacks go on through the signal's frame to the interrupted function and its callers.
#[test]
fn stacks_of_signal_handlers_go_on_where_they_interrupted() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let case = Case::start(Case::c("signal", "signal", &[]));
    let found = profile(&[&case], || ());

    let names = chain(&["interrupted", "caller", "main"], MAIN);
    // `__restore_rt` is local to libc: it has no name, but it is one frame.
    let handler = [Name("spin_in_handler"), Name("on_signal"), In("libc.so.6")];
    let leaves = case.assert_whole(&found, |stack| {
        let handlers = stack.iter().position(|frame| frame.name == "on_signal").map_or(0, |at| at + 2);
        let Some((above, interrupted)) = stack.split_at_checked(handlers) else { return false };
        (above.is_empty() || ends_as(above, &handler)) && ends_as(interrupted, &names)
    });
    assert!(leaves["spin_in_handler"] >= ENOUGH && leaves["interrupted"] >= ENOUGH, "{leaves:?}");
}

/// A library that is loaded while the program is being profiled is walked like one that was there before.
#[test]
fn stacks_through_a_library_loaded_meanwhile_are_whole() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let library = Case::c("library", "library.so", &["-shared", "-fPIC"]);
    let case = Case::start_with(Case::c("dlopen", "loader", &[]), &[library.program().as_os_str()]);
    let found = profile(&[&case], || {
        std::thread::sleep(std::time::Duration::from_secs(1));
        case.running.signal(Signal::SIGUSR1);
    });

    let waiting = chain(&["wait_for_signal", "main"], MAIN);
    let loaded = chain(&["leaf_in_library", "work_in_library", "call_library", "main"], MAIN);
    let leaves = case.assert_whole(&found, |stack| ends_as(stack, &waiting) || ends_as(stack, &loaded));
    assert!(leaves["wait_for_signal"] >= ENOUGH && leaves["leaf_in_library"] >= ENOUGH, "{leaves:?}");
}

/// Stacks of C++ code that throws and catches are whole through the runtime's own functions.
///
/// Except for an instant of each exception: having found the handler, `_Unwind_RaiseException` overwrites its own return
/// address and saved registers with the handler's (libgcc, `uw_install_context`), while its frame still stands. The callers
/// below it are not in memory any more, so nobody can find them; these stacks are told by a missing `__cxa_throw`.
#[test]
fn stacks_of_exceptions_are_whole() {
    let Some(_leave) = kernel::alone(&["gcc", "g++"]) else { return };
    let case = Case::start(Workload::plain("g++", "stacks/throw.cc", "throw", &[]));
    let found = profile(&[&case], || ());

    let ours = |frame: &Frame<'_>| is_in(frame, "throw") && !frame.name.ends_with("@plt");
    let is_replaced = |stack: &[Frame<'_>]| {
        let raise = stack.iter().position(|frame| frame.name == "_Unwind_RaiseException");
        raise.and_then(|at| stack.get(at + 1)).is_some_and(|frame| frame.name.starts_with("catcher"))
    };
    let names = chain(&["thrower", "between", "catcher", "outer", "main"], MAIN);
    // Compilers move what seldom happens into a part of its own; both parts are one function.
    let name = |frame: &Frame<'_>| frame.name.trim_end_matches(".cold").to_owned();
    let leaves = case.assert_samples(&found, |sample, stack| {
        let rest = below(stack, |frame| !ours(frame) || frame.name == "hot_in_catch");
        let uncut: Vec<_> = rest.iter().map(name).collect();
        let rest: Vec<_> = rest.iter().zip(&uncut).map(|(frame, name)| Frame { name, ..*frame }).collect();
        is_replaced(stack) || sample.truncated.is_none() && ends_as(&rest, &names)
    });
    assert!(leaves["hot_in_catch"] >= 5, "{leaves:?}");
    let stacks = case.stacks(&found);
    let count = |is_it: &dyn Fn(&[Frame<'_>]) -> bool| -> u64 {
        stacks.iter().filter(|(_, stack)| is_it(stack)).map(|(sample, _)| sample.count()).sum()
    };
    let (replaced, all) = (count(&is_replaced), count(&|_| true));
    assert!(replaced * 20 <= all, "{replaced} of {all} stacks are being replaced");
    let thrown = count(&|stack| stack.iter().any(|frame| frame.name == "__cxa_throw"));
    assert!(thrown >= ENOUGH, "{thrown} of {all} stacks throw");
}

/// Stacks of a Rust release build and of Go are whole.
#[test]
fn stacks_of_rust_and_go_are_whole() {
    let Some(_leave) = kernel::alone(&["rustc", "go"]) else { return };
    let rust = Case::start(Workload::rust_release("stacks/chain.rs", "rust"));
    let go = Case::start(Workload::go("stacks/chain.go", "go"));
    let found = profile(&[&rust, &go], || ());

    let start = [
        "std::sys::backtrace::__rust_begin_short_backtrace",
        "std::rt::lang_start::{{closure}}",
        "std::rt::lang_start_internal",
        "main",
    ];
    let ours = ["chain::leaf", "chain::middle", "chain::outer", "chain::main"];
    rust.assert_whole(&found, |stack| ends_as(stack, &chain(&[ours, start].concat(), MAIN)));

    let names = ["main.leaf", "main.middle", "main.burn", "main.main", "runtime.main", "runtime.goexit"];
    let ours = |frame: &Frame<'_>| frame.name.starts_with("main.");
    // The runtime's own threads, and what it does on its own stack to preempt or to grow a stack, are no calls of the program's.
    let of_runtime = |stack: &[Frame<'_>]| !stack.iter().any(ours);
    let leaves = go.assert_samples(&found, |sample, stack| {
        of_runtime(stack)
            || sample.truncated.is_none() && ends_as(below(stack, |frame| !ours(frame)), &chain(&names, &[]))
    });
    let (main, all) =
        (found.count_with(go.running.pid(), |frame| ours(&frame)), leaves.values().sum::<u64>());
    assert!(main * 100 >= all * 97, "{main} of {all} samples are of the program's own functions: {leaves:?}");
}

/// Whether a stack was cut where the code `switches` leaves one stack for another: a walk that the agent has to finish, because rows
/// were not there yet, has a copy of one stack only.
fn is_cut_at_switch(sample: &Sample, stack: &[Frame<'_>], switches: &[&str]) -> bool {
    let cut = sample.truncated.as_deref() == Some("slice");
    cut && stack.last().is_some_and(|last| switches.contains(&last.name))
}

/// Samples that hit before the rows for a switch of stacks are there: those of a tenth of a second, by two threads.
const COLD: u64 = 40;

/// Stacks of goroutines are whole down to where goroutines begin, also those that go on on another stack (Go's runtime asks the
/// kernel's library for the time on the thread's own), in a plain program and in a stripped one, which has the same names.
#[test]
fn stacks_of_goroutines_are_whole_across_stacks_and_without_symbols() {
    let Some(_leave) = kernel::alone(&["go"]) else { return };
    let plain = Case::start(Workload::go("stacks/clock.go", "plain"));
    let stripped = ["-ldflags", "-s -w"];
    let stripped = Case::start(Workload::go_with("stacks/clock.go", "stripped", &stripped, false));
    for case in [&plain, &stripped] {
        let found = profile(&[case], || ());
        let ours = |frame: &Frame<'_>| frame.name.starts_with("main.");
        let end = [Name("runtime.goexit")];
        let main = chain(&["main.work", "main.main", "runtime.main"], &end);
        let second = chain(&["main.work", "main.second"], &end);
        let in_vdso = |stack: &[Frame<'_>]| stack.first().is_some_and(|leaf| leaf.module == "[vdso]");
        let callees = |frame: &Frame<'_>| !ours(frame) || ["main.leaf", "main.clock"].contains(&frame.name);
        // What the runtime does by itself is no call of the program's.
        let of_runtime = |stack: &[Frame<'_>]| !stack.iter().any(ours) && !in_vdso(stack);
        let cut = Cell::new(0);
        let leaves = case.assert_samples(&found, |sample, stack| {
            let rest = below(stack, callees);
            if is_cut_at_switch(sample, stack, &["time.now", "runtime.nanotime1"]) {
                cut.set(cut.get() + sample.count());
                return true;
            }
            of_runtime(stack)
                || sample.truncated.is_none()
                    && (ends_as(rest, &main) || ends_as(rest, &second))
                    && in_vdso(stack)
                        == (in_vdso(stack) && stack.iter().any(|frame| frame.name == "main.clock"))
        });
        let pid = case.running.pid();
        let clock = found.count_with(pid, |frame| frame.module == "[vdso]");
        assert!(
            cut.get() <= COLD && clock > cut.get(),
            "{} of {clock} stacks on another stack are cut",
            cut.get()
        );
        assert!(leaves["main.leaf"] >= ENOUGH, "{leaves:?}");
        let all = leaves.values().sum::<u64>();
        let ours = found.count_with(case.running.pid(), |frame| ours(&frame));
        assert!(
            ours * 100 >= all * 97,
            "{ours} of {all} samples are of the program's own functions: {leaves:?}"
        );
    }
}

/// Stacks of C code that Go calls, on a thread's stack, go on through the goroutine that called it.
#[test]
fn stacks_of_c_called_by_go_are_whole() {
    let Some(_leave) = kernel::alone(&["go", "gcc"]) else { return };
    let arguments = ["-ldflags", "-linkmode=external"];
    let case = Case::start(Workload::go_with("stacks/cgo.go", "cgo", &arguments, true));
    let found = profile(&[&case], || ());
    // Before Go 1.21 `asmcgocall` has no frame, and the frame of its caller, `cgocall`, is passed over.
    let names = ["main._Cfunc_burn", "main.call", "main.main", "runtime.main", "runtime.goexit"];
    let cut = Cell::new(0);
    let leaves = case.assert_samples(&found, |sample, stack| {
        if is_cut_at_switch(sample, stack, &["runtime.asmcgocall"]) {
            cut.set(cut.get() + sample.count());
            return true;
        }
        let in_c = stack.iter().any(|frame| frame.name == "leaf_in_c");
        let rest = below(stack, |frame| !frame.name.starts_with("main."));
        let runtime = !in_c && rest.is_empty();
        let crosses = stack.get(2).is_some_and(|frame| frame.name == "runtime.asmcgocall");
        runtime || sample.truncated.is_none() && ends_as(rest, &chain(&names, &[])) && (!in_c || crosses)
    });
    assert!(
        cut.get() <= COLD && leaves["leaf_in_c"] >= cut.get() + ENOUGH,
        "{} are cut: {leaves:?}",
        cut.get()
    );
}

/// A program of musl's is whole as far as there is CFI, that is to `main`; below it, what is found in musl's code, which has
/// none, is marked as a guess.
#[test]
fn stacks_of_musl_are_whole_and_say_what_is_guessed() {
    let Some(_leave) = kernel::alone(&["musl-gcc"]) else { return };
    let build = |program: &str, flags: &[&str]| {
        Case::start(Workload::plain("musl-gcc", "stacks/chain.c", program, flags))
    };
    let (dynamic, fixed) = (build("musl", &[]), build("musl-static", &["-static"]));
    let found = profile(&[&dynamic, &fixed], || ());

    // `main` returns into this function of musl's: that is certain. Its own caller is not.
    let below_main = [("libc.so", &dynamic), ("musl-static", &fixed)];
    for (file, case) in below_main {
        let names = chain(&FIVE, &[In(file), Name("_start [guessed]")]);
        case.assert_whole(&found, |stack| ends_as(stack, &names));
    }
}

/// A thread of musl's is whole as far as there is CFI, and ends where musl's threads begin; what is between is marked as a guess.
#[test]
fn stacks_of_musl_threads_are_whole() {
    let Some(_leave) = kernel::alone(&["musl-gcc"]) else { return };
    let case = Case::start(Workload::plain("musl-gcc", "stacks/thread.c", "musl-thread", &[]));
    let found = profile(&[&case], || ());
    let names = chain(&["leaf", "middle", "thread_main"], &[In("libc.so")]);
    let leaves = case.assert_whole(&found, |stack| {
        let certain = stack.iter().position(is_guessed).unwrap_or(stack.len());
        ends_as(&stack[..certain], &names)
    });
    assert!(leaves["leaf"] >= ENOUGH, "{leaves:?}");
}

/// The functions that call `malloc`, a contended lock and the scheduler stand right below what they call, up to the kernel.
#[test]
fn direct_callers_of_malloc_futex_and_the_scheduler_are_there() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    // The stub that jumps to the library is the caller's own, for an instruction.
    let called = |frame: &Frame<'_>| is_in(frame, "libc.so.6") || frame.name.ends_with("@plt");
    let cases = [
        ("allocate", chain(&["allocate", "caller", "main"], MAIN), None),
        ("contend", chain(&["contend", "thread_main"], THREAD), Some("futex")),
        ("yield", chain(&["yielding", "main"], MAIN), Some("sched_yield")),
    ];
    for (program, names, call) in cases {
        // One after the other: who yields and who waits gets little of a CPU that others want too.
        let case = Case::start(Case::c(program, program, &[]));
        let found = profile(&[&case], || ());
        case.assert_whole(&found, |stack| ends_as(below(stack, called), &names));
        let stacks = case.stacks(&found);
        let direct = stacks.iter().filter(|(_, stack)| {
            let rest = below(stack, called);
            rest.len() < stack.len() && ends_as(rest, &names) && rest.len() == names.len()
        });
        let direct: u64 = direct.map(|(sample, _)| sample.count()).sum();
        assert!(direct >= ENOUGH, "{program}: the direct caller is there in {direct} samples");
        if let Some(call) = call {
            let pid = case.running.pid();
            let inside = found.count_with(pid, |frame| frame.kind == "kernel" && frame.name.contains(call));
            assert!(inside >= ENOUGH, "{program}: {inside} samples in {call}");
        }
    }
}

/// A program whose only CFI is `.debug_frame`, and that was stripped of it, has whole stacks with names by its debug file: beside it by
/// link, and by build id in the process's own root and mount namespace. Without its `.debug_frame` it has not.
#[test]
fn stacks_by_the_cfi_of_a_debug_file_are_whole() {
    let tools = ["gcc", "objcopy", "strip", "unshare"];
    let Some(_leave) = kernel::alone(&tools) else { return };
    let build = |name: &str, flags: &[&str]| {
        Case::c("chain", name, &[&["-g", "-fno-asynchronous-unwind-tables"], flags].concat())
    };
    let linked = Stripped::new(build("linked", &[]));
    let beside = linked.stripped().with_file_name(linked.link_name());
    std::fs::copy(linked.debug(), beside).expect("copied");
    let program = linked.stripped().to_owned();
    let by_link = Case::start_command(&program, linked.into_workload(), Command::new("setsid").arg(&program));

    let contained = Stripped::new(build("contained", &["-static"]));
    let root = tempfile::tempdir().expect("a directory");
    let program = root.path().canonicalize().expect("there").join("contained");
    std::fs::copy(contained.stripped(), &program).expect("copied");
    let place = root.path().join("usr/lib/debug").join(contained.build_id_path());
    std::fs::create_dir_all(place.parent().expect("a directory")).expect("created");
    std::fs::copy(contained.debug(), place).expect("copied");
    let mut unshare = Command::new("setsid");
    unshare.args(["unshare", "--mount", "--root"]).arg(root.path()).args(["--wd", "/", "/contained"]);
    let in_its_root = Case::start_command(&program, contained.into_workload(), &mut unshare);

    let bare = build("bare", &[]);
    harness::stripped::run(
        Command::new("objcopy").args(["--remove-section", ".debug_frame"]).arg(bare.program()),
    );
    let bare = Case::start(bare);
    let found = profile(&[&by_link, &in_its_root, &bare], || ());

    by_link.assert_whole(&found, |stack| ends_as(stack, &chain(&FIVE, MAIN)));
    in_its_root.assert_whole(&found, |stack| ends_as(stack, &chain(&FIVE, MAIN_STATIC)));
    let stacks = bare.stacks(&found);
    let count = |is_it: &dyn Fn(&[Frame<'_>]) -> bool| -> u64 {
        stacks.iter().filter(|(_, stack)| is_it(stack)).map(|(sample, _)| sample.count()).sum()
    };
    let (whole, all) = (count(&|stack| ends_as(stack, &chain(&FIVE, MAIN))), count(&|_| true));
    assert!(all >= ENOUGH && whole * 2 < all, "{whole} of {all} stacks are whole without CFI");
}
