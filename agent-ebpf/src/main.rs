//! The eBPF programs. Each family has a module; this file only joins them.
//!
//! Built for `bpfel-unknown-none` by `cargo xtask build-ebpf`. On any other target this is an empty
//! program, so that tools which look at the whole workspace are not stopped by it.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod context;
#[cfg(target_arch = "bpf")]
mod cpu;
#[cfg(target_arch = "bpf")]
mod fault;
#[cfg(target_arch = "bpf")]
mod offcpu;
#[cfg(target_arch = "bpf")]
mod probe;
#[cfg(target_arch = "bpf")]
mod record;
#[cfg(target_arch = "bpf")]
mod sample;
#[cfg(target_arch = "bpf")]
mod select;
#[cfg(target_arch = "bpf")]
mod unwind;
#[cfg(target_arch = "bpf")]
mod vma;

/// The kernel offers GPL-only helpers (`bpf_get_stack`, `bpf_probe_read_user`) to programs that declare
/// this.
#[cfg(target_arch = "bpf")]
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here can panic; the verifier would refuse a loop that does not end.
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
