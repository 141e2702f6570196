//! `tern-loadtest replay FILE`: from the file to the exit code.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use futures_util::TryFutureExt;

use crate::exit;
use crate::irc;
use crate::oracle;
use crate::plan::{self, MEMBERS_MAX, Plan};
use crate::replay::{self, Outcome};
use crate::report::{Input, Progress, Report, Run};
use crate::server::ServerArgs;

/// Largest file that is read: a log of some years.
const FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Most messages in flight: what one client may have pending, should one author have them all.
const IN_FLIGHT_MAX: i64 = 1_000;

/// Replay an IRC log as a group chat and check that everybody received the same
///
/// The most active authors become members of one group, each with a connection of its own, over
/// QUIC, WebTransport and WebSocket in turn. Each author's messages are sent in the order of the file. At the end
/// every member must have received the same log, whole and in order, and one that starts from zero
/// must read the same page by page.
///
/// Exit code: 0 all held, 1 a check failed, 2 nothing was sent.
#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// Raw IRC log: lines with [hh:mm] or [hh:mm:ss], then <nick> text
    file: PathBuf,
    #[command(flatten)]
    server: ServerArgs,
    /// Most active authors that take part
    #[arg(long, value_name = "N", default_value_t = MEMBERS_MAX as u8,
          value_parser = clap::value_parser!(u8).range(1..=MEMBERS_MAX as i64))]
    members: u8,
    /// Messages sent and not yet acked, over all members
    #[arg(long, value_name = "N", default_value_t = 64,
          value_parser = clap::value_parser!(u16).range(1..=IN_FLIGHT_MAX))]
    in_flight: u16,
    /// Print one line of JSON instead of words
    #[arg(long)]
    json: bool,
}

impl Replay {
    /// 0: all held · 1: a check failed · 2: nothing was sent.
    pub(crate) fn run(self) -> ExitCode {
        match self.report() {
            Ok(report) => {
                println!("{}", if self.json { report.json() } else { report.words() }.trim_end());
                match &report.run {
                    _ if report.held => ExitCode::SUCCESS,
                    Some(run) if run.sent > 0 => ExitCode::from(exit::FAILED),
                    _ => ExitCode::from(exit::NOTHING),
                }
            }
            Err(error) => {
                eprintln!("tern-loadtest: {error:#}");
                ExitCode::from(exit::NOTHING)
            }
        }
    }

    fn report(&self) -> anyhow::Result<Report> {
        let log = irc::parse(&read(&self.file)?);
        let (lines, repaired_lines, repaired_bytes) = (log.lines, log.repaired_lines, log.repaired_bytes);
        let plan = plan::plan(log, self.members.into());
        let input = Input {
            file: self.file.display().to_string(),
            lines,
            skipped: plan.skipped.clone(),
            repaired_lines,
            repaired_bytes,
            members: plan.members.len(),
            messages: plan.messages.len(),
        };
        if plan.messages.is_empty() {
            eprintln!("tern-loadtest: no messages in {}: nothing was sent", self.file.display());
            return Ok(Report { held: false, input, run: None });
        }
        let server = self.server.open()?;
        let in_flight = self.in_flight.into();
        let progress = Progress::new(self.json);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let outcome = runtime.block_on(
            replay::run(&server.target, &plan, in_flight, &progress).map_err(anyhow::Error::from),
        )?;
        drop(runtime);
        drop(server);
        let run = judge(&plan, outcome, in_flight);
        let held = run.checks.iter().all(|checked| checked.held) && run.troubles.is_empty();
        Ok(Report { held, input, run: Some(run) })
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let context = || path.display().to_string();
    let data = std::fs::metadata(path).with_context(context)?;
    anyhow::ensure!(!data.is_dir(), "{}: is a directory, not a file", context());
    anyhow::ensure!(data.len() <= FILE_BYTES_MAX, "{}: more than 1 GiB", context());
    std::fs::read(path).with_context(context)
}

fn judge(plan: &Plan, outcome: Outcome, in_flight_max: usize) -> Run {
    let mut checks = oracle::check(plan, &outcome.acks, &outcome.received);
    checks.push(oracle::check_resume(&outcome.resumed, &outcome.received[0]));
    checks.push(oracle::check_history(&outcome.history, &outcome.received[0]));
    let (ack_latency, delivery_latency) = Run::percentiles(&outcome.latencies);
    Run {
        sent: outcome.acks.iter().flatten().count(),
        received: outcome.received.iter().map(|log| log.entries.len()).sum(),
        in_flight_max,
        transports: outcome.wires,
        seconds: outcome.elapsed.as_secs_f64(),
        ack_latency,
        delivery_latency,
        troubles: outcome.troubles,
        checks: checks.into_iter().map(Into::into).collect(),
    }
}
