//! This process's own stacks, from the running code to the thread's start.

use std::arch::asm;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use agent_ebpf::rule::{Rule, TEXT_PAGE, kind};

use super::super::{Architecture, Frame, FullStep, Registers, Step, full_step, step};
use super::files::TestFile;
use crate::symbol::elf::{ElfLimits, FunctionIndex};

/// The registers at the place of the call: a macro, because a function would have registers of its own.
macro_rules! here {
    () => {{
        let (ip, sp, fp): (u64, u64, u64);
        // SAFETY: reads three registers.
        unsafe { asm!("lea {}, [rip]", "mov {}, rsp", "mov {}, rbp", out(reg) ip, out(reg) sp, out(reg) fp) };
        Frame { ip, sp, fp, fp_known: true }
    }};
}

/// An executable mapping of this process.
struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
    path: PathBuf,
}

fn mappings() -> Vec<Mapping> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (start, end) = fields[0].split_once('-')?;
        let path = fields.get(5).filter(|path| path.starts_with('/'))?;
        let mapping =
            Mapping { start: number(start), end: number(end), offset: number(fields[2]), path: path.into() };
        fields[1].contains('x').then_some(mapping)
    };
    maps.lines().filter_map(parse).collect()
}

/// A walk: names of functions, leaf first, and what ended it. Each step by rows and by the full evaluation.
fn walk(mut frame: Frame) -> (Vec<String>, Step) {
    let (mappings, memory) = (mappings(), File::open("/proc/self/mem").unwrap());
    let mut files: HashMap<PathBuf, (TestFile, FunctionIndex)> = HashMap::new();
    let read = |address: u64| {
        let mut word = [0; 8];
        memory.read_exact_at(&mut word, address).ok().map(|()| u64::from_le_bytes(word))
    };
    let mut names = Vec::new();
    let mut exact = true;
    loop {
        let lookup = frame.ip - u64::from(!exact);
        let Some(mapping) = mappings.iter().find(|m| (m.start..m.end).contains(&lookup)) else {
            panic!("{frame:x?} after {names:?} is not in a file");
        };
        let (file, functions) = files.entry(mapping.path.clone()).or_insert_with(|| {
            let file = TestFile::open(&mapping.path);
            let functions = FunctionIndex::build(&file.bytes, &file.image, &ElfLimits::default()).unwrap();
            (file, functions)
        });
        let offset = lookup - mapping.start + mapping.offset;
        let address = file.image.file_offset_to_address(offset).unwrap();
        let name = functions.lookup(address).map(|found| functions.name(&file.bytes, &found).unwrap());
        names.push(name.unwrap_or_default());
        let rows = file.page(offset / TEXT_PAGE).rows;
        let within = (offset % TEXT_PAGE) as u16;
        let rule = rows.iter().rev().find(|row| row.0 <= within).map_or(Rule::default(), |row| row.1);
        assert_ne!(rule.kind, kind::SLOW, "{names:?}");
        let next = step(Architecture::X86_64, frame, rule, read);
        let registers = Registers::from_frame(Architecture::X86_64, &frame);
        let full =
            full_step(&file.bytes, &file.index, address, lookup.wrapping_sub(address), &registers, read);
        (frame, exact) = match (next, full.unwrap()) {
            (Step::Caller(frame), FullStep::Caller(full)) if full.frame() == Some(frame) => (frame, false),
            (Step::Interrupted(frame), FullStep::Interrupted(full)) if full.frame() == Some(frame) => {
                (frame, true)
            }
            (Step::End, FullStep::End) => return (names, next),
            (next, full) => panic!("{next:x?} and {full:x?} after {names:?}"),
        };
        assert!(names.len() < 200, "{names:?}");
    }
}

/// Calls itself `depth` times and walks from the bottom.
#[inline(never)]
fn recurse(depth: u32, then: fn() -> (Vec<String>, Step)) -> (Vec<String>, Step) {
    if depth == 0 {
        return then();
    }
    let mut found = recurse(depth - 1, then);
    // Keeps the call from becoming a jump.
    found.0.push(String::new());
    found.0.pop();
    found
}

fn count(names: &[String], name: &str) -> usize {
    names.iter().filter(|found| found.contains(name)).count()
}

/// A recursion is walked whole: every frame of it, then the C library's start of the thread, which is the end.
#[test]
fn walks_a_recursion_to_the_start_of_the_thread() {
    let (names, end) = std::thread::spawn(|| recurse(50, || walk(here!()))).join().unwrap();
    assert_eq!(end, Step::End);
    assert_eq!(count(&names, "recurse"), 51, "{names:?}");
}

thread_local! {
    static FOUND: RefCell<Option<(Vec<String>, Step)>> = const { RefCell::new(None) };
}

extern "C" fn handler(_: libc::c_int) {
    let found = walk(here!());
    FOUND.with(|slot| *slot.borrow_mut() = Some(found));
}

/// A signal handler's stack goes on in the code that the signal interrupted.
#[test]
fn walks_through_a_signal_frame() {
    fn interrupted() -> (Vec<String>, Step) {
        // SAFETY: the handler runs at once, on this thread, in `raise`; what it calls is safe to call there.
        unsafe {
            libc::signal(libc::SIGUSR2, handler as *const () as libc::sighandler_t);
            libc::raise(libc::SIGUSR2);
        }
        FOUND.with(|slot| slot.borrow_mut().take()).unwrap()
    }
    let (names, end) = std::thread::spawn(|| recurse(5, interrupted)).join().unwrap();
    assert_eq!(end, Step::End);
    assert_eq!((count(&names, "handler"), count(&names, "recurse")), (1, 6), "{names:?}");
    let raised = names.iter().position(|name| name.contains("recurse")).unwrap();
    assert!(raised > 3, "the trampoline and raise(3) are between: {names:?}");
}
