//! The file system of the machine under test: an initramfs with busybox, the agent and a program to profile.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;

const BURNER: &str = include_str!("burner.c");
const INIT: &str = include_str!("init");
const BUSYBOX: &str = "/bin/busybox";

/// What the machine holds, parents before children.
const CONTENTS: &str = "bin\nbin/agent\nbin/burner\nbin/busybox\ndev\ninit\nproc\nsys\n";

/// Frames of `descend` in the burner's stack.
pub(super) const DEPTH: usize = 60;

/// Packs `agent` and what it takes to run it; the archive lies in `directory`.
pub(crate) fn build(directory: &Path, agent: &Path) -> Result<PathBuf> {
    let tree = directory.join("tree");
    for name in ["bin", "dev", "proc", "sys"] {
        let path = tree.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
    }
    copy(agent, &tree.join("bin/agent"))?;
    copy(Path::new(BUSYBOX), &tree.join("bin/busybox"))?;
    let init = tree.join("init");
    fs::write(&init, INIT).with_context(|| format!("cannot write {}", init.display()))?;
    fs::set_permissions(&init, Permissions::from_mode(0o755))?;
    compile_burner(directory, &tree.join("bin/burner"))?;

    let list = directory.join("contents");
    fs::write(&list, CONTENTS).with_context(|| format!("cannot write {}", list.display()))?;
    let archive = directory.join("initramfs");
    let mut pack = Command::new("cpio");
    pack.args(["--create", "--format=newc", "--quiet", "--owner=0:0"]).current_dir(&tree);
    pack.stdin(File::open(&list)?).stdout(File::create(&archive)?);
    command::run(&mut pack)?;
    Ok(archive)
}

fn compile_burner(directory: &Path, to: &Path) -> Result<()> {
    let source = directory.join("burner.c");
    fs::write(&source, BURNER).with_context(|| format!("cannot write {}", source.display()))?;
    let mut compile = Command::new("gcc");
    compile.args(["-O2", "-fomit-frame-pointer", "-static", "-o"]).arg(to);
    command::run(compile.arg(format!("-DDEPTH={DEPTH}")).arg(&source))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display())).map(drop)
}
