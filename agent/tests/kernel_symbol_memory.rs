//! What the symbols of a large kernel take, counted by the allocator.

mod harness;

use std::io::Cursor;

use agent::symbol::kallsyms::{Kallsyms, MAX_SYMBOL_BYTES, MemoryUse};
use harness::counted_heap::{self, CountedHeap};
use harness::kernel_symbols::{KernelSymbol, synthetic};

#[global_allocator]
static HEAP: CountedHeap = CountedHeap;

/// What a kernel of the size that once cost a gigabyte has.
const SYMBOLS: usize = 142_361;
/// Bytes a symbol that are aimed at, names included; and what is held here, where names are as alike as a kernel's.
const AIM: usize = 28;
const HELD: usize = 20;

/// 142,361 symbols of a kernel, its modules and its BPF programs: all come back at their first and their last byte, and the table takes at
/// most 28 bytes for each by the allocator, which is what its components add up to.
#[test]
fn a_large_kernel_is_packed() {
    const { assert!(HELD <= AIM) };
    let (text, symbols) = synthetic(SYMBOLS);
    let before = counted_heap::reset_peak();
    let kallsyms = Kallsyms::read(Cursor::new(&text)).expect("it has symbols");
    let (taken, peak) = (counted_heap::now() - before, counted_heap::peak() - before);

    assert_eq!((kallsyms.len(), kallsyms.skipped_lines()), (SYMBOLS, 0));
    let ends = symbols.iter().skip(1).map(|next| next.address).chain([u64::MAX]);
    for (KernelSymbol { address, name, module }, end) in symbols.iter().zip(ends) {
        for at in [*address, end.min(address + MAX_SYMBOL_BYTES) - 1] {
            let found = kallsyms.lookup(at).expect("a symbol");
            assert_eq!((found.start, &found.name, found.module), (*address, name, module.as_deref()));
        }
    }

    let MemoryUse { addresses, names, index, modules } = kallsyms.memory_use();
    let of_each = |bytes: usize| bytes as f64 / SYMBOLS as f64;
    for (component, bytes) in
        [("addresses", addresses), ("names", names), ("index", index), ("modules", modules), ("all", taken)]
    {
        println!("{component:10} {bytes:9} bytes {:6.2} a symbol", of_each(bytes));
    }
    let name_bytes: usize = symbols.iter().map(|symbol| symbol.name.len()).sum();
    println!("names have {:.1} letters; {peak} bytes while it is read", of_each(name_bytes));
    assert_eq!(taken, addresses + names + index + modules, "the allocator's and the table's own");
    assert_eq!(taken, kallsyms.heap_bytes());
    assert!(taken <= HELD * SYMBOLS, "{taken} bytes");
}
