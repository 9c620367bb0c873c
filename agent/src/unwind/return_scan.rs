//! A guess where nothing says how to unwind: the next word of the stack that is a return address by all that can be seen.

/// A return address that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Return {
    /// The return address.
    pub ip: u64,
    /// The caller's stack pointer: after the return address.
    pub sp: u64,
}

/// Looks at `words` words of the stack from `sp` on, lowest first, for the first one that `is_after_call` takes: it is given the
/// word and says whether that points behind a call within executable memory. Stops where `read_stack` cannot read.
///
/// A leftover of an earlier call can be taken for the caller; the frame must be shown as a guess.
pub fn find_return(
    sp: u64,
    words: usize,
    read_stack: impl Fn(u64) -> Option<u64>,
    is_after_call: impl Fn(u64) -> bool,
) -> Option<Return> {
    let first = sp.checked_next_multiple_of(8)?;
    let mut address = first;
    for _ in 0..words {
        let next = address.checked_add(8)?;
        let ip = read_stack(address)?;
        // Most words are small numbers or nothing.
        if ip > 0xfff && is_after_call(ip) {
            return Some(Return { ip, sp: next });
        }
        address = next;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: u64 = 0x40_1234;

    fn find(stack: &[u64], sp: u64, words: usize) -> Option<Return> {
        let read = |address: u64| stack.get(usize::try_from((address - 0x1000) / 8).unwrap()).copied();
        find_return(sp, words, read, |ip| ip == CODE || ip == 8)
    }

    /// The first validated word is the return address, its successor the caller's stack.
    #[test]
    fn finds_the_first_validated_word() {
        let stack = [7, 8, 0x40_0000, CODE, 5, CODE];
        assert_eq!(find(&stack, 0x1000, 100), Some(Return { ip: CODE, sp: 0x1020 }));
        assert_eq!(find(&stack, 0x1020, 100), Some(Return { ip: CODE, sp: 0x1030 }));
        assert_eq!(find(&stack, 0x1019, 100), Some(Return { ip: CODE, sp: 0x1030 }), "aligned up");
    }

    /// It gives up at the end of its words, of the stack and of the address space.
    #[test]
    fn gives_up() {
        let stack = [1, 2, 3, CODE];
        assert_eq!(find(&stack, 0x1000, 3), None);
        assert_eq!(find(&stack[..3], 0x1000, 100), None);
        assert_eq!(find_return(u64::MAX - 3, 10, |_| Some(CODE), |_| true), None);
        assert_eq!(find_return(u64::MAX - 23, 10, |_| Some(1), |_| true), None);
    }
}
