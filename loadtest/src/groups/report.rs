//! What the measurement of groups tells at its end: a small table, or JSON.

use std::fmt::{self, Write as _};
use std::time::Duration;

use serde::Serialize;

use super::account::Wrong;
use super::member::MemberOutcome;
use crate::faults::Faults;
use crate::light::Transport;
use crate::processor::{Processor, ProcessorShare};
use crate::report::{Percentiles, histogram};

/// One measurement.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    transport: Transport,
    /// Messages that were acked.
    messages: u64,
    /// Deliveries of them, those after the end included.
    deliveries: u64,
    deliveries_per_second: f64,
    /// From the moment at which a message was due to its receipt.
    delivered: Percentiles,
    /// Of one delivery.
    processor: ProcessorShare,
    /// Messages that the server did not take.
    refused: u64,
    wrong: Wrong,
    faults: Faults,
}

impl Measured {
    /// Adds up what the members have found. `pushed`: the node's time until no push event waited.
    pub(super) fn new(
        transport: Transport,
        time: Duration,
        outcomes: &[MemberOutcome],
        processor: Processor,
        pushed: Option<Duration>,
    ) -> Self {
        let mut delivered = histogram();
        let (mut wrong, mut faults) = (Wrong::default(), Faults::default());
        let (mut messages, mut deliveries, mut in_time, mut refused) = (0, 0, 0, 0);
        for outcome in outcomes {
            for micros in &outcome.found.latencies_us {
                delivered.saturating_record(u64::from(*micros));
            }
            wrong.add(outcome.found.wrong);
            faults.merge(outcome.found.faults.clone());
            messages += outcome.acked;
            deliveries += outcome.delivered;
            in_time += outcome.found.in_time;
            refused += outcome.found.refused;
        }
        Self {
            transport,
            messages,
            deliveries,
            deliveries_per_second: in_time as f64 / time.as_secs_f64(),
            delivered: (&delivered).into(),
            processor: processor.share(in_time, pushed, deliveries),
            refused,
            wrong,
            faults,
        }
    }
}

/// The whole report.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) groups: u16,
    pub(super) members: u16,
    /// Deliveries per second that were asked for.
    pub(super) rate: u32,
    pub(super) measured: Vec<Measured>,
    /// Why the remaining measurements were not made.
    pub(super) broken: Option<String>,
}

impl Report {
    /// A message was lost, doubled, out of order or altered.
    pub(super) fn lost(&self) -> bool {
        self.measured.iter().any(|one| !one.wrong.is_nothing())
    }

    /// Every measurement was made, and nothing was wrong with a message, a session or a send.
    pub(super) fn held(&self) -> bool {
        self.broken.is_none() && !self.lost() && self.measured.iter().all(|one| one.faults.is_empty())
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
        let Self { groups, members, rate, .. } = self;
        writeln!(
            out,
            "{groups} groups of {members}, {rate} deliveries/s asked for; times in ms; processor time"
        )?;
        writeln!(out, "in µs a delivery, + push: until no push event waits")?;
        writeln!(
            out,
            "{:<12} {:>12} {:>11} {:>9} {:>6} {:>7} {:>10}",
            "", "deliveries/s", "delivered", "P99", "node", "+ push", "generator"
        )?;
        for one in &self.measured {
            let [node_us, pushed_us] = one.processor.node_words();
            writeln!(
                out,
                "{:<12} {:>12.0} {:>11.2} {:>9.2} {node_us:>6} {pushed_us:>7} {:>10.1}",
                one.transport,
                one.deliveries_per_second,
                one.delivered.p50_ms,
                one.delivered.p99_ms,
                one.processor.generator_us,
            )?;
        }
        for one in &self.measured {
            one.write_faults(out)?;
        }
        if let Some(broken) = &self.broken {
            writeln!(out, "not measured: {broken}")?;
        }
        let deliveries: u64 = self.measured.iter().map(|one| one.deliveries).sum();
        if self.held() {
            writeln!(out, "all held: {deliveries} deliveries, each message once and in order at every member")
        } else {
            writeln!(out, "FAILED")
        }
    }
}

impl Measured {
    fn write_faults(&self, out: &mut String) -> fmt::Result {
        let Self { transport, refused, wrong, faults, .. } = self;
        if *refused > 0 {
            writeln!(out, "{transport}: {refused} messages were not taken by the server")?;
        }
        if !wrong.is_nothing() {
            let Wrong { lost, doubled, disordered, altered } = wrong;
            writeln!(
                out,
                "{transport}: {lost} deliveries lost, {doubled} doubled, {disordered} out of order, {altered} altered"
            )?;
        }
        for fault in &faults.first {
            writeln!(out, "{transport}: FAULT {fault}")?;
        }
        match faults.count - faults.first.len() as u64 {
            0 => Ok(()),
            more => writeln!(out, "{transport}: … and {more} more faults"),
        }
    }
}
