//! Rows of Go functions whose code and tables are made for one rule each.

use agent_ebpf::rule::{Rule, TEXT_PAGE, fp, kind};

use super::super::{Architecture, Frame, Page, Step, add_go_rows, add_known_code, step};
use crate::symbol::elf::{ElfImage, ElfLimits};
use crate::symbol::gopclntab::tests::TableLayout;
use crate::symbol::gopclntab::tests::writer::{Function, TEXT, Writer, function};
use crate::symbol::gopclntab::{GoLimits, GoTable};

/// The text is at this offset in the file, and so in its page.
const AT: u16 = 0x1000;

const fn rule(kind: u8, fp: u8, cfa_offset: i16) -> Rule {
    Rule { kind, fp, cfa_offset, fp_offset: if fp == fp::SAVED { -2 } else { 0 }, ra_offset: -1 }
}

const NONE: Rule = Rule { kind: kind::NONE, fp: 0, cfa_offset: 0, fp_offset: 0, ra_offset: 0 };
const END: Rule = Rule { kind: kind::END, ..NONE };
const SLOW: Rule = Rule { kind: kind::SLOW, ..NONE };
const ENTRY: Rule = rule(kind::SP, fp::SAME, 1);

/// A file with these functions, each with its code.
fn write(functions: &[(Function, &[u8])]) -> Vec<u8> {
    let mut writer =
        Writer::new(TableLayout::Go120, functions.iter().map(|(function, _)| function.clone()).collect());
    for (function, code) in functions {
        writer.code.resize(function.start as usize, 0xcc);
        writer.code.extend(*code);
    }
    writer.write()
}

/// Rows of page 0, by the bytes from the text's beginning on.
fn rows(functions: &[(Function, &[u8])]) -> Vec<(u16, Rule)> {
    let file = write(functions);
    let image = ElfImage::parse(&file, &ElfLimits::default()).unwrap();
    let go = GoTable::open(&file, &image, &GoLimits::default()).unwrap().unwrap();
    let mut page = Page { rows: vec![(0, NONE)], ..Page::default() };
    add_go_rows(&file, &image, &go, 0, &mut page).unwrap();
    add_known_code(&file, &image, 0, &mut page).unwrap();
    assert_eq!((page.stats.bad_fdes, page.rows[0]), (0, (0, NONE)));
    page.rows[1..].iter().map(|(offset, rule)| (offset - AT, *rule)).collect()
}

/// `push %rbp; mov %rsp,%rbp; sub $24,%rsp; …; add $24,%rsp; pop %rbp; ret`.
const NEW: &[u8] = b"\x55\x48\x89\xe5\x48\x83\xec\x18\x90\x48\x83\xc4\x18\x5d\xc3";
const NEW_STACK: &[(i32, u32)] = &[(0, 1), (8, 7), (32, 5), (8, 1), (0, 0x1000)];
/// `sub $32,%rsp; mov %rbp,24(%rsp); lea 24(%rsp),%rbp; …; mov 24(%rsp),%rbp; add $32,%rsp; ret`.
const OLD: &[u8] =
    b"\x48\x83\xec\x20\x48\x89\x6c\x24\x18\x48\x8d\x6c\x24\x18\x90\x48\x8b\x6c\x24\x18\x48\x83\xc4\x20\xc3";
const OLD_STACK: &[(i32, u32)] = &[(0, 4), (32, 20), (0, 0x1000)];
const TOP: u8 = 1;
const WRITES_SP: u8 = 2;

fn flagged(function: Function, flags: u8) -> Function {
    Function { flags, ..function }
}

/// The frame pointer is the caller's until the instruction that saves it has run, in the prologues of Go 1.21 and of before.
#[test]
fn frame_pointers_are_exact_in_prologues() {
    let saved = |words| rule(kind::SP, fp::SAVED, words);
    let new = rows(&[(function("main.new", 0, NEW_STACK), NEW)]);
    assert_eq!(new[..5], [(0, ENTRY), (1, saved(2)), (8, saved(5)), (13, saved(2)), (14, ENTRY)]);
    let old = rows(&[(function("main.old", 0, OLD_STACK), OLD)]);
    let unsaved = rule(kind::SP, fp::SAME, 5);
    assert_eq!(old[..4], [(0, ENTRY), (4, unsaved), (9, saved(5)), (24, ENTRY)]);
    // Frames of 128 bytes and more have the distance in four bytes.
    let wide = b"\x48\x81\xec\x80\x01\0\0\x48\x89\xac\x24\x78\x01\0\0\x48\x8d\xac\x24\x78\x01\0\0";
    let wide = rows(&[(function("main.wide", 0, &[(0, 7), (0x180, 0x1000)]), wide)]);
    assert_eq!(wide[..3], [(0, ENTRY), (7, rule(kind::SP, fp::SAME, 49)), (15, saved(49))]);
    // Assembly that saves nothing there.
    let other = rows(&[(function("main.other", 0, &[(0, 4), (32, 0x1000)]), b"\x48\x83\xec\x20\x90")]);
    assert_eq!(other[..2], [(0, ENTRY), (4, rule(kind::SP, fp::LOST, 5))]);
}

/// Code that switches stacks is left by its frame pointer as long as that is its own, on whatever stack.
#[test]
fn switches_of_stacks_go_by_the_frame_pointer() {
    let (saved, by_frame) = (|words| rule(kind::SP, fp::SAVED, words), rule(kind::FP_SWITCH, fp::SAVED, 2));
    let new = rows(&[(flagged(function("runtime.nanotime1", 0, NEW_STACK), WRITES_SP), NEW)]);
    assert_eq!(new[..5], [(0, ENTRY), (1, saved(2)), (4, by_frame), (9, saved(5)), (13, by_frame)]);
    let old = rows(&[(flagged(function("runtime.nanotime1", 0, OLD_STACK), WRITES_SP), OLD)]);
    let unsaved = rule(kind::SP, fp::SAME, 5);
    let expected = [(0, ENTRY), (4, unsaved), (9, saved(5)), (14, by_frame), (20, saved(5)), (24, ENTRY)];
    assert_eq!(old[..6], expected);
    let frameless =
        |name| rows(&[(flagged(function(name, 0, &[(0, 0x2000)]), WRITES_SP), b"\x48\x89\xdc")])[0].1;
    assert_eq!(frameless("runtime.gogo"), SLOW);
    assert_eq!(frameless("runtime.asmcgocall"), by_frame);
    assert_eq!(frameless("runtime.cgocallback"), ENTRY);
    assert_eq!(frameless("runtime.mcall"), END);

    // From a thread's stack to a goroutine's below it.
    let frame = Frame { ip: TEXT + 8, sp: 0x7f00_0000_0000, fp: 0xc000_1000, fp_known: true };
    let read = |address| match address {
        0xc000_1000 => Some(0xc000_2000),
        0xc000_1008 => Some(TEXT + 0x500),
        _ => None,
    };
    let caller = Frame { ip: TEXT + 0x500, sp: 0xc000_1010, fp: 0xc000_2000, fp_known: true };
    assert_eq!(step(Architecture::X86_64, frame, by_frame, read), Step::Caller(caller));
    assert_eq!(
        step(Architecture::X86_64, Frame { fp: 0xc000_1001, ..frame }, by_frame, read),
        Step::Implausible
    );
    let as_on_one_stack = Rule { kind: kind::FP, ..by_frame };
    assert_eq!(step(Architecture::X86_64, frame, as_on_one_stack, read), Step::Implausible);
}

/// Where goroutines and threads begin the stack ends, by flag or, before Go 1.17, by name; the signal handler's entry is no end.
#[test]
fn stacks_end_where_goroutines_begin() {
    let first = |name, flags| rows(&[(flagged(function(name, 0, &[(0, 0x2000)]), flags), b"\x90")])[0].1;
    assert_eq!(first("runtime.whatever", TOP), END);
    assert_eq!(first("runtime.sigtramp", TOP), ENTRY);
    let old = |name| rows(&[(Function { id: 1, ..function(name, 0, &[(0, 0x2000)]) }, b"\x90")])[0].1;
    assert_eq!((old("runtime.goexit"), old("runtime.mstart"), old("runtime.other")), (END, END, ENTRY));
}

/// The function that a signal handler returns to is known by its code, from the byte before it on; a function without tables keeps
/// what CFI says of it.
#[test]
fn trampolines_and_foreign_functions_keep_their_rows() {
    let trampoline = b"\x48\xc7\xc0\x0f\0\0\0\x0f\x05\xcc";
    let found = rows(&[
        (function("main.first", 0, &[(0, 0x40)]), b"\x90"),
        (flagged(function("runtime.sigreturn__sigaction", 0x40, &[(0, 10)]), 4), trampoline),
        (function("main.foreign", 0x100, &[]), b"\x90"),
        (function("main.last", 0x200, &[(0, 0x1e00)]), b"\x90"),
    ]);
    let signal = Rule { kind: kind::SIGNAL, ..NONE };
    assert_eq!(found[..4], [(0, ENTRY), (0x3f, signal), (0x49, NONE), (0x200, ENTRY)]);
}

/// A frame of more than 256 KiB is said by the stack pointer as any other; a stack pointer above the return address by nothing.
#[test]
fn large_frames_and_negative_ones() {
    let huge = b"\x55\x48\x89\xe5\x48\x81\xec\0\0\x10\0\x90";
    let found = rows(&[(function("main.huge", 0, &[(0, 1), (8, 10), (0x10_0008, 0x1000)]), huge)]);
    let saved = rule(kind::SP, fp::SAVED, 2);
    assert_eq!(found[..3], [(0, ENTRY), (1, saved), (11, Rule::far(0x2_0002, fp::SAVED, -2))]);
    let odd = rows(&[(function("main.odd", 0, &[(0, 4), (-8, 4), (12, 0x1000)]), b"\x90")]);
    assert_eq!(odd[..2], [(0, ENTRY), (4, SLOW)]);
    assert!(TEXT_PAGE > u64::from(AT));
}
