//! Finishing a walk that the eBPF program had to leave: over a copied slice of the stack, with the same rows, or with
//! everything that unwind information can say.

use agent_ebpf::rule::{Rule, TEXT_PAGE, kind};
use agent_ebpf::{MAX_USER_FRAMES, Resume};

use crate::process::mappings::{Mapping, Mappings};
use crate::process::module::ModuleId;
use crate::unwind::arena::Arena;
use crate::unwind::module_cfi::ModuleCfiCache;
use crate::unwind::stack_slice::StackSlice;
use crate::unwind::{
    Architecture, Frame, FullStep, FullStepError, LONGEST_CALL, Registers, Step, find_return, is_after_call,
    step,
};

/// A frame pointer is believed when it lies this close above the stack pointer, as in the eBPF program.
const MAX_FRAME: u64 = 1 << 20;
/// A slice that begins this close below the leaf's stack pointer holds the leaf's stack.
const NEAR: u64 = 4096;
/// Words of stack that are searched for a return address where nothing better is known.
const MAX_SCAN: usize = 512;

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
    pub modules: &'a mut ModuleCfiCache,
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
        let rule = self.rule(mapping.module, file_offset);
        match (&position.registers, rule.kind) {
            (_, kind::NONE) => self.without_information(walk, position),
            // Also where no CFI says so, but the code is known.
            (_, kind::END) => Moved::End(WalkEnd::Complete),
            (Some(registers), _) => {
                self.full_step(walk, position, mapping.module, file_offset, pc, registers)
            }
            (None, kind::SLOW) => Moved::NeedRegisters,
            (None, _) => self.by_row(walk, position, rule),
        }
    }

    /// The rule at `file_offset`, from the arena; a page that is not there is put there.
    fn rule(&mut self, module: ModuleId, file_offset: u64) -> Rule {
        const NONE: Rule = Rule { kind: kind::NONE, fp: 0, cfa_offset: 0, fp_offset: 0, ra_offset: 0 };
        let Ok(page) = u32::try_from(file_offset / TEXT_PAGE) else { return NONE };
        let offset = (file_offset % TEXT_PAGE) as u16;
        if let Some(rule) = self.arena.rule_at(module, page, offset) {
            return rule;
        }
        let rows = match self.modules.get(module).map(|module| module.page(page)) {
            Some(Ok(page)) => page.rows,
            Some(Err(error)) => {
                tracing::debug!(?module, page, %error, "cannot build a page of rows");
                Vec::new()
            }
            None => Vec::new(),
        };
        // What cannot be installed is used all the same; it is built again when it is needed again.
        let _refused = self.arena.install_page(module, page, &rows);
        let after = rows.partition_point(|(start, _)| *start <= offset);
        after.checked_sub(1).map_or(NONE, |index| rows[index].1)
    }

    fn by_row(&mut self, walk: &UnfinishedWalk, position: &Position, rule: Rule) -> Moved {
        match step(Architecture::X86_64, position.frame, rule, |address| walk.slice.read(address)) {
            Step::Caller(frame) => Moved::To(Position { frame, returned: true, registers: None }, false),
            Step::Interrupted(frame) => {
                Moved::To(Position { frame, returned: false, registers: None }, false)
            }
            Step::End | Step::NullReturn => Moved::End(WalkEnd::Complete),
            Step::Unreadable(address) => Moved::End(unreadable(walk, address)),
            Step::Implausible => Moved::End(WalkEnd::Broken),
            Step::FramePointerLost | Step::NeedSlow => Moved::NeedRegisters,
            Step::NoInformation => self.without_information(walk, position),
        }
    }

    fn full_step(
        &mut self,
        walk: &UnfinishedWalk,
        position: &Position,
        module: ModuleId,
        file_offset: u64,
        pc: u64,
        registers: &Registers,
    ) -> Moved {
        let read = |address| walk.slice.read(address);
        let stepped =
            self.modules.get(module).and_then(|module| module.full_step(file_offset, pc, registers, &read));
        match stepped {
            Some(Ok(FullStep::Caller(registers))) => moved_with_all(&registers, true),
            Some(Ok(FullStep::Interrupted(registers))) => moved_with_all(&registers, false),
            Some(Ok(FullStep::End) | Err(FullStepError::NullReturn)) => Moved::End(WalkEnd::Complete),
            Some(Err(FullStepError::Unreadable(address))) => Moved::End(unreadable(walk, address)),
            Some(Err(FullStepError::Implausible)) => Moved::End(WalkEnd::Broken),
            Some(Err(FullStepError::NoInformation)) | None => self.without_information(walk, position),
            Some(Err(error)) => {
                tracing::debug!(?module, file_offset, %error, "cannot evaluate unwind information");
                Moved::End(WalkEnd::NoInformation)
            }
        }
    }

    /// Code without unwind information: by its frame pointer if that is plausible, else by what looks like a return address.
    fn without_information(&mut self, walk: &UnfinishedWalk, position: &Position) -> Moved {
        let Frame { sp, fp, fp_known, .. } = position.frame;
        if fp == 0 && fp_known && position.returned {
            // The chain's end: the thread (a goroutine, for example) began with a frame pointer of 0.
            return Moved::End(WalkEnd::Complete);
        }
        self.open_modules_on_stack(walk, sp);
        let plausible = fp_known && fp.is_multiple_of(8) && fp.wrapping_sub(sp) < MAX_FRAME;
        if plausible
            && let (Some(caller_fp), Some(ip)) = (walk.slice.read(fp), walk.slice.read(fp.wrapping_add(8)))
        {
            if ip == 0 {
                return Moved::End(WalkEnd::Complete);
            }
            if self.is_return_address(walk, ip) {
                let frame = Frame { ip, sp: fp.wrapping_add(16), fp: caller_fp, fp_known: true };
                return Moved::To(Position::with_frame(frame, position), false);
            }
        }
        let is_return = |ip| self.is_return_address(walk, ip);
        match find_return(sp, MAX_SCAN, |address| walk.slice.read(address), is_return) {
            Some(found) => {
                let frame = Frame { ip: found.ip, sp: found.sp, fp, fp_known };
                Moved::To(Position::with_frame(frame, position), true)
            }
            None => Moved::End(WalkEnd::NoInformation),
        }
    }

    /// Opens the modules that words of the stack point into, so that their code can be looked at.
    fn open_modules_on_stack(&mut self, walk: &UnfinishedWalk, sp: u64) {
        let words =
            (0..MAX_SCAN as u64).map_while(|index| walk.slice.read((sp & !7).wrapping_add(index * 8)));
        let mut last = None;
        for mapping in words.filter_map(|word| walk.mappings.find(word.wrapping_sub(1))) {
            if last.replace(mapping.module) != Some(mapping.module) && mapping.module != ModuleId::ANONYMOUS {
                self.modules.get(mapping.module);
            }
        }
    }

    /// Whether a call stands before `ip` in executable memory. Of memory without a file only the mapping is known.
    fn is_return_address(&self, walk: &UnfinishedWalk, ip: u64) -> bool {
        let Some(Mapping { start, file_offset, module, .. }) = walk.mappings.find(ip.wrapping_sub(1)) else {
            return false;
        };
        if module == ModuleId::ANONYMOUS {
            return true;
        }
        let behind = ip - start + file_offset;
        let code = self.modules.peek(module).and_then(|module| module.code_before::<LONGEST_CALL>(behind));
        code.is_some_and(|code| is_after_call(&code))
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

/// What the program found is kept when nothing can be added to it.
fn given_up(walk: &UnfinishedWalk) -> FinishedWalk {
    FinishedWalk { frames: found(&walk.frames), end: WalkEnd::NoInformation }
}

fn found(frames: &[u64]) -> Vec<FoundFrame> {
    let frame = |(index, ip): (usize, &u64)| FoundFrame { ip: *ip, returned: index > 0, guessed: false };
    frames.iter().enumerate().map(frame).collect()
}
