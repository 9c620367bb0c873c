//! GNU build ids (temporary).
use std::fmt;
/// A build id.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BuildId {
    bytes: [u8; 32],
    len: u8,
}
impl BuildId {
    /// New.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut copy = [0; 32];
        copy.get_mut(..bytes.len()).filter(|c| !c.is_empty())?.copy_from_slice(bytes);
        Some(Self { bytes: copy, len: bytes.len() as u8 })
    }
    /// Bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}
impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
impl fmt::Debug for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BuildId({self})")
    }
}
