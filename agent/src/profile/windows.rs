//! The windows of all profilers, which begin and end together.

use std::collections::HashSet;

use agent_ebpf::kind;

use crate::process::module::ModuleId;
use crate::profile::fault_window::FaultWindow;
use crate::profile::wait_window::WaitWindow;
use crate::profile::window::Window;
use crate::table_use::TableUse;

/// One window for each profiler that runs.
#[derive(Debug)]
pub struct Windows {
    /// Who was on a CPU.
    pub cpu: Window,
    /// Who was off the CPUs.
    pub offcpu: WaitWindow,
    /// Whose memory became resident.
    pub faults: FaultWindow,
    /// Who came by a probe.
    pub probes: Window,
}

impl Windows {
    /// Empty windows that may take `budget` bytes each; waits shorter than `shortest_wait` nanoseconds are left out.
    pub fn new(budget: usize, shortest_wait: u64) -> Self {
        Self {
            cpu: Window::new("window", budget),
            offcpu: WaitWindow::new(budget, shortest_wait),
            faults: FaultWindow::new(budget),
            probes: Window::new("probes' window", budget),
        }
    }

    /// The window that counts samples of `kind` (one of [`kind`]); `None` for a kind that is not counted.
    pub fn counting(&mut self, kind: u16) -> Option<&mut Window> {
        match kind {
            kind::CPU => Some(&mut self.cpu),
            kind::PROBE => Some(&mut self.probes),
            _ => None,
        }
    }

    /// Samples counted, over all windows.
    pub fn samples(&self) -> u64 {
        self.all().iter().map(|window| window.samples()).sum::<u64>() + self.faults.samples()
    }

    /// Adds the modules that frames lie in to `used`.
    pub fn add_modules(&self, used: &mut HashSet<ModuleId>) {
        for window in self.all() {
            window.add_modules(used);
        }
        self.offcpu.add_modules(used);
        self.faults.add_modules(used);
    }

    /// How full each window is.
    pub fn table_uses(&self) -> impl Iterator<Item = TableUse> {
        self.all()
            .into_iter()
            .map(Window::table_use)
            .chain([self.offcpu.table_use(), self.faults.table_use()])
    }

    fn all(&self) -> [&Window; 2] {
        [&self.cpu, &self.probes]
    }
}
