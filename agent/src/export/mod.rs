//! File formats that a profile is written in. Each is a plain walk over the tables of the neutral model.

pub mod flamegraph;
pub mod folded;
pub mod json;
pub mod pprof;
mod stacks;

use std::io::{self, Write};
use std::str::FromStr;

use clap::ValueEnum;

use crate::profile::model::Profile;
use crate::report::table::{self, TableOptions};

/// Rows of a table in a text file: a file scrolls.
const TEXT_ROWS: usize = 40;

/// A file format for profiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Format {
    /// gzip-compressed pprof, for `go tool pprof`, Pyroscope, Parca, speedscope
    Pprof,
    /// Flame graph for a browser
    Svg,
    /// Folded stacks, one a line, for FlameGraph, inferno, speedscope
    Folded,
    /// The tables of the terminal's report, with more rows
    Text,
    /// JSON for scripts
    Json,
}

impl Format {
    /// What the names of such files end in, without the leading dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Pprof => "pb.gz",
            Self::Svg => "svg",
            Self::Folded => "folded",
            Self::Text => "txt",
            Self::Json => "json",
        }
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    /// The names that the command line takes: `pprof`, `svg`, `folded`, `text`, `json`.
    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        <Self as ValueEnum>::from_str(name, false).map_err(|_| UnknownFormat(name.to_owned()))
    }
}

/// A name that is no [`Format`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown profile format {0:?}; known are pprof, svg, folded, text and json")]
pub struct UnknownFormat(pub String);

/// Writes `profile` as `format`. Folded stacks have the value that reports rank by (CPU time in nanoseconds).
///
/// Many small writes are made: give it a buffered writer.
pub fn write(profile: &Profile, format: Format, out: &mut dyn Write) -> io::Result<()> {
    match format {
        Format::Pprof => pprof::write(profile, out),
        Format::Svg => flamegraph::write(profile, out),
        Format::Folded => {
            let value_index = profile.ranked_value().map_or(0, |(index, _)| index);
            folded::write(profile, value_index, out)
        }
        Format::Text => {
            table::write_top(profile, out, &TableOptions { rows: TEXT_ROWS, ..TableOptions::default() })
        }
        Format::Json => json::write(profile, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::example;

    fn written(profile: &Profile, format: Format) -> Vec<u8> {
        let mut out = Vec::new();
        write(profile, format, &mut out).unwrap();
        out
    }

    /// Each format has a name on the command line and an ending of its own.
    #[test]
    fn names_and_endings() {
        let known =
            [("pprof", "pb.gz"), ("svg", "svg"), ("folded", "folded"), ("text", "txt"), ("json", "json")];
        for (name, extension) in known {
            let format: Format = name.parse().unwrap();
            assert_eq!(format.extension(), extension);
        }
        assert_eq!(Format::value_variants().len(), known.len());
        let error = "perf".parse::<Format>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown profile format \"perf\"; known are pprof, svg, folded, text and json"
        );
    }

    /// Each format is what its name says, told by how its files begin.
    #[test]
    fn formats_are_what_they_say() {
        let profile = example::profile();
        assert_eq!(written(&profile, Format::Pprof), pprof::encode(&profile));
        assert!(written(&profile, Format::Svg).starts_with(b"<?xml"));
        assert!(
            written(&profile, Format::Folded).starts_with(b"app;main;app::walk;app::hash_[i] 30000000\n")
        );
        assert!(written(&profile, Format::Text).starts_with(b"CPU profile of node-1"));
        assert!(written(&profile, Format::Json).starts_with(b"{\"schema\":\"nodeprof.profile/1\""));
    }

    /// A writer that takes nothing: a full disk.
    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A full disk is an error with its kind, in every format, never a panic or a silent success.
    #[test]
    fn a_full_disk_is_reported() {
        for format in Format::value_variants() {
            let error = write(&example::profile(), *format, &mut Full).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{format:?}");
        }
    }
}
