//! Whole stacks within the unwind tables' budget: processes with more mappings than are put there, and more code than there is room
//! for.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use harness::agent_run::AgentRun;
use harness::call_chain::Want::Name;
use harness::call_chain::{MAIN, chain, ends_as};
use harness::profiled::{Frame, Profile, Profiled, Sample};
use harness::running::Running;
use harness::workload::Workload;
use harness::{kernel, require};
use tempfile::TempDir;

/// Mappings of the process with many, besides its own few: `vm.max_map_count` is 65,530.
const MAPPINGS: &str = "65000";

/// User frames of each of the process's stacks, leaf first.
fn stacks(profile: &Profile, pid: u32) -> impl Iterator<Item = (&Sample, Vec<Frame<'_>>)> {
    let user = |sample| profile.stack(sample).filter(|frame| frame.kind != "kernel").collect();
    profile.of(pid).map(move |sample| (sample, user(sample)))
}

/// Asserts that the process's samples show the calls that it makes; 90 %, because those of the first moments may be more than the
/// unwinder's queue takes on a busy machine: these say so.
fn assert_relayed(profile: &Profile, running: &Running) {
    let calls = chain(&["burn", "relay", "relay", "relay", "main"], MAIN);
    let (mut all, mut whole) = (0, 0);
    let relayed = |stack: &[Frame<'_>]| stack.iter().any(|frame| matches!(frame.name, "burn" | "relay"));
    // The others are of the time when it maps.
    for (sample, stack) in stacks(profile, running.pid()).filter(|(_, stack)| relayed(stack)) {
        all += sample.count();
        if sample.truncated.is_none() && ends_as(&stack, &calls) {
            whole += sample.count();
        } else {
            let names: Vec<_> = stack.iter().map(|frame| frame.name).collect();
            // 65,000 mappings in a moment are more than the side-band's ring takes; those that are missing are read a second later.
            let unmapped =
                sample.truncated.as_deref() == Some("unwind") && names.last() == Some(&"[unmapped]");
            assert!(unmapped || sample.truncated.as_deref() == Some("budget"), "{names:?}");
        }
    }
    println!("{whole} of {all}");
    assert!(all > 100 && whole * 100 >= all * 90, "{whole} of {all} samples are whole");
}

/// Two processes with 65,000 mappings each, of which they use a few: one that was there before the agent, one that makes them while
/// it runs. Their stacks are whole; only the mappings that samples hit are in the arena, nothing else had to make room for
/// them, and what is known of them stays within the budget.
#[test]
fn processes_with_65000_mappings() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let limit = fs::read_to_string("/proc/sys/vm/max_map_count").expect("a limit");
    if !require("vm.max_map_count of 65530", limit.trim().parse::<u32>().is_ok_and(|limit| limit >= 65530)) {
        return;
    }
    let workload = Workload::plain("gcc", "stacks/many_mappings.c", "many_mappings", &[]);
    let start = || Running::start_until_ready(workload.command().arg(MAPPINGS));
    let before = start();
    let run = AgentRun::start(&["--duration", "8s", "--frequency", "499", "--slow-unwinds", "1000"]);
    let during = start();
    let profiled = run.finish();

    assert_relayed(&profiled.profile, &before);
    assert_relayed(&profiled.profile, &during);
    let (bytes, budget) = profiled.table("processes");
    assert!(bytes <= budget, "{bytes} bytes of mappings");
    let (hot, _) = profiled.table("unwind process mappings");
    assert!(hot < 64 << 10, "{hot} bytes of mappings are kept for the arena");
    let (arena, room) = profiled.table("unwind arena");
    assert!(arena <= room, "{arena} bytes");
    // A set of eight may be full of what the machine's other processes run.
    let [evictions, pages] = ["evictions", "pages"].map(|name| profiled.logged("arena=ArenaUse", name));
    assert!(evictions * 20 <= pages, "{evictions} evictions, {pages} pages stay");
}

/// Functions that a program has in each half of its code.
const PAIRS: u32 = 40_000;

/// Source of 40,000 functions `g<number>`, each of which calls `f<number>`, far away, which calls what it was given. Frames have many
/// sizes, differently in each text page, so that rows of another page lead astray; and so many rows that the arena's
/// smallest size holds less than half of them.
fn functions() -> String {
    let mut source = String::from(
        ".macro pair_part name size target\n\
         .p2align 5\n.type \\name,@function\n\\name:\n.cfi_startproc\n\
         push %rbx\n.cfi_adjust_cfa_offset 8\npush %r12\n.cfi_adjust_cfa_offset 8\n\
         sub $\\size, %rsp\n.cfi_adjust_cfa_offset \\size\ncall \\target\n\
         add $\\size, %rsp\n.cfi_adjust_cfa_offset -\\size\n\
         pop %r12\n.cfi_adjust_cfa_offset -8\npop %rbx\n.cfi_adjust_cfa_offset -8\nret\n\
         .cfi_endproc\n.size \\name, . - \\name\n.endm\n.text\n",
    );
    let size = |number: u32| 8 + 16 * ((number + number / 512 * 7) % 61);
    let mut write = |line: String| source.push_str(&line);
    for number in 0..PAIRS {
        write(format!("pair_part g{number} {} f{number}\n", size(number)));
    }
    for number in 0..PAIRS {
        write(format!("pair_part f{number} {} *%rdi\n", size(number + 31)));
    }
    write(".section .data.rel.ro,\"aw\"\n.p2align 3\n.globl spread_table\nspread_table:\n".to_owned());
    (0..PAIRS).for_each(|number| write(format!(".quad g{number}\n")));
    write(format!(".globl spread_count\nspread_count: .quad {PAIRS}\n.section .note.GNU-stack,\"\"\n"));
    source
}

/// Whether `stack` is what the program does: burn, f, g of the same number, main, or what is left of it.
fn is_true(stack: &[Frame<'_>]) -> bool {
    let Some(main) = stack.iter().position(|frame| frame.name == "main") else {
        return ends_as(stack, MAIN);
    };
    let calls: Vec<_> = stack[..main].iter().map(|frame| frame.name).collect();
    let right = match calls[..] {
        [] => true,
        [g] => number(g, 'g').is_some(),
        [f, g] | ["burn", f, g] => are_a_pair(f, g),
        _ => false,
    };
    let below: Vec<_> = [Name("main")].into_iter().chain(MAIN.iter().copied()).collect();
    right && ends_as(&stack[main..], &below)
}

/// The same for a stack that is cut short: as far as it goes.
fn is_true_as_far_as_it_goes(stack: &[Frame<'_>]) -> bool {
    let names: Vec<_> = stack.iter().map(|frame| frame.name).collect();
    match names.strip_prefix(&["burn"]).unwrap_or(&names) {
        [] => true,
        [one] => number(one, 'f').or(number(one, 'g')).is_some() || *one == "main",
        [f, g, ..] if number(f, 'f').is_some() => are_a_pair(f, g),
        [g, main, ..] => number(g, 'g').is_some() && *main == "main",
    }
}

fn number(name: &str, letter: char) -> Option<u32> {
    name.strip_prefix(letter)?.parse().ok()
}

fn are_a_pair(f: &str, g: &str) -> bool {
    number(f, 'f').is_some() && number(f, 'f') == number(g, 'g')
}

fn assert_true_under_eviction(profiled: &Profiled, pid: u32) {
    let (mut all, mut short) = (0, 0);
    for (sample, stack) in stacks(&profiled.profile, pid) {
        let mut names = String::new();
        for frame in &stack {
            write!(names, " {}", frame.name).expect("a string");
        }
        all += sample.count();
        if sample.truncated.is_some() {
            short += sample.count();
            // What the unwinder's queue had no room for.
            assert_eq!(sample.truncated.as_deref(), Some("budget"), "{names}");
            assert!(is_true_as_far_as_it_goes(&stack), "a wrong stack, cut short:{names}");
        } else {
            assert!(is_true(&stack), "a wrong stack:{names}");
        }
    }
    let evictions = profiled.logged("arena=ArenaUse", "evictions");
    let finished = profiled.logged("arena=ArenaUse", "finished_in_user_space");
    let samples = profiled.logged("arena=ArenaUse", "samples");
    println!(
        "{all} samples, {short} cut short; {finished} of {samples} finished by the agent; {evictions} evictions"
    );
    assert!(all > short + 200, "{short} of {all} samples are cut short");
    assert!(evictions > 100, "{evictions} evictions");
    assert!(finished < samples, "the programs walk stacks of their own too");
    let (arena, room) = profiled.table("unwind arena");
    assert!(arena <= room && room == 1 << 20, "{arena} of {room} bytes");
}

/// With the smallest arena and a program whose rows take more than twice that, rows come and go all the time: no stack is
/// wrong, whoever walked it, and what is cut short because so many pages cannot be made at once says so.
#[test]
fn stacks_stay_true_when_rows_come_and_go() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let directory = TempDir::new().expect("a directory");
    let (source, object) = (directory.path().join("functions.s"), directory.path().join("functions.o"));
    fs::write(&source, functions()).expect("written");
    let mut assembler = Command::new("gcc");
    let status = assembler.arg("-c").arg(&source).arg("-o").arg(&object).status();
    assert!(status.is_ok_and(|status| status.success()), "{assembler:?}");
    let object = object.to_str().expect("UTF-8");
    let workload = Workload::plain("gcc", "stacks/spread.c", "spread", &[object]);
    let running = workload.start();
    let arguments = [
        "--duration",
        "8s",
        "--frequency",
        "299",
        "--unwind-table-memory",
        "1048576",
        "--slow-unwinds",
        "4000",
    ];
    let profiled = AgentRun::start(&arguments).finish();
    assert_true_under_eviction(&profiled, running.pid());
}
