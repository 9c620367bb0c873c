//! Bytes of code, where no unwind information says what they are.

use agent::unwind::{is_after_call, is_musl_start, is_signal_trampoline};

use crate::Target;

pub(super) const TARGET: Target = Target { name: "code", longest_input: 64, heap_bytes: 0, read };

/// The input is code on both sides of an address, which is each of its bytes in turn.
fn read(input: &[u8]) -> bool {
    let mut known = false;
    for address in 0..=input.len() {
        let (before, after) = input.split_at(address);
        let call = is_after_call(before);
        assert!(!call || before.len() >= 2, "the shortest call has two bytes");
        known |= call | is_signal_trampoline(after) | is_musl_start(after);
    }
    known
}
