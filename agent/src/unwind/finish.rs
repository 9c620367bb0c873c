//! Finishing a walk that the eBPF program had to leave: over a copied slice of the stack, with the same rows, or with
//! everything that unwind information can say.

use std::collections::{HashMap, HashSet};

use agent_ebpf::rule::{Rule, TEXT_PAGE, kind};
use agent_ebpf::{MAX_USER_FRAMES, Resume};

use crate::process::mappings::{Mapping, Mappings};
use crate::process::module::ModuleId;
use crate::symbol::readers::Refused;
use crate::unwind::arena::Arena;
use crate::unwind::module_cfi::{ModuleCfi, ModuleCfiCache};
use crate::unwind::read_ahead::ReadAhead;
use crate::unwind::stack_slice::StackSlice;
use crate::unwind::{
    Architecture, Frame, FullStep, FullStepError, LONGEST_CALL, Registers, Return, Step, find_return,
    is_after_call, step,
};

/// A frame pointer is believed when it lies this close above the stack pointer, as in the eBPF program.
const MAX_FRAME: u64 = 1 << 20;
/// A slice that begins this close below the leaf's stack pointer holds the leaf's stack.
const NEAR: u64 = 4096;
/// Words of stack that are searched for a return address where nothing better is known.
const MAX_SCAN: usize = 512;
/// Words of them that are looked at together.
const SCAN_AT_ONCE: usize = 64;

/// What the eBPF program left to be done.
#[derive(Clone, Debug)]
pub struct UnfinishedWalk {
    /// Where it stopped, and the task's registers.
    pub resume: Resume,
    /// The stack.
    pub slice: StackSlice,
    /// Frames found so far, leaf first; the last one is where it stopped.
    pub frames: Vec<u64>,
    /// The process's mappings at that time.
    pub mappings: Mappings,
}

/// A frame that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundFrame {
    /// Instruction pointer, or return address.
    pub ip: u64,
    /// Whether `ip` is a return address: the call lies before it.
    pub returned: bool,
    /// Whether it was guessed from what looks like a return address on the stack.
    pub guessed: bool,
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkEnd {
    /// At the outermost frame.
    Complete,
    /// At the limit of frames.
    Depth,
    /// At the end of the copied slice.
    Slice,
    /// Where nothing says how to go on.
    NoInformation,
    /// At an address outside all mappings.
    Unmapped,
    /// At something that cannot be right: a caller's frame below its callee's.
    Broken,
}

/// A finished walk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedWalk {
    /// All frames, leaf first.
    pub frames: Vec<FoundFrame>,
    /// How it ended.
    pub end: WalkEnd,
}

/// Finishes walks. What a walk needs and is not in the arena is put there on the way.
pub struct Finisher<'a> {
    /// Where rows are kept.
    pub arena: &'a mut Arena,
    /// Where they come from.
    pub modules: &'a ModuleCfiCache,
    /// Learns what was missed.
    pub read_ahead: &'a mut ReadAhead,
}

/// Where a walk is: what rows need, and all registers as long as they are known.
struct Position {
    frame: Frame,
    returned: bool,
    /// All registers, while only full steps were taken.
    registers: Option<Registers>,
}

/// What became of an attempt to go to the caller.
#[expect(clippy::large_enum_variant, reason = "one lives at a time, on the stack")]
enum Moved {
    To(Position, bool),
    End(WalkEnd),
    /// Rows do not suffice; begin again with all registers.
    NeedRegisters,
}

impl Finisher<'_> {
    /// Finishes a walk.
    pub fn finish(&mut self, walk: &UnfinishedWalk) -> FinishedWalk {
        let finished = self.finish_from_slice(walk);
        if finished.frames.len() >= walk.frames.len() {
            return finished;
        }
        // The stack could not be copied as far as the program had read it: what it found stays.
        FinishedWalk { frames: found(&walk.frames), end: finished.end }
    }

    fn finish_from_slice(&mut self, walk: &UnfinishedWalk) -> FinishedWalk {
        // A slice from elsewhere may lie below the leaf's stack: that of an alternate signal stack's handler, say.
        let from_leaf = walk.resume.registers[7].wrapping_sub(walk.slice.start()) < NEAR;
        if from_leaf {
            let leaf = leaf_registers(&walk.resume);
            if let Some(finished) = self.walk(walk, Vec::new(), &leaf, false, false) {
                return finished;
            }
            return self.walk(walk, Vec::new(), &leaf, false, true).unwrap_or_else(|| given_up(walk));
        }
        let Resume { ip, sp, fp, returned, .. } = walk.resume;
        let frame = Frame { ip, sp, fp, fp_known: true };
        let registers = Registers::from_frame(Architecture::X86_64, &frame);
        let mut frames: Vec<_> = found(&walk.frames);
        frames.pop();
        self.walk(walk, frames, &registers, returned != 0, false).unwrap_or_else(|| given_up(walk))
    }

    /// Walks from `registers` on. With `full`, every step restores all registers; `None` when that turns out to be needed.
    fn walk(
        &mut self,
        walk: &UnfinishedWalk,
        mut frames: Vec<FoundFrame>,
        registers: &Registers,
        returned: bool,
        full: bool,
    ) -> Option<FinishedWalk> {
        let frame = registers.frame()?;
        let mut position = Position { frame, returned, registers: full.then_some(*registers) };
        let mut guessed = false;
        loop {
            if frames.len() >= MAX_USER_FRAMES {
                return Some(FinishedWalk { frames, end: WalkEnd::Depth });
            }
            frames.push(FoundFrame { ip: position.frame.ip, returned: position.returned, guessed });
            match self.caller(walk, &position) {
                Moved::To(next, is_guess) => {
                    position = next;
                    guessed = is_guess;
                }
                Moved::End(end) => return Some(FinishedWalk { frames, end }),
                Moved::NeedRegisters if full => {
                    return Some(FinishedWalk { frames, end: WalkEnd::NoInformation });
                }
                Moved::NeedRegisters => return None,
            }
        }
    }

    fn caller(&mut self, walk: &UnfinishedWalk, position: &Position) -> Moved {
        let pc = position.frame.ip.wrapping_sub(u64::from(position.returned));
        let Some(mapping) = walk.mappings.find(pc) else { return Moved::End(WalkEnd::Unmapped) };
        if mapping.module == ModuleId::ANONYMOUS {
            return self.without_information(walk, position);
        }
        let file_offset = pc - mapping.start + mapping.file_offset;
        let module = self.modules.canonical(mapping.module);
        let rule = match self.rule(module, file_offset) {
            Ok(rule) => rule,
            Err(refused) => return without_file(module, refused),
        };
        match (&position.registers, rule.kind) {
            (_, kind::NONE) => self.without_information(walk, position),
            // Also where no CFI says so, but the code is known.
            (_, kind::END) => Moved::End(WalkEnd::Complete),
            (Some(registers), _) => {
                let known = self.full_step(walk, module, file_offset, pc, registers);
                known.unwrap_or_else(|| self.by_row_of_known_code(walk, position, rule))
            }
            (None, kind::SLOW) => {
                tracing::trace!(?module, file_offset, "rows cannot express how to go on");
                Moved::NeedRegisters
            }
            (None, _) => self.by_row(walk, position, rule),
        }
    }

    /// The rule at `file_offset`, from the arena; a page that is not there is put there.
    fn rule(&mut self, module: ModuleId, file_offset: u64) -> Result<Rule, Refused> {
        const NONE: Rule = Rule { kind: kind::NONE, fp: 0, cfa_offset: 0, fp_offset: 0, ra_offset: 0 };
        let Ok(page) = u32::try_from(file_offset / TEXT_PAGE) else { return Ok(NONE) };
        let offset = (file_offset % TEXT_PAGE) as u16;
        if self.arena.has_page(module, page) {
            return Ok(self.arena.rule_at(module, page, offset).unwrap_or(NONE));
        }
        let rows = match self.modules.ask(module, move |module| module.page(page))? {
            Some(Ok(page)) => page.rows,
            Some(Err(error)) => {
                tracing::debug!(?module, page, %error, "cannot build a page of rows");
                Vec::new()
            }
            None => Vec::new(),
        };
        // What cannot be installed is used all the same; it is built again when it is needed again.
        let _refused = self.arena.install_page(module, page, &rows);
        self.read_ahead.missed(module, page);
        let after = rows.partition_point(|(start, _)| *start <= offset);
        Ok(after.checked_sub(1).map_or(NONE, |index| rows[index].1))
    }

    fn by_row(&mut self, walk: &UnfinishedWalk, position: &Position, rule: Rule) -> Moved {
        match step(Architecture::X86_64, position.frame, rule, |address| walk.slice.read(address)) {
            Step::Caller(frame) => Moved::To(Position { frame, returned: true, registers: None }, false),
            Step::Interrupted(frame) => {
                Moved::To(Position { frame, returned: false, registers: None }, false)
            }
            Step::End | Step::NullReturn => Moved::End(WalkEnd::Complete),
            // Only one stack is copied; the program follows to the other when it has all rows.
            Step::Unreadable(_) if rule.kind == kind::FP_SWITCH => Moved::End(WalkEnd::Slice),
            Step::Unreadable(address) => Moved::End(unreadable(walk, address)),
            Step::Implausible => Moved::End(WalkEnd::Broken),
            Step::FramePointerLost | Step::NeedSlow => Moved::NeedRegisters,
            Step::NoInformation => self.without_information(walk, position),
        }
    }

    /// None when there is no CFI for the code: its rule comes from elsewhere.
    fn full_step(
        &mut self,
        walk: &UnfinishedWalk,
        module: ModuleId,
        file_offset: u64,
        pc: u64,
        registers: &Registers,
    ) -> Option<Moved> {
        let (registers, slice) = (*registers, walk.slice.clone());
        let step = move |module: &ModuleCfi| {
            module.full_step(file_offset, pc, &registers, &|address| slice.read(address))
        };
        let stepped = match self.modules.ask(module, step) {
            Ok(stepped) => stepped??,
            Err(refused) => return Some(without_file(module, refused)),
        };
        Some(match stepped {
            Ok(FullStep::Caller(registers)) => moved_with_all(&registers, true),
            Ok(FullStep::Interrupted(registers)) => moved_with_all(&registers, false),
            Ok(FullStep::End) | Err(FullStepError::NullReturn) => Moved::End(WalkEnd::Complete),
            Err(FullStepError::Unreadable(address)) => Moved::End(unreadable(walk, address)),
            Err(FullStepError::Implausible) => Moved::End(WalkEnd::Broken),
            Err(FullStepError::NoInformation) => return None,
            Err(error) => {
                tracing::debug!(?module, file_offset, %error, "cannot evaluate unwind information");
                Moved::End(WalkEnd::NoInformation)
            }
        })
    }

    /// A step of a walk with all registers from code that has a rule but no CFI: a signal trampoline, which restores all of them,
    /// or a Go function, which keeps no register but those that its rule speaks of.
    fn by_row_of_known_code(&mut self, walk: &UnfinishedWalk, position: &Position, rule: Rule) -> Moved {
        if rule.kind == kind::SIGNAL {
            let registers = interrupted(position.frame.sp, |address| walk.slice.read(address));
            return match registers {
                Ok(registers) => moved_with_all(&registers, false),
                Err(address) => Moved::End(unreadable(walk, address)),
            };
        }
        match self.by_row(walk, position, rule) {
            Moved::To(Position { frame, returned, .. }, guessed) => {
                let registers = Registers::from_frame(Architecture::X86_64, &frame);
                Moved::To(Position { frame, returned, registers: Some(registers) }, guessed)
            }
            other => other,
        }
    }

    /// Code without unwind information: by its frame pointer if that is plausible, else by what looks like a return address.
    fn without_information(&mut self, walk: &UnfinishedWalk, position: &Position) -> Moved {
        let Frame { sp, fp, fp_known, .. } = position.frame;
        if fp == 0 && fp_known && position.returned {
            // The chain's end: the thread (a goroutine, for example) began with a frame pointer of 0.
            return Moved::End(WalkEnd::Complete);
        }
        let plausible = fp_known && fp.is_multiple_of(8) && fp.wrapping_sub(sp) < MAX_FRAME;
        if plausible
            && let (Some(caller_fp), Some(ip)) = (walk.slice.read(fp), walk.slice.read(fp.wrapping_add(8)))
        {
            if ip == 0 {
                return Moved::End(WalkEnd::Complete);
            }
            if self.return_addresses(walk, [ip].into_iter()).contains(&ip) {
                let frame = Frame { ip, sp: fp.wrapping_add(16), fp: caller_fp, fp_known: true };
                return Moved::To(Position::with_frame(frame, position), false);
            }
        }
        match self.scan(walk, sp) {
            Some(found) => {
                let frame = Frame { ip: found.ip, sp: found.sp, fp, fp_known };
                Moved::To(Position::with_frame(frame, position), true)
            }
            None => Moved::End(WalkEnd::NoInformation),
        }
    }

    /// The next return address by all that can be seen. Code is read for some words at a time, a module's in one go.
    fn scan(&self, walk: &UnfinishedWalk, sp: u64) -> Option<Return> {
        let first = sp.checked_next_multiple_of(8)?;
        let read = |address| walk.slice.read(address);
        for begin in (0..MAX_SCAN).step_by(SCAN_AT_ONCE) {
            let address = |index: usize| first.checked_add(8 * (begin + index) as u64);
            let words = (0..SCAN_AT_ONCE).map_while(|index| read(address(index)?));
            let returns = self.return_addresses(walk, words);
            let found = find_return(address(0)?, SCAN_AT_ONCE, read, |ip| returns.contains(&ip));
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Those of `words` before which a call stands in executable memory. Of memory without a file only the mapping is known.
    fn return_addresses(&self, walk: &UnfinishedWalk, words: impl Iterator<Item = u64>) -> HashSet<u64> {
        let mut returns = HashSet::new();
        let mut in_files: HashMap<ModuleId, Vec<(u64, u64)>> = HashMap::new();
        for ip in words {
            let Some(mapping) = walk.mappings.find(ip.wrapping_sub(1)) else { continue };
            let Mapping { start, file_offset, module, .. } = mapping;
            if module == ModuleId::ANONYMOUS {
                returns.insert(ip);
            } else {
                in_files.entry(module).or_default().push((ip, ip - start + file_offset));
            }
        }
        for (module, candidates) in in_files {
            let are_after_calls = move |module: &ModuleCfi| {
                let is_after_call = |(_, behind): &(u64, u64)| {
                    module.code_before::<LONGEST_CALL>(*behind).is_some_and(|code| is_after_call(&code))
                };
                candidates.into_iter().filter(is_after_call).map(|(ip, _)| ip).collect::<Vec<_>>()
            };
            // In a file that cannot be read nothing looks like a call.
            if let Ok(Some(found)) = self.modules.ask(self.modules.canonical(module), are_after_calls) {
                returns.extend(found);
            }
        }
        returns
    }
}
impl Position {
    /// `frame` after a step that says nothing of other registers: what they hold is what they held.
    fn with_frame(frame: Frame, before: &Self) -> Self {
        let registers = before.registers.map(|mut registers| {
            registers.set_frame(&frame);
            registers
        });
        Self { frame, returned: true, registers }
    }
}

fn moved_with_all(registers: &Registers, returned: bool) -> Moved {
    match registers.frame() {
        Some(frame) => Moved::To(Position { frame, returned, registers: Some(*registers) }, false),
        None => Moved::End(WalkEnd::Broken),
    }
}

/// The registers that a signal interrupted, from the frame that the kernel put at `sp` (`struct rt_sigframe`, whose return address
/// is popped); the address that cannot be read otherwise.
fn interrupted(sp: u64, read: impl Fn(u64) -> Option<u64>) -> Result<Registers, u64> {
    /// Offset of `uc_mcontext`, which begins with the registers of these DWARF numbers
    /// (`struct sigcontext_64` in `arch/x86/include/uapi/asm/sigcontext.h`).
    const CONTEXT: u64 = 40;
    const ORDER: [u16; 17] = [8, 9, 10, 11, 12, 13, 14, 15, 5, 4, 6, 3, 1, 0, 2, 7, 16];
    let mut values = [0; ORDER.len()];
    for (index, value) in (0..).zip(&mut values) {
        let address = sp.wrapping_add(CONTEXT + 8 * index);
        *value = read(address).ok_or(address)?;
    }
    let [.., ip] = values;
    let mut registers = Registers::new(Architecture::X86_64, ip);
    for (number, value) in ORDER.into_iter().zip(values) {
        registers.set(number, Some(value));
    }
    Ok(registers)
}

fn leaf_registers(resume: &Resume) -> Registers {
    let mut registers = Registers::new(Architecture::X86_64, resume.registers[16]);
    for (number, value) in (0..16).zip(resume.registers) {
        registers.set(number, Some(value));
    }
    registers
}

fn unreadable(walk: &UnfinishedWalk, address: u64) -> WalkEnd {
    if walk.slice.ends_before(address) { WalkEnd::Slice } else { WalkEnd::Broken }
}

/// The file system of a module does not answer: the walk ends there.
fn without_file(module: ModuleId, refused: Refused) -> Moved {
    tracing::trace!(?module, %refused, "cannot unwind");
    Moved::End(WalkEnd::NoInformation)
}

/// What the program found is kept when nothing can be added to it.
fn given_up(walk: &UnfinishedWalk) -> FinishedWalk {
    FinishedWalk { frames: found(&walk.frames), end: WalkEnd::NoInformation }
}

fn found(frames: &[u64]) -> Vec<FoundFrame> {
    let frame = |(index, ip): (usize, &u64)| FoundFrame { ip: *ip, returned: index > 0, guessed: false };
    frames.iter().enumerate().map(frame).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel put into a signal frame is found register by register, at the places of its header file; a frame that cannot be
    /// read says where.
    #[test]
    fn signal_frames_restore_all_registers() {
        const SP: u64 = 0x7000;
        let read = |address: u64| (SP + 40..SP + 176).contains(&address).then_some(address - SP);
        let registers = interrupted(SP, read).unwrap();
        // r8, rsi, rbp, rbx, rsp by DWARF number, and their offsets from `uc_flags` on.
        for (number, offset) in [(8, 40), (4, 112), (6, 120), (3, 128), (7, 160)] {
            assert_eq!(registers.get(number), Some(offset), "{number}");
        }
        assert_eq!(registers.ip(), 168);
        let saved = Architecture::X86_64.signal_frame();
        let frame = Frame { ip: saved.ip, sp: saved.sp, fp: saved.fp, fp_known: true };
        assert_eq!(registers.frame(), Some(frame), "as rows restore them");
        assert_eq!(interrupted(SP + 16, read), Err(SP + 16 + 160));
    }
}
