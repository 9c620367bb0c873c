//! The mapping that an address of the current task lies in.

use agent_ebpf::VmaOffsets;
use aya_ebpf::helpers::generated::{bpf_find_vma, bpf_get_current_task_btf, bpf_probe_read_kernel};

use crate::unwind::{Legacy, Modern};

/// `VM_HUGEPAGE` and `VM_NOHUGEPAGE` in `include/linux/mm.h`: `madvise` has asked for huge pages, or refused them.
pub(crate) const HUGE_PAGES_WANTED: u64 = 0x2000_0000;
pub(crate) const HUGE_PAGES_REFUSED: u64 = 0x4000_0000;
/// `VM_WRITE` and `VM_SHARED` there.
pub(crate) const WRITE: u64 = 0x2;
pub(crate) const SHARED: u64 = 0x8;
/// `TMPFS_MAGIC` in `include/uapi/linux/magic.h`: shared memory, also that without a path.
pub(crate) const TMPFS: u64 = 0x0102_1994;

/// Set by the agent before loading, from the kernel's BTF; all 0 where it does not tell.
#[unsafe(no_mangle)]
static VMA_OFFSETS: VmaOffsets =
    VmaOffsets { start: 0, end: 0, flags: 0, file: 0, inode: 0, super_block: 0, magic: 0 };

/// A mapping; all 0 when there is none or the kernel does not tell.
#[derive(Clone, Copy)]
pub(crate) struct Vma {
    start: u64,
    end: u64,
    /// `VM_…`.
    pub(crate) flags: u64,
    /// Address of the kernel's `struct file`; 0 for memory without a file.
    pub(crate) file: u64,
    /// Magic number of the file's file system.
    pub(crate) magic: u64,
}

impl Vma {
    const UNKNOWN: Self = Self { start: 0, end: 0, flags: 0, file: 0, magic: 0 };

    /// Whether there is one.
    #[inline(always)]
    pub(crate) fn is_known(&self) -> bool {
        self.end != 0
    }

    /// Whether all addresses from `start` to `end` lie in it.
    #[inline(always)]
    pub(crate) fn holds(&self, start: u64, end: u64) -> bool {
        self.start <= start && end <= self.end
    }
}

/// What a kernel tells of mappings.
pub(crate) trait VmaSupport {
    /// The mapping that holds `address`.
    fn find(address: u64) -> Vma;
}

impl VmaSupport for Modern {
    /// `bpf_find_vma` came with 5.17. It takes the lock of the address space if it is free, and so may find nothing.
    #[inline(always)]
    fn find(address: u64) -> Vma {
        let mut vma = Vma::UNKNOWN;
        // SAFETY: a static in `.rodata`.
        if unsafe { core::ptr::read_volatile(&raw const VMA_OFFSETS.end) } == 0 {
            return vma;
        }
        // SAFETY: the callback has the signature that the helper wants, and `vma` outlives the call.
        unsafe {
            bpf_find_vma(
                bpf_get_current_task_btf(),
                address,
                on_vma as *mut core::ffi::c_void,
                (&raw mut vma).cast(),
                0,
            );
        }
        vma
    }
}

impl VmaSupport for Legacy {
    #[inline(always)]
    fn find(_address: u64) -> Vma {
        Vma::UNKNOWN
    }
}

/// The callback of `bpf_find_vma`.
#[inline(never)]
extern "C" fn on_vma(_task: u64, vma: u64, found: *mut Vma) -> i64 {
    // SAFETY: statics in `.rodata`, each read by itself: a copy of them all would take the BPF stack's bytes. `find` passed a pointer to its
    // own variable.
    unsafe {
        let at = |offset: *const u32| u64::from(core::ptr::read_volatile(offset));
        (*found).start = read_kernel(vma + at(&raw const VMA_OFFSETS.start));
        (*found).end = read_kernel(vma + at(&raw const VMA_OFFSETS.end));
        (*found).flags = read_kernel(vma + at(&raw const VMA_OFFSETS.flags));
        let file = read_kernel(vma + at(&raw const VMA_OFFSETS.file));
        (*found).file = file;
        if file != 0 {
            let inode = read_kernel(file + at(&raw const VMA_OFFSETS.inode));
            let super_block = read_kernel(inode + at(&raw const VMA_OFFSETS.super_block));
            (*found).magic = read_kernel(super_block + at(&raw const VMA_OFFSETS.magic));
        }
    }
    0
}

/// The word at a kernel address; 0 when it cannot be read.
#[inline(always)]
fn read_kernel(address: u64) -> u64 {
    let mut word = 0u64;
    // SAFETY: the destination has the size that is passed; the source is read with fault handling.
    unsafe {
        bpf_probe_read_kernel((&raw mut word).cast(), 8, address as *const core::ffi::c_void);
    }
    word
}
