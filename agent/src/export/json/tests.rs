use serde_json::{Value, json};

use super::*;
use crate::profile::example;
use crate::profile::model::{MemoryBytes, MemoryGrowth};

fn parsed(profile: &model::Profile) -> Value {
    let mut out = Vec::new();
    write(profile, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.lines().count(), 1, "one line");
    serde_json::from_str(&text).unwrap()
}

/// The header, field by field, as the documentation of this module has it.
#[test]
fn the_header_has_its_shape() {
    let mut value = parsed(&example::profile());
    let object = value.as_object_mut().unwrap();
    for table in ["modules", "functions", "locations", "samples", "accounting", "memory_growth"] {
        assert!(object.remove(table).is_some(), "{table}");
    }
    assert_eq!(
        value,
        json!({
            "schema": "nodeprof.profile/1",
            "kind": "cpu",
            "host": "node-1",
            "started": "2024-02-29T12:34:56.789Z",
            "duration_seconds": 0.2,
            "sample_types": [
                {"name": "samples", "unit": "count"},
                {"name": "cpu", "unit": "nanoseconds"},
            ],
            "period_type": {"name": "cpu", "unit": "nanoseconds"},
            "period": 10_000_000,
        })
    );
}

/// Memory growth has both numbers of each kind; the kernel's is null where the process has ended.
#[test]
fn memory_growth_has_its_shape() {
    let estimated = MemoryBytes { anon: 3, file: 2, shmem: 1 };
    let counted = Some(MemoryBytes { anon: -3, ..MemoryBytes::default() });
    let app =
        MemoryGrowth { pid: 7, comm: "app".into(), estimated, estimated_unknown: 4, counted, is_new: false };
    let ended = MemoryGrowth { counted: None, is_new: true, ..app.clone() };
    let value = parsed(&model::Profile { memory_growth: vec![app, ended], ..example::profile() });
    let estimated = json!({"anon": 3, "file": 2, "shmem": 1, "unknown": 4});
    let counted = json!({"anon": -3, "file": 0, "shmem": 0});
    assert_eq!(
        value["memory_growth"],
        json!([
            {"pid": 7, "comm": "app", "new": false, "estimated": estimated, "counted": counted},
            {"pid": 7, "comm": "app", "new": true, "estimated": estimated, "counted": null},
        ])
    );
}

/// One row of each table, with every field.
#[test]
fn the_tables_have_their_shape() {
    let value = parsed(&example::profile());
    assert_eq!(
        value["modules"][0],
        json!({"path": "/srv/app", "build_id": "00ff", "start": "0x1000", "limit": "0x9000",
               "file_offset": "0x1000"})
    );
    assert_eq!(
        value["functions"][4],
        json!({"name": "libc.so.6+0x1f00", "system_name": "", "file": null, "named": false})
    );
    assert_eq!(
        value["locations"][2],
        json!({"module": 0, "address": "0x1300", "kind": "user",
               "lines": [{"function": 2, "line": 3}, {"function": 1, "line": 25}]})
    );
    assert_eq!(value["locations"][3]["address"], "0xffffffff81000000");
    assert_eq!(value["locations"][3]["kind"], "kernel");
    assert_eq!(
        value["locations"][5],
        json!({"module": null, "address": "0x0", "kind": "marker", "lines": [{"function": 5, "line": 0}]})
    );
    assert_eq!(
        value["samples"][2],
        json!({"locations": [2, 1, 0], "values": [1, 10_000_000], "pid": 42, "comm": "app",
               "thread": {"id": 43, "name": "worker 1"}, "truncated": null,
               "state": null, "memory": null, "lock": null, "ended": null, "woken": null})
    );
    assert_eq!(value["samples"][5]["truncated"], "depth");
    assert_eq!(value["samples"][5]["comm"], "sh; evil\n", "names are not altered");
}

/// The books name every cause, those that did not occur too.
#[test]
fn the_books_have_their_shape() {
    let mut profile = example::profile();
    assert_eq!(
        parsed(&profile)["accounting"],
        json!({
            "ticks": 40, "idle": 28, "not_selected": 0,
            "left_out": {"shorter_than": 0, "count": 0, "nanoseconds": 0},
            "expected": 12, "emitted": 10, "balances": true,
            "lost": {"kernel_skipped": 2, "ring_full": 0, "scratch_busy": 0, "cpu_returned": 0, "table_full": 0,
                     "undecodable": 0, "waker_unseen": 0, "stack_not_taken": 0},
            "truncated": {"depth": 1, "slice": 0, "unwind": 0, "cold": 0, "budget": 0, "compat": 0, "stack_table_full": 0},
            "frames": 23,
            "unresolved": {"stripped": 1, "gone": 0, "unreadable": 0, "malformed": 0, "over_budget": 0,
                           "anonymous": 0, "jit_without_map": 0, "unknown_process": 1, "unmapped": 0,
                           "kernel_hidden": 0, "module_table_full": 0, "stalled": 0},
        })
    );
    let left_out = LeftOut { shorter_than: 1_000_000, count: 5, nanoseconds: 700_000 };
    profile.accounting = profile.accounting.with_left_out(left_out);
    let books = &parsed(&profile)["accounting"];
    assert_eq!(books["left_out"], json!({"shorter_than": 1_000_000, "count": 5, "nanoseconds": 700_000}));
    assert_eq!((&books["ticks"], &books["balances"]), (&json!(45), &json!(true)));
    profile.accounting.emitted = 9;
    assert_eq!(parsed(&profile)["accounting"]["balances"], false);
}

/// No samples: the same shape with empty tables.
#[test]
fn an_empty_profile_has_empty_tables() {
    let value = parsed(&example::empty());
    for table in ["modules", "functions", "locations", "samples"] {
        assert_eq!(value[table], json!([]));
    }
}
