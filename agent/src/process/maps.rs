//! Parsing of `/proc/PID/maps` lines (`show_map_vma` in `fs/proc/task_mmu.c`).

use crate::kernel::sideband::record::FileHint;

/// One executable mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapsEntry<'a> {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Offset of `start` in the file.
    pub file_offset: u64,
    /// Device and inode; inode 0 for memory without a file.
    pub file: FileHint,
    /// Path or `[name]`; empty for anonymous memory. As the kernel prints it, with `\012` for a line feed.
    pub path: &'a str,
}

/// Parses one line. `None` for mappings that are not executable and for text that is no such line.
pub fn parse_executable(line: &str) -> Option<MapsEntry<'_>> {
    let (range, rest) = line.split_once(' ')?;
    let (permissions, rest) = rest.split_once(' ')?;
    if permissions.as_bytes().get(2) != Some(&b'x') {
        return None;
    }
    let (offset, rest) = rest.split_once(' ')?;
    let (device, rest) = rest.split_once(' ')?;
    let (inode, path) = rest.split_once(' ').unwrap_or((rest, ""));
    let (start, end) = range.split_once('-')?;
    let (start, end) = (hex(start)?, hex(end)?);
    let (major, minor) = device.split_once(':')?;
    let (major, minor) = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    if start >= end {
        return None;
    }
    let file = FileHint { device: libc::makedev(major, minor), inode: inode.parse().ok()? };
    Some(MapsEntry { start, end, file_offset: hex(offset)?, file, path: path.trim_start_matches(' ') })
}

fn hex(digits: &str) -> Option<u64> {
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file's text, with spaces in its path.
    #[test]
    fn a_file() {
        let line =
            "7f0000001000-7f0000003000 r-xp 00026000 fe:01 4242                       /opt/my app/lib a.so";
        let entry = parse_executable(line).expect("a mapping");
        assert_eq!(
            (entry.start, entry.end, entry.file_offset),
            (0x7f00_0000_1000, 0x7f00_0000_3000, 0x26000)
        );
        assert_eq!(entry.file, FileHint { device: libc::makedev(0xfe, 1), inode: 4242 });
        assert_eq!(entry.path, "/opt/my app/lib a.so");
    }

    /// Anonymous executable memory has no path; the vDSO has a name.
    #[test]
    fn memory_without_a_file() {
        let anonymous =
            parse_executable("7f0000001000-7f0000003000 rwxp 00000000 00:00 0 ").expect("a mapping");
        assert_eq!(anonymous.path, "");
        let vdso = parse_executable("7ffd0-7ffd2 r-xp 00000000 00:00 0                          [vdso]")
            .expect("one");
        assert_eq!(vdso.path, "[vdso]");
    }

    /// Data mappings and nonsense are left out.
    #[test]
    fn everything_else() {
        for line in [
            "",
            "7f0000001000-7f0000003000 rw-p 00000000 00:00 0",
            "7f0000003000-7f0000001000 r-xp 00000000 00:00 0",
            "zz-7f0000001000 r-xp 00000000 00:00 0 x",
            "7f0000001000 r-xp",
            "1-2 r-xp 0 0 0 /a",
            "1-2 r-x",
            "1-2 r-xp 0 0:0 99999999999999999999999 /a",
        ] {
            assert_eq!(parse_executable(line), None, "{line:?}");
        }
    }
}
