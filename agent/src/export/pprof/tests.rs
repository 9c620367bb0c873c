//! Every check decodes the bytes again: only what a reader sees counts.

use std::collections::{BTreeMap, HashSet};
use std::io::Read as _;
use std::time::{Duration, UNIX_EPOCH};

use flate2::read::GzDecoder;
use prost::Message as _;

use super::*;
use crate::profile::accounting::Accounting;
use crate::profile::example;
use crate::profile::model::{FrameKind, Line, ProfileKind, Thread};

fn decode(bytes: &[u8]) -> proto::Profile {
    let mut plain = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
    proto::Profile::decode(plain.as_slice()).unwrap()
}

fn text(message: &proto::Profile, index: i64) -> &str {
    &message.string_table[usize::try_from(index).unwrap()]
}

/// The rules of profile.proto: tables of unique non-zero ids, references that resolve, strings once each.
fn assert_well_formed(message: &proto::Profile) {
    let ids = |ids: Vec<u64>| {
        let unique: HashSet<u64> = ids.iter().copied().collect();
        assert_eq!(unique.len(), ids.len());
        assert!(!unique.contains(&0));
        unique
    };
    let mappings = ids(message.mapping.iter().map(|mapping| mapping.id).collect());
    let functions = ids(message.function.iter().map(|function| function.id).collect());
    let locations = ids(message.location.iter().map(|location| location.id).collect());
    for location in &message.location {
        assert!(location.mapping_id == 0 || mappings.contains(&location.mapping_id));
        assert!(!location.line.is_empty());
        assert!(location.line.iter().all(|line| functions.contains(&line.function_id)));
    }
    for sample in &message.sample {
        assert!(sample.location_id.iter().all(|id| locations.contains(id)));
        assert_eq!(sample.value.len(), message.sample_type.len());
        let keys: HashSet<i64> = sample.label.iter().map(|label| label.key).collect();
        assert_eq!(keys.len(), sample.label.len(), "one value a key");
        assert!(sample.label.iter().all(|label| label.str == 0 || label.num == 0));
    }
    assert_eq!(message.string_table[0], "");
    let strings: HashSet<&String> = message.string_table.iter().collect();
    assert_eq!(strings.len(), message.string_table.len());
}

/// Labels by key, numbers as text.
fn labels_of(message: &proto::Profile, sample: &proto::Sample) -> BTreeMap<String, String> {
    let value = |label: &proto::Label| match label.str {
        0 => label.num.to_string(),
        index => text(message, index).to_owned(),
    };
    sample.label.iter().map(|label| (text(message, label.key).to_owned(), value(label))).collect()
}

fn expected_labels(labels: &Labels) -> BTreeMap<String, String> {
    let mut all = BTreeMap::from([("pid", labels.pid.to_string()), ("comm", labels.comm.clone())]);
    if let Some(thread) = &labels.thread {
        all.insert("thread_id", thread.id.to_string());
        all.insert("thread", thread.name.clone());
    }
    all.extend(labels.truncated.map(|cause| ("truncated", cause.to_owned())));
    all.into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

/// Function name, source file, source line.
type LineText = (String, String, i64);

/// One decoded or original frame: path of the module, address, and its lines, all references resolved.
type Frame = (Option<String>, u64, Vec<LineText>);

fn decoded_frames(message: &proto::Profile, sample: &proto::Sample) -> Vec<Frame> {
    let line = |line: &proto::Line| {
        let function = message.function.iter().find(|function| function.id == line.function_id).unwrap();
        (text(message, function.name).to_owned(), text(message, function.filename).to_owned(), line.line)
    };
    let frame = |id: &u64| {
        let location = message.location.iter().find(|location| location.id == *id).unwrap();
        let mapping = message.mapping.iter().find(|mapping| mapping.id == location.mapping_id);
        let path = mapping.map(|mapping| text(message, mapping.filename).to_owned());
        (path, location.address, location.line.iter().map(line).collect())
    };
    sample.location_id.iter().map(frame).collect()
}

fn original_frames(profile: &Profile, sample: &Sample) -> Vec<Frame> {
    let line = |line: &Line| {
        let function = &profile.functions[line.function];
        (function.name.clone(), function.file.clone().unwrap_or_default(), i64::from(line.line))
    };
    let frame = |&index: &usize| {
        let location = &profile.locations[index];
        let path = location.module.map(|module| profile.modules[module].path.clone());
        (path, location.address, location.lines.iter().map(line).collect())
    };
    sample.locations.iter().map(frame).collect()
}

/// What is decoded says the same as the profile did, sample by sample.
fn assert_round_trip(profile: &Profile) {
    let message = decode(&encode(profile));
    assert_well_formed(&message);
    assert_eq!(message.sample.len(), profile.samples.len());
    for (decoded, original) in message.sample.iter().zip(&profile.samples) {
        assert_eq!(decoded.value, original.values);
        assert_eq!(labels_of(&message, decoded), expected_labels(&original.labels));
        assert_eq!(decoded_frames(&message, decoded), original_frames(profile, original));
    }
    for (index, _) in profile.sample_types.iter().enumerate() {
        let sum: i64 = message.sample.iter().map(|sample| sample.value[index]).sum();
        assert_eq!(sum, profile.total(index));
    }
}

/// The hand-made profile: inlining, recursion, kernel, marker, thread, truncation.
#[test]
fn the_example_comes_back_whole() {
    assert_round_trip(&example::profile());
}

/// Header fields: types, period, times, and comments that say what the profile is and what it lacks.
#[test]
fn the_header_is_complete() {
    let message = decode(&encode(&example::profile()));
    let types: Vec<(&str, &str)> = message
        .sample_type
        .iter()
        .map(|value| (text(&message, value.r#type), text(&message, value.unit)))
        .collect();
    assert_eq!(types, [("samples", "count"), ("cpu", "nanoseconds")]);
    assert_eq!(text(&message, message.default_sample_type), "cpu");
    let period_type = message.period_type.unwrap();
    assert_eq!(text(&message, period_type.r#type), "cpu");
    assert_eq!(message.period, example::PERIOD);
    assert_eq!(message.time_nanos, 1_709_210_096_789_000_000);
    assert_eq!(message.duration_nanos, 200_000_000);
    let comments: Vec<&str> = message.comment.iter().map(|index| text(&message, *index)).collect();
    assert_eq!(
        comments,
        [
            "nodeprof: cpu profile of node-1",
            "nodeprof: expected 12, emitted 10, lost 2 (kernel_skipped 2), truncated 1 (depth 1), \
             unresolved frames 2 (stripped 1, unknown_process 1) of 23",
        ]
    );
    assert_eq!(message.doc_url, 0);
}

/// Extents as the file has them; a module of unknown extent still contains its addresses.
#[test]
fn mappings_contain_their_locations() {
    let profile = example::profile();
    let message = decode(&encode(&profile));
    let app = message.mapping[0];
    assert_eq!((app.memory_start, app.memory_limit, app.file_offset), (0x1000, 0x9000, 0x1000));
    assert_eq!(text(&message, app.build_id), "00ff");
    for location in message.location.iter().filter(|location| location.mapping_id != 0) {
        let mapping = message.mapping.iter().find(|mapping| mapping.id == location.mapping_id).unwrap();
        assert!((mapping.memory_start..mapping.memory_limit).contains(&location.address));
    }
    let marker = message.location.iter().find(|location| location.mapping_id == 0).unwrap();
    assert_eq!(marker.address, 0);
}

/// A mapping claims names, files, lines and inlines only if its locations have them.
#[test]
fn symbol_flags_are_honest() {
    let profile = example::profile();
    let flags = |functions, filenames, line_numbers, inline_frames| SymbolFlags {
        functions,
        filenames,
        line_numbers,
        inline_frames,
    };
    let expected =
        [flags(true, true, true, true), flags(true, false, false, false), flags(false, false, false, false)];
    assert_eq!(symbol_flags(&profile), expected);
    let without_locations = Profile { locations: Vec::new(), samples: Vec::new(), ..profile };
    assert_eq!(symbol_flags(&without_locations), [flags(false, false, false, false); 3]);
}

/// No samples is a valid profile that still has its header.
#[test]
fn an_empty_profile_is_valid() {
    assert_round_trip(&example::empty());
    let message = decode(&encode(&example::empty()));
    assert_eq!(message.sample_type.len(), 2);
    assert!(message.mapping.is_empty() && message.location.is_empty() && message.function.is_empty());
}

/// The same profile gives the same bytes, so that files can be compared and deduplicated.
#[test]
fn encoding_is_deterministic() {
    assert_eq!(encode(&example::profile()), encode(&example::profile()));
}

/// Xorshift64 (Marsaglia 2003): enough randomness for tests, and the same on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.next().is_multiple_of(one_in)
    }

    fn name(&mut self) -> String {
        let names = ["", "main", "a", "a;b", "λ", "libc.so.6+0x1f00", "x\ny", "cpu", "count"];
        names[self.below(names.len())].to_owned()
    }

    fn profile(&mut self) -> Profile {
        let modules: Vec<Module> = (0..self.below(4)).map(|_| self.module()).collect();
        let functions: Vec<Function> = (0..=self.below(12)).map(|_| self.function()).collect();
        let locations: Vec<Location> =
            (0..=self.below(20)).map(|_| self.location(modules.len(), functions.len())).collect();
        let samples = (0..self.below(30)).map(|_| self.sample(locations.len())).collect();
        Profile {
            kind: ProfileKind::Cpu,
            host: self.name(),
            started: UNIX_EPOCH + Duration::from_nanos(self.next() >> 2),
            duration: Duration::from_nanos(self.next() >> 20),
            sample_types: example::profile().sample_types,
            period_type: example::profile().period_type,
            period: 1 << self.below(40),
            modules,
            functions,
            locations,
            samples,
            accounting: Accounting::default(),
            memory_growth: Vec::new(),
        }
    }

    fn module(&mut self) -> Module {
        let start = self.next() >> self.below(64);
        Module {
            path: self.name(),
            build_id: self.chance(2).then(|| format!("{:x}", self.next())),
            start,
            limit: start.saturating_add(self.next() >> self.below(64)),
            file_offset: self.next() >> self.below(64),
        }
    }

    fn function(&mut self) -> Function {
        Function {
            name: self.name(),
            system_name: self.name(),
            file: self.chance(2).then(|| format!("src/{}.rs", self.below(9))),
        }
    }

    fn location(&mut self, modules: usize, functions: usize) -> Location {
        let module = (modules > 0 && !self.chance(4)).then(|| self.below(modules));
        Location {
            module,
            address: if module.is_some() { self.next() >> self.below(64) } else { 0 },
            kind: if module.is_some() { FrameKind::User } else { FrameKind::Marker },
            lines: (0..=self.below(3))
                .map(|_| Line { function: self.below(functions), line: self.below(500) as u32 })
                .collect(),
        }
    }

    fn sample(&mut self, locations: usize) -> Sample {
        let count = self.below(1000) as i64;
        Sample {
            locations: (0..self.below(128)).map(|_| self.below(locations)).collect(),
            values: vec![count, count * example::PERIOD],
            labels: Labels {
                pid: self.next() as u32,
                comm: self.name(),
                thread: self.chance(2).then(|| Thread { id: self.next() as u32, name: self.name() }),
                truncated: self.chance(3).then_some("unwind"),
                ..Labels::default()
            },
        }
    }
}

/// Three hundred random profiles, with empty, repeated and odd names and addresses of every size, come back
/// whole.
#[test]
fn random_profiles_come_back_whole() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..300 {
        assert_round_trip(&random.profile());
    }
}
