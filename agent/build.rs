//! Puts the eBPF object that the agent embeds into `OUT_DIR/agent-ebpf.o`.
//!
//! It is the committed one, so that building the agent takes no BPF toolchain, unless `NODEPROF_EBPF_OBJECT`
//! names another (relative paths start at the workspace's root); `cargo xtask test` does so with the object that
//! it has just built from source. The agent reads which of the two it holds as `env!("NODEPROF_EBPF_SOURCE")`:
//! `prebuilt` or `rebuilt`.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

const VARIABLE: &str = "NODEPROF_EBPF_OBJECT";
const PREBUILT: &str = "agent-ebpf/prebuilt/agent-ebpf.o";

fn main() -> Result<(), Box<dyn Error>> {
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo sets CARGO_MANIFEST_DIR")?);
    let root = package.parent().ok_or("the agent's package is not in a workspace")?;
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let (object, source, remedy) = match env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
        Some(object) => {
            (root.join(object), "rebuilt", "it is what the environment variable NODEPROF_EBPF_OBJECT names")
        }
        None => (
            root.join(PREBUILT),
            "prebuilt",
            "run `cargo xtask build-ebpf`, which builds it from agent-ebpf/src",
        ),
    };
    println!("cargo::rerun-if-changed={}", object.display());
    println!("cargo::rustc-env=NODEPROF_EBPF_SOURCE={source}");
    let output = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?).join("agent-ebpf.o");
    if let Err(error) = embed(&object, &output) {
        println!("cargo::error=no eBPF object to embed: {}: {error}; {remedy}", object.display());
    }
    Ok(())
}

/// Copies `object` to `output` if it is an ELF file at all: anything else would only be found out at run time.
fn embed(object: &Path, output: &Path) -> Result<(), Box<dyn Error>> {
    let content = fs::read(object)?;
    if !content.starts_with(b"\x7fELF") {
        return Err("it is not an ELF file".into());
    }
    fs::write(output, content)?;
    Ok(())
}
