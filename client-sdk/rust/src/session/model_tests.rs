//! The session against a small model of a server, in every order that streams, losses, refusals,
//! lags, reconnects and restarts can make: the application sees exactly the log, in order, once,
//! and what it sent is in the log once, in the order it was sent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;
use tern_protocol::resume::{CatchUp, catch_up};
use tern_protocol::{
    Code, ConversationKind, ConversationSummary, Deliver, DeviceId, Entry, EntryBody, EntryId, Error, Fetch,
    Gap, Lagged, Limits, Page, SyncEnd, SyncPage,
};

use super::*;
use crate::persistence::SavedSend;

/// Entries in a page of the model, few so that there are many pages.
const PAGE_ENTRIES: usize = 7;
/// Most unpulled entries at the application.
const ROOM: usize = 6;

#[derive(Clone, Debug)]
enum Op {
    /// The client writes in a conversation.
    Submit(usize),
    /// Somebody else writes.
    Other(usize),
    /// The server takes a frame of the client; it refuses it for now if it is a send.
    Serve {
        refuse: bool,
    },
    /// The client gets the next frame of one of the streams.
    Arrive(usize),
    /// The server drops what waits on a conversation's stream and says so.
    Lag(usize),
    Connect,
    Disconnect,
    /// The application pulls an event.
    Pull,
    Wait(u64),
    /// The application is killed and starts again from what was saved.
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..4usize).prop_map(Op::Submit),
        3 => (0..4usize).prop_map(Op::Other),
        8 => prop::bool::weighted(0.25).prop_map(|refuse| Op::Serve { refuse }),
        12 => (0..6usize).prop_map(Op::Arrive),
        1 => (0..4usize).prop_map(Op::Lag),
        2 => Just(Op::Connect),
        1 => Just(Op::Disconnect),
        5 => Just(Op::Pull),
        2 => (1..700u64).prop_map(Op::Wait),
        1 => Just(Op::Restart),
    ]
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn id(index: usize) -> ConversationId {
    ConversationId::from_bytes([index as u8 + 1; 16])
}

pub(super) fn welcome(store: u8) -> Welcome {
    Welcome {
        session: 1,
        user: user("me"),
        name: Some("Me".into()),
        device: DeviceId::new("d").unwrap(),
        store_id: StoreId::from_bytes([store; 16]),
        server: "model".into(),
        features: 0,
        time_ms: 1_000_000,
        token_expires_ms: u64::MAX,
        limits: Limits {
            frame_bytes: 65_536,
            text_bytes: 16_384,
            name_bytes: 128,
            group_members: 100,
            page_entries: 200,
            watch_users: 200,
            sends_in_flight: 5,
            sync_cursors: 512,
            sync_cursors_total: 10_000,
            ack_positions: 100,
            gap_whole: 500,
            gap_tail: 50,
            dedupe_window_s: 604_800,
            sessions_per_user: 20,
            keepalive_s: 20,
            dead_after_s: 45,
            sends_per_second: 50,
            blocks: 1_000,
            leave_groups: 100,
            added_groups: 500,
        },
    }
}

/// One log of the server: what the client may see starts at `first_seq`.
struct ServerLog {
    entries: Vec<Entry>,
    first_seq: u64,
}

impl ServerLog {
    fn head(&self) -> u64 {
        self.entries.len() as u64
    }

    fn append(&mut self, sender: &str, temp_id: Option<TempId>, text: String) -> Entry {
        let seq = self.head() + 1;
        let mut entry_id = [0; 16];
        entry_id[..8].copy_from_slice(&seq.to_be_bytes());
        // A third of what others do is of a later version.
        let body = match temp_id {
            None if seq.is_multiple_of(3) => EntryBody::Opaque { kind: 200, bytes: text.into_bytes() },
            _ => EntryBody::text(text),
        };
        let before = self.entries.last().map_or(0, |entry| entry.messages);
        let entry = Entry {
            seq,
            id: EntryId::from_bytes(entry_id),
            time_ms: seq,
            sender: user(sender),
            sender_name: (sender == "me").then(|| "Me".into()),
            temp_id,
            messages: before + u64::from(body.is_message()),
            body,
        };
        self.entries.push(entry.clone());
        entry
    }

    fn range(&self, from: u64, to: u64) -> Vec<Entry> {
        self.entries[from as usize - 1..to as usize].to_vec()
    }
}

/// Streams of one link: control, backlog, then one per conversation. Each keeps its order.
struct Link {
    number: LinkNumber,
    to_server: VecDeque<Envelope>,
    streams: [VecDeque<Envelope>; 6],
    cursors: Vec<Position>,
    refused: BTreeMap<ConversationId, VecDeque<TempId>>,
}

struct World {
    session: Session,
    logs: Vec<ServerLog>,
    link: Option<Link>,
    links: u64,
    now: u64,
    saved: SavedState,
    unpulled: VecDeque<Event>,
    /// The entries and gaps handed out, as ranges, per conversation.
    seen: BTreeMap<ConversationId, Vec<Event>>,
    confirmed: BTreeMap<ConversationId, u64>,
    submitted: BTreeMap<ConversationId, Vec<TempId>>,
    acked: BTreeMap<TempId, u64>,
    reads: BTreeMap<ConversationId, u64>,
    temp_ids: u8,
}

impl World {
    fn new() -> Self {
        let mut logs: Vec<_> = (0..4).map(|_| ServerLog { entries: Vec::new(), first_seq: 1 }).collect();
        // One whose beginning is not visible, one that is too long to be sent whole.
        logs[2].first_seq = 6;
        for (index, length) in [(1, 3), (2, 9), (3, 620)] {
            for _ in 0..length {
                logs[index].append("other", None, "before".into());
            }
        }
        let mut world = Self {
            session: Session::new(SavedState::default()),
            logs,
            link: None,
            links: 0,
            now: 1_000_000,
            saved: SavedState::default(),
            unpulled: VecDeque::new(),
            seen: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            submitted: BTreeMap::new(),
            acked: BTreeMap::new(),
            reads: BTreeMap::new(),
            temp_ids: 0,
        };
        world.room();
        world
    }

    fn room(&mut self) {
        self.session.set_room(ROOM.saturating_sub(self.unpulled.len()), self.now);
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Submit(index) => self.submit(*index),
            Op::Other(index) => {
                let entry = self.logs[*index].append("other", None, "hi".into());
                self.deliver(*index, entry);
            }
            Op::Serve { refuse } => self.serve(*refuse),
            Op::Arrive(stream) => self.arrive(*stream),
            Op::Lag(index) => self.lag(*index),
            Op::Connect => self.connect(),
            Op::Disconnect => self.disconnect(),
            Op::Pull => self.pull(),
            Op::Wait(ms) => {
                self.now += ms;
                self.session.tick(self.now);
            }
            Op::Restart => self.restart(),
        }
        self.effects();
        self.room();
        self.effects();
    }

    fn submit(&mut self, index: usize) {
        if self.temp_ids == u8::MAX {
            return;
        }
        self.temp_ids += 1;
        let temp_id = TempId::from_bytes([self.temp_ids; 16]);
        let (to, text) = (Target::from(id(index)), format!("mine {}", self.temp_ids));
        let (created_ms, data, reply_to) = (self.now, None, None);
        let send = SavedSend { temp_id, to: to.clone(), text: text.clone(), data, reply_to, created_ms };
        self.saved.apply(SavedChange::Send(send));
        self.submitted.entry(id(index)).or_default().push(temp_id);
        self.session.submit(temp_id, Change::Message { to, draft: text.into() }, true, self.now);
    }

    fn deliver(&mut self, index: usize, entry: Entry) {
        if let Some(link) = &mut self.link {
            let deliver = Deliver { conversation: id(index), entries: vec![entry] };
            link.streams[2 + index].push_back(deliver.into());
        }
    }

    fn connect(&mut self) {
        if self.link.is_some() {
            return;
        }
        self.links += 1;
        self.link = Some(Link {
            number: self.links,
            to_server: VecDeque::new(),
            streams: Default::default(),
            cursors: Vec::new(),
            refused: BTreeMap::new(),
        });
        self.session.connected(self.links, &welcome(1), self.now).unwrap();
    }

    fn disconnect(&mut self) {
        if let Some(link) = self.link.take() {
            self.session.disconnected(link.number);
        }
    }

    fn restart(&mut self) {
        self.link = None;
        self.unpulled.clear();
        self.reads.clear();
        self.session = Session::new(self.saved.clone());
        // The application is given again what it had not confirmed.
        for (conversation, seen) in &mut self.seen {
            let confirmed = self.confirmed.get(conversation).copied().unwrap_or(0);
            seen.retain(|event| last_seq(event) <= confirmed);
        }
    }

    fn pull(&mut self) {
        let Some(event) = self.unpulled.pop_front() else { return };
        let conversation = match &event {
            Event::Entry { conversation, .. } | Event::Gap { conversation, .. } => *conversation,
            _ => return,
        };
        let position = Position { conversation, seq: last_seq(&event) };
        self.seen.entry(conversation).or_default().push(event);
        self.confirmed.insert(conversation, position.seq);
        self.session.confirm([position]);
    }

    fn arrive(&mut self, stream: usize) {
        let Some(link) = &mut self.link else { return };
        if let Some(envelope) = link.streams[stream].pop_front() {
            let number = link.number;
            self.session.received(number, envelope, self.now);
        }
    }

    fn lag(&mut self, index: usize) {
        let head = self.logs[index].head();
        let Some(link) = &mut self.link else { return };
        if !link.streams[2 + index].is_empty() {
            link.streams[2 + index].clear();
            link.streams[0].push_back(Lagged { conversation: id(index), head }.into());
        }
    }

    fn effects(&mut self) {
        while let Some(effect) = self.session.pop() {
            match effect {
                Effect::Send(envelope) => {
                    if let Some(link) = &mut self.link {
                        link.to_server.push_back(envelope);
                    }
                }
                Effect::Emit(event @ (Event::Entry { .. } | Event::Gap { .. })) => {
                    self.unpulled.push_back(event);
                }
                Effect::Emit(event @ (Event::SendFailed { .. } | Event::Resync { .. })) => {
                    panic!("unexpected {event:?}");
                }
                Effect::Resolved { temp_id, result } => {
                    self.acked.insert(temp_id, result.unwrap().seq);
                }
                Effect::Emit(Event::Read { conversation, seq, messages }) => {
                    let index = (0..4).find(|index| id(*index) == conversation).unwrap();
                    assert_eq!(self.logs[index].entries[seq as usize - 1].messages, messages);
                    let before = self.reads.insert(conversation, seq);
                    assert!(
                        before.is_none_or(|before| before < seq),
                        "a read position goes back from {before:?} to {seq}"
                    );
                }
                Effect::Save(change) => self.saved.apply(change),
                _ => {}
            }
        }
    }

    fn serve(&mut self, refuse: bool) {
        let Some(link) = &mut self.link else { return };
        let Some(Envelope { request, frame }) = link.to_server.pop_front() else { return };
        let answer = |frame: Frame| Envelope { request, frame };
        match frame {
            Frame::Send(send) => {
                let frame = self.serve_send(send, refuse);
                self.link.as_mut().unwrap().streams[0].push_back(answer(frame));
            }
            Frame::Sync(sync) => {
                link.cursors.extend(sync.cursors);
                if !sync.more {
                    self.serve_sync(request);
                }
            }
            Frame::Fetch(fetch) => {
                let page = self.page(&fetch);
                self.link.as_mut().unwrap().streams[1].push_back(answer(page.into()));
            }
            Frame::Ack(ack) => {
                for position in ack.positions {
                    let index = (0..4).find(|index| id(*index) == position.conversation).unwrap();
                    assert!(position.seq <= self.logs[index].head(), "an ack above the head");
                }
            }
            other => panic!("the model does not know {}", other.name()),
        }
    }

    /// Go-back-N as the protocol has it: after a temporary refusal nothing later passes until the
    /// first unresolved send comes again.
    fn serve_send(&mut self, send: tern_protocol::Send, refuse: bool) -> Frame {
        let Target::Conversation(conversation) = send.to else { panic!() };
        let index = (0..4).find(|index| id(*index) == conversation).unwrap();
        let refused = self.link.as_mut().unwrap().refused.entry(conversation).or_default();
        let out_of_order = refused.front().is_some_and(|first| *first != send.temp_id);
        if refuse || out_of_order {
            if !refused.contains(&send.temp_id) {
                refused.push_back(send.temp_id);
            }
            let code = if out_of_order { Code::OUT_OF_ORDER } else { Code::RATE_LIMITED };
            let retry_after_ms = (!out_of_order).then_some(300);
            let temp_id = Some(send.temp_id);
            let (detail, conversation) = (String::new(), Some(conversation));
            return Error { code, temporary: true, retry_after_ms, detail, temp_id, conversation }.into();
        }
        refused.retain(|temp_id| *temp_id != send.temp_id);
        let log = &mut self.logs[index];
        let known = log.entries.iter().find(|entry| entry.temp_id == Some(send.temp_id)).cloned();
        let duplicate = known.is_some();
        assert!(!duplicate || send.age_ms != Some(0), "a retry must not look like a first attempt");
        let entry = known.unwrap_or_else(|| log.append("me", Some(send.temp_id), send.text));
        SendAck {
            temp_id: send.temp_id,
            conversation,
            seq: entry.seq,
            id: entry.id,
            time_ms: entry.time_ms,
            messages: entry.messages,
            duplicate,
            recipient_unknown: false,
        }
        .into()
    }

    fn serve_sync(&mut self, request: Option<u64>) {
        let link = self.link.as_mut().unwrap();
        let mut rows = Vec::new();
        let mut frames: Vec<Frame> = Vec::new();
        for (index, log) in self.logs.iter().enumerate() {
            let conversation = id(index);
            let cursor = link.cursors.iter().find(|cursor| cursor.conversation == conversation);
            let cursor = cursor.map_or(0, |cursor| cursor.seq);
            let (from, to) = match catch_up(cursor, log.first_seq, log.head()) {
                CatchUp::UpToDate => continue,
                CatchUp::Ahead => panic!("a cursor above the head"),
                CatchUp::Whole { from, to } => (from, to),
                CatchUp::Tail { gap_from, gap_to, from, to } => {
                    frames.push(Gap { conversation, from: gap_from, to: gap_to }.into());
                    (from, to)
                }
            };
            rows.push(summary(conversation, log));
            let entries = log.range(from, to);
            frames.extend(
                entries
                    .chunks(PAGE_ENTRIES)
                    .map(|part| Deliver { conversation, entries: part.to_vec() }.into()),
            );
        }
        let changed = rows.len() as u32;
        let backlog = &mut link.streams[1];
        backlog.push_back(SyncPage { conversations: rows }.into());
        backlog.extend(frames.into_iter().map(Envelope::from));
        backlog.push_back(Envelope { request, frame: SyncEnd { changed }.into() });
    }

    fn page(&self, fetch: &Fetch) -> Page {
        let index = (0..4).find(|index| id(*index) == fetch.conversation).unwrap();
        let log = &self.logs[index];
        let from = (fetch.after.unwrap() + 1).max(log.first_seq);
        let limit = (fetch.limit.unwrap() as usize).min(PAGE_ENTRIES) as u64;
        let to = (from + limit - 1).min(log.head());
        let mut entries = if from <= to { log.range(from, to) } else { Vec::new() };
        entries.reverse();
        Page { conversation: fetch.conversation, entries, first_seq: log.first_seq, head: log.head() }
    }

    /// Lets everything come to rest, without further losses.
    fn settle(&mut self) {
        self.apply(&Op::Connect);
        for round in 0..3_000 {
            if round % 10 == 0 {
                self.apply(&Op::Wait(1_000));
            }
            self.apply(&Op::Serve { refuse: false });
            (0..6).for_each(|stream| self.apply(&Op::Arrive(stream)));
            self.apply(&Op::Pull);
            if round % 10 == 9 && self.at_rest() {
                return;
            }
        }
        panic!("it never comes to rest: seen up to {:?}", self.confirmed);
    }

    fn at_rest(&self) -> bool {
        let link = self.link.as_ref().unwrap();
        link.to_server.is_empty()
            && link.streams.iter().all(VecDeque::is_empty)
            && self.unpulled.is_empty()
            && self.acked.len() == usize::from(self.temp_ids)
            && self.logs.iter().enumerate().all(|(index, log)| {
                log.head() < log.first_seq || self.confirmed.get(&id(index)) == Some(&log.head())
            })
    }

    fn check(&self) {
        for (index, log) in self.logs.iter().enumerate() {
            self.check_seen(index, log);
            let mine: Vec<TempId> = log.entries.iter().filter_map(|entry| entry.temp_id).collect();
            let submitted = self.submitted.get(&id(index)).cloned().unwrap_or_default();
            assert_eq!(mine, submitted, "own messages are in the log once, in the order they were sent");
            for entry in &log.entries {
                if let Some(temp_id) = entry.temp_id {
                    assert_eq!(self.acked[&temp_id], entry.seq, "the ack names the entry");
                }
            }
        }
        assert!(self.saved.sends.is_empty(), "nothing resolved is kept");
    }

    fn check_seen(&self, index: usize, log: &ServerLog) {
        let mut next = log.first_seq;
        for event in self.seen.get(&id(index)).into_iter().flatten() {
            match event {
                Event::Entry { entry, .. } => {
                    assert_eq!(entry, &log.entries[next as usize - 1], "conversation {index}");
                    next += 1;
                }
                Event::Gap { from, to, .. } => {
                    assert_eq!(*from, next, "conversation {index}");
                    assert!(to - from >= 450, "a gap of {from}..={to} is small enough to be whole");
                    next = to + 1;
                }
                _ => unreachable!(),
            }
        }
        assert_eq!(next, log.head() + 1, "conversation {index} is complete");
    }
}

fn last_seq(event: &Event) -> u64 {
    match event {
        Event::Entry { entry, .. } => entry.seq,
        Event::Gap { to, .. } => *to,
        _ => 0,
    }
}

fn summary(conversation: ConversationId, log: &ServerLog) -> ConversationSummary {
    ConversationSummary {
        conversation,
        kind: ConversationKind::Group,
        name: None,
        peer: None,
        head: log.head(),
        head_messages: log.head(),
        first_seq: log.first_seq,
        read_seq: 0,
        read_messages: log.head(),
        unread: 0,
        last_time_ms: log.head(),
        role: Some(tern_protocol::Role::Member),
        added_by: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_application_sees_exactly_the_log_in_order_once(ops in prop::collection::vec(op(), 0..250)) {
        let mut world = World::new();
        ops.iter().for_each(|op| world.apply(op));
        world.settle();
        world.check();
        let temp_ids: BTreeSet<_> = world.acked.keys().collect();
        prop_assert_eq!(temp_ids.len(), usize::from(world.temp_ids));
    }
}
