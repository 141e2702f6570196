//! What the benchmark tells at its end: a small table, or JSON.

use std::fmt::{self, Write as _};

use serde::Serialize;

use super::Mix;
use super::disk::DiskRate;
use crate::faults::Faults;
use crate::processor::ProcessorShare;
use crate::report::Percentiles;

/// One measurement.
#[derive(Debug, Serialize)]
pub(super) struct Level {
    pub(super) transport: Mix,
    pub(super) senders: usize,
    pub(super) seconds: u16,
    pub(super) messages_per_second: f64,
    /// From the first attempt to the ack.
    pub(super) durable: Percentiles,
    /// From the first attempt to the receipt.
    pub(super) delivered: Percentiles,
    /// Of one message.
    pub(super) processor: ProcessorShare,
    /// Sends that the server asked to repeat later, such as those above its limits.
    pub(super) put_off: u64,
    /// Messages that were checked, those of the preparation included.
    pub(super) checked: u64,
    pub(super) faults: Faults,
}

/// The whole report.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) text_bytes: u16,
    /// Absent: the disk is not here.
    pub(super) disk_before: Option<DiskRate>,
    pub(super) disk_after: Option<DiskRate>,
    pub(super) levels: Vec<Level>,
    /// Why the remaining measurements were not made.
    pub(super) broken: Option<String>,
}

impl Report {
    /// Every measurement was made and every message was right.
    pub(super) fn held(&self) -> bool {
        self.broken.is_none() && self.levels.iter().all(|level| level.faults.is_empty())
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
        for (when, disk) in [("before", &self.disk_before), ("after", &self.disk_after)] {
            if let Some(DiskRate { per_second, latency }) = disk {
                writeln!(out, "disk {when:<6} {per_second:>7.0} fdatasync/s, one at a time  {latency}")?;
            }
        }
        writeln!(
            out,
            "texts of {} bytes; times in ms; processor time in µs a message, + push: until no push event waits",
            self.text_bytes
        )?;
        writeln!(
            out,
            "{:<12} {:>8} {:>11} {:>9} {:>9} {:>11} {:>9} {:>6} {:>7} {:>10}",
            "", "senders", "messages/s", "durable", "P99", "delivered", "P99", "node", "+ push", "generator"
        )?;
        for level in &self.levels {
            let [node_us, pushed_us] = level.processor.node_words();
            writeln!(
                out,
                "{:<12} {:>8} {:>11.0} {:>9.2} {:>9.2} {:>11.2} {:>9.2} {node_us:>6} {pushed_us:>7} {:>10.0}",
                level.transport,
                level.senders,
                level.messages_per_second,
                level.durable.p50_ms,
                level.durable.p99_ms,
                level.delivered.p50_ms,
                level.delivered.p99_ms,
                level.processor.generator_us,
            )?;
        }
        for level in &self.levels {
            level.write_faults(out)?;
        }
        if let Some(broken) = &self.broken {
            writeln!(out, "not measured: {broken}")?;
        }
        let checked: u64 = self.levels.iter().map(|level| level.checked).sum();
        if self.held() {
            writeln!(out, "all held: {checked} messages acked once, delivered once, in order")
        } else {
            writeln!(out, "FAILED")
        }
    }
}

impl Level {
    fn write_faults(&self, out: &mut String) -> fmt::Result {
        let Self { transport, senders, put_off, faults, .. } = self;
        if *put_off > 0 {
            writeln!(
                out,
                "{transport}, {senders} senders: {put_off} sends were put off by the server and repeated"
            )?;
        }
        for fault in &faults.first {
            writeln!(out, "{transport}, {senders} senders: FAULT {fault}")?;
        }
        match faults.count - faults.first.len() as u64 {
            0 => Ok(()),
            more => writeln!(out, "{transport}, {senders} senders: … and {more} more faults"),
        }
    }
}
