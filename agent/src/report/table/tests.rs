use super::*;
use crate::profile::accounting::LostCause;
use crate::profile::example;
use crate::profile::model::{MemoryBytes, MemoryGrowth};

fn report(profile: &Profile, options: TableOptions) -> String {
    let mut out = Vec::new();
    write_top(profile, &mut out, &options).unwrap();
    String::from_utf8(out).unwrap()
}

/// The whole report of the example, to the character: shares and times of processes and functions, both
/// rankings, the books and what they mean.
#[test]
fn the_example_is_reported() {
    let expected = "\
CPU profile of node-1, 2024-02-29T12:34:56Z, 200 ms
100 ms CPU time in 2 processes, 0.50 CPUs busy on average

Processes
               CPU       PID  PROCESS
  90.0 %   90.0 ms        42  app
  10.0 %   10.0 ms         7  sh; evil\u{fffd}

Functions by self time
              SELF             TOTAL  FUNCTION          MODULE
  40.0 %   40.0 ms  40.0 %   40.0 ms  app::hash         app
  30.0 %   30.0 ms  70.0 %   70.0 ms  app::walk         app
  10.0 %   10.0 ms  10.0 %   10.0 ms  [unknown]
  10.0 %   10.0 ms  10.0 %   10.0 ms  libc.so.6+0x1f00  libc.so.6
  10.0 %   10.0 ms  10.0 %   10.0 ms  vfs_read          [kernel]

Functions by total time, with all that they call
              SELF             TOTAL  FUNCTION          MODULE
   0.0 %         0  90.0 %   90.0 ms  main              app
  30.0 %   30.0 ms  70.0 %   70.0 ms  app::walk         app
  40.0 %   40.0 ms  40.0 %   40.0 ms  app::hash         app
  10.0 %   10.0 ms  10.0 %   10.0 ms  [unknown]
  10.0 %   10.0 ms  10.0 %   10.0 ms  libc.so.6+0x1f00  libc.so.6
  10.0 %   10.0 ms  10.0 %   10.0 ms  vfs_read          [kernel]

Samples: expected 12, emitted 10, lost 2 (kernel_skipped 2), truncated 1 (depth 1), unresolved
  frames 2 (stripped 1, unknown_process 1) of 23
10.0 % of the stacks are cut short, so callers get too little total time. Main cause: stacks deeper
  than a record holds.
8.7 % of the frames have no function name. Main reason: files without symbols there.
";
    assert_eq!(report(&example::profile(), TableOptions::default()), expected);
}

/// What does not fit the rows asked for is summed up, so that shares still add up to 100 %.
#[test]
fn the_rest_is_summed_up() {
    let text = report(&example::profile(), TableOptions { rows: 2, ..TableOptions::default() });
    assert!(text.contains("\n  10.0 %   10.0 ms            1 more process\n"), "{text}");
    assert!(text.contains("\n  30.0 %   30.0 ms                    3 more functions\n"), "{text}");
}

/// No line of a table is wider than asked for, however long the names; both ends of a name stay.
#[test]
fn long_names_fit_the_width() {
    let mut profile = example::profile();
    profile.functions[2].name = format!("first{}last", "<core::iter::Map>".repeat(30));
    profile.modules[0].path = format!("/srv/{}.so", "x".repeat(300));
    for sample in &mut profile.samples {
        sample.labels.comm = "c".repeat(300);
    }
    for width in [60, 80, 100, 250] {
        let text = report(&profile, TableOptions { width: Some(width), ..TableOptions::default() });
        for line in text.lines() {
            assert!(line.chars().count() <= width, "{width}: {line}");
        }
        assert!(
            text.lines().any(|line| line.contains("first") && line.contains('…') && line.contains("last"))
        );
    }
}

/// Colour only adds escape sequences: without them the text is the same, aligned columns included.
#[test]
fn colour_does_not_change_the_text() {
    let plain = report(&example::profile(), TableOptions::default());
    let colored = report(&example::profile(), TableOptions { color: true, ..TableOptions::default() });
    assert!(!plain.contains('\x1b'));
    let mut stripped = String::new();
    for (index, part) in colored.split('\x1b').enumerate() {
        stripped += if index == 0 { part } else { part.split_once('m').unwrap().1 };
    }
    assert!(colored.len() > plain.len());
    assert_eq!(stripped, plain);
}

/// Nothing measured is said in words, without tables and without dividing by zero.
#[test]
fn an_empty_profile_is_reported() {
    let empty = Profile { duration: std::time::Duration::ZERO, host: String::new(), ..example::empty() };
    assert_eq!(
        report(&empty, TableOptions::default()),
        "CPU profile, 2024-02-29T12:34:56Z, 0\n\
         0 CPU time in 0 processes\n\
         \n\
         no samples\n\
         \n\
         Samples: expected 0, emitted 0, lost 0, truncated 0, unresolved frames 0 of 0\n"
    );
}

/// Books that do not balance stand out.
#[test]
fn a_bug_is_shouted() {
    let mut profile = example::profile();
    profile.accounting.lost[LostCause::RingFull as usize] = 7;
    let text = report(&profile, TableOptions { color: true, ..TableOptions::default() });
    assert!(text.contains("\x1b[1;37;41mBUG: the books do not balance"), "{text}");
}

/// Memory's report: amounts in bytes, and each process's growth by page faults beside the kernel's count, which may be negative, or
/// not be there.
#[test]
fn memory_growth_is_reported() {
    let growth = |pid, comm: &str, anon, counted: Option<i64>| MemoryGrowth {
        pid,
        comm: comm.into(),
        estimated: MemoryBytes { anon, file: 65_536, shmem: 0 },
        estimated_unknown: 0,
        counted: counted.map(|anon| MemoryBytes { anon, file: 65_536, shmem: 0 }),
        is_new: pid == 43,
    };
    let profile = Profile {
        kind: ProfileKind::PageFaults,
        sample_types: vec![
            ValueType { name: "faults", unit: "count" },
            ValueType { name: "resident", unit: "bytes" },
        ],
        memory_growth: vec![growth(42, "app", 3 << 29, Some(-(1 << 20))), growth(43, "sh", 8192, None)],
        ..example::profile()
    };
    let text = report(&profile, TableOptions::default());
    let expected = "
Memory growth: made resident, by page faults, and grown, as the kernel counts
       PID       ANON    counted       FILE    counted      SHMEM    counted  PROCESS
        42   1.50 GiB  -1.00 MiB   64.0 KiB   64.0 KiB          0          0  app
        43   8.00 KiB      ended   64.0 KiB      ended          0      ended  sh (new)

Samples: ";
    assert!(text.contains(expected), "{text}");
    assert!(text.contains("95.4 MiB made resident in 2 processes, by 10 page faults\n"), "{text}");
    assert!(text.contains("Functions by self memory\n"), "{text}");
}
