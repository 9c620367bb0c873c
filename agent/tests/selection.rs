//! `--pid`, `--cgroup` and `--per-thread`: whose samples are in the profile, and how they are told apart.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use harness::agent_run::profile;
use harness::kernel;
use harness::profiled::Profile;
use harness::require;
use harness::running::{Running, last_cpu};
use harness::workload::Workload;

fn pids(profile: &Profile) -> BTreeSet<u32> {
    profile.samples.iter().map(|sample| sample.pid).collect()
}

/// Samples of a second that a process shares its CPU for with one other: less would mean that some are missing.
const FEW: u64 = 25;

/// `--pid`, given once or twice, lets in these processes only; samples of others are counted as not selected.
#[test]
fn pids_select_processes() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let workload = Workload::c("spin.c", "spin", &[]);
    // All on one CPU, so that each gets a third of it.
    let burners = [(); 3].map(|()| workload.start().claim(last_cpu()));
    let [first, second, other] = [&burners[0], &burners[1], &burners[2]].map(Running::pid);
    let arguments = ["--duration", "2s", "--pid", &first.to_string(), "--pid", &second.to_string()];
    for (arguments, chosen) in
        [(&arguments[..4], BTreeSet::from([first])), (&arguments[..], BTreeSet::from([first, second]))]
    {
        let profile = profile(arguments).profile;
        assert_eq!(pids(&profile), chosen);
        assert!(chosen.iter().all(|pid| profile.total_of(*pid).0 >= FEW), "{chosen:?}");
        assert_eq!(profile.total_of(other).0, 0);
        let rest = 3 - chosen.len() as u64;
        assert!(profile.accounting.not_selected >= FEW * rest, "{:?}", profile.accounting);
    }
}

/// A cgroup made for a test, removed when this is dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    fn make(parent: &Path, name: &str) -> Self {
        let path = parent.join(name);
        fs::create_dir(&path).expect("a cgroup can be made");
        Self(path)
    }

    fn take_in(&self, running: &Running) {
        fs::write(self.0.join("cgroup.procs"), running.pid().to_string()).expect("the process can be moved");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The last process has just been reaped: the directory can be removed.
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

/// Where the cgroup v2 hierarchy is mounted.
fn cgroup_mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc is there");
    let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.find(|fields| fields.get(2) == Some(&"cgroup2")).map(|fields| fields[1].into())
}

/// `--cgroup` lets in the processes in this cgroup and those below it, and nobody else.
#[test]
fn cgroups_select_processes() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let mount = cgroup_mount();
    if !require("a mounted cgroup v2 hierarchy", mount.is_some()) {
        return;
    }
    let workload = Workload::c("spin.c", "spin", &[]);
    let name = format!("nodeprof-test-{}", std::process::id());
    let outer = Cgroup::make(&mount.expect("there is one"), &name);
    let inner = Cgroup::make(&outer.0, "inner");
    // Dropped, and so ended, before the cgroups that hold them.
    let burners = [(); 3].map(|()| workload.start().claim(last_cpu()));
    outer.take_in(&burners[0]);
    inner.take_in(&burners[1]);
    for (cgroup, chosen) in [(&inner, &burners[1..2]), (&outer, &burners[..2])] {
        let path = cgroup.0.to_str().expect("UTF-8");
        let profile = profile(&["--duration", "2s", "--cgroup", path]).profile;
        assert_eq!(pids(&profile), chosen.iter().map(Running::pid).collect());
        assert!(chosen.iter().all(|burner| profile.total_of(burner.pid()).0 >= FEW));
        assert!(profile.accounting.not_selected >= FEW, "{:?}", profile.accounting);
    }
}

/// With `--per-thread`, samples carry the id and name of their thread, and each thread has its own functions; without,
/// they carry the process's alone.
#[test]
fn threads_are_told_apart_on_request() {
    let Some(_leave) = kernel::alone(&["gcc"]) else { return };
    let burner = Workload::c("threads.c", "threads", &["-pthread"]).start().claim(last_cpu());
    let pid = burner.pid();
    let profiled = profile(&["--duration", "2s", "--per-thread", "--pid", &pid.to_string()]);
    let mut by_thread: BTreeMap<(u32, &str), BTreeSet<&str>> = BTreeMap::new();
    let profile_by_thread = &profiled.profile;
    for sample in profile_by_thread.of(pid) {
        assert_eq!(sample.comm, "first-thread", "a process is called after its main thread");
        let thread = sample.thread.as_ref().expect("a thread");
        let functions = by_thread.entry((thread.id, &thread.name)).or_default();
        let work = profile_by_thread.stack(sample).map(|frame| frame.name);
        functions.extend(work.filter(|name| name.ends_with("_work")));
    }
    let threads: BTreeSet<u32> = fs::read_dir(format!("/proc/{pid}/task"))
        .expect("it still runs")
        .map(|entry| {
            entry.expect("an entry").file_name().to_str().and_then(|id| id.parse().ok()).expect("an id")
        })
        .collect();
    assert_eq!(by_thread.keys().map(|(id, _)| *id).collect::<BTreeSet<_>>(), threads);
    let second = threads.iter().copied().find(|id| *id != pid).expect("two threads");
    let expected = [
        ((pid, "first-thread"), BTreeSet::from(["first_work"])),
        ((second, "second-thread"), BTreeSet::from(["second_work"])),
    ];
    assert_eq!(by_thread, BTreeMap::from(expected));

    let together = profile(&["--duration", "1s", "--pid", &pid.to_string()]).profile;
    assert!(together.samples.iter().all(|sample| sample.thread.is_none()));
    assert!(together.total_of(pid).0 >= FEW);
}
