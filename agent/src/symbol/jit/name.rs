//! Names as runtimes write them, and as people read them.

use std::borrow::Cow;
use std::io;

use crate::symbol::demangle::demangle;
use crate::symbol::read_at::ReadAt;

/// Bytes of a name that are kept.
const LONGEST_NAME: usize = 4096;

/// A name that was read from a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenName {
    /// The name, cut at 4 KiB.
    pub text: String,
    /// Whether its end was there; a writer may still be at it otherwise.
    pub is_whole: bool,
}

/// Reads the name at `offset`, which ends at the byte `end` or with the file.
pub(super) fn name_at(file: &(impl ReadAt + ?Sized), offset: u64, end: u8) -> io::Result<WrittenName> {
    let left = usize::try_from(file.len().saturating_sub(offset)).unwrap_or(usize::MAX);
    let mut bytes = vec![0; LONGEST_NAME.min(left)];
    if bytes.is_empty() {
        return Ok(WrittenName { text: String::new(), is_whole: false });
    }
    // Most names are short: one small read, and a large one for the rest.
    let first = bytes.len().min(256);
    file.read_exact_at(offset, &mut bytes[..first])?;
    let mut length = bytes[..first].iter().position(|byte| *byte == end);
    if length.is_none() && first < bytes.len() {
        file.read_exact_at(offset + first as u64, &mut bytes[first..])?;
        length = bytes.iter().position(|byte| *byte == end);
    }
    let is_whole = length.is_some() || left > LONGEST_NAME;
    let text = String::from_utf8_lossy(&bytes[..length.unwrap_or(bytes.len())]).trim().to_owned();
    Ok(WrittenName { text, is_whole })
}

/// What people call the function that `written` stands for, in the style of [`demangle`]: qualified name without parameters and
/// result; and without what the compiler has made of it, so that a function is one however often it is compiled.
///
/// - HotSpot: `long Burn.hot(long)` → `Burn.hot`
/// - OpenJ9: `java/lang/String.hashCode()I_warm` → `java.lang.String.hashCode`
/// - perf-map-agent: `Ljava/lang/String;::hashCode` → `java.lang.String.hashCode`
/// - V8: `JS:*hot /srv/a.js:1:15` → `hot /srv/a.js:1:15`; a function without a name is `(anonymous) …`
/// - LLVM's JITs: linker names are demangled.
///
/// Everything else stays as it is.
pub(super) fn readable(written: &str) -> Cow<'_, str> {
    java(written).or_else(|| javascript(written)).map_or_else(|| demangle(written), Cow::Owned)
}

fn java(written: &str) -> Option<String> {
    openj9(written).or_else(|| hotspot(written)).or_else(|| perf_map_agent(written))
}

/// How OpenJ9 says how much effort it has made (`TR_Hotness`, in OMR's `Compilation::getHotnessName`).
const HOTNESS: [&str; 8] =
    ["no-opt", "cold", "warm", "hot", "very-hot", "scorching", "reducedwarm", "unknownHotness"];

/// `class/path.method(descriptor)result_hotness`, of OpenJ9's `-Xjit:perfTool`.
fn openj9(written: &str) -> Option<String> {
    let (method, rest) = written.split_once('(')?;
    let (_, result) = rest.split_once(')')?;
    let (_, hotness) = result.rsplit_once('_')?;
    let (class, _) = method.rsplit_once('.')?;
    let is_method = !class.is_empty() && !method.contains([' ', ':']);
    (is_method && HOTNESS.contains(&hotness)).then(|| method.replace('/', "."))
}

/// `result package.Class.method(parameters)`, of HotSpot's `Compiler.perfmap`.
fn hotspot(written: &str) -> Option<String> {
    let (signature, _) = written.strip_suffix(')')?.split_once('(')?;
    let (result, method) = signature.split_once(' ')?;
    let is_method = method.contains('.') && !method.contains([' ', ':']) && !result.contains([':', '[']);
    // A result that is an array has brackets behind its type.
    let is_array = result.ends_with("[]") && method.contains('.') && !method.contains([' ', ':']);
    (is_method || is_array).then(|| method.to_owned())
}

/// `Lclass/path;::method`.
fn perf_map_agent(written: &str) -> Option<String> {
    let (class, method) = written.strip_prefix('L')?.split_once(";::")?;
    (!class.contains(' ')).then(|| format!("{}.{method}", class.replace('/', ".")))
}

/// V8's kinds of code (`CodeEventListener`, `LinuxPerfJitLogger`) of functions, with a mark for the compiler: `~` interpreter,
/// `^` baseline, `+` Maglev, `*` TurboFan.
fn javascript(written: &str) -> Option<String> {
    const KINDS: [&str; 4] = ["JS:", "LazyCompile:", "Function:", "Eval:"];
    let function = KINDS.iter().find_map(|kind| written.strip_prefix(kind))?;
    let function = function.trim_start_matches(['~', '^', '+', '*']);
    let has_name = !function.is_empty() && !function.starts_with(' ');
    Some(if has_name { function.to_owned() } else { format!("(anonymous){function}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of each runtime are what a reader of its sources expects; what is of no known form stays as it is.
    #[test]
    fn names_become_readable() {
        for (written, expected) in [
            ("long Burn.hotJava(long)", "Burn.hotJava"),
            ("void java.lang.Object.<init>()", "java.lang.Object.<init>"),
            ("byte[] java.util.Arrays.copyOf(byte[], int)", "java.util.Arrays.copyOf"),
            (
                "java.lang.Object java.lang.invoke.LambdaForm$MH/0x0000000800c03000.invoke(java.lang.Object)",
                "java.lang.invoke.LambdaForm$MH/0x0000000800c03000.invoke",
            ),
            ("StubRoutines (1)", "StubRoutines (1)"),
            ("I2C/C2I adapters", "I2C/C2I adapters"),
            ("Interpreter", "Interpreter"),
            ("java/lang/String.hashCode()I_warm", "java.lang.String.hashCode"),
            (
                "java/util/HashMap.put(Ljava/lang/Object;I)Ljava/lang/Object;_very-hot",
                "java.util.HashMap.put",
            ),
            ("Ljava/lang/String;::hashCode", "java.lang.String.hashCode"),
            ("JS:*hotJs /tmp/burn.js:1:15", "hotJs /tmp/burn.js:1:15"),
            ("LazyCompile:~hotJs /tmp/burn.js:1:15", "hotJs /tmp/burn.js:1:15"),
            ("JS:^ /tmp/burn.js:4:1", "(anonymous) /tmp/burn.js:4:1"),
            ("Builtin:CallFunction_ReceiverIsAny", "Builtin:CallFunction_ReceiverIsAny"),
            ("BytecodeHandler:Ldar.Wide", "BytecodeHandler:Ldar.Wide"),
            ("py::main:/srv/app.py", "py::main:/srv/app.py"),
            (
                "instance void [app] N.Program::Main(int32)[Tier0]",
                "instance void [app] N.Program::Main(int32)[Tier0]",
            ),
            ("_ZN3foo3barEv", "foo::bar"),
            ("f", "f"),
            ("", ""),
            ("()", "()"),
            ("JS:", "(anonymous)"),
        ] {
            assert_eq!(readable(written), expected);
        }
    }

    /// A name ends at its mark, with the file, or where it becomes absurd; only what may still grow is not whole.
    #[test]
    fn names_end() {
        let name = |bytes: &[u8], at| {
            let WrittenName { text, is_whole } = name_at(&bytes, at, b'\n').expect("bytes can be read");
            (text, is_whole)
        };
        assert_eq!(name(b"1 2 foo\n3 4 bar", 4), ("foo".into(), true));
        assert_eq!(name(b"1 2 foo\n3 4 bar", 12), ("bar".into(), false));
        assert_eq!(name(b"1 2 foo\n", 100), (String::new(), false));
        let long = vec![b'x'; 5000];
        assert_eq!(name(&long, 0), ("x".repeat(LONGEST_NAME), true));
        let longish: Vec<u8> = [vec![b'x'; 300], b"\nrest".to_vec()].concat();
        assert_eq!(name(&longish, 0), ("x".repeat(300), true));
    }
}
