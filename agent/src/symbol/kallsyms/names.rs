//! Sorted names in little memory: front coding in blocks.
//!
//! A name is stored as the number of leading bytes that it shares with the name before it, and the rest. The
//! first name of each block of [`BLOCK`] shares nothing, so that a name is found by decoding one block.

use std::mem::size_of_val;

/// Names in a block: the trade of the block table's size against the names decoded at a lookup.
pub(super) const BLOCK: u32 = 16;

/// Both lengths of an entry fit four bits each in most names; this value says that a varint with the rest
/// follows.
const ESCAPE: usize = 15;

/// An immutable, sorted list of byte strings.
#[derive(Debug)]
pub(super) struct FrontCoded {
    text: Box<[u8]>,
    /// Offset in `text` of each block.
    blocks: Box<[u32]>,
}

/// Takes names in ascending order.
#[derive(Debug, Default)]
pub(super) struct FrontCoder {
    text: Vec<u8>,
    blocks: Vec<u32>,
    len: u32,
    previous: Vec<u8>,
}

impl FrontCoder {
    /// Appends `name` and returns its rank; a name equal to the one before it shares that one's rank. None
    /// when 32-bit offsets no longer reach.
    pub(super) fn push(&mut self, name: &[u8]) -> Option<u32> {
        if self.len > 0 && self.previous == name {
            return self.len.checked_sub(1);
        }
        let shared = if self.len.is_multiple_of(BLOCK) {
            self.blocks.push(u32::try_from(self.text.len()).ok()?);
            0
        } else {
            self.previous.iter().zip(name).take_while(|(a, b)| a == b).count()
        };
        let rest = name.get(shared..)?;
        let nibbles = (shared.min(ESCAPE) << 4) | rest.len().min(ESCAPE);
        self.text.push(nibbles as u8);
        push_escaped(&mut self.text, shared);
        push_escaped(&mut self.text, rest.len());
        self.text.extend_from_slice(rest);
        self.previous.truncate(shared);
        self.previous.extend_from_slice(rest);
        let rank = self.len;
        self.len = rank.checked_add(1)?;
        Some(rank)
    }

    pub(super) fn finish(self) -> FrontCoded {
        FrontCoded { text: self.text.into_boxed_slice(), blocks: self.blocks.into_boxed_slice() }
    }
}

impl FrontCoded {
    /// The name with this rank.
    pub(super) fn get(&self, rank: u32) -> Option<Vec<u8>> {
        let start = *self.blocks.get((rank / BLOCK) as usize)?;
        let mut rest = self.text.get(start as usize..)?;
        let mut name = Vec::with_capacity(64);
        for _ in 0..=rank % BLOCK {
            let (&nibbles, tail) = rest.split_first()?;
            rest = tail;
            let shared = take_escaped(usize::from(nibbles >> 4), &mut rest)?;
            let len = take_escaped(usize::from(nibbles & 15), &mut rest)?;
            let (suffix, tail) = rest.split_at_checked(len)?;
            rest = tail;
            name.truncate(shared);
            name.extend_from_slice(suffix);
        }
        Some(name)
    }

    /// Heap bytes of the names.
    pub(super) fn text_bytes(&self) -> usize {
        self.text.len()
    }

    /// Heap bytes of the block table.
    pub(super) fn index_bytes(&self) -> usize {
        size_of_val(&*self.blocks)
    }
}

/// Writes what a nibble could not hold as LEB128; nothing when it could.
fn push_escaped(text: &mut Vec<u8>, value: usize) {
    let Some(mut more) = value.checked_sub(ESCAPE) else { return };
    while more >= 0x80 {
        text.push((more & 0x7f) as u8 | 0x80);
        more >>= 7;
    }
    text.push(more as u8);
}

/// The inverse of [`push_escaped`]: `nibble` is what the entry's first byte said.
fn take_escaped(nibble: usize, rest: &mut &[u8]) -> Option<usize> {
    if nibble < ESCAPE {
        return Some(nibble);
    }
    let mut more = 0;
    for shift in [0, 7, 14, 21] {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        more |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(ESCAPE + more);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of every length around the escapes, with every amount of sharing, come back as they went in.
    #[test]
    fn returns_what_was_pushed() {
        let mut names: Vec<Vec<u8>> = Vec::new();
        for len in [0, 1, 14, 15, 16, 30, 142, 143, 144, 300, 1023] {
            for tail in [b'a', b'z', 0xff] {
                let mut name = vec![b'm'; len];
                name.push(tail);
                names.push(name);
            }
        }
        names.sort();
        let mut coder = FrontCoder::default();
        let ranks: Vec<u32> = names.iter().map(|name| coder.push(name).unwrap()).collect();
        let coded = coder.finish();
        for (name, rank) in names.iter().zip(ranks) {
            assert_eq!(coded.get(rank).as_ref(), Some(name));
        }
        assert_eq!(coded.get(1000), None);
    }

    /// Static functions of the same name in many files are stored once.
    #[test]
    fn equal_names_share_a_rank() {
        let mut coder = FrontCoder::default();
        assert_eq!(coder.push(b"probe"), Some(0));
        assert_eq!(coder.push(b"probe"), Some(0));
        assert_eq!(coder.push(b"probe2"), Some(1));
        assert_eq!(coder.finish().get(1).unwrap(), b"probe2");
    }
}
