//! The sections by which a file names another one with the rest of it.
//!
//! `.gnu_debuglink` (GDB's manual, "Debugging Information in Separate Files"): a file name that ends with NUL, padding up to a
//! multiple of four bytes, a CRC-32 of that file. `.gnu_debugaltlink` (dwz): a path that ends with NUL, then the build id of
//! the file that several debug files share.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use crate::build_id::BuildId;
use crate::symbol::elf::ElfFile;

/// The longest section that is read: a path, and a checksum or build id.
const MAX_BYTES: u64 = 4096 + 128;

/// What `.gnu_debuglink` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebugLink {
    /// A name without any directory.
    pub name: PathBuf,
    /// CRC-32 of all bytes of that file.
    pub checksum: u32,
}

/// What `.gnu_debugaltlink` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AltLink {
    /// Absolute, or relative to the directory of the file that says it.
    pub path: PathBuf,
    /// The build id that it must have.
    pub build_id: BuildId,
}

impl DebugLink {
    /// What `file` says; `None` when it says nothing that makes sense.
    pub fn of(file: ElfFile<'_>) -> Option<Self> {
        Self::parse(&section(file, ".gnu_debuglink")?)
    }

    fn parse(section: &[u8]) -> Option<Self> {
        let (name, _) = split_at_nul(section)?;
        let at = (name.len() + 1).next_multiple_of(4);
        let checksum = section.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))?;
        let name = PathBuf::from(OsStr::from_bytes(name));
        // A path could lead anywhere; linkers write a name.
        let mut components = name.components();
        let is_name = matches!(components.next(), Some(Component::Normal(_))) && components.next().is_none();
        is_name.then_some(Self { name, checksum })
    }
}

impl AltLink {
    /// What `file` says; `None` when it says nothing that makes sense.
    pub fn of(file: ElfFile<'_>) -> Option<Self> {
        Self::parse(&section(file, ".gnu_debugaltlink")?)
    }

    fn parse(section: &[u8]) -> Option<Self> {
        let (path, build_id) = split_at_nul(section)?;
        let path = PathBuf::from(OsStr::from_bytes(path));
        path.file_name()?;
        Some(Self { path, build_id: BuildId::new(build_id)? })
    }

    /// Where the file is, said by one in `directory`.
    pub fn path_from(&self, directory: &Path) -> PathBuf {
        directory.join(&self.path)
    }
}

fn section(file: ElfFile<'_>, name: &str) -> Option<Vec<u8>> {
    let data = file.image.section_data(file.source, name, MAX_BYTES).ok()??;
    data.into_bytes(file.source, MAX_BYTES).ok()
}

fn split_at_nul(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The checksum stands at the next multiple of four bytes, whatever the name's length.
    #[test]
    fn reads_links_of_every_padding() {
        for name in ["abc", "abcd", "abcde", "abcdef.debug"] {
            let mut section = name.as_bytes().to_vec();
            section.resize((name.len() + 1).next_multiple_of(4), 0);
            section.extend(0x1234_5678_u32.to_le_bytes());
            let expected = DebugLink { name: name.into(), checksum: 0x1234_5678 };
            assert_eq!(DebugLink::parse(&section), Some(expected), "{name}");
            assert_eq!(DebugLink::parse(&section[..section.len() - 1]), None, "{name}");
        }
    }

    /// Names that are no mere names, and sections without an end, say nothing.
    #[test]
    fn refuses_what_is_no_name() {
        for name in ["", ".", "..", "/", "/etc/shadow", "a/b", "../x"] {
            let mut section = name.as_bytes().to_vec();
            section.resize(64, 0);
            assert_eq!(DebugLink::parse(&section), None, "{name}");
        }
        assert_eq!(DebugLink::parse(&[b'a'; 64]), None);
        assert_eq!(DebugLink::parse(&[]), None);
        assert_eq!(AltLink::parse(b"/usr/lib/debug/.dwz/x\0"), None, "no build id");
        assert_eq!(AltLink::parse(b"\0\x01\x02"), None, "no path");
    }

    /// A relative path is one from the directory of the file that says it.
    #[test]
    fn resolves_relative_paths() {
        let link = AltLink::parse(b"../.dwz/shared\0\x01\x02").unwrap();
        assert_eq!(link.build_id.to_string(), "0102");
        assert_eq!(
            link.path_from(Path::new("/usr/lib/debug/bin")),
            Path::new("/usr/lib/debug/bin/../.dwz/shared")
        );
        let link = AltLink::parse(b"/absolute\0\x01").unwrap();
        assert_eq!(link.path_from(Path::new("/usr")), Path::new("/absolute"));
    }
}
