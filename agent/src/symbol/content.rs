//! Which modules have the same content: one layer of an image in two containers, a file and its copy.
//!
//! What is derived from a file (rows for the unwinder, indexes of names) is made once for each content. A content is known by a hash of
//! the file's ends and its length, which costs two reads: the first page holds the headers and usually the build id. Device and inode say
//! nothing: overlayfs gives every container another device for the same file.
//!
//! Somebody who can write a file with the ends and the length of another one can spoil the names and stacks of both in the profile, and
//! nothing else.

use std::io;

use sha2::{Digest as _, Sha256};

use crate::process::module::{ContentId, ModuleId, ModuleTable};
use crate::symbol::module_source::ModuleSource;
use crate::symbol::read_at::ReadAt;

/// Bytes at each end that are hashed (OpenTelemetry's `process.executable.build_id.htlhash` takes as many).
const END: u64 = 4096;

/// The module that stands for `id` and all others of the same content. A file that cannot be read stands for itself.
pub fn canonical(modules: &ModuleTable, id: ModuleId) -> ModuleId {
    if let Some(known) = modules.canonical(id) {
        return known;
    }
    let Some(module) = modules.get(id) else { return id };
    let content = ModuleSource::open(&module).and_then(|source| source.with(&module, content_of));
    match content {
        Ok(Ok(content)) => modules.identify(id, Some(content)),
        _ => modules.identify(id, None),
    }
}

/// First 16 bytes of SHA-256(first 4096 bytes ‖ last 4096 bytes ‖ length, big-endian).
pub(super) fn content_of(source: &dyn ReadAt) -> io::Result<ContentId> {
    let len = source.len();
    let mut end = vec![0; len.min(END) as usize];
    let mut hash = Sha256::new();
    for offset in [0, len - end.len() as u64] {
        source.read_exact_at(offset, &mut end)?;
        hash.update(&end);
    }
    hash.update(len.to_be_bytes());
    let hash: [u8; 32] = hash.finalize().into();
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    Ok(ContentId(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ends and length decide, and the hash is the one that others compute (`htlhash`, by hand with `sha256sum`).
    #[test]
    fn ends_and_length_decide() {
        let of = |bytes: &[u8]| content_of(&bytes).expect("it can be read");
        let long = vec![1; 3 * END as usize];
        let mut middle = long.clone();
        middle[END as usize] = 2;
        assert_eq!(of(&long), of(&middle), "the middle is not read");
        for changed in [0, long.len() - 1] {
            let mut other = long.clone();
            other[changed] = 2;
            assert_ne!(of(&long), of(&other));
        }
        assert_ne!(of(&long), of(&long[1..]));
        assert_eq!(of(b"abc").0[..4], HASH_OF_ABC);
    }

    /// `printf 'abcabc\0\0\0\0\0\0\0\003' | sha256sum`
    const HASH_OF_ABC: [u8; 4] = [0xa7, 0xe7, 0x9e, 0x8a];
}
