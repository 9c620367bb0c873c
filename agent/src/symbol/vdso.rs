//! The vDSO: the ELF image that the kernel maps into every process for time calls, and that is no file.
//!
//! All 64-bit processes of one kernel share one image, so the agent's own copy names everybody's frames. (A
//! 32-bit process has another; its frames are not named from here.)

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::FileExt as _;

/// A vDSO is two to four pages; more than this is none.
const MAX_BYTES: u64 = 1 << 20;

/// Copies this process's vDSO, an ELF image whose symbols are in `.dynsym`. None when the kernel maps none
/// (`vdso=0`).
///
/// # Errors
/// When `/proc/self/maps` or `/proc/self/mem` cannot be read.
pub fn read_own() -> io::Result<Option<Vec<u8>>> {
    let maps = BufReader::new(File::open("/proc/self/maps")?);
    let Some((start, bytes)) = find(maps)? else { return Ok(None) };
    let mut image = vec![0; bytes];
    File::open("/proc/self/mem")?.read_exact_at(&mut image, start)?;
    Ok(Some(image))
}

/// Start and length of the mapping `[vdso]` (`proc_pid_maps(5)`).
fn find(maps: impl BufRead) -> io::Result<Option<(u64, usize)>> {
    for line in maps.lines() {
        let line = line?;
        let Some(range) = line.strip_suffix("[vdso]").and_then(|line| line.split(' ').next()) else {
            continue;
        };
        return Ok(parse_range(range));
    }
    Ok(None)
}

fn parse_range(range: &str) -> Option<(u64, usize)> {
    let (start, end) = range.split_once('-')?;
    let start = u64::from_str_radix(start, 16).ok()?;
    let bytes = u64::from_str_radix(end, 16).ok()?.checked_sub(start)?;
    (1..=MAX_BYTES).contains(&bytes).then_some((start, usize::try_from(bytes).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::symbol::elf::{ElfImage, ElfLimits, FunctionIndex};

    /// The running kernel's vDSO is an ELF image that names its time calls.
    #[test]
    fn names_the_time_calls_of_the_running_kernel() {
        let image = read_own().unwrap().unwrap();
        let limits = ElfLimits::default();
        let elf = ElfImage::parse(&image, &limits).unwrap();
        assert!(elf.build_id().is_some());
        let functions = FunctionIndex::build(&image, &elf, &limits).unwrap();
        let names: Vec<String> = functions.iter().map(|f| functions.name(&image, &f).unwrap()).collect();
        assert!(names.iter().any(|name| name.ends_with("clock_gettime")), "{names:?}");
        let text = elf.text_segment().unwrap();
        assert_eq!(elf.file_offset_to_address(0), Some(text.address));
    }

    /// Maps without a vDSO, with a malformed or an absurd range, give none.
    #[test]
    fn finds_only_a_plausible_mapping() {
        let find = |maps: &str| find(maps.as_bytes()).unwrap();
        assert_eq!(find("1000-2000 r-xp 00000000 00:00 0 [vvar]\n"), None);
        assert_eq!(
            find("1000-2000 r--p 0 00:00 0 [vvar]\n7ff0-8ff0 r-xp 0 00:00 0                  [vdso]\n"),
            Some((0x7ff0, 0x1000))
        );
        for range in ["2000-1000", "0-ffffffffffffffff", "x-y", "1000", ""] {
            assert_eq!(find(&format!("{range} r-xp 0 00:00 0 [vdso]\n")), None);
        }
    }
}
