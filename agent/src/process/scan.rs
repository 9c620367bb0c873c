//! Reading `/proc`: every process once at the start, single ones again when the side-band did not tell enough.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _};

use crate::kernel::sideband::record::FileHint;
use crate::process::mappings::{Mapping, Mappings};
use crate::process::maps;
use crate::process::module::{ModuleKey, ModuleTable, Witness};

/// What `/proc` says of a process.
#[derive(Clone, Debug)]
pub struct ProcessSnapshot {
    /// Name of its main thread.
    pub comm: String,
    /// Its executable mappings.
    pub mappings: Mappings,
}

/// The numbers of all processes there are now.
pub fn processes() -> io::Result<Vec<u32>> {
    let names = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter_map(|name| name.parse().ok()).collect())
}

/// Whether the process has a thread besides its main thread, which may have ended and is listed nevertheless.
pub fn has_other_threads(pid: u32) -> bool {
    fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| threads.count() > 1)
}

/// Reads one process. An error when it is gone or may not be looked at.
pub fn read(pid: u32, modules: &ModuleTable) -> io::Result<ProcessSnapshot> {
    let comm = fs::read(format!("/proc/{pid}/comm"))?;
    let comm = String::from_utf8_lossy(comm.trim_ascii_end()).into_owned();
    Ok(ProcessSnapshot { comm, mappings: read_mappings(pid, modules)? })
}

fn read_mappings(pid: u32, modules: &ModuleTable) -> io::Result<Mappings> {
    /// A process may have 65,530 mappings with paths of up to 4 KiB; nobody has that much text in them.
    const MOST_BYTES: u64 = 64 << 20;
    let mut lines = BufReader::new(File::open(format!("/proc/{pid}/maps"))?.take(MOST_BYTES));
    let mut line = Vec::new();
    let mut found = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(line.trim_ascii_end());
        if let Some(entry) = maps::parse_executable(&text) {
            let witness = Witness { pid, start: entry.start, end: entry.end };
            let key = module_key(entry.path, entry.file);
            let module = modules.intern(key, witness);
            found.push(Mapping {
                start: entry.start,
                end: entry.end,
                file_offset: entry.file_offset,
                module,
            });
        }
        line.clear();
    }
    Ok(Mappings::new(found))
}

/// What a mapping's path says of its module, whether it stood in `/proc/PID/maps` or in a side-band record.
pub fn module_key(path: &str, hint: FileHint) -> ModuleKey {
    match path {
        "[vdso]" => ModuleKey::Vdso,
        // Memory without a file is `//anon` or empty; `[heap]`, `[stack]`, `[anon:…]` and `anon_inode:…` are names
        // of such memory. memfds and System V segments have names that begin with a slash but no ELF file; of these, .NET
        // keeps its generated code in one (`CreateDoubleMemoryMapper`), where it is written through another mapping.
        _ if !path.starts_with('/')
            || path.starts_with("//anon")
            || path.starts_with("/memfd:doublemapper") =>
        {
            ModuleKey::Anonymous
        }
        _ => {
            let path = path.strip_suffix(" (deleted)").unwrap_or(path);
            ModuleKey::File { path: path.into(), hint }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This process is among the processes, and the test's own code lies in its own executable.
    #[test]
    fn this_process_is_read() {
        let pid = std::process::id();
        assert!(processes().expect("/proc is there").contains(&pid));
        let modules = ModuleTable::default();
        let snapshot = read(pid, &modules).expect("this process is there");
        let here = this_process_is_read as *const () as u64;
        let mapping = snapshot.mappings.find(here).expect("the code is mapped");
        let ModuleKey::File { path, .. } = modules.get(mapping.module).expect("just interned").key else {
            panic!("not a file")
        };
        let executable = std::env::current_exe().expect("an executable");
        assert_eq!(&*path, executable.to_str().expect("UTF-8"));
    }

    /// A process that does not exist is an error, not an empty process.
    #[test]
    fn a_process_that_is_gone() {
        assert!(read(u32::MAX, &ModuleTable::default()).is_err());
    }
}
