//! The files beside the one that was opened.

use std::sync::Arc;

use super::debug_lines::SharedSource;

/// Opens the files that debug information names: the resolver does it in the root of a process that maps the module.
pub trait LinkedFiles {
    /// The `.dwp` file beside the module, if there is one, with its path.
    fn package(&self) -> Option<(Arc<str>, SharedSource)>;

    /// The file at `path`, which is absolute.
    fn open(&self, path: &str) -> Option<SharedSource>;

    /// The supplementary file that the `.gnu_debugaltlink` of the file with the debug information names, if there is one of that
    /// build id.
    fn supplement(&self) -> Option<SharedSource>;
}
