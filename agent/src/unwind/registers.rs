//! Registers by their DWARF numbers: the one place that names those of a machine.
//!
//! Numbers: System V ABI for AMD64, figure 3.36; DWARF for the Arm 64-bit Architecture (AADWARF64), section 4.1.

use gimli::{AArch64, Register, X86_64};
use object::elf::{EM_AARCH64, EM_X86_64, Machine};

/// A machine whose stacks are unwound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// x86_64.
    X86_64,
    /// arm64.
    Aarch64,
}

/// Where a signal frame keeps the interrupted registers: offsets in bytes from the stack pointer that the trampoline has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SignalFrame {
    pub(super) ip: u64,
    pub(super) sp: u64,
    pub(super) fp: u64,
}

impl Architecture {
    /// The architecture of an ELF file; None when its stacks are not unwound here.
    pub fn of(machine: Machine) -> Option<Self> {
        match machine {
            EM_X86_64 => Some(Self::X86_64),
            EM_AARCH64 => Some(Self::Aarch64),
            _ => None,
        }
    }

    pub(super) const fn stack_pointer(self) -> Register {
        match self {
            Self::X86_64 => X86_64::RSP,
            Self::Aarch64 => AArch64::SP,
        }
    }

    pub(super) const fn frame_pointer(self) -> Register {
        match self {
            Self::X86_64 => X86_64::RBP,
            Self::Aarch64 => AArch64::X29,
        }
    }

    /// The column of the return address: on arm64 the link register.
    pub(super) const fn return_address(self) -> Register {
        match self {
            Self::X86_64 => X86_64::RA,
            Self::Aarch64 => AArch64::X30,
        }
    }

    /// Registers that [`Registers`] has: general ones, and the instruction pointer where DWARF numbers it.
    pub(super) const fn register_count(self) -> u16 {
        match self {
            Self::X86_64 => 17,
            Self::Aarch64 => 32,
        }
    }

    /// Whether a function hands the register back as it got it, so that a register without a rule is unchanged.
    pub(super) fn is_callee_saved(self, register: Register) -> bool {
        match self {
            Self::X86_64 => matches!(register.0, 3 | 6 | 12..=15),
            Self::Aarch64 => matches!(register.0, 19..=29),
        }
    }

    /// Bytes by which a caller's stack pointer is at least above the callee's: x86_64 pushes the return address.
    pub(super) const fn least_frame(self) -> u64 {
        match self {
            Self::X86_64 => 8,
            Self::Aarch64 => 0,
        }
    }

    /// `struct rt_sigframe`: `arch/x86/include/asm/sigframe.h` (the return address is popped: `sp` is at `uc`) and
    /// `arch/arm64/kernel/signal.c` (`info`, then `uc`).
    pub(super) const fn signal_frame(self) -> SignalFrame {
        match self {
            Self::X86_64 => SignalFrame { ip: 168, sp: 160, fp: 120 },
            Self::Aarch64 => SignalFrame { ip: 568, sp: 560, fp: 544 },
        }
    }
}

/// The registers that rows need. `ip` of a leaf is where it is; of a caller it is the return address, and what covers
/// it is looked up one byte before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Instruction pointer.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer register, whatever it is used for.
    pub fp: u64,
    /// Whether `fp` is what the function sees in the register; false once a rule could not say where it was saved.
    pub fp_known: bool,
}

/// Most registers of an architecture.
const MOST: usize = 32;

/// All integer registers of a frame, by DWARF number; None is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    architecture: Architecture,
    ip: u64,
    values: [Option<u64>; MOST],
}

impl Registers {
    /// None is known but the instruction pointer.
    pub fn new(architecture: Architecture, ip: u64) -> Self {
        let mut registers = Self { architecture, ip, values: [None; MOST] };
        registers.set_ip(ip);
        registers
    }

    /// Those of `frame`.
    pub fn from_frame(architecture: Architecture, frame: &Frame) -> Self {
        let mut registers = Self::new(architecture, frame.ip);
        registers.set(architecture.stack_pointer().0, Some(frame.sp));
        registers.set(architecture.frame_pointer().0, frame.fp_known.then_some(frame.fp));
        registers
    }

    /// Sets what rows know of a frame, and leaves the rest.
    pub fn set_frame(&mut self, frame: &Frame) {
        let architecture = self.architecture;
        self.set_ip(frame.ip);
        self.set(architecture.stack_pointer().0, Some(frame.sp));
        self.set(architecture.frame_pointer().0, frame.fp_known.then_some(frame.fp));
    }

    /// What rows need of them. None when the stack pointer is not known.
    pub fn frame(&self) -> Option<Frame> {
        let fp = self.get(self.architecture.frame_pointer().0);
        let sp = self.get(self.architecture.stack_pointer().0)?;
        Some(Frame { ip: self.ip, sp, fp: fp.unwrap_or(0), fp_known: fp.is_some() })
    }

    /// The machine that they belong to.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// The instruction pointer.
    pub fn ip(&self) -> u64 {
        self.ip
    }

    /// The register with this DWARF number.
    pub fn get(&self, register: u16) -> Option<u64> {
        self.values.get(usize::from(register)).copied().flatten()
    }

    /// Sets the register with this DWARF number; one that the architecture does not have is ignored.
    pub fn set(&mut self, register: u16, value: Option<u64>) {
        if register < self.architecture.register_count()
            && let Some(slot) = self.values.get_mut(usize::from(register))
        {
            *slot = value;
        }
    }

    /// Sets the instruction pointer, in the column that DWARF gives it too (x86_64's 16).
    fn set_ip(&mut self, ip: u64) {
        self.ip = ip;
        if self.architecture == Architecture::X86_64 {
            self.set(X86_64::RA.0, Some(ip));
        }
    }
}
