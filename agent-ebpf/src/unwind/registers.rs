//! The registers with which the current task left user mode. The one place that knows the machine.

use agent_ebpf::{Cursor, REGISTERS, walk};
use aya_ebpf::bindings::pt_regs;
use aya_ebpf::helpers::generated::{
    bpf_get_current_task, bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_task_pt_regs,
};

/// Set by the agent before loading, from the kernel's BTF: offset of `mm` in `task_struct`, or 0.
#[unsafe(no_mangle)]
static TASK_MM_OFFSET: u32 = 0;

/// Set by the agent before loading, from the kernel's BTF: offset of `stack` in `task_struct`.
#[unsafe(no_mangle)]
static TASK_STACK_OFFSET: u32 = 0;

/// Size of a kernel stack (`THREAD_SIZE`).
#[unsafe(no_mangle)]
static KERNEL_STACK_BYTES: u32 = 16 << 10;

/// Low bits of `cs` in user mode (`USER_RPL` in `arch/x86/include/asm/segment.h`).
const USER_MODE: u64 = 3;
/// `__USER32_CS` on x86-64.
const COMPAT_CS: u64 = 0x23;

/// The user-mode registers of a task, all 0 for a kernel thread.
pub(crate) struct UserRegisters(pt_regs);

impl UserRegisters {
    /// Where those of the current task lie. Also right when the sample hit user mode: the entry code has saved them in the same place
    /// (`task_pt_regs`). `bpf_task_pt_regs` came with 5.15.
    #[inline(always)]
    pub(super) fn place_by_helper() -> u64 {
        // SAFETY: helpers that take the current task and return an address.
        unsafe { bpf_task_pt_regs(bpf_get_current_task_btf()) as u64 }
    }

    /// The same without the helper: they lie at the very top of the task's kernel stack (`task_pt_regs` in
    /// `arch/x86/include/asm/processor.h`; 64-bit kernels before 6.9 leave no room above).
    #[inline(always)]
    pub(super) fn place_in_task_stack() -> u64 {
        // SAFETY: a helper without arguments; statics in `.rodata`, read volatile so that the initial value is not taken for
        // the final one.
        let (task, stack, size) = unsafe {
            (
                bpf_get_current_task(),
                core::ptr::read_volatile(&raw const TASK_STACK_OFFSET),
                core::ptr::read_volatile(&raw const KERNEL_STACK_BYTES),
            )
        };
        let bottom = read_kernel(task + u64::from(stack));
        bottom + u64::from(size) - size_of::<pt_regs>() as u64
    }

    /// Reads them from where they lie.
    #[inline(always)]
    pub(super) fn read(address: u64) -> Self {
        // SAFETY: plain data.
        let mut registers: pt_regs = unsafe { core::mem::zeroed() };
        // SAFETY: the destination has the size that is passed; the source is read with fault handling.
        unsafe {
            bpf_probe_read_kernel(
                (&raw mut registers).cast(),
                size_of::<pt_regs>() as u32,
                address as *const core::ffi::c_void,
            );
        }
        Self(registers)
    }

    /// Where the task goes on in user mode: address and stack pointer.
    #[inline(always)]
    pub(super) fn position(&self) -> (u64, u64) {
        (self.0.rip, self.0.rsp)
    }

    /// Says that the task goes on somewhere else.
    #[inline(always)]
    pub(super) fn set_ip(&mut self, ip: u64) {
        self.0.rip = ip;
    }

    /// Puts the walk's beginning into `cursor`; false when there is nothing to walk.
    #[inline(always)]
    pub(super) fn load(&self, cursor: &mut Cursor) -> bool {
        let registers = &self.0;
        // User mode is told by `cs`, not by an address bit: kernel threads have zeros there.
        if registers.cs & USER_MODE != USER_MODE {
            return false;
        }
        if registers.cs == COMPAT_CS {
            cursor.ended = u32::from(walk::COMPAT);
            return false;
        }
        cursor.ip = registers.rip;
        cursor.sp = registers.rsp;
        cursor.fp = registers.rbp;
        true
    }

    /// The registers by DWARF number (System V ABI, AMD64 supplement, figure 3.36).
    #[inline(always)]
    pub(super) fn store(&self, to: &mut [u64; REGISTERS]) {
        let r = &self.0;
        to[0] = r.rax;
        to[1] = r.rdx;
        to[2] = r.rcx;
        to[3] = r.rbx;
        to[4] = r.rsi;
        to[5] = r.rdi;
        to[6] = r.rbp;
        to[7] = r.rsp;
        to[8] = r.r8;
        to[9] = r.r9;
        to[10] = r.r10;
        to[11] = r.r11;
        to[12] = r.r12;
        to[13] = r.r13;
        to[14] = r.r14;
        to[15] = r.r15;
        to[16] = r.rip;
    }
}

/// The system call that a task is in: its number, and its first three arguments.
#[derive(Clone, Copy)]
pub(crate) struct SystemCall {
    pub(crate) number: u64,
    pub(crate) arguments: [u64; 3],
}

/// What is read of the registers for it: they lie one behind the other (`arch/x86/include/asm/ptrace.h`), so one read is enough.
#[repr(C)]
#[derive(Clone, Copy)]
struct CallRegisters {
    dx: u64,
    si: u64,
    di: u64,
    orig_ax: u64,
    ip: u64,
    cs: u64,
}

const _: () = {
    use core::mem::offset_of;
    let first = offset_of!(pt_regs, rdx);
    assert!(offset_of!(pt_regs, rsi) == first + offset_of!(CallRegisters, si));
    assert!(offset_of!(pt_regs, rdi) == first + offset_of!(CallRegisters, di));
    assert!(offset_of!(pt_regs, orig_rax) == first + offset_of!(CallRegisters, orig_ax));
    assert!(offset_of!(pt_regs, rip) == first + offset_of!(CallRegisters, ip));
    assert!(offset_of!(pt_regs, cs) == first + offset_of!(CallRegisters, cs));
};

impl SystemCall {
    /// `futex` of this machine.
    pub(crate) const FUTEX: u64 = 202;

    /// The one whose registers lie at `place`. What entered the kernel otherwise has a number that no call has (-1). `None` for 32-bit
    /// tasks, whose numbers are others; for kernel threads, which have no such registers; and for workers of io_uring, which have a
    /// copy of another task's with the address 0.
    #[inline(always)]
    pub(super) fn read(place: u64) -> Option<Self> {
        let mut registers = CallRegisters { dx: 0, si: 0, di: 0, orig_ax: 0, ip: 0, cs: 0 };
        let first = place + core::mem::offset_of!(pt_regs, rdx) as u64;
        // SAFETY: the destination has the size that is passed; the source is read with fault handling.
        unsafe {
            bpf_probe_read_kernel(
                (&raw mut registers).cast(),
                size_of::<CallRegisters>() as u32,
                first as *const core::ffi::c_void,
            );
        }
        let CallRegisters { dx, si, di, orig_ax, ip, cs } = registers;
        let is_usual = cs & USER_MODE == USER_MODE && cs != COMPAT_CS && ip != 0;
        is_usual.then_some(Self { number: orig_ax, arguments: [di, si, dx] })
    }
}

/// Which address space the current task runs in: the address of its `mm`, which an exec replaces. 0 when it has none or the
/// kernel's BTF does not tell where it is.
#[inline(always)]
pub(super) fn current_image() -> u64 {
    // SAFETY: a static in `.rodata`; volatile so that the initial value is not taken for the final one.
    let offset = unsafe { core::ptr::read_volatile(&raw const TASK_MM_OFFSET) };
    if offset == 0 {
        return 0;
    }
    // SAFETY: a helper without arguments.
    read_kernel(unsafe { bpf_get_current_task() } + u64::from(offset))
}

/// The word at a kernel address; 0 when it cannot be read.
#[inline(always)]
pub(super) fn read_kernel(address: u64) -> u64 {
    let mut word = 0u64;
    // SAFETY: the destination has the size that is passed; the source is read with fault handling.
    unsafe {
        bpf_probe_read_kernel(
            (&raw mut word).cast(),
            size_of::<u64>() as u32,
            address as *const core::ffi::c_void,
        );
    }
    word
}
