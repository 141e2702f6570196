//! `tern-loadtest groups`: what a delivery in a group costs the node, at a given rate and whatever the
//! answers: how long they take slows nobody down.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tern_protocol::{ConversationId, CreateGroup, Frame, TEXT_BYTES_MAX, TempId, UserId};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

use crate::exit;
use crate::light::{Dialer, Light, Transport};
use crate::process;
use crate::processor::Processor;
use crate::report::Progress;
use crate::server::{Server, ServerArgs};
use crate::stamp::BYTES_MIN;

mod account;
mod member;
mod report;

use member::{Member, MemberOutcome, SETTLE_TIMEOUT, Schedule, Writing};
use report::{Measured, Report};

/// Most members of a group.
const MEMBERS_MAX: i64 = 100;
/// Most groups: with 100 members each ten thousand connections.
const GROUPS_MAX: i64 = 100;
/// Clients that connect at a time.
const OPENING_MAX: usize = 64;
/// Sockets of the generator for QUIC.
const QUIC_SOCKETS: usize = 8;
/// From the last preparation to the first message.
const RUN_UP: Duration = Duration::from_millis(500);
/// File descriptors besides those of the connections.
const DESCRIPTORS_SPARE: u64 = 100;

/// Measure what a delivery in a group costs the server
///
/// Every member of every group has a connection of its own. Some members of each group write at fixed
/// times, whatever the server answers; all others, and the other writers, receive and confirm every 50 ms.
/// Every delivery is checked: each member has each message once and in order. The processor time of the
/// run's own node is told per delivery: during the measurement, and until its push intents were worked off.
///
/// Exit code: 0 all held, 1 a session or a send failed, 2 nothing was sent, 3 a message was lost, doubled
/// or out of order.
#[derive(Debug, Args)]
pub(crate) struct Groups {
    #[command(flatten)]
    server: ServerArgs,
    /// Groups
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=GROUPS_MAX))]
    groups: u16,
    /// Members of each
    #[arg(long, value_name = "N", default_value_t = MEMBERS_MAX as u16,
          value_parser = clap::value_parser!(u16).range(2..=MEMBERS_MAX))]
    members: u16,
    /// Members of each that write
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=MEMBERS_MAX))]
    writers: u16,
    /// Deliveries per second, over all groups
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Length of each measurement
    #[arg(long, value_name = "S", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: u16,
    /// Length of each text in bytes
    #[arg(long, value_name = "N", default_value_t = 200,
          value_parser = clap::value_parser!(u16).range(BYTES_MIN as i64..=TEXT_BYTES_MAX as i64))]
    text_bytes: u16,
    /// How clients connect; each is measured by itself, in the same run
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Wire::Ws])]
    transport: Vec<Wire>,
    /// Print one line of JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// A transport as a choice on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Wire {
    /// Native QUIC
    Quic,
    /// WebTransport
    Webtransport,
    /// WebSocket over TLS
    #[value(alias = "websocket")]
    Ws,
}

impl From<Wire> for Transport {
    fn from(wire: Wire) -> Self {
        match wire {
            Wire::Quic => Self::Quic,
            Wire::Webtransport => Self::Webtransport,
            Wire::Ws => Self::Websocket,
        }
    }
}

impl Groups {
    /// 0: all held · 1: a session or a send failed · 2: nothing was sent · 3: not every message came once.
    pub(crate) fn run(self) -> ExitCode {
        match self.report() {
            Ok(report) => {
                println!("{}", if self.json { report.json() } else { report.words() }.trim_end());
                if report.lost() {
                    ExitCode::from(exit::LOST)
                } else if report.held() {
                    ExitCode::SUCCESS
                } else {
                    ExitCode::from(exit::FAILED)
                }
            }
            Err(error) => {
                eprintln!("tern-loadtest: {error:#}");
                ExitCode::from(exit::NOTHING)
            }
        }
    }

    fn report(&self) -> anyhow::Result<Report> {
        anyhow::ensure!(self.writers <= self.members, "--writers must not be more than --members");
        let sessions = u64::from(self.groups) * u64::from(self.members);
        if self.transport.contains(&Wire::Ws) {
            process::ensure_descriptors(sessions + DESCRIPTORS_SPARE)?;
        }
        let server = self.server.open()?;
        let progress = Progress::new(self.json);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let mut measured: Vec<Measured> = Vec::new();
        let mut broken = None;
        for transport in self.transport.iter().copied().map(Transport::from) {
            match runtime.block_on(self.measure(&server, transport, &progress)) {
                Ok(one) => measured.push(one),
                // What was measured before is still told.
                Err(error) if !measured.is_empty() => {
                    broken = Some(format!("{transport}: {error:#}"));
                    break;
                }
                Err(error) => return Err(error.context(transport.to_string())),
            }
        }
        progress.end();
        Ok(Report { groups: self.groups, members: self.members, rate: self.rate, measured, broken })
    }

    async fn measure(
        &self,
        server: &Server,
        transport: Transport,
        progress: &Progress,
    ) -> anyhow::Result<Measured> {
        let (groups, members) = (usize::from(self.groups), usize::from(self.members));
        let writers = usize::from(self.writers);
        let users = names(groups, members)?;
        progress.phase("connect", users.len());
        let lights =
            connect(&Dialer::new(&server.target, QUIC_SOCKETS).await?, &users, transport, progress).await?;
        let mut groups_of: Vec<Vec<(UserId, Light)>> = (0..groups).map(|_| Vec::new()).collect();
        for (number, light) in lights.into_iter().enumerate() {
            groups_of[number / members].push((users[number].clone(), light));
        }
        let mut conversations = Vec::with_capacity(groups);
        for group in &mut groups_of {
            conversations.push(create(group).await?);
        }

        let schedule = self.schedule(Instant::now() + RUN_UP);
        let (told, mut totals_told) = mpsc::channel(groups * writers);
        let (totals, totals_known) = watch::channel(None);
        let mut tasks = JoinSet::new();
        for (number, (group, conversation)) in groups_of.into_iter().zip(conversations).enumerate() {
            for (place, (name, light)) in group.into_iter().enumerate() {
                let turn = number + groups * place;
                let writing = (place < writers).then(|| Writing::new(turn, told.clone()));
                let member = Member::new(name, light, number, conversation, writing);
                tasks.spawn(member.run(schedule, totals_known.clone()));
            }
        }
        drop(told);
        sleep_until(schedule.start).await;
        let before = Processor::now(server)?;
        progress.phase("send", self.seconds.into());
        for second in 1..=u64::from(self.seconds) {
            sleep_until(schedule.start + Duration::from_secs(second)).await;
            progress.step();
        }
        let processor = before.until_now(server)?;
        // What was acked in each group, once every writer has said so.
        let mut acked = vec![0_u64; groups];
        while let Ok(Some((group, count))) = timeout(2 * SETTLE_TIMEOUT, totals_told.recv()).await {
            acked[group] += count;
        }
        let _ = totals.send(Some(Arc::from(acked)));
        // A panic of a member is one of this program.
        let outcomes: Vec<MemberOutcome> = tasks.join_all().await;
        progress.phase("push", 1);
        let pushed = before.until_pushed(server).await?;
        let measured = Measured::new(transport, schedule.end - schedule.start, &outcomes, processor, pushed);
        let mut closing = JoinSet::new();
        outcomes.into_iter().for_each(|outcome| drop(closing.spawn(outcome.light.close())));
        closing.join_all().await;
        Ok(measured)
    }

    /// Each writer writes after the same pause; over all of them the messages are spread evenly.
    fn schedule(&self, start: Instant) -> Schedule {
        let writers = u32::from(self.groups) * u32::from(self.writers);
        let messages_per_second = f64::from(self.rate) / f64::from(self.members - 1);
        let between = Duration::from_secs_f64(1.0 / messages_per_second);
        Schedule {
            start,
            end: start + Duration::from_secs(self.seconds.into()),
            between,
            pause: between * writers,
            text_bytes: self.text_bytes.into(),
        }
    }
}

/// Users nobody has used before, one group after the other.
fn names(groups: usize, members: usize) -> anyhow::Result<Vec<UserId>> {
    let run: u64 = rand::random();
    let name = |number: usize| {
        Ok(UserId::new(&format!("groups-{run:016x}-{}-{}", number / members, number % members))?)
    };
    (0..groups * members).map(name).collect()
}

/// Opens a session of each, in their order.
async fn connect(
    dialer: &Dialer<'_>,
    users: &[UserId],
    transport: Transport,
    progress: &Progress,
) -> anyhow::Result<Vec<Light>> {
    let open = |user| async move {
        dialer.open(user, transport).await.with_context(|| format!("{user} cannot connect by {transport}"))
    };
    stream::iter(users).map(open).buffered(OPENING_MAX).inspect_ok(|_| progress.step()).try_collect().await
}

/// The first one creates the group of them all.
async fn create(group: &mut [(UserId, Light)]) -> anyhow::Result<ConversationId> {
    let members = group[1..].iter().map(|(user, _)| user.clone()).collect();
    let temp_id = TempId::from_uuid(Uuid::new_v4());
    let (user, light) = &mut group[0];
    light.send(CreateGroup { name: "groups".into(), members, temp_id }).await?;
    let acked = async {
        loop {
            match light.recv().await? {
                Frame::SendAck(ack) if ack.temp_id == temp_id => return anyhow::Ok(ack.conversation),
                Frame::Error(error) => anyhow::bail!("{user} may not create a group: {}", error.detail),
                _ => {}
            }
        }
    };
    timeout(SETTLE_TIMEOUT, acked).await.context("no ack of a new group")?
}
