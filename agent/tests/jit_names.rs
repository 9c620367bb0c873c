//! Names of generated code on a live kernel: of Node.js, of Java, and of a hand-made JIT in a container of its own.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use harness::agent_run::{AgentRun, profile};
use harness::kernel;
use harness::profiled::{Frame, Profiled};
use harness::running::Running;
use harness::workload::{Workload, source};
use tempfile::TempDir;

/// Samples without which a case proves nothing.
const ENOUGH: u64 = 50;

/// A process that makes code, with its perf map. What it leaves in `/tmp` is removed at the end.
struct Jit {
    running: Running,
    map: PathBuf,
}

impl Jit {
    fn start(command: &mut Command) -> Self {
        let running = Running::start(command.stdout(Stdio::null()));
        let map = PathBuf::from(format!("/tmp/perf-{}.map", running.pid()));
        Self { running, map }
    }

    fn pid(&self) -> u32 {
        self.running.pid()
    }
}

impl Drop for Jit {
    fn drop(&mut self) {
        // Not every case has them: its map, and the socket of a JVM that was asked something.
        let _removed = fs::remove_file(&self.map);
        let _removed = fs::remove_file(format!("/tmp/.java_pid{}", self.pid()));
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(40), "{what}: not so after 40 seconds");
        thread::sleep(Duration::from_millis(20));
    }
}

fn profile_of(pid: u32, arguments: &[&str]) -> Profiled {
    let pid = pid.to_string();
    profile(&[&["--duration", "4s", "--frequency", "199", "--pid", &pid], arguments].concat())
}

fn is_jit(frame: &Frame<'_>, name: &str) -> bool {
    frame.module == "[jit]" && frame.kind == "user" && frame.name == name
}

/// Asserts that nine tenths of the process's samples, of which there are enough, have a frame that `is_it` accepts.
fn assert_hot(found: &Profiled, pid: u32, is_it: impl Fn(&Frame<'_>) -> bool) {
    let (total, _) = found.profile.total_of(pid);
    let hot = found.profile.count_with(pid, |frame| is_it(&frame));
    let names: Vec<_> = found.profile.frames().map(|frame| frame.name).take(60).collect();
    assert!(
        total >= ENOUGH && hot * 10 >= total * 9,
        "{hot} of {total}: {names:?}\n{}",
        found.log.join("\n")
    );
}

/// The number in the line that says how many symbols were found for the process.
fn symbols_found(found: &Profiled, pid: u32) -> usize {
    let line = found.log.iter().find_map(|line| line.split_once("Found "));
    let (_, rest) = line.unwrap_or_else(|| panic!("no line says it: {}", found.log.join("\n")));
    let (count, rest) = rest.split_once(' ').expect("a number and more");
    assert!(rest.contains(&format!("JIT symbols for process {pid}")), "{rest}");
    count.parse().expect("a number")
}

fn assert_logged(found: &Profiled, text: &str) {
    let count = found.log.iter().filter(|line| line.ends_with(text)).count();
    assert_eq!(count, 1, "{text:?} once in\n{}", found.log.join("\n"));
}

/// A hot JavaScript function has its name and place, in every format, from the perf map that Node.js writes.
#[test]
fn javascript_is_named_by_its_perf_map() {
    let Some(_leave) = kernel::alone(&["node"]) else { return };
    // It logs to where it runs.
    let directory = TempDir::new().expect("a directory");
    let script = source("burn.js");
    let mut command = Command::new("node");
    command.args(["--perf-basic-prof", "--no-turbo-inlining"]).arg(&script).current_dir(directory.path());
    let node = Jit::start(&mut command);
    let pid = node.pid();
    wait_until("the compiler has been at work", || {
        fs::read_to_string(&node.map).is_ok_and(|map| map.contains("*hotJs"))
    });
    let found = profile_of(pid, &[]);

    let name = format!("hotJs {}:2:15", script.display());
    assert_hot(&found, pid, |frame| is_jit(frame, &name));
    assert!(found.text("cpu.folded").contains(&name));
    assert_logged(&found, &format!("Loading JIT perf-map for Node.js process: /tmp/perf-{pid}.map"));
    assert!(symbols_found(&found, pid) > 100);
}

/// The same from a jitdump, whose place nothing but the process's mappings tell.
#[test]
fn javascript_is_named_by_its_jitdump() {
    let Some(_leave) = kernel::alone(&["node"]) else { return };
    let directory = TempDir::new().expect("a directory");
    let script = source("burn.js");
    let mut command = Command::new("node");
    command.args(["--perf-prof", "--no-turbo-inlining"]).arg(&script).current_dir(directory.path());
    let node = Jit::start(&mut command);
    let pid = node.pid();
    let dump = directory.path().join(format!("jit-{pid}.dump"));
    wait_until("the compiler has been at work", || {
        fs::read(&dump).is_ok_and(|dump| dump.windows(8).any(|window| window == b"JS:*hotJ"))
    });
    let found = profile_of(pid, &[]);

    let name = format!("hotJs {}:2:15", script.display());
    assert_hot(&found, pid, |frame| is_jit(frame, &name));
    assert_logged(&found, &format!("Loading jitdump for Node.js process: {}", dump.display()));
    assert!(symbols_found(&found, pid) > 10);
}

/// Compiles the Java workload, for every user to run.
fn compile_java() -> TempDir {
    let directory = TempDir::new().expect("a directory");
    let mut javac = Command::new("javac");
    let output = javac.arg("-d").arg(directory.path()).arg(source("Burn.java")).output().expect("javac");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    directory
}

fn java(command: &mut Command, classes: &Path) -> Jit {
    // Inlined functions have no code of their own.
    command.args(["-XX:+PreserveFramePointer", "-XX:CompileCommand=quiet"]);
    command.arg("-XX:CompileCommand=dontinline,Burn.*").arg("-cp").arg(classes).arg("Burn");
    Jit::start(command)
}

/// A hot Java method, its caller and the interpreter have their names from a perf map that was asked for by hand.
#[test]
fn java_is_named_by_its_perf_map() {
    let Some(_leave) = kernel::alone(&["java", "javac", "jcmd"]) else { return };
    let classes = compile_java();
    let jvm = java(&mut Command::new("java"), classes.path());
    let pid = jvm.pid();
    wait_until("the methods are compiled", || {
        let mut jcmd = Command::new("jcmd");
        let asked = jcmd.arg(pid.to_string()).arg("Compiler.perfmap").output().expect("jcmd runs");
        let map = fs::read_to_string(&jvm.map).unwrap_or_default();
        asked.status.success()
            && map.matches("long Burn.hot(long)").count() >= 2
            && map.contains("Burn.middle")
    });
    let found = profile_of(pid, &[]);

    assert_hot(&found, pid, |frame| is_jit(frame, "Burn.hot"));
    assert_hot(&found, pid, |frame| is_jit(frame, "Burn.middle") || is_jit(frame, "Interpreter"));
    assert_logged(&found, &format!("Loading JIT perf-map for HotSpot Java process: /tmp/perf-{pid}.map"));
    assert!(symbols_found(&found, pid) > 100);
    // Nobody asked the agent to ask.
    assert!(!found.log.iter().any(|line| line.contains("has written its perf map")));
}

/// With `--jvm-perf-map auto` the agent gets the map of another user's JVM itself; without it there is none, and the frames say why.
#[test]
fn a_jvm_is_asked_for_its_map_where_that_is_wanted() {
    let Some(_leave) = kernel::alone(&["java", "javac", "setpriv"]) else { return };
    let classes = compile_java();
    let mut nobody = Command::new("setpriv");
    nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups", "java"]);
    let mut jvm = java(&mut nobody, classes.path());
    let pid = jvm.pid();
    // The compiler has been at work when the program has run for a while.
    wait_until("the methods are compiled", || jvm.running.cpu_time() > 3_000_000_000);

    let found = profile_of(pid, &[]);
    assert!(!jvm.map.exists());
    assert_eq!(found.profile.count_with(pid, |frame| frame.module == "[jit]"), 0);
    assert!(found.profile.accounting.unresolved("jit_without_map") >= ENOUGH);

    let found = profile_of(pid, &["--jvm-perf-map", "auto"]);
    assert_hot(&found, pid, |frame| is_jit(frame, "Burn.hot"));
    assert_logged(&found, &format!("HotSpot Java process {pid} has written its perf map"));
    assert!(!Path::new(&format!("/tmp/.attach_pid{pid}")).exists());
    assert!(jvm.running.child().try_wait().expect("a child").is_none(), "the JVM runs on");
}

/// The hand-made JIT with these names, started in namespaces of its own: its `/tmp` is private, its program is nowhere on the
/// host, and its number is 1. Addresses are not randomised, so that two of them have their code at the same place.
struct Container {
    _outside: Running,
    pid: u32,
}

impl Container {
    fn start(workload: &Workload, names: [&str; 2]) -> Self {
        let script = "mount -t tmpfs none /tmp && cp /proc/self/fd/3 /tmp/made && chmod +x /tmp/made && \
                      exec setarch -R /tmp/made \"$@\" 3<&-";
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c"]);
        // The shell opens the program before it leaves the namespace in which the program is.
        unshare.arg(format!("exec 3<\"$0\"; {script}")).arg(workload.program()).args(names);
        let outside = Running::start(unshare.stdout(Stdio::null()));
        let mut pid = None;
        wait_until("the container runs", || {
            let children = format!("/proc/{0}/task/{0}/children", outside.pid());
            pid = fs::read_to_string(children).ok().and_then(|pids| pids.trim().parse().ok());
            pid.is_some_and(|pid: u32| Path::new(&format!("/proc/{pid}/root/tmp/perf-1.map")).exists())
        });
        Self { _outside: outside, pid: pid.expect("it runs") }
    }
}

/// In containers, maps are found by the inner process number in the inner `/tmp`, two processes with one inner number and the same
/// addresses have each their own names, and the functions of a program that the host does not have are named as well.
#[test]
fn names_come_from_inside_containers() {
    let Some(_leave) = kernel::alone(&["gcc", "unshare", "setarch"]) else { return };
    let workload = Workload::plain("gcc", "stacks/jit.c", "made", &[]);
    let one = Container::start(&workload, ["outer_of_one", "inner_of_one"]);
    let other = Container::start(&workload, ["outer_of_other", "inner_of_other"]);
    let pids = [one.pid, other.pid].map(|pid| pid.to_string());
    let run =
        AgentRun::start(&["--duration", "4s", "--frequency", "199", "--pid", &pids[0], "--pid", &pids[1]]);
    let found = run.finish();

    for (pid, names) in
        [(one.pid, ["outer_of_one", "inner_of_one"]), (other.pid, ["outer_of_other", "inner_of_other"])]
    {
        for name in names {
            assert_hot(&found, pid, |frame| is_jit(frame, name));
        }
        assert_hot(&found, pid, |frame| frame.module == "/tmp/made" && frame.name == "call_made");
        let line = format!("Found 2 JIT symbols for process {pid}");
        assert_logged(&found, &line);
    }
    let loading = "Loading JIT perf-map for JIT process: /tmp/perf-1.map";
    assert_eq!(found.log.iter().filter(|line| line.ends_with(loading)).count(), 2);
}

/// A process that has loaded OpenJ9's library is taken for what it is, and its names are shown without signature and hotness.
#[test]
fn a_map_in_the_form_of_openj9() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let workload = Workload::plain("gcc", "stacks/jit.c", "made", &[]);
    let library = Workload::plain("gcc", "stacks/library.c", "libj9vm29.so", &["-shared", "-fPIC"]);
    let names = ["com/example/Main.loop()V_warm", "com/example/Main.work([J)J_scorching"];
    let jit = Jit::start(workload.command().args(names).arg(library.program()));
    wait_until("the map is written", || fs::metadata(&jit.map).is_ok_and(|map| map.len() > 0));
    let found = profile_of(jit.pid(), &[]);

    assert_hot(&found, jit.pid(), |frame| is_jit(frame, "com.example.Main.loop"));
    assert_hot(&found, jit.pid(), |frame| is_jit(frame, "com.example.Main.work"));
    let pid = jit.pid();
    assert_logged(&found, &format!("Loading JIT perf-map for OpenJ9 Java process: /tmp/perf-{pid}.map"));
    assert_logged(&found, &format!("Found 2 JIT symbols for process {pid}"));
}
