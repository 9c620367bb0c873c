//! The mapping that an address of the current task lies in.

use agent_ebpf::{VmaOffsets, about_page};
use aya_ebpf::helpers::generated::{bpf_find_vma, bpf_get_current_task_btf, bpf_probe_read_kernel};

use crate::unwind::{Legacy, Modern};

/// Bits of `vm_flags` (`include/linux/mm.h`).
const VM_WRITE: u64 = 0x2;
const VM_SHARED: u64 = 0x8;
const VM_HUGEPAGE: u64 = 0x2000_0000;
const VM_NOHUGEPAGE: u64 = 0x4000_0000;
/// `TMPFS_MAGIC` in `include/uapi/linux/magic.h`: shared memory, also that without a path.
const TMPFS: u64 = 0x0102_1994;
/// Bytes of a huge page (a page middle directory's, on machines with pages of 4 KiB).
const HUGE_PAGE: u64 = 2 << 20;

/// Set by the agent before loading, from the kernel's BTF; all 0 where it does not tell.
#[unsafe(no_mangle)]
static VMA_OFFSETS: VmaOffsets =
    VmaOffsets { start: 0, end: 0, flags: 0, file: 0, inode: 0, super_block: 0, magic: 0 };

/// Set by the agent before loading: how the kernel gives huge pages, 0: not, 1: to mappings that ask for them, 2: to all others too.
#[unsafe(no_mangle)]
static HUGE_PAGES: u32 = 0;

/// What a kernel tells of mappings.
pub(crate) trait VmaSupport {
    /// What is known of `address` by the mapping that holds it: bits of [`about_page`]. [`about_page::MAYBE_HUGE`] when there may be a huge page
    /// by what the mapping says.
    fn about(address: u64) -> u64;
}

/// What the callback is asked and answers. A copy of the mapping's members would take more of the BPF stack, of which this program's
/// functions have 512 bytes together.
#[repr(C)]
struct Question {
    address: u64,
    about: u64,
}

impl VmaSupport for Modern {
    /// `bpf_find_vma` came with 5.17. It takes the lock of the address space if it is free, and so may find nothing.
    #[inline(always)]
    fn about(address: u64) -> u64 {
        let mut question = Question { address, about: about_unknown() };
        // SAFETY: a static in `.rodata`; the callback has the signature that the helper wants, and `question` outlives the call.
        unsafe {
            if core::ptr::read_volatile(&raw const VMA_OFFSETS.end) != 0 {
                bpf_find_vma(
                    bpf_get_current_task_btf(),
                    address,
                    on_vma as *mut core::ffi::c_void,
                    (&raw mut question).cast(),
                    0,
                );
            }
        }
        question.about
    }
}

impl VmaSupport for Legacy {
    #[inline(always)]
    fn about(_address: u64) -> u64 {
        about_unknown()
    }
}

/// What is known without the mapping.
#[inline(always)]
fn about_unknown() -> u64 {
    // SAFETY: a static in `.rodata`.
    if unsafe { core::ptr::read_volatile(&raw const HUGE_PAGES) } == 0 { 0 } else { about_page::MAYBE_HUGE }
}

/// The callback of `bpf_find_vma`.
#[inline(never)]
extern "C" fn on_vma(_task: u64, vma: u64, question: *mut Question) -> i64 {
    // SAFETY: statics in `.rodata`, each read by itself. `Modern::about` passed a pointer to its own variable.
    unsafe {
        let at = |offset: *const u32| u64::from(core::ptr::read_volatile(offset));
        let flags = read_kernel(vma + at(&raw const VMA_OFFSETS.flags));
        let file = read_kernel(vma + at(&raw const VMA_OFFSETS.file));
        (*question).about = if file == 0 {
            let start = read_kernel(vma + at(&raw const VMA_OFFSETS.start));
            let end = read_kernel(vma + at(&raw const VMA_OFFSETS.end));
            let region = (*question).address & !(HUGE_PAGE - 1);
            let fits = start <= region && region + HUGE_PAGE <= end;
            about_page::ANON | if fits && gives_huge_pages(flags) { about_page::MAYBE_HUGE } else { 0 }
        } else {
            let inode = read_kernel(file + at(&raw const VMA_OFFSETS.inode));
            let super_block = read_kernel(inode + at(&raw const VMA_OFFSETS.super_block));
            let magic = read_kernel(super_block + at(&raw const VMA_OFFSETS.magic));
            let kind = if magic == TMPFS { about_page::SHMEM } else { about_page::FILE };
            let shared = flags & (VM_WRITE | VM_SHARED) == VM_WRITE | VM_SHARED;
            kind | if shared { about_page::SHARED_WRITE } else { 0 }
        };
    }
    0
}

/// Whether the kernel gives huge pages to a mapping with these flags.
#[inline(always)]
fn gives_huge_pages(flags: u64) -> bool {
    // SAFETY: a static in `.rodata`.
    match unsafe { core::ptr::read_volatile(&raw const HUGE_PAGES) } {
        0 => false,
        1 => flags & VM_HUGEPAGE != 0,
        _ => flags & VM_NOHUGEPAGE == 0,
    }
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
