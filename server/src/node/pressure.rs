//! Shows operators how much of its memory this node uses: by metrics, in `/readyz`, and in the log.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::budget::{Memory, MemoryPart};
use crate::ops::metrics::Metrics;
use crate::ops::{Check, Readiness};

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// While memory stays short, the log says so again after this long.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// The task that looks. Dropping it ends it.
pub(super) struct Pressure(JoinHandle<()>);

impl Drop for Pressure {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Pressure {
    pub(super) fn start(memory: Memory, readiness: &Readiness, metrics: Metrics) -> Self {
        // Those who are here are served on, and newcomers hear when to come again: balancers may still send
        // some, since the other nodes are likely to be as full.
        let mut watch = Watch { check: readiness.notice("memory"), warned: None, refused: 0 };
        watch.look(&memory, &metrics);
        Self(tokio::spawn(async move {
            loop {
                sleep(EVERY).await;
                watch.look(&memory, &metrics);
            }
        }))
    }
}

struct Watch {
    check: Check,
    warned: Option<Instant>,
    /// Refusals that were seen already.
    refused: u64,
}

impl Watch {
    fn look(&mut self, memory: &Memory, metrics: &Metrics) {
        metrics.memory.tell(memory);
        let refused = memory.whole().refused();
        let news = refused.saturating_sub(self.refused);
        self.refused = refused;
        if !memory.is_short() && news == 0 {
            self.check.ready();
            return;
        }
        let told = in_words(memory);
        if self.warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            self.warned = Some(Instant::now());
            tracing::warn!(
                refused = news,
                "memory is short: {told}; raise memory.limit_mib, add a node, or find out who fills it"
            );
        }
        self.check.down(told);
    }
}

/// What is in use, the largest part first.
fn in_words(memory: &Memory) -> String {
    let mib = |bytes: usize| bytes / (1024 * 1024);
    let mut parts = MemoryPart::ALL.map(|part| (memory.part(part).used(), part.label()));
    parts.sort_unstable_by(|a, b| b.cmp(a));
    let parts: Vec<String> = parts.iter().map(|(used, label)| format!("{label} {}", mib(*used))).collect();
    let (used, limit) = (mib(memory.whole().used()), mib(memory.whole().limit()));
    format!("{used} of {limit} MiB are in use ({}), new work is refused", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::metrics::Exporter;

    const MIB: usize = 1024 * 1024;

    #[tokio::test(start_paused = true)]
    async fn operators_see_which_part_fills_the_memory_and_when_it_is_over() {
        let (readiness, exporter) = (Readiness::default(), Exporter::new());
        let memory = Memory::new(100 * MIB);
        let _pressure = Pressure::start(memory.clone(), &readiness, exporter.metrics());
        let later = async || {
            sleep(2 * EVERY).await;
            readiness.report()
        };
        let kept = memory.part(MemoryPart::Outboxes).charge(95 * MIB);
        assert!(memory.part(MemoryPart::Sessions).try_charge(1).is_none());
        let report = later().await;
        assert!(report.ready, "who is here is served: {report:?}");
        let told = &report.checks["memory"];
        assert!(told.contains("95 of 100 MiB are in use (outboxes 95, "), "{told}");
        let text = exporter.render();
        for line in [
            r#"tern_memory_limit_bytes 104857600"#,
            r#"tern_memory_bytes{part="outboxes"} 99614720"#,
            r#"tern_memory_bytes{part="sessions"} 0"#,
            r#"tern_memory_refused_total{part="sessions"} 1"#,
            r#"tern_memory_refused_total{part="connections"} 0"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        drop(kept);
        assert_eq!(later().await.checks["memory"], "ok");
    }
}
