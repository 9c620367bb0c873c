//! CRC-32 of debug files, as `.gnu_debuglink` has it (the one of zlib and IEEE 802.3), each computed once.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use flate2::Crc;
use lru::LruCache;

use super::stamp::Stamp;
use crate::symbol::read_at::ReadAt;

/// Files whose checksum is remembered: some 100 bytes each.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(256).unwrap();
/// Bytes read at once.
const CHUNK: usize = 64 << 10;
/// The longest file that is read for its checksum. All distributions' files have build ids, which cost nothing to compare.
const MAX_BYTES: u64 = 256 << 20;

/// Checksums that were computed.
#[derive(Debug)]
pub(super) struct Checksums(Mutex<LruCache<Stamp, u32>>);

impl Default for Checksums {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

impl Checksums {
    /// The checksum of `file`; `None` when it is too long or cannot be read.
    pub(super) fn of(&self, file: &dyn ReadAt, stamp: Stamp) -> Option<u32> {
        // The map is whole between any two operations on it.
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(checksum) = known().get(&stamp) {
            return Some(*checksum);
        }
        let checksum = compute(file, MAX_BYTES)?;
        known().put(stamp, checksum);
        Some(checksum)
    }
}

fn compute(file: &dyn ReadAt, limit: u64) -> Option<u32> {
    if file.len() > limit {
        return None;
    }
    let (mut crc, mut chunk, mut at) = (Crc::new(), vec![0; CHUNK], 0);
    while at < file.len() {
        let len = (file.len() - at).min(CHUNK as u64);
        let bytes = chunk.get_mut(..len as usize)?;
        file.read_exact_at(at, bytes).ok()?;
        crc.update(bytes);
        at += len;
    }
    Some(crc.sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of CRC-32/ISO-HDLC, the same over several chunks as at once, and nothing beyond the limit.
    #[test]
    fn computes_the_checksum_of_debug_links() {
        assert_eq!(compute(&&b"123456789"[..], 9), Some(0xcbf4_3926));
        assert_eq!(compute(&&b"123456789"[..], 8), None);
        let long = vec![7; 3 * CHUNK + 1];
        let mut once = Crc::new();
        once.update(&long);
        assert_eq!(compute(&long, u64::MAX), Some(once.sum()));
    }
}
