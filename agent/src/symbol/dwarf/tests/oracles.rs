//! Other programs that say what stands at an address.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// A function and `file:line`, innermost first. Empty where nothing is known.
pub(in crate::symbol) type Chain = Vec<(String, String)>;

/// What an oracle says of each of `addresses`; None where it is not installed.
pub(in crate::symbol) fn gnu(path: &Path, addresses: &[u64]) -> Option<Vec<Chain>> {
    // `-a` prints each address before what it says of it.
    let output = ask("addr2line", &["-a", "-f", "-i", "-e"], path, addresses)?;
    let mut chains: Vec<Chain> = Vec::new();
    let mut lines = output.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("0x") {
            chains.push(Vec::new());
            continue;
        }
        let place = lines.next().unwrap();
        if line != "??" || !place.starts_with("??") {
            // `file.c:12 (discriminator 3)`
            let place = place.split(" (").next().unwrap();
            chains.last_mut().unwrap().push((line.to_owned(), place.to_owned()));
        }
    }
    Some(chains)
}

/// The same of LLVM's.
pub(in crate::symbol) fn llvm(path: &Path, addresses: &[u64]) -> Option<Vec<Chain>> {
    let options = ["--no-demangle", "--functions=linkage", "--inlines", "--output-style=LLVM", "-e"];
    let output = ask("llvm-symbolizer", &options, path, addresses)?;
    let chains = output.trim_end_matches('\n').split("\n\n").map(|chain| {
        let lines: Vec<&str> = chain.lines().collect();
        let pairs = lines.chunks_exact(2).filter(|pair| !(pair[0] == "??" && pair[1].starts_with("??")));
        pairs
            .map(|pair| {
                // `file.c:12:5`
                let place = pair[1].rsplit_once(':').unwrap().0;
                (pair[0].to_owned(), place.to_owned())
            })
            .collect()
    });
    Some(chains.collect())
}

/// The same of blazesym's, a library that keeps whole files' debug information in memory.
pub(in crate::symbol) fn blazesym(path: &Path, addresses: &[u64]) -> Vec<Chain> {
    use blazesym::symbolize::source::{Elf, Source};
    use blazesym::symbolize::{CodeInfo, Input, Symbolized, Symbolizer};
    let place = |code: Option<&CodeInfo<'_>>| {
        code.map_or("??:0".to_owned(), |code| {
            format!("{}:{}", code.file.to_string_lossy(), code.line.unwrap_or(0))
        })
    };
    let symbolizer = Symbolizer::builder().enable_auto_reload(false).enable_demangling(false).build();
    let answers = symbolizer.symbolize(&Source::Elf(Elf::new(path)), Input::VirtOffset(addresses)).unwrap();
    let chain = |answer: &Symbolized<'_>| {
        let Symbolized::Sym(symbol) = answer else { return Chain::new() };
        let inlined = symbol.inlined.iter().rev();
        let mut chain: Chain =
            inlined.map(|inlined| (inlined.name.to_string(), place(inlined.code_info.as_ref()))).collect();
        chain.push((symbol.name.to_string(), place(symbol.code_info.as_deref())));
        chain
    };
    answers.iter().map(chain).collect()
}

fn ask(program: &str, options: &[&str], path: &Path, addresses: &[u64]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(options).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(_) if std::env::var_os("NODEPROF_REQUIRE_LIVE").is_none() => {
            println!("no {program}: not compared");
            return None;
        }
        Err(error) => panic!("{program}: {error}"),
    };
    let mut input = child.stdin.take().unwrap();
    let text: String =
        addresses.iter().fold(String::new(), |text, address| text + &format!("{address:#x}\n"));
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{program} failed");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}
