//! The bounded queue between the driver and the application, and the positions confirmed through it.

use std::collections::{BTreeMap, VecDeque};

use parking_lot::Mutex;
use tern_protocol::{ConversationId, ConversationSummary, UserId, UserPresence};
use tokio::sync::Notify;

use crate::config::Confirm;
use crate::event::{Event, State};

/// Most summaries kept while the application does not pull; older ones are dropped, since a list
/// can be asked for.
const SUMMARIES_MAX: usize = 10_000;
/// Most read positions, and changes of blocks, kept while the application does not pull.
const READS_MAX: usize = 10_000;

/// Events wait here for the application. Entries are bounded by the driver, which asks for
/// [`Queue::room`] first; events that describe a current state are merged when the queue is full.
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    /// Wakes the application: there is an event, or the end.
    readable: Notify,
    /// Wakes the driver: something was confirmed, or there is room again.
    pulled: Notify,
    events_max: usize,
    confirm: Confirm,
}

#[derive(Default)]
struct Inner {
    fifo: VecDeque<Event>,
    latest: Latest,
    /// Position of the event pulled last, confirmed by the next pull.
    pulled_last: Option<(ConversationId, u64)>,
    confirmed: BTreeMap<ConversationId, u64>,
    /// The driver was refused room and wants to know when there is some.
    starved: bool,
    /// The driver has been told of confirmations that it has not taken yet.
    announced: bool,
    closed: bool,
    /// The application dropped its end.
    abandoned: bool,
}

/// Events of which only the newest matters, while the queue is full.
#[derive(Default)]
struct Latest {
    state: Option<State>,
    presence: BTreeMap<UserId, UserPresence>,
    /// Seq and messages.
    reads: BTreeMap<ConversationId, (u64, u64)>,
    summaries: BTreeMap<ConversationId, ConversationSummary>,
    blocks: BTreeMap<UserId, bool>,
}

impl Latest {
    fn is_empty(&self) -> bool {
        self.state.is_none()
            && self.presence.is_empty()
            && self.reads.is_empty()
            && self.summaries.is_empty()
            && self.blocks.is_empty()
    }

    /// Keeps a mergeable event; gives back one that must queue.
    fn merge(&mut self, event: Event) -> Option<Event> {
        match event {
            Event::State(state) => self.state = Some(state),
            Event::Presence(users) => {
                self.presence.extend(users.into_iter().map(|user| (user.user.clone(), user)));
            }
            Event::Read { conversation, seq, messages } if self.reads.len() < READS_MAX => {
                let newest = self.reads.entry(conversation).or_default();
                *newest = (seq, messages).max(*newest);
            }
            Event::Conversations(list) => {
                let room = SUMMARIES_MAX.saturating_sub(self.summaries.len());
                self.summaries.extend(list.into_iter().take(room).map(|row| (row.conversation, row)));
            }
            Event::BlockChanged { user, blocked }
                if self.blocks.len() < READS_MAX || self.blocks.contains_key(&user) =>
            {
                self.blocks.insert(user, blocked);
            }
            // Typing may be lost anyway, and lists tell the others.
            Event::Typing { .. } | Event::Read { .. } | Event::BlockChanged { .. } => {}
            other => return Some(other),
        }
        None
    }

    fn drain_into(&mut self, fifo: &mut VecDeque<Event>) {
        if let Some(state) = self.state.take() {
            fifo.push_back(Event::State(state));
        }
        if !self.presence.is_empty() {
            let users = std::mem::take(&mut self.presence).into_values().collect();
            fifo.push_back(Event::Presence(users));
        }
        let blocks = std::mem::take(&mut self.blocks).into_iter();
        fifo.extend(blocks.map(|(user, blocked)| Event::BlockChanged { user, blocked }));
        let reads = std::mem::take(&mut self.reads);
        fifo.extend(reads.into_iter().map(|(conversation, (seq, messages))| Event::Read {
            conversation,
            seq,
            messages,
        }));
        if !self.summaries.is_empty() {
            let mut rows: Vec<_> = std::mem::take(&mut self.summaries).into_values().collect();
            rows.sort_by_key(|row| std::cmp::Reverse(row.last_time_ms));
            fifo.push_back(Event::Conversations(rows));
        }
    }
}

impl Queue {
    pub(crate) fn new(events_max: usize, confirm: Confirm) -> Self {
        Self { inner: Mutex::default(), readable: Notify::new(), pulled: Notify::new(), events_max, confirm }
    }

    /// How many entries may be pushed. Asking when there are few means wanting to be woken when
    /// there are more.
    pub(crate) fn room(&self) -> usize {
        let mut inner = self.inner.lock();
        if inner.abandoned {
            return self.events_max;
        }
        let room = self.events_max.saturating_sub(inner.fifo.len());
        inner.starved = room < self.events_max / 2;
        room
    }

    pub(crate) fn push(&self, event: Event) {
        let mut inner = self.inner.lock();
        if inner.abandoned {
            return;
        }
        let full = inner.fifo.len() >= self.events_max || !inner.latest.is_empty();
        let event = if full { inner.latest.merge(event) } else { Some(event) };
        if let Some(event) = event {
            inner.fifo.push_back(event);
        }
        drop(inner);
        self.readable.notify_one();
    }

    /// Drops entries and confirmations of logs that do not count any more.
    pub(crate) fn forget(&self, conversation: Option<ConversationId>) {
        let mut inner = self.inner.lock();
        let gone = |id: &ConversationId| conversation.is_none_or(|only| only == *id);
        inner.fifo.retain(|event| match event {
            Event::Entry { conversation, .. }
            | Event::Gap { conversation, .. }
            | Event::Erased { conversation, .. } => !gone(conversation),
            _ => true,
        });
        inner.confirmed.retain(|id, _| !gone(id));
        if inner.pulled_last.is_some_and(|(id, _)| gone(&id)) {
            inner.pulled_last = None;
        }
    }

    pub(crate) fn confirm(&self, conversation: ConversationId, seq: u64) {
        let mut inner = self.inner.lock();
        inner.confirm(conversation, seq);
        self.announce(inner);
    }

    /// What was confirmed since the last call.
    pub(crate) fn take_confirmed(&self) -> BTreeMap<ConversationId, u64> {
        let mut inner = self.inner.lock();
        inner.announced = false;
        std::mem::take(&mut inner.confirmed)
    }

    /// Waits until something was confirmed or there is room again.
    pub(crate) async fn pulled(&self) {
        self.pulled.notified().await;
    }

    /// No event comes any more.
    pub(crate) fn close(&self) {
        self.inner.lock().closed = true;
        self.readable.notify_one();
    }

    pub(super) fn abandon(&self) {
        let mut inner = self.inner.lock();
        inner.abandoned = true;
        inner.fifo = VecDeque::new();
        inner.latest = Latest::default();
        drop(inner);
        self.pulled.notify_one();
    }

    pub(super) async fn pop(&self) -> Option<Event> {
        loop {
            if let Some(event) = self.try_pop() {
                return Some(event);
            }
            if self.inner.lock().closed {
                // The end may have come together with a last event.
                return self.try_pop();
            }
            self.readable.notified().await;
        }
    }

    pub(super) fn try_pop(&self) -> Option<Event> {
        let mut inner = self.inner.lock();
        if self.confirm == Confirm::Auto
            && let Some((conversation, seq)) = inner.pulled_last.take()
        {
            inner.confirm(conversation, seq);
        }
        let Inner { fifo, latest, .. } = &mut *inner;
        if fifo.is_empty() {
            latest.drain_into(fifo);
        }
        let event = fifo.pop_front();
        inner.pulled_last = event.as_ref().and_then(position);
        self.announce(inner);
        event
    }

    fn announce(&self, mut inner: parking_lot::MutexGuard<'_, Inner>) {
        let confirmed = !inner.confirmed.is_empty() && !inner.announced;
        let roomy = inner.starved && inner.fifo.len() <= self.events_max / 2;
        if confirmed {
            inner.announced = true;
        }
        if roomy {
            inner.starved = false;
        }
        drop(inner);
        if confirmed || roomy {
            self.pulled.notify_one();
        }
    }
}

impl Inner {
    fn confirm(&mut self, conversation: ConversationId, seq: u64) {
        let newest = self.confirmed.entry(conversation).or_default();
        *newest = seq.max(*newest);
    }
}

fn position(event: &Event) -> Option<(ConversationId, u64)> {
    match event {
        Event::Entry { conversation, entry } => Some((*conversation, entry.seq)),
        Event::Gap { conversation, to, .. } => Some((*conversation, *to)),
        _ => None,
    }
}
