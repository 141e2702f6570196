//! Metrics of the memory that clients make a node keep, by what it is for.

use metrics::{Counter, Gauge};

use super::Maker;
use crate::budget::{Memory, MemoryPart};

/// What clients make the node keep in memory.
#[derive(Debug)]
pub struct MemoryMetrics {
    /// `tern_memory_limit_bytes`: what all parts together may take.
    limit: Gauge,
    parts: Vec<(MemoryPart, Gauge, Counter)>,
}

impl MemoryMetrics {
    pub(super) fn register(make: &Maker<'_>) -> Self {
        let (used, refused) = ("tern_memory_bytes", "tern_memory_refused_total");
        let what = "Memory of what clients make the node keep, about, by what it is for.";
        let when = "Times that there was no memory for more, by part.";
        let row = |part: MemoryPart| {
            let used = make.gauge_of(used, "part", part.label(), what);
            (part, used, make.counter_of(refused, "part", part.label(), when))
        };
        Self {
            limit: make
                .gauge("tern_memory_limit_bytes", "What all parts of tern_memory_bytes may take together."),
            parts: MemoryPart::ALL.map(row).into(),
        }
    }

    /// Tells the budget as it is now: `tern_memory_bytes{part}` is what is in use, about, and
    /// `tern_memory_refused_total{part}` how often there was no room for more.
    pub fn tell(&self, memory: &Memory) {
        self.limit.set(memory.whole().limit() as f64);
        for (part, used, refused) in &self.parts {
            used.set(memory.part(*part).used() as f64);
            refused.absolute(memory.part(*part).refused());
        }
    }
}
