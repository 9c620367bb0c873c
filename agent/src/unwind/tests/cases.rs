//! Code made by hand for one rule each: its instructions, its CFI, and at each instruction the true registers and stack.
//!
//! A function is entered with the return address at [`TOP`] and the caller's frame pointer in the register.

use std::collections::HashMap;

use agent_ebpf::rule::{Rule, fp, kind};

use super::super::{Architecture, Frame, FullStep, Registers, Step, full_step, step};
use super::writer::{Function, Shape, TEXT, first_page, function, open, write};

/// Where the return address lies; the caller's stack pointer is 8 more.
const TOP: u64 = 0x7ffc_0000_0ff8;
const CALLER: Frame = Frame { ip: 0x40_1234, sp: TOP + 8, fp: 0xbeef_f00d, fp_known: true };

/// The CFI instructions that the cases use (DWARF 5, section 6.4.2).
fn advance(bytes: u8) -> Vec<u8> {
    vec![0x40 | bytes]
}
fn def_cfa_offset(bytes: u8) -> Vec<u8> {
    vec![0x0e, bytes]
}
fn def_cfa(register: u8, bytes: u8) -> Vec<u8> {
    vec![0x0c, register, bytes]
}
fn saved(register: u8, words_below_cfa: u8) -> Vec<u8> {
    vec![0x80 | register, words_below_cfa]
}
fn def_cfa_expression(expression: &[u8]) -> Vec<u8> {
    [&[0x0f, expression.len() as u8], expression].concat()
}
fn saved_at(register: u8, expression: &[u8]) -> Vec<u8> {
    [&[0x10, register, expression.len() as u8], expression].concat()
}
const RBX: u8 = 3;
const RBP: u8 = 6;
const RSP: u8 = 7;
const BREG_RBP: u8 = 0x76;
const BREG_RSP: u8 = 0x77;
const DEREF: u8 = 0x06;

/// The function's state before an instruction: its offset, the registers, and the words that it has written to the stack.
struct At {
    offset: u64,
    sp: u64,
    fp: u64,
    written: &'static [(u64, u64)],
}

fn at(offset: u64, sp: u64, fp: u64, written: &'static [(u64, u64)]) -> At {
    At { offset, sp, fp, written }
}

fn rule_at(rows: &[(u16, Rule)], address: u64) -> Rule {
    rows.iter().rev().find(|row| u64::from(row.0) <= address).unwrap().1
}

/// At every instruction the row, and the full evaluation, lead to [`CALLER`].
fn assert_leads_to_caller(program: &[Vec<u8>], instructions: &[At]) {
    let function = function(TEXT, 0x40, &program.concat());
    for shape in [Shape::Header, Shape::EhFrame, Shape::DebugFrame(4)] {
        let file = write(std::slice::from_ref(&function), shape);
        let rows = first_page(&file).rows;
        let (_, index) = open(&file).unwrap();
        for instruction in instructions {
            let mut stack: HashMap<u64, u64> = instruction.written.iter().copied().collect();
            stack.insert(TOP, CALLER.ip);
            let read = |address: u64| stack.get(&address).copied();
            let address = TEXT + instruction.offset;
            let frame = Frame { ip: address, sp: instruction.sp, fp: instruction.fp, fp_known: true };
            let rule = rule_at(&rows, address);
            assert_eq!(
                step(Architecture::X86_64, frame, rule, read),
                Step::Caller(CALLER),
                "{rule:?} at {address:#x}"
            );
            let registers = Registers::from_frame(Architecture::X86_64, &frame);
            let full = full_step(&file, &index, address, 0, &registers, read).unwrap();
            let FullStep::Caller(caller) = full else { panic!("{full:?}") };
            assert_eq!(caller.frame(), Some(CALLER), "{shape:?} at {address:#x}");
        }
    }
}

/// A leaf that saves the frame pointer and restores it.
///
/// ```text
/// 0  push %rbp
/// 1  mov  %rsp,%rbp
/// 4  ...
/// 9  pop  %rbp
/// a  ret
/// ```
#[test]
fn leaf_with_a_frame_pointer() {
    const SAVED: &[(u64, u64)] = &[(TOP - 8, CALLER.fp)];
    let program = [
        [advance(1), def_cfa_offset(16), saved(RBP, 2)].concat(),
        [advance(3), vec![0x0d, RBP]].concat(),
        [advance(6), def_cfa(RSP, 8), vec![0xc0 | RBP]].concat(),
    ];
    let instructions = [
        at(0, TOP, CALLER.fp, &[]),
        at(1, TOP - 8, CALLER.fp, SAVED),
        at(4, TOP - 8, TOP - 8, SAVED),
        at(9, TOP - 8, TOP - 8, SAVED),
        at(0xa, TOP, CALLER.fp, &[]),
    ];
    assert_leads_to_caller(&program, &instructions);
}

/// A function with a frame of 540,080 bytes, as the Rust compiler has one: more than 16 bits of words.
///
/// ```text
/// 0  push %rbp
/// 1  sub  $0x83da0,%rsp
/// 8  ...
/// ```
#[test]
fn frame_of_half_a_megabyte() {
    const SAVED: &[(u64, u64)] = &[(TOP - 8, CALLER.fp)];
    const BYTES: u64 = 540_080;
    let uleb = [(BYTES & 0x7f) as u8 | 0x80, (BYTES >> 7 & 0x7f) as u8 | 0x80, (BYTES >> 14) as u8];
    let program = [
        [advance(1), def_cfa_offset(16), saved(RBP, 2)].concat(),
        [advance(7), [&[0x0e][..], &uleb].concat()].concat(),
    ];
    let instructions = [at(1, TOP - 8, CALLER.fp, SAVED), at(8, TOP + 8 - BYTES, 0x1234, SAVED)];
    assert_leads_to_caller(&program, &instructions);
}

/// A function whose frame has a size that only the run knows: the frame pointer is what finds the CFA.
///
/// ```text
/// 0  push %rbp
/// 1  mov  %rsp,%rbp
/// 4  push %rbx
/// 5  sub  %rdi,%rsp          alloca
/// 8  ...
/// 10 mov  -8(%rbp),%rbx
/// 14 leave
/// 15 ret
/// ```
#[test]
fn alloca() {
    const SAVED: &[(u64, u64)] = &[(TOP - 8, CALLER.fp), (TOP - 16, 0xb)];
    let program = [
        [advance(1), def_cfa_offset(16), saved(RBP, 2)].concat(),
        [advance(3), vec![0x0d, RBP]].concat(),
        [advance(1), saved(RBX, 3)].concat(),
        [advance(0x10), def_cfa(RSP, 8)].concat(),
    ];
    let fp = TOP - 8;
    let instructions = [
        at(4, TOP - 8, fp, SAVED),
        at(5, TOP - 16, fp, SAVED),
        at(8, TOP - 16 - 0x3210, fp, SAVED),
        at(0x14, TOP - 16 - 0x3210, fp, SAVED),
        // rbp's rule is still "saved" here, as compilers leave it: the word below the stack pointer is still there.
        at(0x15, TOP, CALLER.fp, SAVED),
    ];
    assert_leads_to_caller(&program, &instructions);
}

/// A function that aligns its stack to 32 bytes, as for vectors: neither the CFA nor the saved frame pointer is at a
/// known distance from the other.
///
/// ```text
/// 0  lea  8(%rsp),%r10
/// 5  and  $-32,%rsp
/// 9  push -8(%r10)           a copy of the return address
/// d  push %rbp
/// e  mov  %rsp,%rbp
/// 11 push %r10               the CFA
/// 13 ...
/// 20 pop  %r10
/// 22 pop  %rbp
/// 23 lea  -8(%r10),%rsp
/// 27 ret
/// ```
#[test]
fn realigned_stack() {
    const ALIGNED: u64 = TOP / 32 * 32;
    const BASE: u64 = ALIGNED - 16;
    const SAVED: &[(u64, u64)] = &[(ALIGNED - 8, CALLER.ip), (BASE, CALLER.fp), (BASE - 8, TOP + 8)];
    let program = [
        [advance(0x13), saved_at(RBP, &[BREG_RBP, 0])].concat(),
        def_cfa_expression(&[BREG_RBP, 0x78, DEREF]),
        [advance(0x14), def_cfa(RSP, 8), vec![0xc0 | RBP]].concat(),
    ];
    let instructions =
        [at(0, TOP, CALLER.fp, &[]), at(0x13, BASE - 8, BASE, SAVED), at(0x20, BASE - 0x100, BASE, SAVED)];
    assert_leads_to_caller(&program, &instructions);
    let rows = first_page(&write(&[function(TEXT, 0x40, &program.concat())], Shape::Header)).rows;
    let expected = Rule { kind: kind::FP_DEREF, fp: fp::AT_FP, cfa_offset: -1, fp_offset: 0, ra_offset: -1 };
    assert_eq!(rule_at(&rows, TEXT + 0x13), expected);
}

/// Hand-written code that aligns its stack and saves the caller's stack pointer in it, as OpenSSL's.
///
/// ```text
/// 0  mov %rsp,%rax
/// 3  and $-64,%rsp
/// 7  sub $128,%rsp
/// e  mov %rax,24(%rsp)
/// 13 ...
/// ```
#[test]
fn saved_stack_pointer() {
    const BASE: u64 = TOP / 64 * 64 - 128;
    let program = [advance(0x13), def_cfa_expression(&[BREG_RSP, 24, DEREF, 0x23, 8])];
    let instructions = [at(0, TOP, CALLER.fp, &[]), at(0x13, BASE, CALLER.fp, &[(BASE + 24, TOP)])];
    assert_leads_to_caller(&program, &instructions);
}

/// A stub of the procedure linkage table and the resolver's stub before it, as linkers describe them.
///
/// ```text
/// 0   push GOT+8             the resolver's stub: one word, the relocation's number, is on the stack already
/// 6   jmp  *GOT+16
/// 10  jmp  *GOT+24           a stub
/// 16  push $0
/// 1b  jmp  0
/// ```
#[test]
fn procedure_linkage_table() {
    const RSP_RIP: [u8; 4] = [BREG_RSP, 8, 0x80, 0];
    const PUSHED: &[(u64, u64)] = &[(TOP - 8, 0)];
    let expression = [&RSP_RIP[..], &[0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22]].concat();
    let program = [
        def_cfa_offset(16),
        [advance(6), def_cfa_offset(24)].concat(),
        [advance(10), def_cfa_expression(&expression)].concat(),
    ];
    let instructions = [
        at(0, TOP - 8, CALLER.fp, PUSHED),
        at(6, TOP - 16, CALLER.fp, PUSHED),
        at(0x10, TOP, CALLER.fp, &[]),
        at(0x16, TOP, CALLER.fp, &[]),
        at(0x1b, TOP - 8, CALLER.fp, PUSHED),
        at(0x2a, TOP, CALLER.fp, &[]),
        at(0x2b, TOP - 8, CALLER.fp, PUSHED),
    ];
    assert_leads_to_caller(&program, &instructions);
}

/// The trampoline that returns from a signal handler, as the C library describes it. Looked up one byte before, because the
/// handler returns to its first byte: that is why its FDE begins a byte early.
///
/// ```text
/// 0  (not the function's)
/// 1  mov $15,%rax
/// 8  syscall
/// ```
#[test]
fn signal_trampoline() {
    const UCONTEXT: u64 = TOP - 0x200;
    let at_sp = |register: u8, offset: u64| {
        let offset = [(offset & 0x7f) as u8 | 0x80, (offset >> 7) as u8];
        saved_at(register, &[&[BREG_RSP][..], &offset].concat())
    };
    let program = [
        def_cfa_expression(&[BREG_RSP, 0xa0, 1, DEREF]),
        [at_sp(16, 168), at_sp(RSP, 160), at_sp(RBP, 120), at_sp(RBX, 128)].concat(),
    ];
    let trampoline = Function { signal: true, ..function(TEXT, 10, &program.concat()) };
    let file = write(&[trampoline], Shape::Header);
    let rule = rule_at(&first_page(&file).rows, TEXT);
    assert_eq!(rule, Rule { kind: kind::SIGNAL, ..Rule::default() });

    // The interrupted function's stack is elsewhere: the handler has a stack of its own.
    let interrupted = Frame { ip: 0x40_5678, sp: 0x1000, fp: 0x77, fp_known: true };
    let read = |address: u64| match address.wrapping_sub(UCONTEXT) {
        168 => Some(interrupted.ip),
        160 => Some(interrupted.sp),
        120 => Some(interrupted.fp),
        128 => Some(0xb),
        _ => None,
    };
    let frame = Frame { ip: TEXT + 1, sp: UCONTEXT, fp: 1, fp_known: false };
    assert_eq!(step(Architecture::X86_64, frame, rule, read), Step::Interrupted(interrupted));
    let (_, index) = open(&file).unwrap();
    let registers = Registers::from_frame(Architecture::X86_64, &frame);
    let full = full_step(&file, &index, TEXT, 0, &registers, read).unwrap();
    let FullStep::Interrupted(full) = full else { panic!("{full:?}") };
    assert_eq!((full.frame(), full.get(RBX.into())), (Some(interrupted), Some(0xb)));
}

/// The first function of a thread says that it has no caller; a function that returns to 0 has none either, but did not say so.
#[test]
fn outermost_frames() {
    let file = write(&[function(TEXT, 0x20, &[0x07, 16]), function(TEXT + 0x20, 0x20, &[])], Shape::Header);
    let rows = first_page(&file).rows;
    let frame = Frame { ip: TEXT, sp: TOP, fp: 0, fp_known: true };
    let step = |rule| step(Architecture::X86_64, frame, rule, |_| Some(0));
    assert_eq!(step(rule_at(&rows, TEXT)), Step::End);
    assert_eq!(step(rule_at(&rows, TEXT + 0x20)), Step::NullReturn);
    let (_, index) = open(&file).unwrap();
    let registers = Registers::from_frame(Architecture::X86_64, &frame);
    let full = |address| full_step(&file, &index, address, 0, &registers, |_| Some(0));
    assert_eq!(full(TEXT).unwrap(), FullStep::End);
    assert_eq!(full(TEXT + 0x20).unwrap_err().to_string(), "the return address is 0");
    assert_eq!(full(TEXT + 0x40).unwrap_err().to_string(), "no call frame information for the address");
}

/// A rule that would go down the stack, off its alignment or around the end of memory, that needs what is lost or
/// cannot be read, ends the walk and says why.
#[test]
fn implausible_steps() {
    let frame = Frame { ip: TEXT, sp: TOP, fp: TOP + 0x100, fp_known: true };
    let sp = Rule { kind: kind::SP, ra_offset: -1, ..Rule::default() };
    let fp_based = Rule { kind: kind::FP, cfa_offset: 2, ..sp };
    let go = |frame, rule| {
        step(Architecture::X86_64, frame, rule, |address| (address < TOP + 0x1000).then_some(5))
    };
    assert_eq!(go(frame, sp), Step::Implausible, "the caller's frame is this one");
    assert_eq!(go(frame, Rule { cfa_offset: -1, ..sp }), Step::Implausible);
    assert_eq!(go(Frame { fp: TOP + 0x101, ..frame }, fp_based), Step::Implausible);
    assert_eq!(go(Frame { fp: 8, ..frame }, fp_based), Step::Implausible);
    assert_eq!(go(Frame { sp: u64::MAX - 7, ..frame }, Rule { cfa_offset: 1, ..sp }), Step::Implausible);
    assert_eq!(go(Frame { fp_known: false, ..frame }, fp_based), Step::FramePointerLost);
    let at_fp = Rule { cfa_offset: 1, fp: fp::AT_FP, ..sp };
    assert_eq!(go(Frame { fp_known: false, ..frame }, at_fp), Step::FramePointerLost);
    assert_eq!(go(frame, Rule { cfa_offset: 0x201, ..sp }), Step::Unreadable(TOP + 0x1000));
    assert_eq!(go(frame, Rule { kind: kind::SLOW, ..sp }), Step::NeedSlow);
    assert_eq!(go(frame, Rule::default()), Step::NoInformation);
    assert_eq!(go(frame, Rule { kind: 99, ..sp }), Step::NoInformation);
    let lost = Rule { cfa_offset: 1, fp: fp::LOST, ..sp };
    let caller = Frame { ip: 5, sp: TOP + 8, fp: frame.fp, fp_known: false };
    assert_eq!(go(frame, lost), Step::Caller(caller));
    let saved = Rule { cfa_offset: 1, fp: fp::SAVED, fp_offset: -1, ..sp };
    assert_eq!(go(caller, saved), Step::Caller(Frame { sp: TOP + 16, fp: 5, fp_known: true, ..caller }));
}

/// A frame of 527 KiB leads to its caller as a small one does, and down the stack no more than that.
#[test]
fn large_frames_are_steps() {
    let frame = Frame { ip: TEXT, sp: TOP, fp: 7, fp_known: true };
    let cfa = TOP + 540_080;
    let stack = |address| match address {
        _ if address == cfa - 8 => Some(TEXT + 1),
        _ if address == cfa - 16 => Some(TOP),
        _ => None,
    };
    let go = |rule| step(Architecture::X86_64, frame, rule, stack);
    let caller = Frame { ip: TEXT + 1, sp: cfa, ..frame };
    assert_eq!(go(Rule::far(67_510, fp::SAME, 0)), Step::Caller(caller));
    assert_eq!(go(Rule::far(67_510, fp::SAVED, -2)), Step::Caller(Frame { fp: TOP, ..caller }));
    assert_eq!(go(Rule::far(67_511, fp::SAME, 0)), Step::Unreadable(cfa));
    assert_eq!(go(Rule::far(-67_510, fp::SAME, 0)), Step::Implausible);
}
