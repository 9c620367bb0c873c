//! The piece of a stack that a record carries.

use std::sync::Arc;

/// A copy of a stack from some address on. Clones share the bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StackSlice {
    start: u64,
    bytes: Arc<Vec<u8>>,
}

impl StackSlice {
    /// `bytes` are what the stack holds from address `start` on.
    pub fn new(start: u64, bytes: Vec<u8>) -> Self {
        Self { start, bytes: Arc::new(bytes) }
    }

    /// The word at `address`; `None` when the slice does not reach there.
    pub fn read(&self, address: u64) -> Option<u64> {
        let offset = usize::try_from(address.checked_sub(self.start)?).ok()?;
        let word = self.bytes.get(offset..offset.checked_add(8)?)?;
        word.try_into().ok().map(u64::from_ne_bytes)
    }

    /// Whether `address` lies at or behind the slice's end.
    pub fn ends_before(&self, address: u64) -> bool {
        address.wrapping_sub(self.start) as i64 + 8 > self.bytes.len() as i64
    }

    /// Address of the first byte.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words inside are read, also unaligned ones; words that are not whole, or outside, are not.
    #[test]
    fn words_are_read() {
        let slice = StackSlice::new(0x1000, (0..24).collect());
        assert_eq!(slice.read(0x1000), Some(u64::from_ne_bytes([0, 1, 2, 3, 4, 5, 6, 7])));
        assert_eq!(slice.read(0x1010), Some(u64::from_ne_bytes([16, 17, 18, 19, 20, 21, 22, 23])));
        for outside in [0, 0xfff, 0x1011, 0x1018, u64::MAX] {
            assert_eq!(slice.read(outside), None, "{outside:#x}");
        }
        assert!(slice.ends_before(0x1018) && slice.ends_before(0x1011) && !slice.ends_before(0x1010));
        assert!(!slice.ends_before(0xff0), "before its start is not behind its end");
    }
}
