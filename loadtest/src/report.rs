//! What a run tells: progress while it goes, words or JSON at its end.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tern_protocol::{Entry, UserId};

use crate::irc::Skip;
use crate::oracle::Check;
use crate::target::Wire;

/// Digits to which latencies are exact.
const DIGITS: u8 = 3;
/// Longest latency that is told apart: an hour, in microseconds.
const MICROS_MAX: u64 = 3_600_000_000;
/// Troubles that are told one by one.
const TROUBLES_SHOWN_MAX: usize = 20;

/// A bar on a terminal, nothing elsewhere.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Hidden if standard error is no terminal, or on request.
    pub(crate) fn new(quiet: bool) -> Self {
        let visible = !quiet && std::io::stderr().is_terminal();
        let bar = if visible { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{msg:8} {bar:40} {pos}/{len} {elapsed}");
        bar.set_style(style.expect("the template is well formed"));
        Self { bar }
    }

    /// Begins a phase of so many steps.
    pub(crate) fn phase(&self, name: &'static str, steps: usize) {
        self.bar.reset();
        self.bar.set_length(steps as u64);
        self.bar.set_message(name);
    }

    /// One step further.
    pub(crate) fn step(&self) {
        self.steps(1);
    }

    /// So many steps further.
    pub(crate) fn steps(&self, steps: usize) {
        self.bar.inc(steps as u64);
    }

    /// Takes the bar away.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// An empty histogram of microseconds. Its range is set: one that may grow does not do so for
/// values that are recorded saturating, and would cut them off at 2 ms.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MICROS_MAX, DIGITS).expect("the bounds are in order")
}

/// How long acks and deliveries took, in microseconds.
pub(crate) struct Latencies {
    acks: Histogram<u64>,
    deliveries: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { acks: histogram(), deliveries: histogram() }
    }
}

impl Latencies {
    /// From the submission to the ack.
    pub(crate) fn add_ack(&mut self, took: Duration) {
        self.acks.saturating_record(took.as_micros() as u64);
    }

    /// From the submission to the receipt by somebody else; `submitted` is by seq.
    pub(crate) fn add_deliveries(
        &mut self,
        receiver: &UserId,
        heard: &[(Entry, Instant)],
        submitted: &BTreeMap<u64, Instant>,
    ) {
        for (entry, at) in heard.iter().filter(|(entry, _)| entry.sender != *receiver) {
            if let Some(since) = submitted.get(&entry.seq) {
                let took = at.saturating_duration_since(*since);
                self.deliveries.saturating_record(took.as_micros() as u64);
            }
        }
    }
}

/// Percentiles in milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Percentiles {
    count: u64,
    pub(crate) p50_ms: f64,
    p90_ms: f64,
    p95_ms: f64,
    pub(crate) p99_ms: f64,
    max_ms: f64,
}

impl From<&Histogram<u64>> for Percentiles {
    fn from(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            count: histogram.len(),
            p50_ms: at(0.50),
            p90_ms: at(0.90),
            p95_ms: at(0.95),
            p99_ms: at(0.99),
            max_ms: histogram.max() as f64 / 1000.0,
        }
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, p50_ms, p90_ms, p95_ms, p99_ms, max_ms } = self;
        write!(
            f,
            "P50 {p50_ms:.1} ms · P90 {p90_ms:.1} ms · P95 {p95_ms:.1} ms · P99 {p99_ms:.1} ms · \
             max {max_ms:.1} ms ({count})"
        )
    }
}

/// What was in the file.
#[derive(Debug, Serialize)]
pub(crate) struct Input {
    pub(crate) file: String,
    pub(crate) lines: usize,
    /// Lines that are not sent, by reason.
    pub(crate) skipped: BTreeMap<Skip, usize>,
    /// Lines that were not UTF-8.
    pub(crate) repaired_lines: usize,
    /// Bytes of them that were replaced.
    pub(crate) repaired_bytes: usize,
    pub(crate) members: usize,
    /// Messages that are to be sent.
    pub(crate) messages: usize,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Run {
    /// Messages that were acked.
    pub(crate) sent: usize,
    /// Entries received live, over all members.
    pub(crate) received: usize,
    pub(crate) in_flight_max: usize,
    pub(crate) transports: BTreeMap<Wire, usize>,
    pub(crate) seconds: f64,
    pub(crate) ack_latency: Percentiles,
    pub(crate) delivery_latency: Percentiles,
    /// What went wrong on the way.
    pub(crate) troubles: Vec<String>,
    pub(crate) checks: Vec<Checked>,
}

impl Run {
    /// Adds the percentiles of what was measured.
    pub(crate) fn percentiles(latencies: &Latencies) -> (Percentiles, Percentiles) {
        ((&latencies.acks).into(), (&latencies.deliveries).into())
    }
}

/// One check of the oracle.
#[derive(Debug, Serialize)]
pub(crate) struct Checked {
    pub(crate) check: &'static str,
    pub(crate) held: bool,
    pub(crate) faults: Vec<String>,
}

impl From<Check> for Checked {
    fn from(check: Check) -> Self {
        let faults = check.faults.iter().map(ToString::to_string).collect();
        Self { check: check.name, held: check.held(), faults }
    }
}

/// The whole report.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Every message was sent and every check held.
    pub(crate) held: bool,
    pub(crate) input: Input,
    /// Absent: nothing could be sent.
    pub(crate) run: Option<Run>,
}

impl Report {
    /// One line of JSON.
    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).expect("a report serialises without failing")
    }

    /// For people.
    pub(crate) fn words(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_words(&mut out);
        out
    }

    fn write_words(&self, out: &mut String) -> fmt::Result {
        let Input { file, lines, skipped, repaired_lines, repaired_bytes, members, messages } = &self.input;
        writeln!(out, "{file}: {lines} lines, {messages} messages of {members} members")?;
        for (reason, count) in skipped {
            writeln!(out, "  skipped {count:>6} {reason}")?;
        }
        if *repaired_lines > 0 {
            writeln!(
                out,
                "  repaired {repaired_bytes} bytes that were not UTF-8, in {repaired_lines} lines"
            )?;
        }
        if let Some(run) = &self.run {
            run.write_words(out)?;
        }
        writeln!(out, "{}", if self.held { "all held" } else { "FAILED" })
    }
}

impl Run {
    fn write_words(&self, out: &mut String) -> fmt::Result {
        let transports: Vec<String> =
            self.transports.iter().map(|(wire, count)| format!("{count} by {wire}")).collect();
        writeln!(out, "connected: {}", transports.join(", "))?;
        let rate = self.sent as f64 / self.seconds.max(f64::EPSILON);
        writeln!(
            out,
            "sent {} and received {} in {:.2} s ({rate:.0} messages/s, up to {} in flight)",
            self.sent, self.received, self.seconds, self.in_flight_max
        )?;
        writeln!(out, "  durable   {}", self.ack_latency)?;
        writeln!(out, "  delivered {}", self.delivery_latency)?;
        for trouble in self.troubles.iter().take(TROUBLES_SHOWN_MAX) {
            writeln!(out, "  trouble: {trouble}")?;
        }
        if let Some(more) = self.troubles.len().checked_sub(TROUBLES_SHOWN_MAX).filter(|more| *more > 0) {
            writeln!(out, "  … and {more} more troubles")?;
        }
        for verdict in &self.checks {
            writeln!(out, "  {} {}", if verdict.held { "ok  " } else { "FAIL" }, verdict.check)?;
            for fault in &verdict.faults {
                writeln!(out, "       {fault}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_recorded() {
        let mut latencies = Latencies::default();
        (1..=100).for_each(|ms| latencies.add_ack(Duration::from_millis(ms)));
        latencies.add_ack(Duration::from_secs(100_000));
        let acks = Run::percentiles(&latencies).0;
        assert_eq!(acks.count, 101);
        assert!((acks.p50_ms - 51.0).abs() < 1.0, "{acks}");
        assert!((acks.p99_ms - 100.0).abs() < 1.0, "{acks}");
        assert!(acks.max_ms >= 3_600_000.0, "{acks}");
    }

    #[test]
    fn a_report_says_what_was_left_out_and_what_failed() {
        let faults = vec!["bob received seq 4 where 3 is next".to_owned()];
        let none = || Percentiles::from(&histogram());
        let report = Report {
            held: false,
            input: Input {
                file: "chat.log".into(),
                lines: 9,
                skipped: BTreeMap::from([(Skip::Empty, 2)]),
                repaired_lines: 1,
                repaired_bytes: 3,
                members: 2,
                messages: 6,
            },
            run: Some(Run {
                sent: 6,
                received: 13,
                in_flight_max: 64,
                transports: BTreeMap::from([(Wire::Quic, 1), (Wire::WebsocketJson, 1)]),
                seconds: 2.0,
                ack_latency: none(),
                delivery_latency: none(),
                troubles: vec!["ann: the client has stopped".into()],
                checks: vec![Checked { check: "dense", held: false, faults }],
            }),
        };
        let words = report.words();
        for part in [
            "9 lines, 6 messages of 2 members",
            "2 messages without text",
            "repaired 3 bytes that were not UTF-8, in 1 lines",
            "1 by QUIC, 1 by WebSocket with JSON",
            "sent 6 and received 13",
            "trouble: ann: the client has stopped",
            "FAIL dense",
            "bob received seq 4 where 3 is next",
            "FAILED",
        ] {
            assert!(words.contains(part), "{part:?} is missing in:\n{words}");
        }
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["input"]["skipped"]["empty"], 2);
        assert_eq!(json["run"]["checks"][0]["held"], false);
        assert_eq!(json["run"]["transports"]["websocket_json"], 1);
    }
}
