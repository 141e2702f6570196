//! Tests of conversations: the rules, settling, the owners with real delivery, and two owners of one log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tern_protocol::{ConversationId, Decoder, DeviceId, Entry, Frame, Incoming, TempId, UserId};
use tokio::sync::oneshot;

use super::{Ask, Change, ConversationConfig, Conversations, Outcome, Reply, Submission};
use crate::budget::{Budget, Memory};
use crate::cluster::{NodeId, SessionRef};
use crate::delivery::Delivery;
use crate::ops::metrics::Metrics;
use crate::roster::outbox::TakeLimit;
use crate::roster::{Format, Origin, Outbox, OutboxConfig, Roster, Seat, SeatGuard};
use crate::store::{Log, Users};

mod gate;
mod owners;
mod people;
mod redo;
mod rules;
mod settle;
mod two_owners;

const GROUP: ConversationId = ConversationId::from_bytes([7; 16]);

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn users(names: &[&str]) -> Vec<UserId> {
    names.iter().map(|name| user(name)).collect()
}

fn temp(n: u8) -> TempId {
    TempId::from_bytes([n; 16])
}

fn ask(sender: &str, n: u8, change: Change) -> Ask {
    Ask {
        conversation: GROUP,
        peer: None,
        sender: user(sender),
        sender_name: None,
        asker: None,
        temp_id: temp(n),
        after: None,
        age_ms: 0,
        right: None,
        change,
    }
}

fn text(text: &str) -> Change {
    Change::Message { text: text.into(), data: None, reply_to: None }
}

fn say(sender: &str, n: u8, said: &str) -> Ask {
    ask(sender, n, text(said))
}

/// A message to somebody, in the pair's log.
fn say_to(sender: &str, peer: &str, n: u8) -> Ask {
    let (sender_id, peer) = (user(sender), user(peer));
    Ask { conversation: ConversationId::pair(&sender_id, &peer), peer: Some(peer), ..say(sender, n, "hi") }
}

fn session(number: u64) -> SessionRef {
    SessionRef { node: NodeId::new("here").unwrap(), boot: 1, session: number }
}

/// The owners of one node.
struct Node {
    conversations: Conversations,
}

impl Node {
    fn new(log: Arc<dyn Log>, users: Arc<dyn Users>, roster: &Roster) -> Self {
        Self::with(&ConversationConfig::default(), log, users, roster)
    }

    fn with(config: &ConversationConfig, log: Arc<dyn Log>, users: Arc<dyn Users>, roster: &Roster) -> Self {
        let delivery = Delivery::new(roster.clone(), Metrics::none());
        Self {
            conversations: Conversations::new(
                config,
                &Memory::unlimited(),
                log,
                users,
                delivery,
                Metrics::none(),
            ),
        }
    }

    fn submit(&self, ask: Ask) -> oneshot::Receiver<Outcome> {
        let (answer, answered) = oneshot::channel();
        let reply = Reply::new(move |outcome| drop(answer.send(outcome)));
        self.conversations.submit(Submission { ask, arrived: Instant::now(), reply });
        answered
    }

    async fn ask(&self, ask: Ask) -> Outcome {
        // Far beyond any deadline: without this a lost answer would be waited for for ever.
        let answer = tokio::time::timeout(Duration::from_secs(60), self.submit(ask)).await;
        answer.expect("an answer comes").expect("a reply always answers")
    }

    /// A group that alice made with these.
    async fn group(&self, others: &[&str]) {
        let create = Change::Create { name: "crew".into(), members: users(others) };
        self.ask(ask("alice", 0, create)).await.unwrap();
    }
}

/// A session that reads what it is sent.
struct Listener {
    _guard: SeatGuard,
    outbox: Arc<Outbox>,
    decoder: Decoder,
}

impl Listener {
    fn new(roster: &Roster, name: &str, number: u64) -> Self {
        let outbox = Outbox::new(Format::Binary, OutboxConfig::default(), &Budget::new(usize::MAX));
        let device = DeviceId::new("phone").unwrap();
        let origin =
            Origin { transport: "quic", address: std::net::Ipv4Addr::LOCALHOST.into(), token_issued_ms: 0 };
        let seat = Seat::new(session(number), user(name), device, Arc::clone(&outbox), origin);
        let begun = roster.begin(seat, 20);
        Self { _guard: begun.guard, outbox, decoder: Decoder::default() }
    }

    /// What has come since the last look.
    fn hear(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(batch) = self.outbox.take_any(TakeLimit { frames: 100, bytes: 1 << 20 }) {
            for bytes in &batch.frames {
                self.decoder.extend(bytes);
                while let Some(Incoming::Frame(envelope)) = self.decoder.next().unwrap() {
                    frames.push(envelope.frame);
                }
            }
            self.outbox.sent(batch);
        }
        frames
    }

    /// The entries of those.
    fn entries(&mut self) -> Vec<Entry> {
        let entries = |frame| match frame {
            Frame::Deliver(deliver) => deliver.entries,
            other => panic!("{} came", other.name()),
        };
        self.hear().into_iter().flat_map(entries).collect()
    }

    fn seqs(&mut self) -> Vec<u64> {
        self.entries().iter().map(|entry| entry.seq).collect()
    }
}
