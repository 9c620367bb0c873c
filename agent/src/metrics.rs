//! What the agent measures of itself, in the form in which Prometheus reads it.
//!
//! Made once, in the composition root, and handed to whoever counts. The metrics here are the ones by which it shows that what is
//! dear is there once and done once: one resolver, one reading of kallsyms, one scan of `/proc`.

use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus::{IntCounter, PullingGauge, Registry, TextEncoder};

/// The agent's own metrics.
#[derive(Clone, Debug)]
pub struct SelfMetrics {
    registry: Registry,
    /// `nodeprof_kallsyms_loads_total`: how often `/proc/kallsyms` was read. It is read again when kernel modules have changed.
    pub kallsyms_loads: IntCounter,
    /// `nodeprof_proc_scans_total`: how often every process was read in `/proc`. Listing their numbers is no scan.
    pub proc_scans: IntCounter,
}

impl SelfMetrics {
    /// Metrics of which nothing was counted yet.
    ///
    /// # Errors
    /// Two metrics have one name, which would be a mistake here.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let resolvers = PullingGauge::new(
            "nodeprof_resolvers",
            "Symbol resolvers in this process; one is right.",
            Box::new(|| RESOLVERS.load(Ordering::Relaxed) as f64),
        )?;
        let kallsyms_loads = IntCounter::new(
            "nodeprof_kallsyms_loads_total",
            "Readings of /proc/kallsyms: one at the start, and one for each change of kernel modules.",
        )?;
        let proc_scans = IntCounter::new(
            "nodeprof_proc_scans_total",
            "Scans of every process in /proc; one, at the start, is right.",
        )?;
        registry.register(Box::new(resolvers))?;
        registry.register(Box::new(kallsyms_loads.clone()))?;
        registry.register(Box::new(proc_scans.clone()))?;
        Ok(Self { registry, kallsyms_loads, proc_scans })
    }

    /// All metrics with their values now, in Prometheus' text format.
    ///
    /// # Errors
    /// A metric has no name or no value, which would be a mistake here.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// Resolvers of this process, whatever they were made with. It is the process that has one resolver or several: were this part
/// of what a resolver is handed, one that is handed metrics of its own would be seen by nobody.
static RESOLVERS: AtomicUsize = AtomicUsize::new(0);

/// Belongs to a resolver, which counts as one for as long as this lives.
#[derive(Debug)]
pub struct ResolverCounted(());

impl ResolverCounted {
    /// Counts a resolver that is being made.
    pub fn new() -> Self {
        RESOLVERS.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Default for ResolverCounted {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for ResolverCounted {
    fn drop(&mut self) {
        RESOLVERS.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text has each metric with its type and its value.
    #[test]
    fn the_text_has_every_metric() {
        let metrics = SelfMetrics::new().expect("good names");
        metrics.kallsyms_loads.inc_by(2);
        metrics.clone().proc_scans.inc();
        let text = metrics.text().expect("good metrics");
        for line in [
            "# TYPE nodeprof_resolvers gauge",
            "# TYPE nodeprof_kallsyms_loads_total counter",
            "nodeprof_kallsyms_loads_total 2",
            "# TYPE nodeprof_proc_scans_total counter",
            "nodeprof_proc_scans_total 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} is not in\n{text}");
        }
    }
}
