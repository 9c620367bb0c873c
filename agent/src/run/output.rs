//! Where the profiles of a run go: files in a directory, or one profile on standard output.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::unistd::{Gid, Uid, chown};

use crate::cli::ProfileArgs;
use crate::export::{self, Format};
use crate::profile::model::Profile;
use crate::run::error::RunError;
use crate::run::preflight::check_output;
use crate::time_format;

/// Where profiles go.
#[derive(Debug)]
pub enum Output {
    /// One file for each profile and format.
    Directory {
        /// The directory; it exists and can be written to.
        path: PathBuf,
        /// The formats.
        formats: Vec<Format>,
        /// Who called `sudo`, and so is to own the files.
        owner: Option<(Uid, Gid)>,
    },
    /// One profile in one format on standard output.
    Stdout(Format),
}

impl Output {
    /// What the options ask for. Makes the directory, so that a mistake is found before the window.
    pub fn prepare(args: &ProfileArgs, now: SystemTime) -> Result<Self, RunError> {
        if args.output.as_deref() == Some(Path::new("-")) {
            if args.profilers.len() > 1 {
                return Err(RunError::Usage(
                    "--output -: standard output takes one profile; choose one with --profilers".to_owned(),
                ));
            }
            return match args.format[..] {
                [] => Ok(Self::Stdout(Format::Pprof)),
                [format] => Ok(Self::Stdout(format)),
                _ => Err(RunError::Usage(
                    "--output -: standard output takes one format; choose one with --format".to_owned(),
                )),
            };
        }
        let named = args.output.clone();
        let path =
            named.unwrap_or_else(|| PathBuf::from(format!("nodeprof-{}", time_format::file_stamp(now))));
        let existed = path.exists();
        let output =
            Self::Directory { path: check_output(path)?, formats: formats(args), owner: sudo_caller() };
        if let Self::Directory { path, owner: Some(owner), .. } = &output
            && !existed
        {
            give(path, *owner);
        }
        Ok(output)
    }

    /// Whether reports go to standard output; else a profile does.
    pub fn leaves_stdout(&self) -> bool {
        matches!(self, Self::Directory { .. })
    }

    /// Writes `profile`; the files that were made.
    pub fn write(&self, profile: &Profile) -> io::Result<Vec<PathBuf>> {
        match self {
            Self::Stdout(format) => {
                let mut out = BufWriter::new(io::stdout().lock());
                export::write(profile, *format, &mut out)?;
                out.flush()?;
                Ok(Vec::new())
            }
            Self::Directory { path, formats, owner } => formats
                .iter()
                .map(|format| {
                    let file = path.join(format!("{}.{}", profile.kind.name(), format.extension()));
                    write_file(profile, *format, &file)?;
                    if let Some(owner) = owner {
                        give(&file, *owner);
                    }
                    Ok(file)
                })
                .collect(),
        }
    }
}

/// A reader that goes away early, as in `agent check | head -1`, is no error.
pub fn ignore_closed_pipe(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn formats(args: &ProfileArgs) -> Vec<Format> {
    if args.format.is_empty() { vec![Format::Pprof, Format::Svg] } else { args.format.clone() }
}

fn write_file(profile: &Profile, format: Format, path: &Path) -> io::Result<()> {
    let in_file = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let mut out = BufWriter::new(File::create(path).map_err(in_file)?);
    export::write(profile, format, &mut out).and_then(|()| out.flush()).map_err(in_file)
}

/// The user who called `sudo`, from the variables that it sets. Only root can give files away.
fn sudo_caller() -> Option<(Uid, Gid)> {
    let id = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    let caller = (Uid::from_raw(id("SUDO_UID")?), Gid::from_raw(id("SUDO_GID")?));
    Uid::effective().is_root().then_some(caller)
}

/// A file that stays root's is still a good file.
fn give(path: &Path, (user, group): (Uid, Gid)) {
    if let Err(errno) = chown(path, Some(user), Some(group)) {
        tracing::warn!(path = %path.display(), %errno, "cannot give the file to the user who called sudo");
    }
}
