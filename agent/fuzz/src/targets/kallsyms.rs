//! `/proc/kallsyms`.

use agent::symbol::kallsyms::Kallsyms;

use crate::Target;

pub(super) const TARGET: Target =
    Target { name: "kallsyms", longest_input: 2 << 10, heap_bytes: 64 << 10, read };

fn read(input: &[u8]) -> bool {
    let Ok(symbols) = Kallsyms::read(input) else { return false };
    assert!(!symbols.is_empty());
    let addresses = input.split(|&byte| byte == b'\n').filter_map(|line| {
        let digits = line.split(u8::is_ascii_whitespace).find(|field| !field.is_empty())?;
        u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    });
    let mut found = 0;
    for address in addresses.chain([0, u64::MAX]) {
        for near in [address, address.wrapping_add(1), address.wrapping_sub(1)] {
            if let Some(symbol) = symbols.lookup(near) {
                assert!(symbol.start <= near);
                found += usize::from(symbol.start == near);
            }
        }
    }
    assert!(found >= symbols.len(), "{found} of {} symbols found at their addresses", symbols.len());
    true
}
