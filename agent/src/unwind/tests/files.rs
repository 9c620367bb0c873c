//! The files of this machine that rows are compared on.

use std::path::{Path, PathBuf};
use std::process::Command;

use agent_ebpf::rule::TEXT_PAGE;

use super::super::{CfiIndex, CfiLimits, Page, build_page};
use crate::symbol::elf::{ElfImage, ElfLimits};

/// Set to anything: all pages of all files are compared, which takes minutes. Otherwise some of each.
pub(super) const ALL: &str = "NODEPROF_UNWIND_ALL";

/// Pages of a file that are compared unless [`ALL`] is set.
const SAMPLE: usize = 160;

/// A file and what was opened of it.
pub(super) struct TestFile {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
    pub(super) image: ElfImage,
    pub(super) index: CfiIndex,
}

impl TestFile {
    pub(super) fn open(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let image = ElfImage::parse(&bytes, &ElfLimits::default()).unwrap();
        let index = CfiIndex::open(&bytes, &image, &CfiLimits::default()).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        Self { name, path: path.to_owned(), bytes, image, index }
    }

    pub(super) fn page(&self, page: u64) -> Page {
        build_page(&self.bytes, &self.index, &self.image, page).unwrap()
    }

    /// All pages with code.
    pub(super) fn pages(&self) -> Vec<u64> {
        let mut pages: Vec<u64> = self
            .image
            .executable_segments()
            .filter(|segment| segment.file_size > 0)
            .flat_map(|segment| {
                let last = segment.file_offset + segment.file_size - 1;
                segment.file_offset / TEXT_PAGE..=last / TEXT_PAGE
            })
            .collect();
        pages.sort_unstable();
        pages.dedup();
        pages
    }

    /// Those of them to compare in this run: spread over the file, the first and the last among them.
    pub(super) fn chosen_pages(&self) -> Vec<u64> {
        let all = self.pages();
        if std::env::var_os(ALL).is_some() || all.len() <= SAMPLE {
            return all;
        }
        (0..SAMPLE).map(|n| all[n * (all.len() - 1) / (SAMPLE - 1)]).collect()
    }

    /// (address, rule) for each row of a page. Offsets outside every executable segment are left out.
    pub(super) fn rows(&self, page: u64) -> Vec<(u64, agent_ebpf::rule::Rule)> {
        let rows = self.page(page).rows.into_iter();
        rows.filter_map(|(offset, rule)| {
            Some((self.code_address(page * TEXT_PAGE + u64::from(offset))?, rule))
        })
        .collect()
    }

    fn code_address(&self, offset: u64) -> Option<u64> {
        self.image.executable_segments().find_map(|segment| {
            let into = offset.checked_sub(segment.file_offset).filter(|&into| into < segment.file_size)?;
            Some(segment.address + into)
        })
    }
}

/// The C library that this test runs with.
pub(super) fn libc() -> PathBuf {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let path = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    path.filter(|path| path.contains("libc.so")).map(PathBuf::from).next().unwrap()
}

/// Every file of the comparison that this machine has: the C library and this test at least.
pub(super) fn all() -> Vec<PathBuf> {
    let libc = libc();
    let beside = |name: &str| libc.parent().unwrap().join(name);
    let mut found = vec![libc.clone(), std::env::current_exe().unwrap()];
    found.extend([beside("libstdc++.so.6"), beside("libcrypto.so.3")]);
    found.extend(python());
    found.extend(rustc_driver());
    for missing in found.iter().filter(|path| !path.exists()) {
        println!("not here, not compared: {}", missing.display());
    }
    found.retain(|path| path.exists());
    found
}

/// Python 3.11's library, or the program that has it inside.
fn python() -> Option<PathBuf> {
    let versions = std::env::home_dir().unwrap_or_default().join(".pyenv/versions");
    let installed = std::fs::read_dir(versions).into_iter().flatten().flatten();
    let library = |root: PathBuf| root.join("lib/libpython3.11.so.1.0");
    let mut candidates: Vec<PathBuf> = installed.map(|version| library(version.path())).collect();
    candidates.push("/usr/lib/x86_64-linux-gnu/libpython3.11.so.1.0".into());
    candidates.push("/usr/bin/python3.11".into());
    candidates.into_iter().find(|path| path.exists())
}

/// The compiler's library, which an optimizer (BOLT) has rewritten: functions in two parts, two sections of CFI.
pub(super) fn rustc_driver() -> Option<PathBuf> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(["--print", "sysroot"]).output().ok()?;
    let sysroot = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    let libraries = std::fs::read_dir(sysroot.join("lib")).ok()?.flatten().map(|entry| entry.path());
    libraries.into_iter().find(|path| path.to_string_lossy().contains("librustc_driver"))
}
