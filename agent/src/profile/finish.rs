//! Finishing a window: each distinct frame gets its name once, and the neutral profile's tables are laid out.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use crate::printable::printable;
use crate::profile::accounting::{TruncatedCause, UnresolvedReason};
use crate::profile::fault_window::{FaultLine, FaultWindow};
use crate::profile::model::{self, FrameKind, Function, Labels, Location, Module, Sample, Thread, WokenTask};
use crate::profile::stack_table::Task;
use crate::profile::window::{Counted, Window};
use crate::symbol::frame::Frame;
use crate::symbol::resolver::Resolver;
use crate::symbol::symbols::{ModuleInfo, SourceFrame, Symbols};

/// A window's samples with names, and what became of its frames.
#[derive(Debug, Default)]
pub struct Finished {
    /// Executables, libraries, the kernel.
    pub modules: Vec<Module>,
    /// Named functions.
    pub functions: Vec<Function>,
    /// Distinct code addresses.
    pub locations: Vec<Location>,
    /// Distinct (task, stack) pairs, by process, then by weight.
    pub samples: Vec<Sample>,
    /// Samples whose stack is cut short, by cause.
    pub truncated: [u64; TruncatedCause::ALL.len()],
    /// Frames, weighted by samples.
    pub frames: u64,
    /// Frames without a name, weighted by samples, by reason.
    pub unresolved: [u64; UnresolvedReason::ALL.len()],
}

/// A line of a window with the values of its sample.
#[derive(Clone, Debug)]
pub struct Line<'a> {
    /// Whose.
    pub task: &'a Task,
    /// Indices into the window's frames, leaf first.
    pub stack: &'a [u32],
    /// Why the stack is not whole, where it is not.
    pub truncated: Option<TruncatedCause>,
    /// What else is said of it.
    pub labels: LineLabels<'a>,
    /// How many samples, or waits, it stands for.
    pub count: u64,
    /// One value for each of the profile's sample types.
    pub values: Vec<i64>,
}

/// What is said of lines in some profiles; as in [`Labels`].
#[derive(Clone, Copy, Debug, Default)]
pub struct LineLabels<'a> {
    /// Why the task did not run.
    pub state: Option<&'static str>,
    /// What a fault made resident.
    pub memory: Option<&'static str>,
    /// What kind of lock it waited for.
    pub lock: Option<&'static str>,
    /// What ended its wait.
    pub ended: Option<&'static str>,
    /// Whose wait it ended.
    pub woken: Option<&'a Task>,
}

/// Names everything in `window`. `values` turns a line of the window into the values of its sample.
pub fn finish(window: &Window, resolver: &Resolver, values: impl Fn(Counted<'_>) -> Vec<i64>) -> Finished {
    let lines = window.counted().map(|line| {
        let Counted { task, stack, truncated, count } = line;
        let labels = LineLabels::default();
        Line { task, stack, truncated, labels, count: count.total(), values: values(line) }
    });
    NamedFrames::of(window.frames(), resolver).lay_out(lines)
}

/// Names everything in a window of page faults. The values are the number of faults and the bytes that they made resident, each
/// sample counted as often as `weight` says of its CPU.
pub fn finish_faults(window: &FaultWindow, resolver: &Resolver, weight: impl Fn(u32) -> f64) -> Finished {
    let lines = window.lines(weight).into_iter().map(|line| {
        let FaultLine { task, stack, truncated, memory, samples, faults, bytes } = line;
        let values = vec![faults.round() as i64, bytes.round() as i64];
        let labels = LineLabels { memory: Some(memory.name()), ..LineLabels::default() };
        Line { task, stack, truncated, labels, count: samples, values }
    });
    NamedFrames::of(window.frames(), resolver).lay_out(lines)
}

/// A window's frames with their names.
pub struct NamedFrames<'a> {
    frames: &'a [Frame],
    symbols: Vec<Arc<Symbols>>,
}

impl<'a> NamedFrames<'a> {
    /// Looks all up.
    pub fn of(frames: &'a [Frame], resolver: &Resolver) -> Self {
        Self { frames, symbols: resolver.resolve_all(frames) }
    }

    /// The names of the user's functions on `stack`, leaf first, inlined ones too.
    pub fn user_functions(&self, stack: &[u32]) -> Vec<&str> {
        let is_user = |index: &&u32| {
            matches!(self.frames[**index as usize], Frame::User { .. } | Frame::Anonymous { .. })
        };
        let names =
            |index: &u32| self.symbols[*index as usize].frames.iter().map(|frame| frame.function.name());
        stack.iter().filter(is_user).flat_map(names).collect()
    }

    /// Lays out `lines`, which refer to these frames. Lines that differ in nothing but their values become one.
    pub fn lay_out<'l>(&self, lines: impl Iterator<Item = Line<'l>>) -> Finished {
        let mut tables = Tables::default();
        let mut locations = HashMap::new();
        let mut samples: HashMap<(Vec<usize>, Labels), Vec<i64>> = HashMap::new();
        let mut finished = Finished::default();
        for line in lines {
            finished.frames += line.count * line.stack.len() as u64;
            if let Some(cause) = line.truncated {
                finished.truncated[cause as usize] += line.count;
            }
            let mut stack = Vec::with_capacity(line.stack.len());
            for index in line.stack.iter().map(|index| *index as usize) {
                let symbols = &self.symbols[index];
                if let Some(reason) = symbols.unresolved {
                    finished.unresolved[reason as usize] += line.count;
                }
                let location = || tables.location(self.frames[index], symbols);
                stack.push(*locations.entry(index).or_insert_with(location));
            }
            let values = samples.entry((stack, labels(&line))).or_insert_with(|| vec![0; line.values.len()]);
            values.iter_mut().zip(&line.values).for_each(|(sum, value)| *sum += value);
        }
        let samples = samples.into_iter();
        finished.samples =
            samples.map(|((locations, labels), values)| Sample { locations, values, labels }).collect();
        finished.order(tables)
    }
}

impl Finished {
    fn order(mut self, tables: Tables) -> Self {
        // Hash order is not an order: equal windows give equal profiles.
        self.samples.sort_by(|a, b| {
            let by_labels = |labels: &Labels| (labels.pid, labels.thread.as_ref().map(|thread| thread.id));
            let rest =
                |labels: &Labels| (labels.state, labels.memory, labels.lock, labels.ended, labels.truncated);
            let woken = |labels: &Labels| labels.woken.as_ref().map(|woken| woken.pid);
            by_labels(&a.labels)
                .cmp(&by_labels(&b.labels))
                .then_with(|| b.values.cmp(&a.values))
                .then_with(|| a.locations.cmp(&b.locations))
                .then_with(|| rest(&a.labels).cmp(&rest(&b.labels)))
                .then_with(|| woken(&a.labels).cmp(&woken(&b.labels)))
        });
        Self {
            modules: tables.modules.values,
            functions: tables.functions.values,
            locations: tables.locations.values,
            ..self
        }
    }
}

fn labels(line: &Line<'_>) -> Labels {
    Labels {
        pid: line.task.pid,
        comm: line.task.comm.to_string(),
        thread: line.task.thread.as_ref().map(|(id, name)| Thread { id: *id, name: name.to_string() }),
        truncated: line.truncated.map(TruncatedCause::name),
        state: line.labels.state,
        memory: line.labels.memory,
        lock: line.labels.lock,
        ended: line.labels.ended,
        woken: line.labels.woken.map(|task| WokenTask { pid: task.pid, comm: task.comm.to_string() }),
    }
}

/// The profile's tables while they grow. A file that was seen under two numbers is one module here.
#[derive(Default)]
struct Tables {
    modules: Table<Module>,
    functions: Table<Function>,
    locations: Table<Location>,
}

impl Tables {
    fn location(&mut self, frame: Frame, symbols: &Symbols) -> usize {
        let module = symbols.module.as_ref().map(|info| self.modules.index(module(info)));
        let kind = match (frame, module) {
            (Frame::Kernel { .. }, _) => FrameKind::Kernel,
            (_, Some(_)) => FrameKind::User,
            (_, None) => FrameKind::Marker,
        };
        let lines = symbols.frames.iter().map(|source| self.line(frame, source)).collect();
        self.locations.index(Location { module, address: symbols.address, kind, lines })
    }

    fn line(&mut self, frame: Frame, source: &SourceFrame) -> model::Line {
        // Symbol tables and debug information come from strangers: what would harm a terminal or a reader of the file is made
        // harmless here, once.
        let harmless = |text: &str| printable(text).into_owned();
        let mut name = harmless(source.function.name());
        if frame.is_guessed() {
            name.push_str(" [guessed]");
        }
        let system_name = harmless(source.function.system_name());
        let file = source.file.as_deref().map(harmless);
        model::Line {
            function: self.functions.index(Function { name, system_name, file }),
            line: source.line,
        }
    }
}

fn module(info: &Arc<ModuleInfo>) -> Module {
    Module {
        path: info.path.to_string(),
        build_id: info.build_id.as_ref().map(ToString::to_string),
        start: info.start,
        limit: info.limit,
        file_offset: info.file_offset,
    }
}

/// Values by index, each once.
struct Table<T> {
    indices: HashMap<T, usize>,
    values: Vec<T>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { indices: HashMap::new(), values: Vec::new() }
    }
}

impl<T: Clone + Eq + Hash> Table<T> {
    fn index(&mut self, value: T) -> usize {
        *self.indices.entry(value).or_insert_with_key(|value| {
            self.values.push(value.clone());
            self.values.len() - 1
        })
    }
}
