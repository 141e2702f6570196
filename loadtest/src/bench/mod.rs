//! `tern-loadtest bench`: durable 1-on-1 messages per second and their latencies, at several
//! numbers of concurrent senders, beside what the disk does by itself.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use tern_protocol::{TEXT_BYTES_MAX, UserId};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::exit;
use crate::faults::Faults;
use crate::light::{Dialer, Light, Transport};
use crate::process;
use crate::processor::{Processor, ProcessorShare};
use crate::report::{Progress, histogram};
use crate::server::{Server, ServerArgs};
use crate::stamp::BYTES_MIN;

mod disk;
mod ledger;
mod pair;
mod report;

use pair::{Pair, PairOutcome, Schedule};
use report::{Level, Report};

/// Most senders at a time: with their receivers twice as many connections.
const SENDERS_MAX: i64 = 4096;
/// Pairs that connect at a time.
const OPENING_MAX: usize = 32;
/// Sockets of the generator for QUIC. With a single one, the system merges packets of different
/// connections into one call, which flatters; each costs 3 MB.
const QUIC_SOCKETS: usize = 8;
/// From the last preparation to the first message, so that all begin together.
const RUN_UP: Duration = Duration::from_millis(100);
/// File descriptors besides those of the connections.
const DESCRIPTORS_SPARE: u64 = 100;

/// Measure durable 1-on-1 messages per second and their latencies
///
/// Every sender and every receiver has a connection of its own. Each sender has one message in
/// flight: it sends the next when the last is acked, which means durable. Every message is checked:
/// acked once, delivered once and in order, at the seq of its ack. The processor time of the run's own
/// node is told twice: during the measurement, and until it had worked off its push intents as well.
///
/// Exit code: 0 all held, 1 a check failed, 2 nothing was sent.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    #[command(flatten)]
    server: ServerArgs,
    /// Numbers of concurrent senders, one measurement each
    #[arg(long, value_name = "N,N…", value_delimiter = ',', default_values_t = [1, 64, 512],
          value_parser = clap::value_parser!(u16).range(1..=SENDERS_MAX))]
    senders: Vec<u16>,
    /// Length of each measurement
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: u16,
    /// Length of each text in bytes
    #[arg(long, value_name = "N", default_value_t = 200,
          value_parser = clap::value_parser!(u16).range(BYTES_MIN as i64..=TEXT_BYTES_MAX as i64))]
    text_bytes: u16,
    /// How clients connect; each is measured by itself, in the same run
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Mix::Mixed])]
    transport: Vec<Mix>,
    /// Print one line of JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Which clients use which transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
enum Mix {
    /// All of them QUIC
    Quic,
    /// All of them WebTransport
    Webtransport,
    /// All of them WebSocket
    Websocket,
    /// Sender and receiver of each pair on different ones of the three, in turn
    Mixed,
}

impl Mix {
    /// Of the sender and the receiver of this pair.
    fn of(self, pair: usize) -> (Transport, Transport) {
        const ALL: [Transport; 3] = [Transport::Quic, Transport::Webtransport, Transport::Websocket];
        match self {
            Self::Quic => (Transport::Quic, Transport::Quic),
            Self::Webtransport => (Transport::Webtransport, Transport::Webtransport),
            Self::Websocket => (Transport::Websocket, Transport::Websocket),
            Self::Mixed => (ALL[pair % ALL.len()], ALL[(pair + 1) % ALL.len()]),
        }
    }

    fn descriptors(self, pairs: u64) -> u64 {
        match self {
            Self::Quic | Self::Webtransport => DESCRIPTORS_SPARE,
            Self::Websocket => 2 * pairs + DESCRIPTORS_SPARE,
            Self::Mixed => pairs + DESCRIPTORS_SPARE,
        }
    }
}

impl std::fmt::Display for Mix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Quic => Transport::Quic.fmt(f),
            Self::Webtransport => Transport::Webtransport.fmt(f),
            Self::Websocket => Transport::Websocket.fmt(f),
            Self::Mixed => f.pad("mixed"),
        }
    }
}

impl Bench {
    /// 0: all held · 1: a check failed · 2: nothing was sent.
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
        let pairs = self.senders.iter().copied().max().unwrap_or(1);
        let descriptors = self.transport.iter().map(|mix| mix.descriptors(pairs.into())).max();
        process::ensure_descriptors(descriptors.unwrap_or(0))?;
        let server = self.server.open()?;
        let disk = || match &server.own {
            Some(node) => disk::probe(node.data_dir()).map(Some).context("the disk"),
            None => Ok(None),
        };
        let progress = Progress::new(self.json);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let disk_before = disk()?;
        let mut levels: Vec<Level> = Vec::new();
        let mut broken = None;
        let levels_asked =
            self.transport.iter().flat_map(|mix| self.senders.iter().map(move |it| (*mix, *it)));
        for (mix, senders) in levels_asked {
            match runtime.block_on(self.level(&server, mix, usize::from(senders), &progress)) {
                Ok(level) => levels.push(level),
                // What was measured before is still told.
                Err(error) if !levels.is_empty() => {
                    broken = Some(format!("{mix}, {senders} senders: {error:#}"));
                    break;
                }
                Err(error) => return Err(error.context(format!("{mix}, {senders} senders"))),
            }
        }
        progress.end();
        drop(runtime);
        let disk_after = disk()?;
        Ok(Report { text_bytes: self.text_bytes, disk_before, disk_after, levels, broken })
    }

    async fn level(
        &self,
        server: &Server,
        mix: Mix,
        senders: usize,
        progress: &Progress,
    ) -> anyhow::Result<Level> {
        let dialer = Dialer::new(&server.target, QUIC_SOCKETS).await?;
        let base = Instant::now();
        let unset = Schedule { base, start: base, end: base, text_bytes: self.text_bytes.into() };
        progress.phase("connect", senders);
        // Users nobody has used before: their conversations begin with this run.
        let run: u64 = rand::random();
        let pairs: Vec<Pair> = stream::iter(0..senders)
            .map(|number| self.connect(&dialer, run, mix.of(number), number, unset))
            .buffer_unordered(OPENING_MAX)
            .inspect_ok(|_| progress.step())
            .try_collect()
            .await?;

        let start = Instant::now() + RUN_UP;
        let schedule = Schedule { start, end: start + Duration::from_secs(self.seconds.into()), ..unset };
        let mut tasks = JoinSet::new();
        for pair in pairs {
            tasks.spawn(pair.run(schedule));
        }
        progress.phase("send", self.seconds.into());
        sleep_until(start).await;
        let before = Processor::now(server)?;
        for second in 1..=u64::from(self.seconds) {
            sleep_until(start + Duration::from_secs(second)).await;
            progress.step();
        }
        let processor = before.until_now(server)?;
        // A panic of a pair is one of this program.
        let outcomes = tasks.join_all().await;
        progress.phase("push", 1);
        let pushed = before.until_pushed(server).await?;
        let in_time: u64 = outcomes.iter().map(|outcome| outcome.sender.in_time).sum();
        let measured: usize = outcomes.iter().map(|outcome| outcome.sender.latencies_us.len()).sum();
        let share = processor.share(in_time, pushed, measured as u64);
        Ok(self.summary(mix, senders, outcomes, share).await)
    }

    async fn connect(
        &self,
        dialer: &Dialer<'_>,
        run: u64,
        (sending, receiving): (Transport, Transport),
        number: usize,
        schedule: Schedule,
    ) -> anyhow::Result<Pair> {
        let user = |side: &str| UserId::new(&format!("bench-{run:016x}-{number}-{side}"));
        let (sender, receiver) = (user("a")?, user("b")?);
        let open = async |user: UserId, transport: Transport| -> anyhow::Result<(UserId, Light)> {
            let light = dialer.open(&user, transport).await;
            let light = light.with_context(|| format!("{user} cannot connect by {transport}"))?;
            Ok((user, light))
        };
        // The receiver first: it must be there when the first message comes.
        let receiver = open(receiver, receiving).await?;
        let sender = open(sender, sending).await?;
        Pair::warm_up(sender, receiver, schedule).await.context("the first message of a pair")
    }

    async fn summary(
        &self,
        mix: Mix,
        senders: usize,
        outcomes: Vec<PairOutcome>,
        processor: ProcessorShare,
    ) -> Level {
        let (mut durable, mut delivered) = (histogram(), histogram());
        let mut faults = Faults::default();
        let (mut in_time, mut checked, mut put_off) = (0, 0, 0);
        let mut closing = JoinSet::new();
        for PairOutcome { acked, sender, receiver, lights } in outcomes {
            lights.into_iter().for_each(|light| drop(closing.spawn(light.close())));
            for (histogram, found) in [(&mut durable, &sender), (&mut delivered, &receiver)] {
                for micros in &found.latencies_us {
                    histogram.saturating_record(u64::from(*micros));
                }
            }
            in_time += sender.in_time;
            put_off += sender.put_off;
            checked += acked;
            faults.merge(sender.faults);
            faults.merge(receiver.faults);
        }
        closing.join_all().await;
        let seconds = f64::from(self.seconds);
        Level {
            transport: mix,
            senders,
            seconds: self.seconds,
            messages_per_second: in_time as f64 / seconds,
            durable: (&durable).into(),
            delivered: (&delivered).into(),
            processor,
            put_off,
            checked,
            faults,
        }
    }
}
