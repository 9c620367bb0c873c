//! Which code lies at an address, where code is replaced all the time: of entries that overlap, the latest one counts.

use std::collections::BinaryHeap;

/// A piece of code that a runtime has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Code {
    /// First address.
    pub(super) start: u64,
    /// Length in bytes, not 0.
    pub(super) size: u32,
    /// Where its name begins in the file that tells of it.
    pub(super) name_at: u32,
}

impl Code {
    /// `None` where the numbers make no sense: nothing, more than 4 GiB, or beyond the end of the address space.
    pub(super) fn new(start: u64, size: u64, name_at: u64) -> Option<Self> {
        start.checked_add(size)?;
        let size = u32::try_from(size).ok().filter(|size| *size > 0)?;
        Some(Self { start, size, name_at: u32::try_from(name_at).ok()? })
    }

    fn end(&self) -> u64 {
        self.start + u64::from(self.size)
    }
}

/// The latest code by address, 16 bytes each; names stay in the file.
#[derive(Debug, Default)]
pub(super) struct CodeTable {
    /// By address, without overlaps: the first `sorted`. Behind them, what came since, in the order of coming.
    codes: Vec<Code>,
    sorted: usize,
}

/// New entries that are gathered before they are sorted in; more where the table is large, so that the work per entry stays small.
const BATCH: usize = 4096;

impl CodeTable {
    /// Adds code that is later than all before. [`CodeTable::find`] sees it after [`CodeTable::settle`].
    pub(super) fn push(&mut self, code: Code) {
        self.codes.push(code);
        if self.codes.len() - self.sorted >= BATCH.max(self.sorted / 2) {
            self.settle();
        }
    }

    /// Sorts in what was added.
    pub(super) fn settle(&mut self) {
        if self.sorted < self.codes.len() {
            self.codes = latest(&self.codes);
            self.sorted = self.codes.len();
        }
    }

    /// The latest code at `address`.
    pub(super) fn find(&self, address: u64) -> Option<Code> {
        let sorted = &self.codes[..self.sorted];
        let after = sorted.partition_point(|code| code.start <= address);
        let candidate = sorted[..after].last()?;
        (address < candidate.end()).then_some(*candidate)
    }

    /// Whether the table is as good as full: what is left of `limit` bytes after sorting in is less than a quarter. So sorting in is rare,
    /// however much of what comes replaces what was there.
    pub(super) fn is_full(&mut self, limit: usize) -> bool {
        if self.codes.len() * size_of::<Code>() <= limit {
            return false;
        }
        self.settle();
        self.codes.len() * size_of::<Code>() > limit / 4 * 3
    }

    /// How many pieces of code there are.
    pub(super) fn len(&self) -> usize {
        self.codes.len()
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.codes.capacity() * size_of::<Code>()
    }
}

/// Cuts `codes`, given in the order of coming, so that none overlap: where they did, the later one is left. What is left
/// of an earlier one around it stays, because maps list regions and then the functions in them.
///
/// A sweep over the address space; the heap holds what covers the present address, the latest on top. No more than two pieces
/// come out for each that goes in.
fn latest(codes: &[Code]) -> Vec<Code> {
    let mut order: Vec<u32> = (0..codes.len() as u32).collect();
    order.sort_by_key(|index| codes[*index as usize].start);
    let mut coming = order.into_iter().peekable();
    let mut covering = BinaryHeap::new();
    let mut pieces: Vec<Code> = Vec::with_capacity(codes.len());
    let mut address = 0;
    loop {
        while covering.peek().is_some_and(|index: &u32| codes[*index as usize].end() <= address) {
            covering.pop();
        }
        let begins = coming.peek().map(|index| codes[*index as usize].start);
        match (covering.peek(), begins) {
            (None, None) => break,
            (Some(_), Some(begin)) if begin <= address => covering.extend(coming.next()),
            (None, Some(begin)) => {
                address = begin;
                covering.extend(coming.next());
            }
            (Some(top), begins) => {
                let top = codes[*top as usize];
                let until = begins.map_or(top.end(), |begin| begin.min(top.end()));
                add_piece(&mut pieces, top.name_at, address, until);
                address = until;
            }
        }
    }
    pieces.shrink_to_fit();
    pieces
}

fn add_piece(pieces: &mut Vec<Code>, name_at: u32, start: u64, end: u64) {
    match pieces.last_mut() {
        // Only what began later and is covered by it all may have come between.
        Some(last) if last.name_at == name_at && last.end() == start => last.size += (end - start) as u32,
        _ => pieces.push(Code { start, size: (end - start) as u32, name_at }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(codes: &[(u64, u64, u64)]) -> CodeTable {
        let mut table = CodeTable::default();
        for (start, size, name_at) in codes {
            table.push(Code::new(*start, *size, *name_at).expect("a sensible range"));
        }
        table.settle();
        table
    }

    fn names(table: &CodeTable, addresses: impl IntoIterator<Item = u64>) -> Vec<Option<u32>> {
        addresses.into_iter().map(|address| table.find(address).map(|code| code.name_at)).collect()
    }

    /// Code is found at both of its ends and not beside them; later code takes what it covers, and no more.
    #[test]
    fn the_latest_counts() {
        let mut table = table(&[(100, 10, 1), (120, 10, 2)]);
        let at = [99, 100, 109, 110, 119, 120, 129, 130];
        let expected = [None, Some(1), Some(1), None, None, Some(2), Some(2), None];
        assert_eq!(names(&table, at), expected);
        table.push(Code { start: 105, size: 20, name_at: 3 });
        table.settle();
        assert_eq!(names(&table, [104, 105, 110, 124, 125]), [Some(1), Some(3), Some(3), Some(3), Some(2)]);
    }

    /// Sizes and addresses that make no sense are refused by their numbers.
    #[test]
    fn absurd_ranges_are_refused() {
        assert_eq!(Code::new(1, 0, 0), None);
        assert_eq!(Code::new(1, 1 << 32, 0), None);
        assert_eq!(Code::new(u64::MAX, 2, 0), None);
        assert_eq!(Code::new(1, 1, 1 << 32), None, "names lie in the first 4 GiB of a file");
        assert!(Code::new(u64::MAX - 1, 1, 0).is_some());
    }

    /// Random entries that overlap in every way, in batches of every size, agree with a byte-by-byte model.
    #[test]
    fn overlaps_agree_with_a_model() {
        let mut state = 88_172_645_463_325_252_u64;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        for _ in 0..300 {
            let mut table = CodeTable::default();
            let mut model = [None; 220];
            for name_at in 0..60 {
                let code = Code { start: random(200), size: 1 + random(20) as u32, name_at };
                table.push(code);
                model[code.start as usize..code.end() as usize].fill(Some(name_at));
                if random(5) == 0 {
                    table.settle();
                }
            }
            table.settle();
            assert_eq!(names(&table, 0..220), model);
            assert!(table.codes.windows(2).all(|pair| pair[0].end() <= pair[1].start));
            assert!(table.len() <= 120);
        }
    }

    /// The worst that a batch can hold, each entry inside the one before, costs two pieces an entry.
    #[test]
    fn nested_entries_stay_linear() {
        let count = 50_000;
        let mut table = CodeTable::default();
        for index in 0..count {
            table.push(Code { start: index, size: (2 * (count - index)) as u32, name_at: index as u32 });
        }
        table.settle();
        assert!(table.len() <= 2 * count as usize);
        assert_eq!(table.find(count).map(|code| code.name_at), Some(count as u32 - 1));
    }
}
