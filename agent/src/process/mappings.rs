//! The executable mappings of one process: sorted, without overlaps.

use std::sync::Arc;

use crate::process::module::ModuleId;

/// A stretch of a process's address space that holds a module's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Offset of `start` in the module's file.
    pub file_offset: u64,
    /// Whose code it is.
    pub module: ModuleId,
}

/// Mappings in a chunk at most.
const CHUNK: usize = 256;

/// All executable mappings of a process, in chunks. Cloning shares the chunks, and a change copies only those that it touches: a fork
/// costs nothing, and neither does a waiting sample that keeps the mappings of a process with 65,000 of them as they were.
#[derive(Clone, Debug, Default)]
pub struct Mappings {
    /// Sorted; none is empty.
    chunks: Arc<Vec<Arc<Vec<Mapping>>>>,
    count: usize,
}

impl Mappings {
    /// Takes mappings in any order; of two that overlap, the later one in `mappings` wins.
    pub fn new(mappings: impl IntoIterator<Item = Mapping>) -> Self {
        let mut all = Self::default();
        for mapping in mappings {
            all.insert(mapping);
        }
        let chunks = Arc::make_mut(&mut all.chunks);
        for chunk in &mut *chunks {
            Arc::make_mut(chunk).shrink_to_fit();
        }
        chunks.shrink_to_fit();
        all
    }

    /// Adds a mapping; what it covers of others is gone, as in the address space.
    pub fn insert(&mut self, mapping: Mapping) {
        if mapping.start >= mapping.end || self.find(mapping.start) == Some(mapping) {
            return;
        }
        let chunks = Arc::make_mut(&mut self.chunks);
        // Chunks from here on reach beyond the mapping's start; if this one begins behind its end, it goes to the one before.
        let first = chunks.partition_point(|chunk| end_of(chunk) <= mapping.start);
        let covered = chunks[first..].partition_point(|chunk| start_of(chunk) < mapping.end);
        let at = if covered == 0 { first.saturating_sub(1) } else { first };
        if chunks.is_empty() {
            chunks.push(Arc::default());
        }
        // Of several chunks that the mapping overlaps, those in the middle are covered; what is left of the last joins the first.
        let rest = chunks.drain((at + 1)..(first + covered).max(at + 1)).collect::<Vec<_>>();
        self.count -= rest.iter().map(|chunk| chunk.len()).sum::<usize>();
        let chunk = Arc::make_mut(&mut chunks[at]);
        self.count -= chunk.len();
        if let Some(last) = rest.last() {
            chunk.extend_from_slice(last);
        }
        place(chunk, mapping);
        self.count += chunk.len();
        if chunk.len() > CHUNK {
            // Whoever adds mappings in order fills chunks; else there is to be room in each.
            let in_order = chunk.last() == Some(&mapping);
            let size = if in_order { CHUNK } else { chunk.len().div_ceil(chunk.len().div_ceil(CHUNK)) };
            let pieces: Vec<_> = chunk.chunks(size).map(|piece| Arc::new(piece.to_vec())).collect();
            chunks.splice(at..=at, pieces);
        }
    }

    /// The mapping that holds `address`.
    pub fn find(&self, address: u64) -> Option<Mapping> {
        let chunk = self.chunks.partition_point(|chunk| start_of(chunk) <= address);
        let chunk = self.chunks.get(chunk.checked_sub(1)?)?;
        let after = chunk.partition_point(|mapping| mapping.start <= address);
        let candidate = *chunk.get(after.checked_sub(1)?)?;
        (address < candidate.end).then_some(candidate)
    }

    /// The mappings, by address.
    pub fn iter(&self) -> impl Iterator<Item = &Mapping> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes on the heap, shared ones included.
    pub fn heap_bytes(&self) -> usize {
        /// An allocation with two counters and a vector in it.
        const SHARED: usize = 3 * size_of::<usize>() + size_of::<Vec<Mapping>>();
        let chunks = self.chunks.iter().map(|chunk| SHARED + chunk.capacity() * size_of::<Mapping>());
        SHARED + self.chunks.capacity() * size_of::<usize>() + chunks.sum::<usize>()
    }
}

fn start_of(chunk: &[Mapping]) -> u64 {
    chunk.first().map_or(u64::MAX, |mapping| mapping.start)
}

fn end_of(chunk: &[Mapping]) -> u64 {
    chunk.last().map_or(0, |mapping| mapping.end)
}

/// Puts `new` into `sorted`; overlapped mappings are cut at its ends or dropped.
fn place(sorted: &mut Vec<Mapping>, new: Mapping) {
    let first = sorted.partition_point(|mapping| mapping.end <= new.start);
    let last = first + sorted[first..].partition_point(|mapping| mapping.start < new.end);
    let before = sorted[first..last].first().filter(|old| old.start < new.start);
    let before = before.map(|old| Mapping { end: new.start, ..*old });
    let after = sorted[first..last].last().filter(|old| old.end > new.end);
    let after = after.map(|old| Mapping {
        start: new.end,
        file_offset: old.file_offset.wrapping_add(new.end - old.start),
        ..*old
    });
    sorted.splice(first..last, before.into_iter().chain([new]).chain(after));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::module::{ModuleKey, ModuleTable, Witness};

    fn modules() -> [ModuleId; 2] {
        let table = ModuleTable::default();
        let witness = Witness { pid: 1, start: 0, end: 1 };
        [table.intern(ModuleKey::Vdso, witness), table.intern(ModuleKey::Anonymous, witness)]
    }

    /// An address is found in the mapping that holds it, at both of its ends, and not in gaps.
    #[test]
    fn addresses_are_found() {
        let [module, _] = modules();
        let mapping = |start, end| Mapping { start, end, file_offset: 0, module };
        let mappings = Mappings::new([mapping(40, 50), mapping(10, 20), mapping(20, 30)]);
        let starts =
            [9, 10, 19, 20, 29, 30, 39, 40, 49, 50].map(|at| mappings.find(at).map(|found| found.start));
        let expected = [None, Some(10), Some(10), Some(20), Some(20), None, None, Some(40), Some(40), None];
        assert_eq!(starts, expected);
    }

    /// A new mapping replaces what it covers: random insertions agree with a byte-by-byte model.
    #[test]
    fn overlaps_agree_with_a_model() {
        let [one, other] = modules();
        let mut state = 88_172_645_463_325_252_u64;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        for _ in 0..300 {
            let mut mappings = Mappings::default();
            let mut model = [None; 100];
            for _ in 0..20 {
                let start = random(90);
                let end = start + 1 + random(100 - start - 1).min(30);
                let module = if random(2) == 0 { one } else { other };
                let new = Mapping { start, end, file_offset: random(1000), module };
                mappings.insert(new);
                for at in start..end {
                    model[at as usize] = Some((module, new.file_offset + at - start));
                }
            }
            for (at, expected) in (0..).zip(model) {
                let found = mappings.find(at).map(|map| (map.module, map.file_offset + at - map.start));
                assert_eq!(found, expected, "at {at}");
            }
            let sorted: Vec<_> = mappings.iter().collect();
            assert_eq!(sorted.len(), mappings.len());
            assert!(sorted.windows(2).all(|pair| pair[0].end <= pair[1].start));
        }
    }

    /// The same for mappings that fill many chunks, with some that cover several of them.
    #[test]
    fn many_chunks_agree_with_a_model() {
        const PAGES: u64 = 20_000;
        let [one, other] = modules();
        let mut state = 88_172_645_463_325_252_u64;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let mut mappings = Mappings::default();
        let mut model = vec![None; PAGES as usize];
        for round in 0..30_000 {
            let most = if round % 1000 == 0 { 3000 } else { 3 };
            let start = random(PAGES - most);
            let end = start + 1 + random(most);
            let module = if random(2) == 0 { one } else { other };
            let new = Mapping { start, end, file_offset: random(1 << 40), module };
            mappings.insert(new);
            for at in start..end {
                model[at as usize] = Some((module, new.file_offset + at - start));
            }
        }
        for (at, expected) in (0..).zip(model) {
            let found = mappings.find(at).map(|map| (map.module, map.file_offset + at - map.start));
            assert_eq!(found, expected, "at {at}");
        }
        let sorted: Vec<_> = mappings.iter().collect();
        assert_eq!(sorted.len(), mappings.len());
        assert!(sorted.windows(2).all(|pair| pair[0].end <= pair[1].start));
        assert!(mappings.chunks.iter().all(|chunk| (1..=CHUNK).contains(&chunk.len())));
        assert!(mappings.chunks.len() > 10);
    }

    /// 65,000 mappings that come from the highest address down, as `mmap` hands them out, change no more than a chunk each; copies
    /// that were taken on the way stay as they were and share the rest.
    #[test]
    fn a_change_copies_a_chunk() {
        let [module, _] = modules();
        let mut mappings = Mappings::default();
        for page in (0..65_000_u64).rev() {
            mappings.insert(Mapping { start: page * 2, end: page * 2 + 1, file_offset: 0, module });
        }
        assert_eq!(mappings.len(), 65_000);
        assert!(mappings.heap_bytes() < 65_000 * size_of::<Mapping>() * 5 / 2, "{}", mappings.heap_bytes());
        let before = mappings.clone();
        mappings.insert(Mapping { start: 1001, end: 1002, file_offset: 0, module });
        assert_eq!((before.len(), mappings.len()), (65_000, 65_001));
        assert_eq!((before.find(1001), mappings.find(1001).map(|found| found.end)), (None, Some(1002)));
        let shared = mappings.chunks.iter().filter(|chunk| Arc::strong_count(chunk) > 1).count();
        assert!(shared + 2 >= mappings.chunks.len(), "{shared} of {} chunks", mappings.chunks.len());
    }
}
