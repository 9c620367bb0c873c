//! What the tests did not do.
//!
//! A test that cannot run here appends `skipped: NAME: REASON` to the file that `NODEPROF_SKIP_LOG` names. The
//! test harness hides what passing tests print; this file is how a skip does not pass for a success.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Result};

/// Names the file to the tests.
pub(crate) const VARIABLE: &str = "NODEPROF_SKIP_LOG";

/// An empty log file, and later what the tests wrote to it.
pub(crate) struct SkipLog {
    path: PathBuf,
}

impl SkipLog {
    /// Makes sure that the log at `path` begins empty.
    pub(crate) fn begin(path: PathBuf) -> Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot empty {}", path.display()))
            }
            _ => Ok(Self { path }),
        }
    }

    /// The file's path, for the tests.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The skips that were reported, sorted, each once. No file means that nothing was skipped.
    pub(crate) fn entries(&self) -> Result<Vec<String>> {
        match fs::read(&self.path) {
            Ok(content) => Ok(entries(&String::from_utf8_lossy(&content))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", self.path.display())),
        }
    }
}

/// Every line that is not empty counts, also one in a form not agreed upon: better shown than lost.
fn entries(content: &str) -> Vec<String> {
    let lines = content.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tests append in any order and some several times; the list is sorted and free of repetition.
    #[test]
    fn skips_are_listed_once() {
        let content = "skipped: b: no go\nskipped: a: not root\n\nskipped: b: no go\nodd line\n";
        assert_eq!(entries(content), ["odd line", "skipped: a: not root", "skipped: b: no go"]);
    }
}
