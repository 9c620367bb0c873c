//! What the bytes of x86_64 code say where CFI says nothing.

/// Bytes before a return address that [`is_after_call`] looks at.
pub const LONGEST_CALL: usize = 8;

/// Whether `before`, the bytes that end where an address points, end in a call: what every true return address has
/// before it; seven bytes are enough. Instructions cannot be decoded backwards, so bytes in the middle of others may look like a call.
///
/// Calls: `E8 rel32`, and `FF /2` with any addressing (Intel SDM volume 2, "CALL" and table 2-2).
pub fn is_after_call(before: &[u8]) -> bool {
    let at = |back: usize| before.len().checked_sub(back).and_then(|at| before.get(at)).copied();
    if at(5) == Some(0xe8) {
        return true;
    }
    // Opcode, ModRM, and what ModRM asks for; prefixes come before and do not matter.
    (2..=7).any(|length| {
        let Some((0xff, modrm)) = at(length).zip(at(length - 1)) else { return false };
        let sib = at(length.saturating_sub(2)).filter(|_| length > 2);
        modrm >> 3 & 7 == 2 && indirect_call_len(modrm, sib) == Some(length)
    })
}

/// Length of `FF` with this ModRM byte, and the SIB byte that may follow it. None when there should be one and is none.
fn indirect_call_len(modrm: u8, sib: Option<u8>) -> Option<usize> {
    let (mode, register) = (modrm >> 6, modrm & 7);
    if mode == 3 {
        return Some(2);
    }
    let has_sib = register == 4;
    let displacement = match mode {
        0 if register == 5 => 4,
        0 if has_sib && sib? & 7 == 5 => 4,
        0 => 0,
        1 => 1,
        _ => 4,
    };
    Some(2 + usize::from(has_sib) + displacement)
}

/// Whether `code` may begin with code that is known, by its first bytes: a search looks at every byte of text, and nearly all fail here.
pub(super) fn may_be_known(code: &[u8]) -> bool {
    matches!(code, [0x48, 0xc7 | 0x31, 0xc0 | 0xed, ..] | [0xb8, 0x0f, ..] | [0x31, 0xed, 0x5f, ..])
}

/// Whether `code` begins with what returns from a signal handler, `mov $15, %rax; syscall` in its two encodings: musl's and Go's
/// trampolines, which have no CFI.
pub fn is_signal_trampoline(code: &[u8]) -> bool {
    code.starts_with(b"\x48\xc7\xc0\x0f\0\0\0\x0f\x05") || code.starts_with(b"\xb8\x0f\0\0\0\x0f\x05")
}

/// Whether `code` begins with what musl's programs begin with, up to the end of its call; it has no CFI
/// (`arch/x86_64/crt_arch.h`): `xor %rbp,%rbp; mov %rsp,%rdi; lea _DYNAMIC(%rip),%rsi; and $-16,%rsp; call _start_c`.
pub fn is_musl_start(code: &[u8]) -> bool {
    let Some(code) = code.first_chunk::<MUSL_START>() else { return false };
    code.starts_with(b"\x48\x31\xed\x48\x89\xe7\x48\x8d\x35")
        && code.get(13..18).is_some_and(|rest| rest == b"\x48\x83\xe4\xf0\xe8")
}

/// Bytes that [`is_musl_start`] looks at.
pub const MUSL_START: usize = 22;

/// Whether `code` begins with where musl's threads begin, from their first instruction to their last; it has no CFI
/// (`src/thread/x86_64/clone.s`): `xor %ebp,%ebp; pop %rdi; call *%r9; mov %eax,%edi; xor %eax,%eax; mov $60,%al; syscall`.
pub fn is_musl_thread_start(code: &[u8]) -> bool {
    code.starts_with(b"\x31\xed\x5f\x41\xff\xd1\x89\xc7\x31\xc0\xb0\x3c\x0f\x05")
}

/// Bytes that [`is_musl_thread_start`] looks at.
pub const MUSL_THREAD_START: usize = 14;

#[cfg(test)]
mod tests {
    use super::*;

    /// Every form of call is seen, with what compilers put before it; other instructions of the same lengths are not.
    #[test]
    fn tells_calls_from_other_instructions() {
        let calls: &[&[u8]] = &[
            b"\xe8\x01\x02\x03\x04",         // call rel32
            b"\xff\xd0",                     // call *%rax
            b"\x41\xff\xd4",                 // call *%r12
            b"\xff\x10",                     // call *(%rax)
            b"\xff\x50\x18",                 // call *24(%rax)
            b"\xff\x90\x00\x01\x00\x00",     // call *256(%rax)
            b"\xff\x15\x00\x01\x00\x00",     // call *256(%rip)
            b"\x41\xff\x14\x24",             // call *(%r12)
            b"\xff\x54\xc8\x08",             // call *8(%rax,%rcx,8)
            b"\xff\x94\x24\x00\x01\x00\x00", // call *256(%rsp)
            b"\xff\x14\xc5\x00\x01\x00\x00", // call *256(,%rax,8)
            b"\x3e\xff\xd0",                 // notrack call *%rax
        ];
        for call in calls {
            let before = [b"\x90\x90\x90", *call].concat();
            assert!(is_after_call(&before), "{call:02x?}");
            assert!(is_after_call(call), "{call:02x?}");
            assert!(!is_after_call(&before[..before.len() - 1]), "a byte short: {call:02x?}");
        }
        let others: &[&[u8]] = &[
            b"\xff\xe0",                 // jmp *%rax
            b"\xff\xc0",                 // inc %eax
            b"\xff\x75\x10",             // push 16(%rbp)
            b"\xe9\x01\x02\x03\x04",     // jmp rel32
            b"\x48\x89\xe5",             // mov %rsp,%rbp
            b"\xff\x25\x00\x01\x00\x00", // jmp *256(%rip)
            b"",
            b"\xff",
            b"\xd0",
        ];
        for other in others {
            assert!(!is_after_call(other), "{other:02x?}");
        }
    }

    /// Both encodings of the trampoline are known, another system call is not.
    #[test]
    fn knows_signal_trampolines() {
        assert!(is_signal_trampoline(b"\x48\xc7\xc0\x0f\0\0\0\x0f\x05\x90"));
        assert!(is_signal_trampoline(b"\xb8\x0f\0\0\0\x0f\x05"));
        assert!(!is_signal_trampoline(b"\xb8\x0e\0\0\0\x0f\x05"));
        assert!(!is_signal_trampoline(b"\xb8\x0f\0\0\0\x0f"));
    }
}
