//! Which runtime a process runs, by the code that it has mapped.

use std::fmt;

use crate::process::maps::MapsEntry;

/// What makes code in a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Runtime {
    /// Nothing that is known here.
    #[default]
    Other,
    /// CPython, which makes code from 3.12 on, where it is told to (`-X perf`).
    Python,
    /// Node.js.
    Node,
    /// .NET.
    DotNet,
    /// The OpenJDK's virtual machine.
    HotSpot,
    /// Eclipse's virtual machine. It comes with a `libjvm.so` too, so it counts for more.
    OpenJ9,
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Other => "JIT",
            Self::Python => "Python",
            Self::Node => "Node.js",
            Self::DotNet => ".NET",
            Self::HotSpot => "HotSpot Java",
            Self::OpenJ9 => "OpenJ9 Java",
        })
    }
}

impl Runtime {
    fn of_file(name: &str) -> Self {
        match name {
            "libjvm.so" => Self::HotSpot,
            "libcoreclr.so" => Self::DotNet,
            "node" | "nodejs" => Self::Node,
            _ if name.starts_with("libj9vm") || name.starts_with("libj9jit") => Self::OpenJ9,
            _ if name.starts_with("libnode.so") => Self::Node,
            _ if name.starts_with("libpython3.") || name.starts_with("python3.") => Self::Python,
            _ => Self::Other,
        }
    }
}

/// What a process's executable mappings say of its runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MappedCode {
    /// The runtime.
    pub(super) runtime: Runtime,
    /// Path of `libjvm.so`, as the process sees it.
    pub(super) libjvm: Option<String>,
    /// Its jitdumps.
    pub(super) dumps: Vec<MappedDump>,
}

/// A jitdump. Whoever writes one maps it executable, which is how profilers learn of it (see the specification).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MappedDump {
    /// First address of the mapping.
    pub(super) start: u64,
    /// First address behind it.
    pub(super) end: u64,
    /// Path of the file, as the process sees it.
    pub(super) path: String,
}

/// A process inherits what its parents had mapped when they forked; more than these is none of ours.
const MOST_DUMPS: usize = 4;

impl MappedCode {
    /// Takes in one mapping.
    pub(super) fn add(&mut self, entry: &MapsEntry<'_>) {
        let path = entry.path.strip_suffix(" (deleted)").unwrap_or(entry.path);
        let name = path.rsplit_once('/').map_or("", |(_, name)| name);
        let runtime = Runtime::of_file(name);
        if runtime == Runtime::HotSpot {
            self.libjvm.get_or_insert_with(|| path.to_owned());
        }
        self.runtime = self.runtime.max(runtime);
        if is_dump(name) && self.dumps.len() < MOST_DUMPS && self.dumps.iter().all(|dump| dump.path != path) {
            self.dumps.push(MappedDump { start: entry.start, end: entry.end, path: path.to_owned() });
        }
    }
}

/// `jit-PID.dump`.
fn is_dump(name: &str) -> bool {
    let pid = name.strip_prefix("jit-").and_then(|name| name.strip_suffix(".dump"));
    pid.is_some_and(|pid| !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::maps::parse_executable;

    fn mapped(paths: &[&str]) -> MappedCode {
        let mut code = MappedCode::default();
        for path in paths {
            let line = format!("1000-3000 r-xp 00000000 fe:00 42                         {path}");
            code.add(&parse_executable(&line).expect("a mapping"));
        }
        code
    }

    /// Each runtime is known by its library or program; OpenJ9 also where it has a `libjvm.so` beside its own.
    #[test]
    fn runtimes_are_recognised() {
        for (paths, runtime, shown) in [
            (&["/bin/app", "/lib/libc.so.6"][..], Runtime::Other, "JIT"),
            (&["/usr/bin/node"], Runtime::Node, "Node.js"),
            (&["/jdk/bin/java", "/jdk/lib/server/libjvm.so"], Runtime::HotSpot, "HotSpot Java"),
            (&["/jdk/lib/default/libj9vm29.so", "/jdk/lib/j9vm/libjvm.so"], Runtime::OpenJ9, "OpenJ9 Java"),
            (&["/usr/share/dotnet/libcoreclr.so (deleted)"], Runtime::DotNet, ".NET"),
            (&["/usr/bin/python3.12"], Runtime::Python, "Python"),
        ] {
            let found = mapped(paths).runtime;
            assert_eq!((found, found.to_string().as_str()), (runtime, shown));
        }
    }

    /// A jitdump is known by its name; one that is mapped twice is one.
    #[test]
    fn dumps_are_found() {
        let paths = [
            "/tmp/jit-7.dump",
            "/tmp/jit-7.dump",
            "/tmp/jit-.dump",
            "/tmp/jit-x.dump",
            "/root/.debug/jit-8.dump (deleted)",
        ];
        let found: Vec<_> = mapped(&paths).dumps.into_iter().map(|dump| dump.path).collect();
        assert_eq!(found, ["/tmp/jit-7.dump", "/root/.debug/jit-8.dump"]);
    }
}
