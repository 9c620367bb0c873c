//! Who used most: functions by their own and by their whole time, processes by share.

use std::collections::{HashMap, HashSet};

use crate::profile::model::{Module, Profile, Sample};

/// Stands for the function of samples that have no stack at all.
pub const NO_STACK: &str = "[no stack]";

/// What a function cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionCost<'a> {
    /// The function's name.
    pub name: &'a str,
    /// The module that it lies in (the first one of that path); `None` for markers.
    pub module: Option<&'a Module>,
    /// Sum of the samples in which it is the leaf. Inlined functions count as functions.
    pub self_value: i64,
    /// Sum of the samples that it occurs in, however often.
    pub total_value: i64,
}

impl FunctionCost<'_> {
    /// Name, then path of the module: what orders functions of equal cost.
    fn identity(&self) -> (&str, Option<&str>) {
        (self.name, self.module.map(|module| module.path.as_str()))
    }
}

/// What a process cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessCost<'a> {
    /// Process id.
    pub pid: u32,
    /// Name of the process.
    pub comm: &'a str,
    /// Sum of its samples.
    pub value: i64,
}

/// Every function that occurs, in no particular order. Functions of the same name in the same module are one.
///
/// The self values add up to the profile's total.
pub fn functions(profile: &Profile, value_index: usize) -> Vec<FunctionCost<'_>> {
    let mut costs: HashMap<(&str, Option<&str>), FunctionCost<'_>> = HashMap::new();
    let mut seen = HashSet::new();
    for sample in &profile.samples {
        let value = sample.value(value_index);
        seen.clear();
        for (name, module) in frames(profile, sample) {
            let key = (name, module.map(|module| module.path.as_str()));
            let is_leaf = seen.is_empty();
            if !seen.insert(key) {
                continue;
            }
            let cost =
                costs.entry(key).or_insert(FunctionCost { name, module, self_value: 0, total_value: 0 });
            cost.total_value = cost.total_value.saturating_add(value);
            if is_leaf {
                cost.self_value = cost.self_value.saturating_add(value);
            }
        }
    }
    costs.into_values().collect()
}

/// Name and module of every function of a stack, leaf first, inlined functions before those they are inlined
/// into.
fn frames<'a>(
    profile: &'a Profile,
    sample: &'a Sample,
) -> impl Iterator<Item = (&'a str, Option<&'a Module>)> {
    let functions = sample
        .locations
        .iter()
        .filter_map(|&index| profile.locations.get(index))
        .flat_map(|location| location.lines.iter().map(move |line| (line.function, location.module)))
        .filter_map(|(function, module)| {
            let name = profile.functions.get(function)?.name.as_str();
            Some((name, module.and_then(|module| profile.modules.get(module))))
        });
    let no_stack = sample.locations.is_empty().then_some((NO_STACK, None));
    functions.chain(no_stack)
}

/// Highest self value first; equal ones by total value, then by name, so that the order is always the same.
pub fn sort_by_self(costs: &mut [FunctionCost<'_>]) {
    costs.sort_unstable_by(|a, b| {
        let by_value = (b.self_value, b.total_value).cmp(&(a.self_value, a.total_value));
        by_value.then_with(|| a.identity().cmp(&b.identity()))
    });
}

/// Highest total value first; equal ones by self value, then by name.
pub fn sort_by_total(costs: &mut [FunctionCost<'_>]) {
    costs.sort_unstable_by(|a, b| {
        let by_value = (b.total_value, b.self_value).cmp(&(a.total_value, a.self_value));
        by_value.then_with(|| a.identity().cmp(&b.identity()))
    });
}

/// Every process, highest value first. A process that changed its name is listed under each of its names.
pub fn processes(profile: &Profile, value_index: usize) -> Vec<ProcessCost<'_>> {
    let mut values: HashMap<(u32, &str), i64> = HashMap::new();
    for sample in &profile.samples {
        let value = values.entry((sample.labels.pid, sample.labels.comm.as_str())).or_default();
        *value = value.saturating_add(sample.value(value_index));
    }
    let mut costs: Vec<ProcessCost<'_>> =
        values.into_iter().map(|((pid, comm), value)| ProcessCost { pid, comm, value }).collect();
    costs.sort_unstable_by(|a, b| b.value.cmp(&a.value).then_with(|| (a.pid, a.comm).cmp(&(b.pid, b.comm))));
    costs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::example;

    /// (name, module, self, total) in samples.
    fn rows<'a>(costs: &'a [FunctionCost<'a>]) -> Vec<(&'a str, Option<&'a str>, i64, i64)> {
        costs.iter().map(|cost| (cost.name, cost.identity().1, cost.self_value, cost.total_value)).collect()
    }

    /// The example's truth, by self: a recursive function counts once a stack, an inlined leaf has the self
    /// time and its physical function only the total, equal values are in order of their names.
    #[test]
    fn functions_by_self() {
        let profile = example::profile();
        let mut costs = functions(&profile, 0);
        sort_by_self(&mut costs);
        assert_eq!(
            rows(&costs),
            [
                ("app::hash", Some("/srv/app"), 4, 4),
                ("app::walk", Some("/srv/app"), 3, 7),
                ("[unknown]", None, 1, 1),
                ("libc.so.6+0x1f00", Some("/lib/libc.so.6"), 1, 1),
                ("vfs_read", Some("[kernel]"), 1, 1),
                ("main", Some("/srv/app"), 0, 9),
            ]
        );
    }

    /// The example's truth, by total.
    #[test]
    fn functions_by_total() {
        let profile = example::profile();
        let mut costs = functions(&profile, 0);
        sort_by_total(&mut costs);
        let names: Vec<&str> = costs.iter().map(|cost| cost.name).collect();
        assert_eq!(names, ["main", "app::walk", "app::hash", "[unknown]", "libc.so.6+0x1f00", "vfs_read"]);
    }

    /// Self values add up to the whole, samples without a stack included.
    #[test]
    fn self_values_add_up() {
        let mut profile = example::profile();
        profile.samples[0].locations.clear();
        let costs = functions(&profile, 1);
        let sum: i64 = costs.iter().map(|cost| cost.self_value).sum();
        assert_eq!(sum, profile.total(1));
        assert_eq!(sum, 10 * example::PERIOD);
        let no_stack = costs.iter().find(|cost| cost.name == NO_STACK).unwrap();
        assert_eq!((no_stack.self_value, no_stack.total_value), (3 * example::PERIOD, 3 * example::PERIOD));
    }

    /// The same name in another module is another function.
    #[test]
    fn modules_tell_functions_apart() {
        let mut profile = example::profile();
        profile.functions[4].name = "main".into();
        let costs = functions(&profile, 0);
        assert_eq!(costs.iter().filter(|cost| cost.name == "main").count(), 2);
    }

    /// Processes by share; threads belong to their process.
    #[test]
    fn processes_by_share() {
        let profile = example::profile();
        let costs = processes(&profile, 0);
        assert_eq!(
            costs,
            [
                ProcessCost { pid: 42, comm: "app", value: 9 },
                ProcessCost { pid: 7, comm: "sh; evil\n", value: 1 },
            ]
        );
        assert!(processes(&example::empty(), 0).is_empty());
    }
}
