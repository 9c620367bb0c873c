//! A part of an unpacked file that is kept in memory: MiniDebugInfo's names, compressed again in blocks that can be read one by
//! one. Unpacking the whole file for each name would cost too much, and the names as they are take several times
//! the bytes: mangled names are long and alike.

use std::io::{self, Read as _};

use flate2::Compression;
use flate2::read::{DeflateDecoder, DeflateEncoder};

use crate::symbol::read_at::ReadAt;

/// Bytes that are compressed together. Reading a name unpacks one block, or two.
const BLOCK: usize = 16 << 10;

/// Bytes `offset..offset + size` of a file.
#[derive(Debug)]
pub(super) struct PackedNames {
    offset: u64,
    size: usize,
    packed: Vec<u8>,
    /// Where each block ends in `packed`.
    ends: Vec<usize>,
}

impl PackedNames {
    /// Keeps `size` bytes of `file` from `offset` on, or as many of them as there are.
    pub(super) fn new(file: &[u8], offset: u64, size: u64) -> io::Result<Self> {
        let rest = usize::try_from(offset).ok().and_then(|offset| file.get(offset..)).unwrap_or_default();
        let size = usize::try_from(size).unwrap_or(usize::MAX).min(rest.len());
        let (mut packed, mut ends) = (Vec::new(), Vec::with_capacity(size.div_ceil(BLOCK)));
        for block in rest.get(..size).unwrap_or_default().chunks(BLOCK) {
            DeflateEncoder::new(block, Compression::default()).read_to_end(&mut packed)?;
            ends.push(packed.len());
        }
        packed.shrink_to_fit();
        Ok(Self { offset, size, packed, ends })
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.packed.capacity() + self.ends.capacity() * size_of::<usize>()
    }

    fn block(&self, index: usize) -> io::Result<Vec<u8>> {
        let end = *self.ends.get(index).ok_or(io::ErrorKind::UnexpectedEof)?;
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let packed = self.packed.get(start..end).unwrap_or_default();
        let mut bytes = Vec::with_capacity(BLOCK);
        DeflateDecoder::new(packed).take(BLOCK as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl ReadAt for PackedNames {
    /// Where the kept part ends; what precedes it cannot be read.
    fn len(&self) -> u64 {
        self.offset + self.size as u64
    }

    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let outside = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let start = offset.checked_sub(self.offset).and_then(|start| usize::try_from(start).ok());
        let mut at = start.ok_or_else(outside)?;
        if at.checked_add(buffer.len()).is_none_or(|end| end > self.size) {
            return Err(outside());
        }
        let mut wanted = buffer;
        while !wanted.is_empty() {
            let block = self.block(at / BLOCK)?;
            let found = block.get(at % BLOCK..).filter(|found| !found.is_empty()).ok_or_else(outside)?;
            let len = found.len().min(wanted.len());
            let (filled, rest) = wanted.split_at_mut(len);
            filled.copy_from_slice(found.get(..len).unwrap_or_default());
            wanted = rest;
            at += len;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every range of the kept part reads as in the file, across blocks too, and nothing else reads.
    #[test]
    fn reads_as_the_file_does() {
        let file: Vec<u8> = (0..3 * BLOCK as u32 + 100).map(|n| (n * n / 128) as u8).collect();
        let (offset, size) = (50, 3 * BLOCK as u64);
        let names = PackedNames::new(&file, offset, size).unwrap();
        for (at, len) in
            [(50, 10), (50 + BLOCK - 5, 10), (60, 2 * BLOCK + 7), (50 + 3 * BLOCK - 1, 1), (99, 0)]
        {
            let mut read = vec![0; len];
            names.read_exact_at(at as u64, &mut read).unwrap();
            assert_eq!(read, file[at..at + len], "{len} bytes at {at}");
        }
        for (at, len) in [(49, 1), (50 + 3 * BLOCK as u64, 1), (60, 3 * BLOCK), (u64::MAX, 1)] {
            assert!(names.read_exact_at(at, &mut vec![0; len]).is_err(), "{len} bytes at {at}");
        }
    }

    /// A part that runs past the file's end is clipped; one outside is empty. Names of C++ take a third of their bytes.
    #[test]
    fn keeps_what_is_there_in_few_bytes() {
        let name = |n| format!("_ZNSt6vectorIN7project{n}ItemESaIS1_EE17_M_realloc_insertIJRKS1_EEEvT_\0");
        let file: Vec<u8> = (0..10_000).flat_map(|n| name(n).into_bytes()).collect();
        let names = PackedNames::new(&file, 0, u64::MAX).unwrap();
        assert_eq!(names.len(), file.len() as u64);
        assert!(names.heap_bytes() * 3 < file.len(), "{} of {}", names.heap_bytes(), file.len());
        assert!(PackedNames::new(&file, u64::MAX, 10).unwrap().read_exact_at(u64::MAX, &mut [0]).is_err());
    }
}
