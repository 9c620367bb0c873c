//! File systems that do not answer. A read from one never returns, and no signal ends it; it costs the names of what lies
//! there, and nothing else.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use agent::profile::accounting::UnresolvedReason;
use agent::profile::finish::{Finished, finish};
use agent::profile::window::Window;
use agent::symbol::frame::Frame as CodeFrame;
use harness::agent_run::AgentRun;
use harness::fuse::{Hang, HangingFs};
use harness::kernel;
use harness::profiled::Frame;
use harness::require;
use harness::running::Running;
use harness::session::{InProcess, descriptors};
use harness::workload::Workload;
use nix::mount::{MsFlags, mount, umount};
use tempfile::TempDir;

/// What the agent waits at most, and something for a busy machine.
const BOUND: Duration = Duration::from_secs(40);

/// A program whose symbols lie so far behind its code that the kernel does not read them when it runs.
fn padded(workload: &Workload) -> Vec<u8> {
    let directory = TempDir::new().expect("a directory");
    let [padding, padded] = ["padding", "padded"].map(|name| directory.path().join(name));
    fs::write(&padding, vec![0; 4 << 20]).expect("written");
    let mut objcopy = Command::new("objcopy");
    objcopy.arg("--add-section").arg(format!(".padding={}", padding.display()));
    let status = objcopy.arg(workload.program()).arg(&padded).status();
    assert!(status.is_ok_and(|status| status.success()), "{objcopy:?}");
    fs::read(padded).expect("objcopy wrote it")
}

fn run(program: &Path) -> Running {
    Running::start_until_ready(&mut Command::new(program))
}

/// A program that is run later. A process that is made while this one has files open on a file system that hangs closes its copies of
/// them before it runs anything, and hangs too; this one is made before.
struct RunLater(Running);

impl RunLater {
    fn prepare(program: &Path) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", "read -r word && exec \"$0\""]).arg(program);
        Self(Running::start_with_input(shell.stdout(Stdio::piped())))
    }

    fn run(self) -> Running {
        let Self(mut running) = self;
        let child = running.child();
        child.stdin.take().expect("a pipe").write_all(b"go\n").expect("it waits");
        let mut said = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        said.read_line(&mut line).expect("a readable pipe");
        assert_eq!(line, "ready\n");
        running
    }
}

/// The server of a program's file system answers nothing any more: `--once` ends all the same, and in time. The program's frames are
/// `file+0xoffset`, counted under their reason; everybody else has names, and the books balance.
#[test]
fn a_file_system_that_hangs_costs_its_own_names() {
    let Some(_leave) = kernel::alone(&["gcc", "objcopy"]) else { return };
    if !require("/dev/fuse", Path::new("/dev/fuse").exists()) {
        return;
    }
    let workload = Workload::c("spin.c", "spin", &[]);
    let directory = TempDir::new().expect("a directory");
    let hanging = HangingFs::mount(directory.path(), "hung_program", padded(&workload));
    let (hung, sound) = (run(hanging.file()), run(workload.program()));
    hanging.hang(Hang::All);
    let mut agent = AgentRun::start(&["--duration", "5s", "--frequency", "199"]);
    agent.wait_for_the_end_of_the_window();
    let ended = Instant::now();
    agent.wait_for("names debug_files");
    assert!(ended.elapsed() < BOUND, "names took {:?}", ended.elapsed());
    // The kernel lets no process go that waits for an answer: the server comes back for the agent's end.
    assert!(hanging.unanswered() > 0);
    drop(hanging);
    let profiled = agent.finish();

    let profile = &profiled.profile;
    let (samples, _) = profile.total_of(hung.pid());
    assert!(samples > 20, "{samples} samples");
    let is_placeholder = |frame: Frame<'_>| !frame.named && frame.name.starts_with("hung_program+0x");
    let right = profile.count_with(hung.pid(), is_placeholder);
    assert!(right * 100 >= samples * 95, "{right} of {samples} samples");
    let stalled = profile.accounting.unresolved("stalled");
    assert!(stalled >= right, "{:?}", profile.accounting);
    let (samples, _) = profile.total_of(sound.pid());
    let named = profile.count_with(sound.pid(), |frame| frame.name == "spin_here");
    assert!(samples > 20 && named * 100 >= samples * 95, "{named} of {samples} samples");
    let told = |line: &&String| line.contains("does not answer") && line.contains("hung_program");
    let times = profiled.log.iter().filter(told).count();
    assert!((1..=2).contains(&times), "said {times} times, by names and by unwinding: {:#?}", profiled.log);
}

fn name_all(window: &Window, agent: &InProcess) -> Finished {
    let began = Instant::now();
    let finished = finish(window, &agent.resolver, |line| vec![line.count.total().cast_signed()]);
    assert!(began.elapsed() < BOUND, "names took {:?}", began.elapsed());
    finished
}

/// Samples of `pid` with a function of this name.
fn samples_in(finished: &Finished, pid: u32, is_it: impl Fn(&str) -> bool) -> i64 {
    let samples = finished.samples.iter().filter(|sample| sample.labels.pid == pid);
    let names = |location: &usize| {
        let lines = finished.locations[*location].lines.iter();
        lines.map(|line| finished.functions[line.function].name.as_str())
    };
    let found = samples.filter(|sample| sample.locations.iter().flat_map(names).any(&is_it));
    found.map(|sample| sample.values[0]).sum()
}

/// Files open, and then reading them hangs; later reading is answered, and closing hangs. The session goes on all the time: windows
/// end, a program that is new has its names, and so has the one whose file system answers again.
#[test]
fn a_session_outlives_reads_and_closes_that_hang() {
    let Some(_leave) = kernel::alone(&["gcc", "objcopy"]) else { return };
    if !require("/dev/fuse", Path::new("/dev/fuse").exists()) {
        return;
    }
    let workload = Workload::c("spin.c", "spin", &[]);
    let later = RunLater::prepare(&workload.copy("fresh"));
    let directory = TempDir::new().expect("a directory");
    let hanging = HangingFs::mount(directory.path(), "hung_program", padded(&workload));
    let hung = run(hanging.file());
    hanging.hang(Hang::Reads);
    let mut agent = InProcess::start(&["--frequency", "199"], 4 << 20);
    agent.collect(Duration::from_secs(3));
    let window = agent.end_windows().cpu;
    let finished = name_all(&window, &agent);
    assert!(hanging.unanswered() > 0 && agent.resolver.reader_counts().abandoned > 0);
    let is_placeholder = |name: &str| name.starts_with("hung_program+0x");
    let nameless = samples_in(&finished, hung.pid(), is_placeholder);
    assert!(nameless > 20, "{nameless} samples");
    assert!(finished.unresolved[UnresolvedReason::Stalled as usize] >= nameless.cast_unsigned());

    // Now reading is answered, and nothing was given up for good.
    hanging.hang(Hang::Never);
    let began = Instant::now();
    while samples_in(&name_all(&window, &agent), hung.pid(), |name| name == "spin_here") < nameless {
        assert!(began.elapsed() < BOUND, "the file system has answered {:?} ago", began.elapsed());
        thread::sleep(Duration::from_millis(100));
    }

    // Nobody maps the file any more, so the agent closes it.
    hanging.hang(Hang::Closes);
    drop(hung);
    drop(agent.end_windows());
    let began = Instant::now();
    while hanging.unanswered() == 0 {
        assert!(began.elapsed() < BOUND, "the file was not closed");
        agent.collect(Duration::from_secs(1));
        drop(agent.end_windows());
    }
    let fresh = later.run();
    agent.collect(Duration::from_secs(3));
    let window = agent.end_windows().cpu;
    let named = samples_in(&name_all(&window, &agent), fresh.pid(), |name| name == "spin_here");
    assert!(named > 20, "{named} samples");
}

/// What a container's file system held is open while it runs and is closed after its end, so that it can be unmounted while the agent
/// goes on.
#[test]
fn no_mount_is_kept_busy() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let workload = Workload::c("spin.c", "spin", &[]);
    let directory = TempDir::new().expect("a directory");
    let mounted = directory.path();
    mount(Some("test"), mounted, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("mounted");
    let program = mounted.join("contained");
    fs::copy(workload.program(), &program).expect("copied");
    let contained = run(&program);
    let mut agent = InProcess::start(&["--frequency", "199"], 4 << 20);
    agent.collect(Duration::from_secs(2));
    let window = agent.end_windows().cpu;
    let finished = name_all(&window, &agent);
    assert!(samples_in(&finished, contained.pid(), |name| name == "spin_here") > 20);
    // Few files are open at once: this one is when it was read last.
    let in_program = window.frames().iter().find_map(|frame| match *frame {
        CodeFrame::User { module, file_offset, .. }
            if agent
                .resolver
                .resolve(*frame)
                .module
                .as_ref()
                .is_some_and(|info| Path::new(&*info.path) == program) =>
        {
            Some((module, file_offset))
        }
        _ => None,
    });
    let (module, file_offset) = in_program.expect("a frame of the program");
    // What ran has its name, which is not read again; functions beside it that never ran have none yet.
    let page = file_offset & !0xfff..(file_offset | 0xfff);
    let around = page.step_by(16).map(|file_offset| CodeFrame::User { module, file_offset, guessed: true });
    agent.resolver.resolve_all(&around.collect::<Vec<_>>());
    let is_open = || descriptors().0.iter().any(|file| Path::new(file) == program);
    assert!(is_open());
    drop(contained);
    let began = Instant::now();
    while let Err(error) = umount(mounted) {
        assert!(began.elapsed() < BOUND, "{error}, with {:?} open", descriptors().0);
        agent.collect(Duration::from_secs(1));
        drop(agent.end_windows());
    }
    assert!(!is_open());
}
