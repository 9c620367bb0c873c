//! Programs as distributions ship them: stripped, with what was stripped in another file or packed into a section.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use agent::build_id::BuildId;
use agent::symbol::elf::{ElfImage, ElfLimits};
use agent::symbol::read_at::FileAt;

use super::workload::Workload;

/// A program and what its package and its debug package would hold. The debug file is where nobody looks for it.
pub(crate) struct Stripped {
    workload: Workload,
    program: PathBuf,
    debug: PathBuf,
    build_id: Option<BuildId>,
}

/// Runs `command` to its successful end; what it printed.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Stripped {
    /// Takes a program apart that was compiled with `-g`.
    pub(crate) fn new(workload: Workload) -> Self {
        let name = workload.program().file_name().expect("a name").to_str().expect("UTF-8");
        let directory = workload.program().parent().expect("a directory");
        let (package, debug_package) = (directory.join("package"), directory.join("debug-package"));
        for path in [&package, &debug_package] {
            fs::create_dir(path).expect("a directory");
        }
        let stripped = package.join(name);
        let debug = debug_package.join(format!("{name}.debug"));
        run(Command::new("objcopy").arg("--only-keep-debug").arg(workload.program()).arg(&debug));
        run(Command::new("strip").arg("--strip-all").arg("-o").arg(&stripped).arg(workload.program()));
        let link = format!("--add-gnu-debuglink={}", debug.display());
        run(Command::new("objcopy").arg(link).arg(&stripped));
        let file = FileAt::new(fs::File::open(&stripped).expect("it was made")).expect("a length");
        let image = ElfImage::parse(&file, &ElfLimits::default()).expect("an ELF file");
        let build_id = image.build_id().cloned();
        Self { workload, program: stripped, debug, build_id }
    }

    /// The program as it was linked.
    pub(crate) fn whole(&self) -> &Path {
        self.workload.program()
    }

    /// The workload, which keeps all files as long as it lives.
    pub(crate) fn into_workload(self) -> Workload {
        self.workload
    }

    /// The stripped program, which has a link to the debug file.
    pub(crate) fn stripped(&self) -> &Path {
        &self.program
    }

    /// The debug file.
    pub(crate) fn debug(&self) -> &Path {
        &self.debug
    }

    /// The name that the link says.
    pub(crate) fn link_name(&self) -> &Path {
        self.debug.file_name().expect("a name").as_ref()
    }

    /// The build id's digits.
    pub(crate) fn build_id(&self) -> String {
        self.build_id.as_ref().expect("linked with one").to_string()
    }

    /// Where the debug file belongs in a debug directory.
    pub(crate) fn build_id_path(&self) -> PathBuf {
        let digits = self.build_id();
        format!(".build-id/{}/{}.debug", &digits[..2], &digits[2..]).into()
    }

    /// The stripped program with MiniDebugInfo, made by the steps of RPM's `find-debuginfo`: the functions that `.dynsym` has not.
    pub(crate) fn with_mini_debug_info(&self) -> PathBuf {
        let at = |name: &str| self.debug.with_file_name(name);
        let names = |arguments: &[&str], path: &Path| {
            run(Command::new("nm").args(arguments).args(["--format=posix", "--defined-only"]).arg(path))
        };
        let dynamic = names(&["-D"], self.whole());
        // `nm` appends versions to dynamic names.
        let name = |line: &str| line.split([' ', '@']).next().unwrap_or_default().to_owned();
        let dynamic: std::collections::HashSet<_> = dynamic.lines().map(name).collect();
        let all = names(&[], self.whole());
        let code = all.lines().filter(|line| matches!(line.split(' ').nth(1), Some("T" | "t" | "D")));
        let kept: Vec<_> = code.map(name).filter(|name| !dynamic.contains(name)).collect();
        fs::write(at("keep"), kept.join("\n") + "\n").expect("written");
        let mini = at("mini");
        let mut objcopy = Command::new("objcopy");
        objcopy.args(["-S", "--remove-section", ".gdb_index", "--remove-section", ".comment"]);
        run(objcopy.arg(format!("--keep-symbols={}", at("keep").display())).arg(&self.debug).arg(&mini));
        run(Command::new("xz").arg("--force").arg(&mini));
        let with = at("with-mini");
        let add = format!("--add-section=.gnu_debugdata={}", at("mini.xz").display());
        run(Command::new("objcopy")
            .arg(add)
            .args(["--remove-section", ".gnu_debuglink"])
            .arg(&self.program)
            .arg(&with));
        with
    }
}
