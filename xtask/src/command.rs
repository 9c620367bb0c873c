//! Running other programs: shown before they run, checked after.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::{env, io};

use anyhow::{Context, Result, bail};

/// Prints the command line, runs it, and fails unless it succeeds.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = run_for_status(command)?;
    if !status.success() {
        bail!("`{}` failed: {status}", line(command));
    }
    Ok(())
}

/// Prints the command line, runs it, and returns how it ended.
pub(crate) fn run_for_status(command: &mut Command) -> Result<ExitStatus> {
    eprintln!("+ {}", line(command));
    command.status().with_context(|| format!("cannot start `{}`", line(command)))
}

/// Runs a query in silence: its standard output if it succeeds, `None` if it fails or is not there.
pub(crate) fn query(command: &mut Command) -> Result<Option<String>> {
    match command.stdin(Stdio::null()).stderr(Stdio::null()).output() {
        Ok(output) if output.status.success() => {
            Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
        }
        Ok(_) => Ok(None),
        // "Denied" is what a directory in `$PATH` that this user may not read makes of "not found".
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("cannot start `{}`", line(command))),
    }
}

/// The first executable called `name` in `$PATH`.
pub(crate) fn find_in_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

/// The command as one would type it; the environment that it is given comes first.
pub(crate) fn line(command: &Command) -> String {
    let environment = command.get_envs().filter_map(|(name, value)| {
        let value = value?.to_string_lossy();
        Some(format!("{}={}", name.to_string_lossy(), quoted(&value)))
    });
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(word);
    environment.chain(words).collect::<Vec<_>>().join(" ")
}

fn word(word: &OsStr) -> String {
    quoted(&word.to_string_lossy())
}

fn quoted(word: &str) -> String {
    // Cargo separates encoded flags by 0x1f; a space reads better and is only shown.
    let word = word.replace('\u{1f}', " ");
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_./=:+,@%".contains(character);
    if !word.is_empty() && word.chars().all(plain) {
        word
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A command line that is shown can be pasted: the environment first, words with blanks quoted.
    #[test]
    fn line_is_shown_as_typed() {
        let mut command = Command::new("cargo");
        command.args(["build", "--message", "it's two words", ""]).env("RUSTC", "/usr/bin/rustc");
        assert_eq!(line(&command), r"RUSTC=/usr/bin/rustc cargo build --message 'it'\''s two words' ''");
    }

    /// A query of a program that does not exist is an answer, not an error.
    #[test]
    fn query_of_an_absent_program_is_none() {
        assert_eq!(query(&mut Command::new("/nonexistent/program")).unwrap(), None);
        assert_eq!(query(&mut Command::new("/dev/null")).unwrap(), None);
        assert_eq!(query(&mut Command::new("false")).unwrap(), None);
        assert_eq!(query(Command::new("echo").arg("yes")).unwrap().as_deref(), Some("yes\n"));
    }
}
