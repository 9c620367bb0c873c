//! Rows built in a second.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::bench::figure::Figure;
use crate::{command, workspace};

/// The figures; `runs` repetitions.
pub(super) fn measure(runs: u16) -> Result<Vec<Figure>> {
    let files = files()?;
    eprintln!("rows: {runs} times all pages of {files:?}");
    let mut rates = vec![Vec::new(); files.len()];
    let mut sizes = vec![(0.0, 0.0); files.len()];
    for _ in 0..runs {
        let output = build_all(&files)?;
        ensure!(output.lines().count() == files.len(), "not every file was measured:\n{output}");
        for (file, line) in output.lines().enumerate() {
            let (rows, pages, nanoseconds) = parse(line).with_context(|| format!("no figures: {line:?}"))?;
            rates[file].push(rows / nanoseconds * 1e3);
            sizes[file] = (rows, pages);
        }
    }
    let figures = files.iter().zip(rates).zip(sizes).map(|((file, rates), (rows, pages))| {
        let name: String = file.file_name().unwrap_or_default().to_string_lossy().chars().take(24).collect();
        Figure::new(format!("rows a microsecond, {name} ({rows} rows, {pages} pages)"), "", rates)
    });
    Ok(figures.collect())
}

/// A large, a middle and a small library that every machine with a Rust compiler has.
fn files() -> Result<Vec<PathBuf>> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let sysroot = command::query(Command::new(rustc).args(["--print", "sysroot"]))?.context("no rustc")?;
    let libraries = Path::new(sysroot.trim()).join("lib").read_dir()?.flatten().map(|entry| entry.path());
    let driver = libraries.into_iter().find(|path| path.to_string_lossy().contains("librustc_driver"));
    let gcc = |name: &str| -> Result<Option<PathBuf>> {
        let path = command::query(Command::new("gcc").arg(format!("-print-file-name={name}")))?;
        Ok(path.map(|path| PathBuf::from(path.trim())).filter(|path| path.is_absolute()))
    };
    Ok([driver, gcc("libc.so.6")?, gcc("libstdc++.so.6")?].into_iter().flatten().collect())
}

fn build_all(files: &[PathBuf]) -> Result<String> {
    let mut bench = Command::new(workspace::cargo());
    bench.args(["bench", "--locked", "--quiet", "--package", "agent", "--bench", "unwind_rows", "--"]);
    bench.args(files).current_dir(workspace::root()?).stderr(Stdio::inherit());
    let output = bench.output()?;
    ensure!(output.status.success(), "`{}` failed: {}", command::line(&bench), output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// Rows, pages, nanoseconds.
fn parse(line: &str) -> Option<(f64, f64, f64)> {
    let mut words = line.split('\t').map(|word| word.parse().ok());
    Some((words.next()??, words.next()??, words.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The line that the benchmark prints.
    #[test]
    fn figures_are_parsed() {
        assert_eq!(parse("23416\t90\t1000000\t/lib/libc.so.6"), Some((23_416.0, 90.0, 1e6)));
        assert_eq!(parse("warning: something"), None);
    }
}
