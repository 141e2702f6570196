//! Metrics of the files that events go to.

use metrics::{Counter, Gauge};

use super::Maker;

/// The files that events go to.
#[derive(Debug)]
pub struct EventMetrics {
    /// `tern_event_files_unread`: files that are there and were not said to be read, the one being written
    /// included.
    pub unread_files: Gauge,
    /// `tern_event_files_removed_total{state="read"}`: files that made room for newer ones.
    pub removed_read: Counter,
    /// `tern_event_files_removed_total{state="unread"}`: those that nobody said to have read. Somebody should
    /// look.
    pub removed_unread: Counter,
    /// `tern_events_dropped_total`: events above the share of their sender.
    pub dropped: Counter,
}

impl EventMetrics {
    pub(super) fn register(make: &Maker<'_>) -> Self {
        let removed = "tern_event_files_removed_total";
        let what = "Event files that made room for newer ones.";
        let state = |state| make.counter_of(removed, "state", state, what);
        Self {
            unread_files: make.gauge("tern_event_files_unread", "Event files that nobody says to have read."),
            removed_read: state("read"),
            removed_unread: state("unread"),
            dropped: make
                .counter("tern_events_dropped_total", "Push events above the share of their sender."),
        }
    }
}
