//! The container of xz (`xz-file-format.txt` of XZ Utils, version 1.2.0) around LZMA2, with checksums that are right.

/// Around `data`, which should be LZMA2's chunks: header, one block without a check of its contents, index, footer.
pub(crate) fn contain(data: &[u8]) -> Vec<u8> {
    // Stream flags: no check.
    let flags = [0, 0];
    let mut stream = b"\xfd7zXZ\0".to_vec();
    stream.extend(flags);
    stream.extend(crc32(&flags).to_le_bytes());
    // A header of 12 bytes, one filter, LZMA2, one byte of properties: a dictionary of 64 KiB; padding.
    let header = [2, 0, 0x21, 1, 8, 0, 0, 0];
    stream.extend(header);
    stream.extend(crc32(&header).to_le_bytes());
    stream.extend(data);
    stream.resize(stream.len().next_multiple_of(4), 0);
    // Index: a mark, one record: size of the block without padding, and of what it holds.
    let mut index = vec![0, 1];
    number(&mut index, 12 + data.len() as u64);
    number(&mut index, unpacked_bytes(data));
    index.resize(index.len().next_multiple_of(4), 0);
    let checksum = crc32(&index);
    let footer = [&((index.len() / 4) as u32).to_le_bytes()[..], &flags].concat();
    stream.extend(index);
    stream.extend(checksum.to_le_bytes());
    stream.extend(crc32(&footer).to_le_bytes());
    stream.extend(footer);
    stream.extend(b"YZ");
    stream
}

/// What LZMA2's chunks say that they hold.
fn unpacked_bytes(mut data: &[u8]) -> u64 {
    let mut total = 0;
    loop {
        // A chunk of stored bytes, one of LZMA without and one with properties; all else ends the data.
        let (unpacked, chunk) = match *data {
            [1 | 2, a, b, ..] => {
                let stored = 1 + usize::from(u16::from_be_bytes([a, b]));
                (stored, 3 + stored)
            }
            [control @ 0x80..=0xff, a, b, c, d, ..] => {
                let unpacked =
                    1 + (usize::from(control & 0x1f) << 16) + usize::from(u16::from_be_bytes([a, b]));
                let properties = usize::from(control >= 0xc0);
                (unpacked, 6 + properties + usize::from(u16::from_be_bytes([c, d])))
            }
            _ => return total,
        };
        total += unpacked as u64;
        data = data.get(chunk..).unwrap_or_default();
    }
}

/// Seven bits a byte, the lowest first.
fn number(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// CRC-32 of IEEE 802.3.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value that CRC-32 is known by.
    #[test]
    fn crc32_is_the_known_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    /// Sizes of chunks are those of `xz --format=raw --lzma2` and of stored chunks.
    #[test]
    fn chunks_say_what_they_hold() {
        assert_eq!(unpacked_bytes(&[1, 0, 2, b'a', b'b', b'c', 2, 0, 0, b'd', 0]), 4);
        assert_eq!(unpacked_bytes(&[0xe0, 1, 0, 0, 0, 0x5d, 0, 0]), 257);
        assert_eq!(unpacked_bytes(&[]), 0);
    }
}
