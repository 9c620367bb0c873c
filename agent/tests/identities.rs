//! Things that are told apart though they look alike: processes with one number, programs of one process, files with one path or
//! one inode; and one file that looks like several.
//!
//! The programs here have the same code at the same addresses, and differ in the name of one function: whatever is taken for
//! something else has the wrong name.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use harness::agent_run::AgentRun;
use harness::kernel;
use harness::profiled::{Frame, Profile, Sample};
use harness::require;
use harness::running::Running;
use harness::stripped::run as run_to_end;
use harness::workload::Workload;
use nix::mount::{MntFlags, umount2};
use tempfile::TempDir;

/// How long the first of two things is there, of which both are to have samples.
const WHILE: &str = "1.5";
/// Samples without which a case proves nothing.
const ENOUGH: u64 = 50;
/// The function in which [`program`] spends its time, whatever it is called.
const SPINNING: [&str; 2] = ["first_function", "second_function"];

/// The first (0) or second (1) program, called `name`: it says when it has begun, and burns a CPU.
fn program(number: usize, name: &str) -> Workload {
    let function = format!("-Dspin_here={}", SPINNING[number]);
    Workload::c("spin.c", name, &[&function, "-static", "-no-pie"])
}

fn run(program: &Path) -> Running {
    Running::start_until_ready(&mut Command::new(program))
}

/// Asserts that of the samples that `are_theirs`, of which there are enough, 95 % are of the first or second function, and not one of
/// the other. Where the file is `gone`, they may have no name.
#[track_caller]
fn assert_spins_unless(gone: bool, profile: &Profile, number: usize, are_theirs: impl Fn(&Sample) -> bool) {
    let is_placeholder = |frame: Frame<'_>| gone && !frame.named && frame.kind == "user";
    let is_called = |frame: Frame<'_>, name: &str| {
        frame.name == name || name == SPINNING[number] && is_placeholder(frame)
    };
    let has = |sample: &Sample, name: &str| profile.stack(sample).any(|frame| is_called(frame, name));
    let theirs = || profile.samples.iter().filter(|sample| are_theirs(sample));
    let all: u64 = theirs().map(Sample::count).sum();
    let [right, wrong] = [SPINNING[number], SPINNING[1 - number]]
        .map(|name| theirs().filter(|sample| has(sample, name)).map(Sample::count).sum::<u64>());
    println!("{}: {right} of {all}, {wrong} are of the other", SPINNING[number]);
    let names = || -> Vec<_> {
        theirs().map(|sample| profile.stack(sample).map(|frame| frame.name).collect::<Vec<_>>()).collect()
    };
    assert!(all >= ENOUGH, "{all} samples");
    assert_eq!(wrong, 0, "{:?}", names());
    assert!(right * 100 >= all * 95, "{right} of {all}: {:?}", names());
}

#[track_caller]
fn assert_spins(profile: &Profile, number: usize, are_theirs: impl Fn(&Sample) -> bool) {
    assert_spins_unless(false, profile, number, are_theirs);
}

/// Samples of process `pid` while its name was `comm`.
fn of(pid: u32, comm: &'static str) -> impl Fn(&Sample) -> bool {
    move |sample| sample.pid == pid && sample.comm == comm
}

/// A process that ends, and another one that has its number a moment later, whether the first was there before the agent or not: each
/// has the names of its own program.
#[test]
fn a_process_number_that_is_used_again() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let (first, second) = (program(0, "first"), program(1, "second"));
    let again = Workload::c("same_pid.c", "same_pid", &[]);
    let start = |seconds: &str| {
        let mut command = again.command();
        command.arg(first.program()).arg(second.program()).arg(seconds);
        let mut running = Running::start(command.stdout(Stdio::piped()));
        let mut line = String::new();
        let output = running.child().stdout.take().expect("a pipe");
        BufReader::new(output).read_line(&mut line).expect("a readable pipe");
        (running, line.trim().parse().expect("a process id"))
    };
    let (_before, known) = start("3");
    let run = AgentRun::start(&["--duration", "6s", "--frequency", "199"]);
    let (_during, met) = start(WHILE);
    let profile = run.finish().profile;
    for pid in [known, met] {
        assert_spins(&profile, 0, of(pid, "first"));
        assert_spins(&profile, 1, of(pid, "second"));
    }
}

/// A process that becomes another program: samples before and after have the names of the program of that time.
#[test]
fn a_process_that_becomes_another_program() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let flags = ["-static", "-no-pie", "-Dbefore_exec=first_function"];
    let (first, second) = (Workload::c("spin_then_exec.c", "first", &flags), program(1, "second"));
    let start =
        |seconds: &str| Running::start_until_ready(first.command().arg(second.program()).arg(seconds));
    let before = start("1");
    let run = AgentRun::start(&["--duration", "6s", "--frequency", "199"]);
    let during = start("1");
    let profile = run.finish().profile;
    for running in [before, during] {
        assert_spins(&profile, 0, of(running.pid(), "first"));
        assert_spins(&profile, 1, of(running.pid(), "second"));
    }
}

/// A program whose file another one replaces while it runs, and that is started again from there: the old process has the names of
/// the old file, the new one those of the new, whether that happened before the agent was there or while it looks on.
#[test]
fn a_file_that_is_replaced_while_it_is_mapped() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let (first, second) = (program(0, "first"), program(1, "second"));
    let replace = |name: &str| -> [Running; 2] {
        let path = first.copy(name);
        let old = run(&path);
        fs::rename(second.copy("next"), &path).expect("replaced");
        [old, run(&path)]
    };
    let before = replace("replaced_before");
    let agent = AgentRun::start(&["--duration", "4s", "--frequency", "199"]);
    let during = replace("replaced_during");
    let profile = agent.finish().profile;
    for processes in [before, during] {
        for (number, process) in processes.iter().enumerate() {
            assert_spins(&profile, number, |sample| sample.pid == process.pid());
        }
    }
}

/// A program that is deleted while it runs keeps its names, though its path leads nowhere.
#[test]
fn a_file_that_is_deleted_while_it_is_mapped() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let first = program(0, "first");
    let delete = |name: &str| {
        let path = first.copy(name);
        let running = run(&path);
        fs::remove_file(path).expect("removed");
        running
    };
    let before = delete("deleted_before");
    let agent = AgentRun::start(&["--duration", "3s", "--frequency", "199"]);
    let during = delete("deleted_during");
    let profile = agent.finish().profile;
    for process in [before, during] {
        assert_spins(&profile, 0, |sample| sample.pid == process.pid());
    }
}

/// A small file system that nobody else writes to; unmounted when this is dropped.
struct OwnFileSystem {
    directory: TempDir,
}

impl OwnFileSystem {
    fn mount() -> Self {
        let own = Self { directory: TempDir::new().expect("a directory") };
        let image = own.directory.path().join("image");
        File::create(&image).and_then(|file| file.set_len(32 << 20)).expect("created");
        fs::create_dir(own.root()).expect("a directory");
        run_to_end(Command::new("mkfs.ext4").arg("-q").arg(&image));
        run_to_end(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(own.root()));
        own
    }

    fn root(&self) -> PathBuf {
        self.directory.path().canonicalize().expect("it is there").join("root")
    }
}

impl Drop for OwnFileSystem {
    fn drop(&mut self) {
        // Whoever still runs a program from there keeps it until it ends.
        let _gone = umount2(&self.root(), MntFlags::MNT_DETACH);
    }
}

/// A program that is built anew: the old file is removed when nothing runs it any more, and the new one has its path and, as file systems
/// have it, its inode. What was not read of the old one while it was there has no name, and never the new one's. (The agent may have the old
/// file open for so long that the inode is not used again: then it is a file that was replaced.)
#[test]
fn an_inode_that_is_used_again() {
    let Some(_leave) = kernel::alone(&["gcc", "mkfs.ext4", "mount"]) else { return };
    if !require("/dev/loop-control", Path::new("/dev/loop-control").exists()) {
        return;
    }
    let (first, second) = (program(0, "first"), program(1, "second"));
    let file_system = OwnFileSystem::mount();
    let path = file_system.root().join("rebuilt");
    let build = |workload: &Workload| {
        fs::copy(workload.program(), &path).expect("copied");
        fs::metadata(&path).expect("it is there").ino()
    };
    let agent = AgentRun::start(&["--duration", "7s", "--frequency", "199"]);
    let old_inode = build(&first);
    let old = run(&path);
    let old_pid = old.pid();
    thread::sleep(Duration::from_millis(1500));
    drop(old);
    // As long as the agent has the old file open, its inode is not free.
    let rebuild = || {
        fs::remove_file(&path).expect("removed");
        thread::sleep(Duration::from_millis(100));
        build(&second)
    };
    let is_again = (0..20).any(|_| rebuild() == old_inode);
    println!("the inode was used again: {is_again}");
    let new = run(&path);
    let profile = agent.finish().profile;
    assert_spins_unless(true, &profile, 0, |sample| sample.pid == old_pid);
    assert_spins(&profile, 1, |sample| sample.pid == new.pid());
}

/// A container: an overlay over the layer `lower`, in a mount namespace of its own, which runs `/layered`.
struct Container {
    _upper: TempDir,
    running: Running,
}

impl Container {
    /// With `own` in place of the layer's program, if there is one.
    fn start(lower: &Path, own: Option<&Path>) -> Self {
        let directory = TempDir::new().expect("a directory");
        let [upper, work, root]: [PathBuf; 3] = ["upper", "work", "root"].map(|name| {
            let path = directory.path().join(name);
            fs::create_dir(&path).expect("a directory");
            path
        });
        if let Some(own) = own {
            fs::copy(own, upper.join("layered")).expect("copied");
        }
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "private", "sh", "-c"]);
        unshare.arg("mount -t overlay overlay -o \"$0\" \"$1\" && exec chroot \"$1\" /layered");
        let [lower, upper, work] = [lower, &upper, &work].map(|path| path.to_str().expect("UTF-8"));
        unshare.arg(format!("lowerdir={lower},upperdir={upper},workdir={work}")).arg(root);
        Self { running: Running::start_until_ready(&mut unshare), _upper: directory }
    }
}

/// One layer in two containers is one file, whose index is made once, and a third container that has another program at the same
/// path has that one's names. The path leads nowhere on the host.
#[test]
fn one_layer_in_two_containers() {
    let Some(_leave) = kernel::alone(&["gcc", "unshare", "mount", "chroot"]) else { return };
    let file_systems = fs::read_to_string("/proc/filesystems").expect("/proc is there");
    if !require("overlayfs", file_systems.contains("\toverlay")) {
        return;
    }
    let (first, second) = (program(0, "first"), program(1, "second"));
    let layer = TempDir::new().expect("a directory");
    fs::copy(first.program(), layer.path().join("layered")).expect("copied");
    let profile = |containers: &[Container]| {
        let pids: Vec<_> = containers.iter().map(|container| container.running.pid().to_string()).collect();
        let mut arguments = vec!["--duration", "3s", "--frequency", "199", "--no-lines"];
        arguments.extend(pids.iter().flat_map(|pid| ["--pid", pid.as_str()]));
        AgentRun::start(&arguments).finish()
    };
    let mut containers = vec![Container::start(layer.path(), None)];
    let alone = profile(&containers);
    containers.push(Container::start(layer.path(), None));
    let two = profile(&containers);
    containers.push(Container::start(layer.path(), Some(second.program())));
    let three = profile(&containers);

    for (number, container) in [0, 0, 1].into_iter().zip(&containers) {
        assert_spins(&three.profile, number, |sample| sample.pid == container.running.pid());
    }
    let indexes = [&alone, &two, &three].map(|run| run.logged("table name=\"function indexes\"", "entries"));
    assert_eq!(indexes.map(|entries| entries - indexes[0]), [0, 0, 1], "{indexes:?} function indexes");
    let spinning = three.profile.frames().filter(|frame| SPINNING.contains(&frame.name));
    // As it was mounted, where the host sees nothing.
    let paths: Vec<_> = spinning.map(|frame| Path::new(frame.module)).collect();
    assert!(paths.iter().all(|path| path.ends_with("root/layered") && !path.exists()), "{paths:?}");
}
