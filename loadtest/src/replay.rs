//! Drives the clients of a run: everybody joins one group, says what the file says, and listens.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::stream::{self, FuturesUnordered, StreamExt, TryStreamExt};
use tern_client::{Ack, Anchor, Client, ConnectError, Event, Events, RequestError, SendError};
use tern_protocol::{ConversationId, Entry, UserId};
use tokio::task::JoinHandle;

use crate::oracle::{Acked, Received, Resumed};
use crate::plan::Plan;
use crate::report::{Latencies, Progress};
use crate::target::{Target, Wire};

/// Sessions opened at a time.
const CONNECTS_AT_A_TIME: usize = 16;
/// Nothing moves for this long: the run has failed and says what is missing.
const STALLED: Duration = Duration::from_secs(60);
/// Entries in one page of the history that is read back.
const PAGE: u32 = 100;

/// Why a run could not go on. What the oracle finds is not among these.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    /// A member has no session.
    #[error("{user} cannot connect by {wire}: {source}")]
    Connect {
        /// Who.
        user: UserId,
        /// How.
        wire: Wire,
        /// Why not.
        source: ConnectError,
    },
    /// There is no group.
    #[error("the group cannot be made: {0}")]
    Group(SendError),
    /// The history cannot be read.
    #[error("the history of {user} cannot be read: {source}")]
    History {
        /// Whose.
        user: UserId,
        /// Why not.
        source: RequestError,
    },
}

/// What happened.
pub(crate) struct Outcome {
    /// The ack of each planned message.
    pub(crate) acks: Vec<Option<Acked>>,
    /// What each member received live, in the order of the plan's members.
    pub(crate) received: Vec<Received>,
    /// What a member without any state was given when it came back.
    pub(crate) resumed: Resumed,
    /// What that member then read page by page, ascending.
    pub(crate) history: Received,
    /// What went wrong on the way, for people.
    pub(crate) troubles: Vec<String>,
    /// Members by how they were connected.
    pub(crate) wires: BTreeMap<Wire, usize>,
    /// Times of acks and deliveries.
    pub(crate) latencies: Latencies,
    /// From the first send to the last receipt.
    pub(crate) elapsed: Duration,
}

struct Member {
    user: UserId,
    wire: Wire,
    client: Client,
}

/// An entry and when it was handed out.
type Heard = (Entry, Instant);

/// What one member's listener brings home.
struct Listened {
    heard: Vec<Heard>,
    troubles: Vec<String>,
}

/// Plays the whole plan against the target with at most `in_flight` messages unacked.
pub(crate) async fn run(
    target: &Target,
    plan: &Plan,
    in_flight: usize,
    progress: &Progress,
) -> Result<Outcome, ReplayError> {
    progress.phase("connect", plan.members.len());
    let connected: Vec<(Member, Events)> = stream::iter(plan.members.iter().enumerate())
        .map(|(number, user)| connect(target, user, target.wire(number)))
        .buffered(CONNECTS_AT_A_TIME)
        .inspect_ok(|_| progress.step())
        .try_collect()
        .await?;
    let (members, events): (Vec<Member>, Vec<Events>) = connected.into_iter().unzip();
    let mut wires = BTreeMap::new();
    for member in &members {
        *wires.entry(member.wire).or_default() += 1;
    }

    let others = plan.members[1..].to_vec();
    let group = members[0].client.create_group("replay", others).await.map_err(ReplayError::Group)?;
    let length = plan.messages.len() + 1;
    let listeners: Vec<JoinHandle<Listened>> =
        events.into_iter().map(|events| tokio::spawn(listen(events, group.conversation, length))).collect();

    let started = Instant::now();
    progress.phase("send", plan.messages.len());
    let mut sent = send_all(plan, &members, group.conversation, in_flight, progress).await;
    progress.phase("receive", members.len());
    let mut received = Vec::new();
    for (member, listener) in members.iter().zip(listeners) {
        // A panic of a listener is one of this program.
        let listened = listener.await.expect("a listener does not panic");
        sent.latencies.add_deliveries(&member.user, &listened.heard, &sent.submitted);
        sent.troubles.extend(listened.troubles.into_iter().map(|what| format!("{}: {what}", member.user)));
        let entries = listened.heard.into_iter().map(|(entry, _)| entry).collect();
        received.push(Received { member: member.user.clone(), entries });
        progress.step();
    }
    let elapsed = started.elapsed();

    let (resumed, history) = from_zero(target, members, group.conversation, length, progress).await?;
    progress.end();
    let Sent { acks, troubles, latencies, .. } = sent;
    Ok(Outcome { acks, received, resumed, history, troubles, wires, latencies, elapsed })
}

async fn connect(target: &Target, user: &UserId, wire: Wire) -> Result<(Member, Events), ReplayError> {
    match Client::connect(target.client(user, wire)).await {
        Ok((client, events)) => Ok((Member { user: user.clone(), wire, client }, events)),
        Err(source) => Err(ReplayError::Connect { user: user.clone(), wire, source }),
    }
}

struct Sent {
    acks: Vec<Option<Acked>>,
    /// When the message of a seq was submitted.
    submitted: BTreeMap<u64, Instant>,
    troubles: Vec<String>,
    latencies: Latencies,
}

/// Submits in the order of the file. The client keeps the order of each author, so nothing waits
/// for an ack but the bound on all that are on their way.
async fn send_all(
    plan: &Plan,
    members: &[Member],
    group: ConversationId,
    in_flight_max: usize,
    progress: &Progress,
) -> Sent {
    let mut sent = Sent {
        acks: vec![None; plan.messages.len()],
        submitted: BTreeMap::new(),
        troubles: Vec::new(),
        latencies: Latencies::default(),
    };
    let mut in_flight = FuturesUnordered::new();
    let mut waiting = plan.messages.iter().enumerate();
    loop {
        while in_flight.len() < in_flight_max {
            let Some((index, message)) = waiting.next() else { break };
            let author = &members[message.author];
            let at = Instant::now();
            let pending = author.client.submit(group, message.text.as_str());
            in_flight.push(async move {
                let result: Result<Ack, SendError> = match pending {
                    Ok(pending) => pending.await,
                    Err(error) => Err(error),
                };
                (index, at, result)
            });
        }
        match tokio::time::timeout(STALLED, in_flight.next()).await {
            Ok(None) => return sent,
            Ok(Some((index, at, Ok(ack)))) => {
                sent.latencies.add_ack(at.elapsed());
                sent.acks[index] = Some(Acked { seq: ack.seq, id: ack.id });
                sent.submitted.insert(ack.seq, at);
                progress.step();
            }
            Ok(Some((index, _, Err(error)))) => {
                let author = &members[plan.messages[index].author].user;
                sent.troubles.push(format!("{author}: message {} was not sent: {error}", index + 1));
            }
            Err(_) => {
                let missing = in_flight.len();
                sent.troubles.push(format!("no ack for {} s; {missing} are missing", STALLED.as_secs()));
                return sent;
            }
        }
    }
}

/// Listens until the log has `length` entries, and then for what is there already besides.
async fn listen(mut events: Events, group: ConversationId, length: usize) -> Listened {
    let mut listened = Listened { heard: Vec::with_capacity(length), troubles: Vec::new() };
    let mut quiet_since = Instant::now();
    while listened.heard.len() < length {
        let left = STALLED.saturating_sub(quiet_since.elapsed());
        match tokio::time::timeout(left, events.next()).await {
            Ok(Some(event)) => {
                if listened.hear(event, group) {
                    quiet_since = Instant::now();
                }
            }
            Ok(None) => {
                listened.troubles.push("the client has stopped".to_owned());
                break;
            }
            Err(_) => {
                listened.troubles.push(format!("nothing was received for {} s", STALLED.as_secs()));
                break;
            }
        }
    }
    while let Some(event) = events.try_next() {
        listened.hear(event, group);
    }
    listened
}

impl Listened {
    /// True for an entry of the group.
    fn hear(&mut self, event: Event, group: ConversationId) -> bool {
        match event {
            Event::Entry { conversation, entry } if conversation == group => {
                self.heard.push((entry, Instant::now()));
                return true;
            }
            Event::Gap { conversation, from, to } if conversation == group => {
                self.troubles.push(format!("entries {from} to {to} were left out"));
            }
            Event::SendFailed { error, .. } => self.troubles.push(format!("a send failed: {error}")),
            Event::StoreChanged { .. } => self.troubles.push("the server changed its store".to_owned()),
            Event::Resync { .. } => self.troubles.push("the server's log was shorter than before".to_owned()),
            _ => {}
        }
        false
    }
}

/// The least active member forgets everything, comes back, and reads the whole history.
async fn from_zero(
    target: &Target,
    mut members: Vec<Member>,
    group: ConversationId,
    length: usize,
    progress: &Progress,
) -> Result<(Resumed, Received), ReplayError> {
    progress.phase("history", length);
    let dropped = members.pop().expect("a plan with messages has members");
    dropped.client.close().await;
    let (member, events) = connect(target, &dropped.user, dropped.wire).await?;
    let resumed = resume(events, group, length as u64).await;
    let entries = read_back(&member, group, progress).await?;
    members.push(member);
    let history = Received { member: dropped.user, entries };
    stream::iter(members).for_each_concurrent(None, |member| member.client.close()).await;
    Ok((resumed, history))
}

/// What the client hands out after its first sync: all of it, or a gap and the newest.
async fn resume(mut events: Events, group: ConversationId, length: u64) -> Resumed {
    let mut resumed = Resumed::default();
    let mut reached = 0;
    while reached < length {
        match tokio::time::timeout(STALLED, events.next()).await {
            Ok(Some(Event::Entry { conversation, entry })) if conversation == group => {
                reached = entry.seq;
                resumed.entries.push(entry);
            }
            Ok(Some(Event::Gap { conversation, from, to })) if conversation == group => {
                reached = to;
                resumed.gaps.push((from, to));
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => break,
        }
    }
    // The client stays: it is still to read its history.
    tokio::spawn(async move { while events.next().await.is_some() {} });
    resumed
}

async fn read_back(
    member: &Member,
    group: ConversationId,
    progress: &Progress,
) -> Result<Vec<Entry>, ReplayError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut anchor = Anchor::Latest;
    loop {
        let page = member.client.history(group, anchor, PAGE).await;
        let page = page.map_err(|source| ReplayError::History { user: member.user.clone(), source })?;
        let lowest = page.entries.last().map(|entry| entry.seq);
        progress.steps(page.entries.len());
        entries.extend(page.entries);
        // Each page must lead further down, or the loop would never end.
        match (lowest, anchor) {
            (Some(lowest), Anchor::Before(before)) if lowest >= before => break,
            (Some(lowest), _) if lowest > page.first_seq => anchor = Anchor::Before(lowest),
            _ => break,
        }
    }
    entries.reverse();
    Ok(entries)
}
