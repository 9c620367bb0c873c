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

/// All executable mappings of a process. Cloning shares them until one side changes: a fork costs nothing.
#[derive(Clone, Debug, Default)]
pub struct Mappings {
    sorted: Arc<Vec<Mapping>>,
}

impl Mappings {
    /// Takes mappings in any order; of two that overlap, the later one in `mappings` wins.
    pub fn new(mappings: impl IntoIterator<Item = Mapping>) -> Self {
        let mut all = Self::default();
        let sorted = Arc::make_mut(&mut all.sorted);
        for mapping in mappings {
            // `/proc/PID/maps` is sorted, so this is nearly always an append.
            if sorted.last().is_none_or(|last| last.end <= mapping.start) {
                sorted.push(mapping);
            } else {
                place(sorted, mapping);
            }
        }
        sorted.shrink_to_fit();
        all
    }

    /// Adds a mapping; what it covers of others is gone, as in the address space.
    pub fn insert(&mut self, mapping: Mapping) {
        if self.find(mapping.start) != Some(mapping) {
            place(Arc::make_mut(&mut self.sorted), mapping);
        }
    }

    /// The mapping that holds `address`.
    pub fn find(&self, address: u64) -> Option<Mapping> {
        let after = self.sorted.partition_point(|mapping| mapping.start <= address);
        let candidate = *self.sorted.get(after.checked_sub(1)?)?;
        (address < candidate.end).then_some(candidate)
    }

    /// The mappings, by address.
    pub fn iter(&self) -> impl Iterator<Item = &Mapping> {
        self.sorted.iter()
    }

    /// The mappings, by address.
    pub fn as_slice(&self) -> &[Mapping] {
        &self.sorted
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// Bytes on the heap, shared ones included.
    pub fn heap_bytes(&self) -> usize {
        self.sorted.capacity() * size_of::<Mapping>()
    }
}

/// Puts `new` into `sorted`; overlapped mappings are cut at its ends or dropped.
fn place(sorted: &mut Vec<Mapping>, new: Mapping) {
    if new.start >= new.end {
        return;
    }
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
            assert!(sorted.windows(2).all(|pair| pair[0].end <= pair[1].start));
        }
    }
}
