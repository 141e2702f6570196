//! What an operator sees of the embedded store.

use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};

/// Handles of the committer's series. Made when the store opens, so a recorder must be installed
/// before.
pub(super) struct CommitMetrics {
    /// `tern_store_commits_total`: synced writes.
    commits: Counter,
    /// `tern_store_commit_seconds`: time of one synced write.
    seconds: Histogram,
    /// `tern_store_batch_operations`: operations that shared one commit.
    operations: Histogram,
}

impl CommitMetrics {
    pub(super) fn new() -> Self {
        Self {
            commits: counter!("tern_store_commits_total"),
            seconds: histogram!("tern_store_commit_seconds"),
            operations: histogram!("tern_store_batch_operations"),
        }
    }

    pub(super) fn commit(&self, took: Duration) {
        self.commits.increment(1);
        self.seconds.record(took.as_secs_f64());
    }

    pub(super) fn ops(&self, count: usize) {
        self.operations.record(count as f64);
    }
}
