//! The build id of an ELF file: the one name of a file's contents that survives copying, overlayfs and
//! stripping.

use std::fmt;
use std::sync::Arc;

/// The descriptor of an `NT_GNU_BUILD_ID` note: 1 to [`BuildId::MAX_LEN`] bytes, 20 for GNU ld's SHA-1.
///
/// A clone shares the bytes. Displayed, and given in every export, as lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BuildId(Arc<[u8]>);

impl BuildId {
    /// The longest build id taken, in bytes. Linkers write 8, 16 or 20; `--build-id=0x…` can write any.
    pub const MAX_LEN: usize = 64;

    /// None when `bytes` is empty, longer than [`BuildId::MAX_LEN`], or all zero (which names no file).
    pub fn new(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() || bytes.len() > Self::MAX_LEN || bytes.iter().all(|&byte| byte == 0) {
            return None;
        }
        Some(Self(bytes.into()))
    }

    /// The bytes as the note has them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BuildId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text form keeps leading zeroes of each byte, so that it can be compared with `readelf -n`.
    #[test]
    fn displays_as_hexadecimal() {
        let id = BuildId::new(&[0x00, 0x0f, 0xa0, 0xff]).unwrap();
        assert_eq!(id.to_string(), "000fa0ff");
        assert_eq!(format!("{id:?}"), "BuildId(000fa0ff)");
    }

    /// Ids that cannot name a file are refused at the door.
    #[test]
    fn refuses_empty_long_and_zero_ids() {
        assert_eq!(BuildId::new(&[]), None);
        assert_eq!(BuildId::new(&[0; 20]), None);
        assert_eq!(BuildId::new(&[1; 65]), None);
        assert_eq!(BuildId::new(&[1; 64]).unwrap().as_bytes(), [1; 64]);
    }
}
