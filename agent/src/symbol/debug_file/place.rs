//! Where a module's debug file may be, in the order in which it is looked for.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::link::DebugLink;
use crate::build_id::BuildId;

/// Where distributions keep debug files.
pub const DEBUG_DIRECTORY: &str = "/usr/lib/debug";

/// Whose root a path is resolved in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Root {
    /// That of the process that maps the module: a container's.
    Process,
    /// The agent's.
    Host,
}

/// A place where a debug file may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) root: Root,
    /// Absolute.
    pub(super) path: PathBuf,
    /// The checksum that a file without build id must have; `None` where it was looked for by build id.
    pub(super) checksum: Option<u32>,
}

/// What is looked for.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    /// The module's path, if it is a file; absolute.
    pub(super) path: Option<&'a Path>,
    pub(super) build_id: Option<&'a BuildId>,
    pub(super) link: Option<DebugLink>,
}

impl Wanted<'_> {
    /// All places, best first: in the process's root, then on the host, there in each of `directories`. In either by build id
    /// first, then by link: beside the module, in `.debug` beside it, and under the debug directory.
    pub(super) fn places(&self, directories: &[PathBuf]) -> Vec<Place> {
        let mut places = Vec::new();
        if self.path.is_some() {
            self.add(Root::Process, &[DEBUG_DIRECTORY.into()], &mut places);
        }
        self.add(Root::Host, directories, &mut places);
        places
    }

    fn add(&self, root: Root, directories: &[PathBuf], places: &mut Vec<Place>) {
        if let Some(relative) = self.build_id.and_then(build_id_path) {
            let by_id = directories.iter().map(|directory| directory.join(&relative));
            places.extend(by_id.map(|path| Place { root, path, checksum: None }));
        }
        let (Some(DebugLink { name, checksum }), Some(directory)) =
            (&self.link, self.path.and_then(Path::parent))
        else {
            return;
        };
        let beneath = directory.strip_prefix("/").unwrap_or(directory);
        let by_link = [directory.join(name), directory.join(".debug").join(name)]
            .into_iter()
            .chain(directories.iter().map(|debug| debug.join(beneath).join(name)));
        places.extend(by_link.map(|path| Place { root, path, checksum: Some(*checksum) }));
    }
}

/// `.build-id/ab/cdef….debug`; `None` for an id of one byte.
pub(super) fn build_id_path(id: &BuildId) -> Option<PathBuf> {
    let (first, rest) = id.as_bytes().split_first().filter(|(_, rest)| !rest.is_empty())?;
    let mut path = format!(".build-id/{first:02x}/");
    for byte in rest {
        // Writing to a string cannot fail.
        let _written = write!(path, "{byte:02x}");
    }
    path.push_str(".debug");
    Some(path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The process's root comes before the host's, the build id before the link, and the directories in their order.
    #[test]
    fn places_are_in_order() {
        let id = BuildId::new(&[0xab, 0xcd, 0x0f]).unwrap();
        let link = DebugLink { name: "lib.debug".into(), checksum: 7 };
        let wanted = Wanted { path: Some("/opt/lib.so".as_ref()), build_id: Some(&id), link: Some(link) };
        let found = wanted.places(&["/one".into(), "/two".into()]);
        let text = |place: &Place| format!("{:?} {}", place.root, place.path.display());
        assert_eq!(
            found.iter().map(text).collect::<Vec<_>>(),
            [
                "Process /usr/lib/debug/.build-id/ab/cd0f.debug",
                "Process /opt/lib.debug",
                "Process /opt/.debug/lib.debug",
                "Process /usr/lib/debug/opt/lib.debug",
                "Host /one/.build-id/ab/cd0f.debug",
                "Host /two/.build-id/ab/cd0f.debug",
                "Host /opt/lib.debug",
                "Host /opt/.debug/lib.debug",
                "Host /one/opt/lib.debug",
                "Host /two/opt/lib.debug",
            ]
        );
        let checksums: Vec<_> = found.iter().map(|place| place.checksum.is_some()).collect();
        assert_eq!(checksums, [false, true, true, true, false, false, true, true, true, true]);
    }

    /// The vDSO has no path and no link; an id of one byte has no place.
    #[test]
    fn what_is_not_known_leads_nowhere() {
        let id = BuildId::new(&[1, 2]).unwrap();
        let vdso = Wanted { path: None, build_id: Some(&id), link: None };
        assert_eq!(vdso.places(&["/d".into()]).len(), 1);
        assert_eq!(build_id_path(&BuildId::new(&[1]).unwrap()), None);
        assert_eq!(
            Wanted { path: Some("/a".as_ref()), build_id: None, link: None }.places(&["/d".into()]),
            []
        );
    }
}
