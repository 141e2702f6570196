//! What the measurement of idle sessions tells at its end.

use std::fmt::{self, Write as _};
use std::time::Duration;

use serde::Serialize;

use super::slope::bytes_per_session;
use crate::light::{LightError, Transport};

/// Lost sessions whose reason is told; of more only the number is.
const REASONS_SHOWN_MAX: usize = 5;

/// One step.
#[derive(Debug, Serialize)]
pub(super) struct Point {
    /// How many sessions there were.
    pub(super) sessions: usize,
    /// Memory of the node when the last one had connected.
    pub(super) connected_bytes: u64,
    /// Memory of the node some time later.
    pub(super) settled_bytes: u64,
}

/// What sessions of one transport cost.
#[derive(Debug, Serialize)]
pub(super) struct Cost {
    transport: Transport,
    /// Memory of the node without sessions.
    empty_bytes: u64,
    points: Vec<Point>,
    /// Slope over the steps; absent with a single step.
    connected_bytes_per_session: Option<f64>,
    settled_bytes_per_session: Option<f64>,
    /// Processor time of the node to open one, in microseconds, over all of them.
    opening_us_per_session: f64,
    /// Sessions that did not live to the end.
    lost: usize,
    lost_because: Vec<String>,
}

impl Cost {
    pub(super) fn new(
        transport: Transport,
        empty_bytes: u64,
        points: Vec<Point>,
        opening: Duration,
        lost: &[LightError],
    ) -> Self {
        let sessions = points.last().map_or(1, |point| point.sessions.max(1));
        let slope = |bytes: fn(&Point) -> u64| {
            let points: Vec<_> = points.iter().map(|point| (point.sessions, bytes(point))).collect();
            bytes_per_session(&points)
        };
        Self {
            transport,
            empty_bytes,
            connected_bytes_per_session: slope(|point| point.connected_bytes),
            settled_bytes_per_session: slope(|point| point.settled_bytes),
            points,
            opening_us_per_session: opening.as_secs_f64() * 1e6 / sessions as f64,
            lost: lost.len(),
            lost_because: lost.iter().take(REASONS_SHOWN_MAX).map(ToString::to_string).collect(),
        }
    }
}

/// The whole report.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) settle_s: u16,
    pub(super) costs: Vec<Cost>,
}

impl Report {
    /// Every session lived to the end.
    pub(super) fn held(&self) -> bool {
        self.costs.iter().all(|cost| cost.lost == 0)
    }

    /// One line of JSON.
    pub(super) fn json(&self) -> String {
        let mut value = serde_json::to_value(self).expect("a report serialises without failing");
        value["held"] = self.held().into();
        value.to_string()
    }

    /// For people.
    pub(super) fn words(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_words(&mut out);
        out
    }

    fn write_words(&self, out: &mut String) -> fmt::Result {
        writeln!(
            out,
            "memory of the node's process in RAM (VmRSS), without what the kernel needs for sockets"
        )?;
        let settled = format!("after {} s", self.settle_s);
        writeln!(out, "{:<12} {:>9} {:>14} {settled:>14}", "", "sessions", "connected")?;
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        for cost in &self.costs {
            let transport = cost.transport.to_string();
            writeln!(out, "{transport:<12} {:>9} {:>14}", 0, mib(cost.empty_bytes))?;
            for Point { sessions, connected_bytes, settled_bytes } in &cost.points {
                let (connected, settled) = (mib(*connected_bytes), mib(*settled_bytes));
                writeln!(out, "{:<12} {sessions:>9} {connected:>14} {settled:>14}", "")?;
            }
            if let (Some(connected), Some(settled)) =
                (cost.connected_bytes_per_session, cost.settled_bytes_per_session)
            {
                writeln!(out, "{:<12} {:>9} {connected:>8.0} bytes {settled:>8.0} bytes", "", "each")?;
            }
            let opening = cost.opening_us_per_session;
            writeln!(out, "{:<12} {:>9} {opening:>8.0} µs of processor time", "", "to open")?;
            if cost.lost > 0 {
                writeln!(out, "{} sessions did not live to the end:", cost.lost)?;
            }
            for reason in &cost.lost_because {
                writeln!(out, "  {reason}")?;
            }
        }
        writeln!(out, "{}", if self.held() { "every session lived to the end" } else { "FAILED" })
    }
}
