//! `tern-loadtest idle`: what an idle session costs a node in memory, by slope, and its opening in
//! processor time.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};

use crate::exit;
use crate::light::{Dialer, Transport};
use crate::node::OwnNode;
use crate::process::{ensure_descriptors, processor_time, resident_bytes};
use crate::report::Progress;
use crate::target::Target;

mod crowd;
mod report;
mod slope;

use crowd::Crowd;
use report::{Cost, Point, Report};

/// Most sessions: each WebSocket takes a file descriptor in either process.
const SESSIONS_MAX: i64 = 15_000;
/// File descriptors besides those of the connections.
const DESCRIPTORS_SPARE: u64 = 200;
/// One socket carries all sessions of QUIC, and one those of WebTransport.
const QUIC_SOCKETS: usize = 1;

/// Measure what an idle session costs the server in memory
///
/// Starts a fresh node for each transport, opens sessions in steps, and reads the memory of the
/// node's process that is in RAM. Sessions say hello and then only ping. The cost of one is the
/// slope over the steps, so that what the node needs anyway does not count. What the kernel needs
/// for sockets is not part of it. Beside it: the processor time of the node to open one, with a
/// whole TLS handshake, token and all up to Welcome.
///
/// Exit code: 0 every session lived to the end, 1 one did not, 2 nothing was measured.
#[derive(Debug, Args)]
pub(crate) struct Idle {
    /// Steps: how many sessions are held, ascending
    #[arg(long, value_name = "N,N…", value_delimiter = ',', default_values_t = [1_000, 3_000, 6_000],
          value_parser = clap::value_parser!(u16).range(1..=SESSIONS_MAX))]
    sessions: Vec<u16>,
    /// Which transports
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Which::Quic, Which::Webtransport, Which::Websocket])]
    transport: Vec<Which>,
    /// Seconds that memory may settle after each step; the default outlasts one round of pings
    #[arg(long, value_name = "S", default_value_t = 25, value_parser = clap::value_parser!(u16).range(0..=600))]
    settle: u16,
    /// Print one line of JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// A transport as a choice on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    /// Native QUIC
    Quic,
    /// WebTransport
    Webtransport,
    /// WebSocket over TLS
    Websocket,
}

impl From<Which> for Transport {
    fn from(which: Which) -> Self {
        match which {
            Which::Quic => Self::Quic,
            Which::Webtransport => Self::Webtransport,
            Which::Websocket => Self::Websocket,
        }
    }
}

impl Idle {
    /// 0: every session lived · 1: one did not · 2: nothing was measured.
    pub(crate) fn run(self) -> ExitCode {
        match self.report() {
            Ok(report) => {
                println!("{}", if self.json { report.json() } else { report.words() }.trim_end());
                if report.held() { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) }
            }
            Err(error) => {
                eprintln!("tern-loadtest: {error:#}");
                ExitCode::from(exit::NOTHING)
            }
        }
    }

    fn report(&self) -> anyhow::Result<Report> {
        anyhow::ensure!(self.sessions.is_sorted_by(|a, b| a < b), "--sessions must be ascending");
        let most = self.sessions.last().copied().unwrap_or_default();
        if self.transport.contains(&Which::Websocket) {
            ensure_descriptors(u64::from(most) + DESCRIPTORS_SPARE)?;
        }
        let progress = Progress::new(self.json);
        let mut costs = Vec::new();
        for which in &self.transport {
            let transport = Transport::from(*which);
            costs.push(self.measure(transport, &progress).with_context(|| transport.to_string())?);
        }
        progress.end();
        Ok(Report { settle_s: self.settle, costs })
    }

    fn measure(&self, transport: Transport, progress: &Progress) -> anyhow::Result<Cost> {
        let node = OwnNode::start(&std::env::temp_dir())?;
        let target = Target::of_node(node.ready())?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let cost = runtime.block_on(async {
            let mut crowd = Crowd::new(Dialer::new(&target, QUIC_SOCKETS).await?, transport);
            let empty_bytes = resident_bytes(node.pid())?;
            let (mut points, mut lost) = (Vec::new(), Vec::new());
            let (mut before, mut opening) = (0, Duration::ZERO);
            for sessions in self.sessions.iter().map(|sessions| usize::from(*sessions)) {
                progress.phase("connect", sessions - before);
                before = sessions;
                let used = processor_time(node.pid())?;
                crowd.grow(sessions, || progress.step()).await?;
                opening += processor_time(node.pid())?.saturating_sub(used);
                let connected_bytes = resident_bytes(node.pid())?;
                progress.phase("settle", self.settle.into());
                for _ in 0..self.settle {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    progress.step();
                }
                let settled_bytes = resident_bytes(node.pid())?;
                points.push(Point { sessions, connected_bytes, settled_bytes });
                lost.extend(crowd.ended());
            }
            anyhow::Ok(Cost::new(transport, empty_bytes, points, opening, &lost))
        })?;
        // The sessions end with their runtime, before the node does.
        drop(runtime);
        Ok(cost)
    }
}
