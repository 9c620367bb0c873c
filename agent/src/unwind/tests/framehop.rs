//! Steps against framehop's, at every row of real files.
//!
//! Both get the same synthetic registers and the same synthetic stack, whose words are plausible as stack pointers, as
//! frame pointers and as return addresses. framehop looks a return address up one byte before, so it is given the row's address
//! plus one.
//!
//! Where framehop and rows differ by design, and what is compared then:
//!
//! | case | framehop | rows | compared |
//! |---|---|---|---|
//! | CFA or return address by another register, unusual expressions | gives up, or follows the frame pointer | SLOW | that the full evaluation finds a caller |
//! | CFA that is read from the stack, signal frames | its expressions cannot read memory: follows the frame pointer | a rule of their own | that the full evaluation finds the same caller |
//! | no FDE | follows the frame pointer | NONE | nothing: `readelf` checks the gaps |
//! | frame pointer in another register or expression | keeps the old one | LOST | instruction and stack pointer |
//! | CFA below the stack pointer | follows the frame pointer instead | implausible | nothing: does not occur with this stack |
//! | sections of a file that BOLT rewrote | knows one `.eh_frame` | all | both: framehop is given all from the first to the last as one section |

use agent_ebpf::rule::{Rule, kind};
use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, FrameAddress, Module, Unwinder as _};

use super::super::{Architecture, Frame, FullStep, Registers, Step, full_step, step};
use super::files::{self, TestFile};

const X86_64: Architecture = Architecture::X86_64;
const SP: u64 = 0x7fff_0000_1000;
const FP: u64 = 0x7fff_0000_1400;

/// A word of the synthetic stack: an address above it, different for each.
fn stack(address: u64) -> u64 {
    let hash = address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
    address + 64 + hash * 8
}

/// framehop with the one module `file`, loaded where it was linked for.
fn oracle(file: &TestFile) -> UnwinderX86_64<Vec<u8>> {
    let named = |name: &str| *file.image.section_named(&file.bytes, name).unwrap();
    let (header, last) = (named(".eh_frame_hdr"), named(".eh_frame"));
    let first = file.image.section_named(&file.bytes, ".bolt.org.eh_frame").copied().unwrap_or(last);
    assert_eq!(last.address - first.address, last.file_offset - first.file_offset);
    let eh_frame = first.file_offset as usize..(last.file_offset + last.size) as usize;
    let header_bytes = header.file_offset as usize..(header.file_offset + header.size) as usize;
    let mut header_bytes = file.bytes[header_bytes].to_vec();
    // framehop counts FDEs from where the header says that `.eh_frame` begins: four bytes, relative to themselves.
    assert_eq!(header_bytes[1], 0x1b);
    header_bytes[4..8]
        .copy_from_slice(&((first.address as u32).wrapping_sub(header.address as u32 + 4)).to_le_bytes());
    let sections = ExplicitModuleSectionInfo {
        eh_frame_svma: Some(first.address..last.address + last.size),
        eh_frame: Some(file.bytes[eh_frame].to_vec()),
        eh_frame_hdr_svma: Some(header.address..header.address + header.size),
        eh_frame_hdr: Some(header_bytes),
        ..ExplicitModuleSectionInfo::default()
    };
    let end =
        file.image.segments().iter().map(|segment| segment.address + segment.memory_size).max().unwrap();
    let mut unwinder = UnwinderX86_64::new();
    unwinder.add_module(Module::new(file.name.clone(), 0..end, 0, sections));
    unwinder
}

/// What framehop says of the caller: (ip, sp, fp); None at the end of the stack.
fn ask(
    unwinder: &UnwinderX86_64<Vec<u8>>,
    cache: &mut CacheX86_64,
    address: u64,
) -> Result<Option<(u64, u64, u64)>, framehop::Error> {
    let mut registers = UnwindRegsX86_64::new(address, SP, FP);
    let lookup = FrameAddress::from_return_address(address + 1).unwrap();
    let found =
        unwinder.unwind_frame(lookup, &mut registers, cache, &mut |address| Ok::<u64, ()>(stack(address)))?;
    Ok(found.map(|ip| (ip, registers.sp(), registers.bp())))
}

#[derive(Default, Debug)]
struct Tally {
    compared: u64,
    slow: u64,
    none: u64,
    from_memory: u64,
    lost: u64,
    ends: u64,
}

/// All integer registers, the ones that rows know among them.
fn registers(frame: &Frame) -> Registers {
    let mut registers = Registers::from_frame(X86_64, frame);
    for register in 0..16 {
        let known = registers.get(register).unwrap_or(SP + 0x100 + u64::from(register) * 0x20);
        registers.set(register, Some(known));
    }
    registers
}

/// Compares all three ways to step at `address`; `full` is the most expensive.
fn compare(
    file: &TestFile,
    unwinder: &UnwinderX86_64<Vec<u8>>,
    cache: &mut CacheX86_64,
    (address, rule): (u64, Rule),
    full: bool,
    tally: &mut Tally,
) {
    let frame = Frame { ip: address, sp: SP, fp: FP, fp_known: true };
    let ours = step(X86_64, frame, rule, |address| Some(stack(address)));
    let place = || format!("{} at {address:#x}: {rule:?} leads to {ours:x?}", file.name);
    let evaluate =
        || full_step(&file.bytes, &file.index, address, 0, &registers(&frame), |at| Some(stack(at)));
    match ours {
        Step::NeedSlow => {
            tally.slow += 1;
            let found = evaluate();
            assert!(found.is_ok(), "{}: {found:?}", place());
            return;
        }
        Step::NoInformation => {
            tally.none += 1;
            return;
        }
        _ => {}
    }
    let from_memory = matches!(rule.kind, kind::SP_DEREF | kind::FP_DEREF | kind::SIGNAL);
    if from_memory {
        tally.from_memory += 1;
    } else {
        tally.compared += 1;
        match (ours, ask(unwinder, cache, address)) {
            (Step::End, Ok(None)) => tally.ends += 1,
            (Step::Caller(caller), Ok(Some((ip, sp, fp)))) => {
                assert_eq!((caller.ip, caller.sp), (ip, sp), "{}", place());
                if caller.fp_known {
                    assert_eq!(caller.fp, fp, "{}", place());
                } else {
                    tally.lost += 1;
                }
            }
            (_, theirs) => panic!("{}, framehop's to {theirs:x?}", place()),
        }
    }
    if full || from_memory {
        let agreed = match (evaluate(), ours) {
            (Ok(FullStep::End), Step::End) => true,
            (Ok(FullStep::Caller(found)), Step::Caller(caller))
            | (Ok(FullStep::Interrupted(found)), Step::Interrupted(caller)) => {
                let found = found.frame().unwrap();
                (found.ip, found.sp) == (caller.ip, caller.sp)
                    && (!caller.fp_known || (found.fp_known && found.fp == caller.fp))
            }
            _ => false,
        };
        assert!(agreed, "{}, the full evaluation to {:x?}", place(), evaluate());
    }
}

/// At every row, and in the middle and at the end of what it covers, rows lead to the same caller as framehop; so does the
/// full evaluation.
#[test]
fn agrees_with_framehop() {
    for path in files::all() {
        let file = TestFile::open(&path);
        let (unwinder, mut cache) = (oracle(&file), CacheX86_64::new());
        let mut tally = Tally::default();
        for page in file.chosen_pages() {
            let rows = file.rows(page);
            for (position, &(address, rule)) in rows.iter().enumerate() {
                compare(&file, &unwinder, &mut cache, (address, rule), position % 4 == 0, &mut tally);
                // Padding behind a function has its last rule; what framehop says there depends on other things.
                let next = rows.get(position + 1).map_or(address, |next| next.0);
                if rule.kind == kind::PLT || next < address + 2 || next > address + 64 {
                    continue;
                }
                for inside in [address + (next - address) / 2, next - 1] {
                    if covered(&file, inside) {
                        compare(&file, &unwinder, &mut cache, (inside, rule), false, &mut tally);
                    }
                }
            }
        }
        println!("{}: {tally:?}", file.name);
        assert!(tally.compared > 10_000);
    }
}

/// Whether an FDE covers the address: framehop does not say.
fn covered(file: &TestFile, address: u64) -> bool {
    let functions = file.index.covering(&file.bytes, address, address + 1, 1).unwrap();
    functions.last().is_some_and(|function| {
        let mut entries = file.index.entries(&file.bytes, u64::MAX);
        entries.load(function.fde).unwrap().entry.contains(address)
    })
}
