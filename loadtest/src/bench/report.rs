//! What the benchmark tells at its end: a small table, or JSON.

use std::fmt::{self, Write as _};
use std::io;
use std::time::Duration;

use serde::Serialize;

use super::Mix;
use super::disk::DiskRate;
use super::ledger::Faults;
use crate::process::processor_time;
use crate::report::Percentiles;
use crate::server::Server;

/// Processor time of both sides: used so far, or between two moments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Processor {
    /// Absent: the server is not ours.
    node: Option<Duration>,
    generator: Duration,
}

impl Processor {
    /// Used since the processes started.
    pub(super) fn now(server: &Server) -> io::Result<Self> {
        let node = server.own.as_ref().map(|node| processor_time(node.pid())).transpose()?;
        Ok(Self { node, generator: processor_time(std::process::id())? })
    }

    /// Used since then.
    pub(super) fn until_now(self, server: &Server) -> io::Result<Self> {
        let now = Self::now(server)?;
        let node = now.node.zip(self.node).map(|(now, then)| now.saturating_sub(then));
        Ok(Self { node, generator: now.generator.saturating_sub(self.generator) })
    }

    /// Shared out over so many messages.
    pub(super) fn per_message(self, messages: u64) -> ProcessorPerMessage {
        let share = |time: Duration| time.as_secs_f64() * 1e6 / messages.max(1) as f64;
        ProcessorPerMessage { node_us: self.node.map(share), generator_us: share(self.generator) }
    }
}

/// Processor time of one message, in microseconds.
#[derive(Debug, Serialize)]
pub(super) struct ProcessorPerMessage {
    node_us: Option<f64>,
    generator_us: f64,
}

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
    pub(super) processor: ProcessorPerMessage,
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
        writeln!(out, "texts of {} bytes; times in ms; processor time in µs a message", self.text_bytes)?;
        writeln!(
            out,
            "{:<12} {:>8} {:>11} {:>9} {:>9} {:>11} {:>9} {:>6} {:>10}",
            "", "senders", "messages/s", "durable", "P99", "delivered", "P99", "node", "generator"
        )?;
        for level in &self.levels {
            let node_us = level.processor.node_us.map_or("-".to_owned(), |node_us| format!("{node_us:.0}"));
            writeln!(
                out,
                "{:<12} {:>8} {:>11.0} {:>9.2} {:>9.2} {:>11.2} {:>9.2} {node_us:>6} {:>10.0}",
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
