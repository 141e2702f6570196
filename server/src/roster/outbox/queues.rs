//! The rules of the outbox as plain data: queues, turns, limits and what is dropped at them.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use foldhash::fast::RandomState;
use tern_protocol::{Close, Code, ConversationId, Envelope, Lagged};
use tokio::time::Instant;

use super::batch::{Amount, Batch, Queue, amount_of};
use super::told::Told;
use super::weight::Weight;
use super::{Format, OutboxConfig, Pushed, TakeLimit};
use crate::budget::Budget;

/// A queue that has emptied keeps at most room for this many frames.
const KEPT_FRAMES: usize = 8;

/// Live entries of one conversation.
#[derive(Debug, Default)]
struct Entries {
    frames: VecDeque<Bytes>,
    bytes: usize,
    seq_last: u64,
}

/// Whether a backlog frame found room.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Room {
    Taken,
    Full,
    Closed,
}

#[derive(Debug)]
pub(super) struct Queues {
    format: Format,
    config: OutboxConfig,
    control: VecDeque<Bytes>,
    datagrams: VecDeque<Bytes>,
    conversations: HashMap<ConversationId, Entries, RandomState>,
    /// Every conversation with a queue, the next to be served first.
    turns: VecDeque<ConversationId>,
    /// Conversations whose queue was dropped, with their newest seq, until the client is told.
    lagged: HashMap<ConversationId, u64, RandomState>,
    backlog: VecDeque<Bytes>,
    /// Unsent, that is queued or with the link.
    control_unsent: Amount,
    entries_unsent: Amount,
    backlog_unsent: Amount,
    told: Told,
    /// What is unsent, as the process counts it.
    weight: Weight,
    closing: Option<Close>,
    /// When something last left, or when the outbox last stopped being empty.
    progress: Instant,
    /// It has stopped being empty since this was last asked.
    filled: bool,
}

impl Queues {
    pub(super) fn new(format: Format, config: OutboxConfig, memory: &Budget, now: Instant) -> Self {
        Self {
            format,
            config,
            control: VecDeque::new(),
            datagrams: VecDeque::new(),
            conversations: HashMap::default(),
            turns: VecDeque::new(),
            lagged: HashMap::default(),
            backlog: VecDeque::new(),
            control_unsent: Amount::default(),
            entries_unsent: Amount::default(),
            backlog_unsent: Amount::default(),
            told: Told::default(),
            weight: Weight::new(memory),
            closing: None,
            progress: now,
            filled: false,
        }
    }

    pub(super) fn push_control(&mut self, frame: Bytes, now: Instant) -> Pushed {
        if self.closing.is_some() {
            return Pushed::Closed;
        }
        while !self.control_fits(frame.len()) {
            let Some((victim, _)) = self.largest() else {
                self.close_slow();
                return Pushed::Closed;
            };
            if !self.drop_queue(victim) {
                return Pushed::Closed;
            }
        }
        self.note_arrival(now);
        self.control_unsent += frame.len();
        self.control.push_back(frame);
        Pushed::Queued
    }

    pub(super) fn push_first(&mut self, frame: Bytes, now: Instant) -> Pushed {
        let pushed = self.push_control(frame, now);
        if pushed == Pushed::Queued {
            self.control.rotate_right(1);
        }
        pushed
    }

    pub(super) fn push_entry(
        &mut self,
        id: ConversationId,
        seq_last: u64,
        frame: Bytes,
        now: Instant,
    ) -> Pushed {
        if self.closing.is_some() {
            return Pushed::Closed;
        }
        self.told.note(id, seq_last);
        if let Some(head) = self.lagged.get_mut(&id) {
            *head = seq_last.max(*head);
            return Pushed::Lagged;
        }
        if !self.weight.try_hold(self.unsent_bytes() + frame.len()) {
            // The process is short of memory, and the log has it.
            return if self.lag(id, seq_last) { Pushed::Lagged } else { Pushed::Closed };
        }
        self.note_arrival(now);
        while !self.entry_fits(frame.len()) {
            let own = self.conversations.get(&id).map_or(0, |queue| queue.bytes) + frame.len();
            match self.largest() {
                Some((victim, bytes)) if victim != id && bytes >= own => {
                    if !self.drop_queue(victim) {
                        return Pushed::Closed;
                    }
                }
                _ => return if self.lag(id, seq_last) { Pushed::Lagged } else { Pushed::Closed },
            }
        }
        self.entries_unsent += frame.len();
        let queue = self.conversations.entry(id).or_default();
        if queue.frames.is_empty() {
            self.turns.push_back(id);
        }
        queue.bytes += frame.len();
        queue.seq_last = seq_last.max(queue.seq_last);
        queue.frames.push_back(frame);
        Pushed::Queued
    }

    /// An entry that cannot be queued: the client is told that there is one.
    pub(super) fn leave_out(&mut self, id: ConversationId, seq_last: u64) -> Pushed {
        if self.closing.is_some() || !self.lag(id, seq_last) { Pushed::Closed } else { Pushed::Lagged }
    }

    pub(super) fn push_datagram(&mut self, frame: Bytes, now: Instant) -> Pushed {
        if self.closing.is_some() {
            return Pushed::Closed;
        }
        self.note_arrival(now);
        if self.datagrams.len() >= self.config.datagrams_max {
            self.datagrams.pop_front();
        }
        self.datagrams.push_back(frame);
        Pushed::Queued
    }

    pub(super) fn push_backlog(&mut self, frame: &Bytes, now: Instant) -> Room {
        if self.closing.is_some() {
            return Room::Closed;
        }
        let unsent = self.backlog_unsent;
        let fits = unsent.frames < self.config.backlog_frames_max
            && unsent.bytes + frame.len() <= self.config.backlog_bytes_max;
        if !fits && unsent.frames > 0 {
            return Room::Full;
        }
        self.note_arrival(now);
        self.backlog_unsent += frame.len();
        self.backlog.push_back(frame.clone());
        Room::Taken
    }

    pub(super) fn close(&mut self, close: Close) {
        if self.closing.is_some() {
            return;
        }
        self.closing = Some(close);
        let drop_frames = |frames: &mut VecDeque<Bytes>, unsent: &mut Amount| {
            *unsent -= amount_of(frames);
            *frames = VecDeque::new();
        };
        for (_, mut queue) in self.conversations.drain() {
            drop_frames(&mut queue.frames, &mut self.entries_unsent);
        }
        drop_frames(&mut self.backlog, &mut self.backlog_unsent);
        self.turns = VecDeque::new();
        self.datagrams = VecDeque::new();
        self.lagged.clear();
        self.told = Told::default();
    }

    /// The client does not read even its replies: they are dropped too.
    fn close_slow(&mut self) {
        let close = Close {
            code: Code::SLOW_CONSUMER,
            reason: "more is waiting than this session may hold".into(),
            retry_after_ms: None,
            target: None,
        };
        self.close(close);
        self.control_unsent -= amount_of(&self.control);
        self.control = VecDeque::new();
    }

    pub(super) fn closing(&self) -> Option<&Close> {
        self.closing.as_ref()
    }

    pub(super) fn last(&self) -> Option<Close> {
        if self.queued() { None } else { self.closing.clone() }
    }

    pub(super) fn stalled_since(&self) -> Option<Instant> {
        self.unsent().then_some(self.progress)
    }

    pub(super) fn take_filled(&mut self) -> bool {
        std::mem::take(&mut self.filled)
    }

    pub(super) fn told(&mut self) -> &mut Told {
        &mut self.told
    }

    /// Charges what is unsent now. Called after every change.
    pub(super) fn weigh(&mut self) {
        self.weight.hold(self.unsent_bytes());
    }

    pub(super) fn unsent_bytes(&self) -> usize {
        self.control_unsent.bytes + self.entries_unsent.bytes + self.backlog_unsent.bytes
    }

    pub(super) fn take_from(
        &mut self,
        limit: TakeLimit,
        free: &mut dyn FnMut(Queue) -> bool,
        now: Instant,
    ) -> Option<Batch> {
        let queue = self.pick(free)?;
        let mut batch = Batch::new(queue);
        if let Queue::Conversation(id) = queue {
            batch.seq_last = self.conversations.get(&id).map_or(0, |queue| queue.seq_last);
        }
        while self.front_len(queue).is_some_and(|len| batch.fits(len, limit)) {
            self.pop_into(&mut batch, queue);
        }
        self.end_turn(queue);
        self.progress = now;
        Some(batch)
    }

    pub(super) fn take_any(&mut self, limit: TakeLimit, now: Instant) -> Option<Batch> {
        let mut batch: Option<Batch> = None;
        while let Some(queue) = self.pick(&mut |_| true) {
            let started = batch.get_or_insert_with(|| Batch::new(queue));
            let later = queue == Queue::Backlog && started.queue != Queue::Backlog;
            let len = self.front_len(queue).unwrap_or(0);
            if later || !started.fits(len, limit) {
                break;
            }
            self.pop_into(started, queue);
            self.end_turn(queue);
        }
        if batch.is_some() {
            self.progress = now;
        }
        batch
    }

    pub(super) fn settle(&mut self, batch: &Batch, now: Instant) {
        self.control_unsent -= batch.control;
        self.entries_unsent -= batch.entries;
        self.backlog_unsent -= batch.backlog;
        self.progress = now;
    }

    pub(super) fn lose(&mut self, batch: &Batch, now: Instant) {
        self.settle(batch, now);
        if let (Queue::Conversation(id), None) = (batch.queue, &self.closing) {
            self.lag(id, batch.seq_last);
        }
    }

    fn control_fits(&self, len: usize) -> bool {
        let (control, entries) = (self.control_unsent, self.entries_unsent);
        control.frames == 0 && self.conversations.is_empty()
            || control.bytes + entries.bytes + len <= self.config.bytes_max
                && control.frames + entries.frames < self.config.frames_max
    }

    fn entry_fits(&self, len: usize) -> bool {
        let (control, entries) = (self.control_unsent, self.entries_unsent);
        let share = |max: usize| max - max / 4;
        control.frames + entries.frames == 0
            || entries.bytes + len <= share(self.config.bytes_max)
                && entries.frames < share(self.config.frames_max)
                && control.bytes + entries.bytes + len <= self.config.bytes_max
                && control.frames + entries.frames < self.config.frames_max
    }

    /// The conversation with most bytes queued; of equals the one served soonest.
    fn largest(&self) -> Option<(ConversationId, usize)> {
        let sizes = self.turns.iter().map(|id| (*id, self.conversations.get(id).map_or(0, |q| q.bytes)));
        sizes.rev().max_by_key(|(_, bytes)| *bytes)
    }

    fn drop_queue(&mut self, id: ConversationId) -> bool {
        self.lag(id, 0)
    }

    /// Drops what is queued of a conversation and remembers to tell the client; false if that
    /// closed the outbox.
    fn lag(&mut self, id: ConversationId, seq_last: u64) -> bool {
        let mut head = seq_last;
        if let Some(queue) = self.conversations.remove(&id) {
            self.entries_unsent -= amount_of(&queue.frames);
            self.turns.retain(|turn| *turn != id);
            head = head.max(queue.seq_last);
        }
        let marker = self.lagged.entry(id).or_default();
        *marker = head.max(*marker);
        if self.lagged.len() > self.config.lagged_max {
            self.close_slow();
            return false;
        }
        true
    }

    /// The first queue in order of priority that has frames and is free. A conversation that is
    /// picked stands first in `turns` afterwards.
    fn pick(&mut self, free: &mut dyn FnMut(Queue) -> bool) -> Option<Queue> {
        let control = !self.control.is_empty() || !self.lagged.is_empty();
        if control && free(Queue::Control) {
            return Some(Queue::Control);
        }
        if !self.datagrams.is_empty() && free(Queue::Datagram) {
            return Some(Queue::Datagram);
        }
        for _ in 0..self.turns.len() {
            let id = self.turns[0];
            if free(Queue::Conversation(id)) {
                return Some(Queue::Conversation(id));
            }
            self.turns.rotate_left(1);
        }
        (!self.backlog.is_empty() && free(Queue::Backlog)).then_some(Queue::Backlog)
    }

    fn front_len(&mut self, queue: Queue) -> Option<usize> {
        if queue == Queue::Control && self.control.is_empty() {
            self.queue_lagged();
        }
        match queue {
            Queue::Control => self.control.front(),
            Queue::Datagram => self.datagrams.front(),
            Queue::Conversation(id) => self.conversations.get(&id)?.frames.front(),
            Queue::Backlog => self.backlog.front(),
        }
        .map(Bytes::len)
    }

    /// Turns one marker into its frame, behind the replies that were queued before.
    fn queue_lagged(&mut self) {
        let Some((&conversation, &head)) = self.lagged.iter().next() else { return };
        self.lagged.remove(&conversation);
        let frame = self.format.encode(&Envelope::from(Lagged { conversation, head }));
        self.control_unsent += frame.len();
        self.control.push_back(frame);
    }

    fn pop_into(&mut self, batch: &mut Batch, queue: Queue) {
        let frame = match queue {
            Queue::Control => pop(&mut self.control),
            Queue::Datagram => pop(&mut self.datagrams),
            Queue::Backlog => pop(&mut self.backlog),
            Queue::Conversation(id) => self.conversations.get_mut(&id).and_then(|queue| {
                let frame = queue.frames.pop_front()?;
                queue.bytes -= frame.len();
                Some(frame)
            }),
        };
        if let Some(frame) = frame {
            batch.add(queue, frame);
        }
    }

    /// A conversation that was served goes to the end of the line, or leaves it.
    fn end_turn(&mut self, queue: Queue) {
        let Queue::Conversation(id) = queue else { return };
        self.turns.pop_front();
        if self.conversations.get(&id).is_some_and(|queue| queue.frames.is_empty()) {
            self.conversations.remove(&id);
            if self.conversations.is_empty() {
                self.conversations = HashMap::default();
                self.turns = VecDeque::new();
            }
        } else {
            self.turns.push_back(id);
        }
    }

    fn queued(&self) -> bool {
        !(self.control.is_empty()
            && self.lagged.is_empty()
            && self.datagrams.is_empty()
            && self.conversations.is_empty()
            && self.backlog.is_empty())
    }

    fn unsent(&self) -> bool {
        let amounts = [self.control_unsent, self.entries_unsent, self.backlog_unsent];
        self.queued() || amounts.iter().any(|amount| amount.frames > 0)
    }

    fn note_arrival(&mut self, now: Instant) {
        if !self.unsent() {
            self.progress = now;
            self.filled = true;
        }
    }
}

/// Takes the first frame; an idle outbox keeps no large buffer.
fn pop(frames: &mut VecDeque<Bytes>) -> Option<Bytes> {
    let frame = frames.pop_front();
    if frames.is_empty() && frames.capacity() > KEPT_FRAMES {
        *frames = VecDeque::new();
    }
    frame
}
