//! The tables inside the report: columns of shares and amounts, then names cut to what room is left.

use std::borrow::Cow;
use std::io::{self, Write};

use super::counted;
use crate::printable::printable;
use crate::report::layout::{Style, elide, paint};
use crate::report::quantity::{amount, percent};
use crate::report::ranking::{FunctionCost, ProcessCost};

/// Characters of a share and its amount: `  12.3 %   1.23 s`.
const COST_WIDTH: usize = 18;
/// Characters before a function's name: two costs and a gap.
const BEFORE_FUNCTION: usize = 2 * COST_WIDTH + 2;
/// Characters before a process's name: a cost, the process id and gaps.
const BEFORE_PROCESS: usize = COST_WIDTH + 12;
/// Widest column of modules.
const MAX_MODULE: usize = 24;
/// A share that dominates, in percent.
const HOT: f64 = 10.0;
/// A share that is worth a look, in percent.
const WARM: f64 = 2.0;

/// What the tables of one report have in common.
pub(super) struct Rows<'a> {
    /// The value that is 100 %.
    pub(super) total: i64,
    /// Its unit.
    pub(super) unit: &'a str,
    /// What heads the column of processes' shares.
    pub(super) heading: &'static str,
    /// What the shares are of: `time` or `memory`.
    pub(super) of_what: &'static str,
    /// Rows of a table of functions.
    pub(super) count: usize,
    /// Characters of a line.
    pub(super) width: usize,
    /// Whether to use the terminal's colours.
    pub(super) color: bool,
}

impl Rows<'_> {
    /// The processes that used most.
    pub(super) fn processes(&self, costs: &[ProcessCost<'_>], out: &mut dyn Write) -> io::Result<()> {
        let (shown, hidden) = split(costs, (self.count / 3).max(1));
        let columns = format!("{:>COST_WIDTH$}  {:>8}  PROCESS", self.heading, "PID");
        self.write_heading("Processes", &columns, out)?;
        for ProcessCost { pid, comm, value } in shown {
            let comm = printable(comm);
            let comm = elide(&comm, self.width - BEFORE_PROCESS);
            writeln!(out, "{}  {pid:>8}  {comm}", self.cost(*value))?;
        }
        if !hidden.is_empty() {
            let value = hidden.iter().map(|cost| cost.value).sum();
            let more = counted(hidden.len(), "more process", "more processes");
            writeln!(out, "{}  {:>8}  {}", self.cost(value), "", self.faint(&more))?;
        }
        Ok(())
    }

    /// The first rows of `costs`, which are sorted by self value. Functions that only call others are left
    /// out.
    pub(super) fn functions_by_self(
        &self,
        costs: &[FunctionCost<'_>],
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let with_self = costs.partition_point(|cost| cost.self_value > 0);
        let (shown, hidden) = split(&costs[..with_self], self.count);
        self.functions(&format!("Functions by self {}", self.of_what), shown, out)?;
        if !hidden.is_empty() {
            let value = hidden.iter().map(|cost| cost.self_value).sum();
            let more = counted(hidden.len(), "more function", "more functions");
            writeln!(out, "{}{:COST_WIDTH$}  {}", self.cost(value), "", self.faint(&more))?;
        }
        Ok(())
    }

    /// The first rows of `costs`, which are sorted by total value: callers with all that they call.
    pub(super) fn functions_by_total(
        &self,
        costs: &[FunctionCost<'_>],
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let title = format!("Functions by total {}, with all that they call", self.of_what);
        self.functions(&title, split(costs, self.count).0, out)
    }

    fn functions(&self, title: &str, costs: &[FunctionCost<'_>], out: &mut dyn Write) -> io::Result<()> {
        let names: Vec<(Cow<'_, str>, Cow<'_, str>)> = costs
            .iter()
            .map(|cost| {
                (printable(cost.name), cost.module.map_or("".into(), |module| printable(module.short_name())))
            })
            .collect();
        let longest = |width: usize, text: &str| width.max(text.chars().count());
        let room = self.width - BEFORE_FUNCTION;
        let module_width = names.iter().map(|(_, module)| module.as_ref()).fold("MODULE".len(), longest);
        let module_width = module_width.min(MAX_MODULE).min(room / 3);
        let name_width = names.iter().map(|(name, _)| name.as_ref()).fold("FUNCTION".len(), longest);
        let name_width = name_width.min(room - module_width - 2);

        let columns =
            format!("{:>COST_WIDTH$}{:>COST_WIDTH$}  {:name_width$}  MODULE", "SELF", "TOTAL", "FUNCTION");
        self.write_heading(title, &columns, out)?;
        for (cost, (name, module)) in costs.iter().zip(&names) {
            let name = elide(name, name_width);
            let module = elide(module, module_width);
            let costs = format!("{}{}", self.cost(cost.self_value), self.plain_cost(cost.total_value));
            if module.is_empty() {
                writeln!(out, "{costs}  {name}")?;
            } else {
                writeln!(out, "{costs}  {name:name_width$}  {}", self.faint(&module))?;
            }
        }
        Ok(())
    }

    /// A share and an amount, [`COST_WIDTH`] characters wide, in the colour of the share.
    fn cost(&self, value: i64) -> String {
        let text = self.plain_cost(value);
        match percent(value, self.total) {
            HOT.. => paint(&text, Style::Hot, self.color).into_owned(),
            WARM.. => paint(&text, Style::Warm, self.color).into_owned(),
            _ => text,
        }
    }

    /// The same without colour: totals are high on every way to the code that is hot.
    fn plain_cost(&self, value: i64) -> String {
        format!("{:6.1} %{:>10}", percent(value, self.total), amount(value, self.unit))
    }

    /// A table's title, and what heads its columns.
    pub(super) fn write_heading(&self, title: &str, columns: &str, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", paint(title, Style::Heading, self.color))?;
        writeln!(out, "{}", self.faint(columns))
    }

    fn faint<'t>(&self, text: &'t str) -> Cow<'t, str> {
        paint(text, Style::Faint, self.color)
    }
}

/// The first `count` of `items`, and the rest.
fn split<T>(items: &[T], count: usize) -> (&[T], &[T]) {
    items.split_at(count.min(items.len()))
}
