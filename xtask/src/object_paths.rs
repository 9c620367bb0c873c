//! Keeps the paths of the machine that built it out of the eBPF object.
//!
//! The object's BTF names source files, and debug information names directories. The committed object must
//! neither tell where it was built nor differ because of it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// What stands for a directory of this machine in the object.
pub(crate) struct Remap {
    directory: PathBuf,
    name: &'static str,
}

impl Remap {
    /// The flag for rustc.
    pub(crate) fn flag(&self) -> String {
        format!("--remap-path-prefix={}={}", self.directory.display(), self.name)
    }
}

/// The directories of this machine that can appear in the object, the innermost last: of several that fit, rustc
/// takes the last.
///
/// The registry's own directory carries a hash that depends on how the registry is reached, so that it is
/// replaced together with its name.
pub(crate) fn remaps(root: &Path, cargo_home: Option<&Path>, rust_sources: Option<&Path>) -> Vec<Remap> {
    let mut remaps = Vec::new();
    let mut add = |directory: &Path, name| remaps.push(Remap { directory: directory.to_owned(), name });
    if let Some(cargo_home) = cargo_home {
        add(cargo_home, "cargo");
        let registries = fs::read_dir(cargo_home.join("registry/src"));
        for registry in registries.into_iter().flatten().flatten() {
            add(&registry.path(), "crates");
        }
    }
    if let Some(rust_sources) = rust_sources {
        add(rust_sources, "rust");
    }
    add(root, "nodeprof");
    remaps.sort_by_key(|remap| remap.directory.components().count());
    remaps
}

/// Fails if `object` holds one of the directories as the beginning of a path.
pub(crate) fn check_absence(object: &[u8], remaps: &[Remap]) -> Result<()> {
    for remap in remaps {
        let directory = remap.directory.as_os_str().as_encoded_bytes();
        if directory.len() > 1 && holds_path(object, directory) {
            bail!("the eBPF object holds the path {} of this machine", remap.directory.display());
        }
    }
    Ok(())
}

fn holds_path(object: &[u8], directory: &[u8]) -> bool {
    let is_inside_path = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
    let begins_at = |start: usize| {
        let before = start.checked_sub(1).and_then(|before| object.get(before));
        let after = object.get(start + directory.len());
        !before.is_some_and(is_inside_path) && after.is_none_or(|byte| *byte == b'/' || !is_inside_path(byte))
    };
    object.windows(directory.len()).enumerate().any(|(start, window)| window == directory && begins_at(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path of the machine is found as a whole path or as a path's beginning, and nowhere else.
    #[test]
    fn machine_paths_are_found() {
        for (object, expected) in [
            (&b"\0/home/me/src/lib.rs\0"[..], true),
            (b"/home/me", true),
            (b"\0/home/me\0", true),
            (b"\0/mnt/home/me/lib.rs\0", false),
            (b"\0/home/mean/lib.rs\0", false),
            (b"\0nodeprof/lib.rs\0", false),
            (b"", false),
        ] {
            assert_eq!(holds_path(object, b"/home/me"), expected, "{}", object.escape_ascii());
        }
    }

    /// A directory comes after those that it lies in, whichever lies in which, because rustc takes the last
    /// fitting flag.
    #[test]
    fn innermost_comes_last() {
        let flags = |root: &str, cargo_home: &str| -> Vec<_> {
            let remaps = remaps(Path::new(root), Some(Path::new(cargo_home)), Some(Path::new("/rust")));
            remaps.iter().map(Remap::flag).collect()
        };
        let [rust, inner, outer] =
            ["/rust=rust", "/home/me/w=", "/home/me="].map(|map| format!("--remap-path-prefix={map}"));
        assert_eq!(
            flags("/home/me/w", "/home/me"),
            [rust.clone(), outer.clone() + "cargo", inner.clone() + "nodeprof"]
        );
        assert_eq!(flags("/home/me", "/home/me/w"), [rust, outer + "nodeprof", inner + "cargo"]);
    }
}
