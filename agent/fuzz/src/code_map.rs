//! What is asked of a file that tells of generated code.

use agent::symbol::jit::{CodeMap, MapFormat};

/// Heap bytes that reading may take: a piece of the file (64 KiB) twice, the table, for a moment three times, and a name.
pub(crate) const HEAP_BYTES: usize = 512 << 10;

/// What a table may take.
const TABLE_BYTES: usize = 64 << 10;

/// A map that was read, and in how many looks.
pub(crate) struct Read {
    pub(crate) at_once: CodeMap,
    pub(crate) in_pieces: CodeMap,
}

/// Reads `map` at once, and as a writer may append to it: in two pieces, of which the first has `cut` bytes. A table takes
/// [`TABLE_BYTES`], or, if `small`, so few that it gets full.
pub(crate) fn read(format: MapFormat, map: &[u8], cut: usize, small: bool) -> Read {
    let limit = if small { 256 } else { TABLE_BYTES };
    let mut at_once = CodeMap::new(format);
    look(&mut at_once, map, limit);
    let mut in_pieces = CodeMap::new(format);
    look(&mut in_pieces, &map[..cut.min(map.len())], limit);
    look(&mut in_pieces, map, limit);
    Read { at_once, in_pieces }
}

fn look(code: &mut CodeMap, map: &[u8], limit: usize) {
    let before = code.offset();
    match code.read(&map, limit) {
        Ok(end) => assert!(code.offset() <= end.max(before) && end <= map.len() as u64),
        Err(error) => panic!("bytes can be read: {error}"),
    }
    assert!(code.offset() >= before, "no line is read twice");
    // One entry more, of which two pieces were made.
    assert!(code.len() * 16 <= 2 * limit + 64 || code.is_full());
    assert!(code.heap_bytes() <= 4 * TABLE_BYTES + (128 << 10));
}

/// Asks for the code at each of `addresses` and beside it. How many have a name.
pub(crate) fn look_up(code: &CodeMap, map: &[u8], addresses: impl Iterator<Item = u64>) -> usize {
    let mut named = 0;
    for address in addresses.flat_map(|address| [address, address.wrapping_add(1), address.wrapping_sub(1)]) {
        let Some(at) = code.find(address) else { continue };
        assert!((at as usize) < map.len(), "a name is in the file");
        match code.name(&map, at) {
            Ok(name) => named += usize::from(!name.text.is_empty()),
            Err(error) => panic!("a name can be read: {error}"),
        }
    }
    named
}
