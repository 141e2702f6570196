//! The pure session: what a client knows and owes, over reconnects. It does no I/O and reads no
//! clock: inputs and the time go in, [`Effect`]s come out.

use std::collections::{BTreeMap, VecDeque};

use tern_protocol::{
    Class, Code, ConversationId, Entry, EntryBody, Envelope, Frame, Position, Read, SendAck, StoreId, Target,
    TempId, Typing, UserId, Watch, Welcome,
};

use crate::draft::Draft;
use crate::error::SendError;
use crate::event::Event;
use crate::persistence::{SavedChange, SavedState};

mod change;
mod effect;
mod inbound;
mod log;
mod logs;
mod lookup;
mod sends;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;

pub(crate) use change::Change;
pub(crate) use effect::Effect;

use logs::Logs;
use sends::{Sends, Step};

/// Most questions of the application that are open at a time.
const QUESTIONS_MAX: usize = 256;
/// Read positions that are told again to a new session, the newest ones: the last of them may
/// have been lost with the old session, and nothing acks them.
const READS_MAX: usize = 64;

/// Numbers the links of a client: answers count only for the link that was asked.
pub(crate) type LinkNumber = u64;

/// The token is for another user.
#[derive(Debug, PartialEq)]
pub(crate) struct WrongUser {
    pub(crate) expected: UserId,
    pub(crate) found: UserId,
}

/// Why a request was made.
#[derive(Clone, Debug)]
enum Purpose {
    Change(TempId),
    Hole(ConversationId),
    Search(ConversationId),
    Sync,
    Question,
}

/// What a client knows and owes.
#[derive(Debug)]
pub(crate) struct Session {
    me: Option<UserId>,
    name: Option<String>,
    store_id: Option<StoreId>,
    /// The current link, while there is one.
    link: Option<LinkNumber>,
    /// The sync of the current link is not complete.
    syncing: bool,
    /// When a sync that was refused for the moment is asked for again.
    sync_at: Option<u64>,
    sends: Sends,
    logs: Logs,
    requests: BTreeMap<u64, (LinkNumber, Purpose)>,
    request_last: u64,
    watched: Option<Vec<UserId>>,
    reads: VecDeque<Position>,
    effects: VecDeque<Effect>,
}

impl Session {
    /// Goes on from what was saved.
    pub(crate) fn new(saved: SavedState) -> Self {
        let mut sends = Sends::default();
        for send in saved.sends {
            let draft = Draft { text: send.text, data: send.data, reply_to: send.reply_to };
            let change = Change::Message { to: send.to, draft };
            sends.add(send.temp_id, change, send.created_ms, true, true);
        }
        Self {
            me: saved.user,
            name: None,
            store_id: saved.store_id,
            link: None,
            syncing: false,
            sync_at: None,
            sends,
            logs: Logs::new(saved.cursors),
            requests: BTreeMap::new(),
            request_last: 0,
            watched: None,
            reads: VecDeque::new(),
            effects: VecDeque::new(),
        }
    }

    /// The next thing to do.
    pub(crate) fn pop(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// A new link has its Welcome. It becomes the current one; an older one may still bring answers.
    pub(crate) fn connected(
        &mut self,
        link: LinkNumber,
        welcome: &Welcome,
        now: u64,
    ) -> Result<(), WrongUser> {
        if let Some(expected) = self.me.as_ref().filter(|me| **me != welcome.user) {
            return Err(WrongUser { expected: expected.clone(), found: welcome.user.clone() });
        }
        self.me = Some(welcome.user.clone());
        self.name.clone_from(&welcome.name);
        self.check_store(welcome.store_id);
        self.link = Some(link);
        self.logs.offline();
        let skew_ms = welcome.time_ms as i64 - now as i64;
        self.sends.open(&welcome.user, welcome.limits.sends_in_flight as usize, skew_ms);
        self.sync();
        if let Some(users) = self.watched.clone().filter(|users| !users.is_empty()) {
            self.send(None, Watch { users });
        }
        for Position { conversation, seq } in self.reads.clone() {
            self.send(None, Read { conversation, seq });
        }
        self.tick(now);
        Ok(())
    }

    fn check_store(&mut self, new: StoreId) {
        if self.store_id == Some(new) {
            return;
        }
        if let Some(old) = self.store_id {
            self.logs.clear();
            self.reads.clear();
            self.effects.push_back(Effect::Forget(None));
            self.effects.push_back(Effect::Emit(Event::StoreChanged { old, new }));
        }
        self.store_id = Some(new);
        if let Some(user) = self.me.clone() {
            self.effects.push_back(Effect::Save(SavedChange::Store { user, store_id: new }));
        }
    }

    fn sync(&mut self) {
        self.syncing = true;
        self.sync_at = None;
        let mut frames = self.logs.sync().into_iter().peekable();
        while let Some(frame) = frames.next() {
            let purpose = frames.peek().is_none().then_some(Purpose::Sync);
            self.request_or_send(purpose, frame);
        }
    }

    /// A link has ended. Only the end of the current one means being offline.
    pub(crate) fn disconnected(&mut self, link: LinkNumber) {
        let open = std::mem::take(&mut self.requests);
        for (request, (asked, purpose)) in open {
            if asked != link {
                self.requests.insert(request, (asked, purpose));
            } else if let Purpose::Question = purpose {
                self.effects.push_back(Effect::Answer { question: request, answer: None });
            }
        }
        if self.link == Some(link) {
            self.link = None;
            self.syncing = false;
            self.sync_at = None;
            self.sends.offline();
            self.logs.offline();
        }
    }

    /// The application makes a change. It leaves when `saved`, now or later.
    pub(crate) fn submit(&mut self, temp_id: TempId, change: Change, saved: bool, now: u64) {
        if self.sends.contains(&temp_id) {
            self.effects.push_back(Effect::Resolved { temp_id, result: Err(SendError::InUse) });
            return;
        }
        self.sends.add(temp_id, change, now, saved, false);
        self.tick(now);
    }

    /// These changes are saved.
    pub(crate) fn saved(&mut self, temp_ids: &[TempId], now: u64) {
        for temp_id in temp_ids {
            self.sends.saved(temp_id);
        }
        self.tick(now);
    }

    /// A change could not be saved, so it is not accepted.
    pub(crate) fn not_saved(&mut self, temp_id: TempId, problem: &str) {
        if let Some(change) = self.sends.remove(&temp_id) {
            self.fail(temp_id, &change, SendError::NotSaved(problem.to_owned()));
        }
    }

    /// The application confirmed entries.
    pub(crate) fn confirm(&mut self, positions: impl IntoIterator<Item = Position>) {
        let mut news = Vec::new();
        for position in positions {
            if self.logs.confirm(position) {
                self.effects.push_back(Effect::Save(SavedChange::Cursor(position)));
                news.push(position);
            }
        }
        if self.link.is_some() {
            for part in news.chunks(tern_protocol::ACK_POSITIONS_MAX) {
                self.send(None, tern_protocol::Ack { positions: part.to_vec() });
            }
        }
    }

    /// The application has room for this many entries.
    pub(crate) fn set_room(&mut self, events: usize, now: u64) {
        self.logs.set_room(events);
        while let Some((conversation, outs)) = self.logs.drain(now) {
            self.hand_out(conversation, outs);
        }
        self.tick(now);
    }

    /// The application asks something. Gives the number under which the answer comes, `Err(true)`
    /// if there are too many questions, `Err(false)` if there is no session.
    pub(crate) fn ask(&mut self, frame: Frame) -> Result<u64, bool> {
        if self.link.is_none() {
            return Err(false);
        }
        let open = self.requests.values().filter(|(_, purpose)| matches!(purpose, Purpose::Question));
        if open.count() >= QUESTIONS_MAX {
            return Err(true);
        }
        Ok(self.request_or_send(Some(Purpose::Question), frame))
    }

    pub(crate) fn read(&mut self, mut position: Position) {
        // Above the head it would mean that this client knows more than the server.
        position.seq =
            self.logs.heard(position.conversation).map_or(position.seq, |heard| position.seq.min(heard));
        self.logs.read_to(position.conversation, position.seq);
        self.reads.retain(|read| read.conversation != position.conversation);
        if self.reads.len() >= READS_MAX {
            self.reads.pop_front();
        }
        self.reads.push_back(position);
        if self.link.is_some() {
            self.send(None, Read { conversation: position.conversation, seq: position.seq });
        }
    }

    pub(crate) fn watch(&mut self, users: Vec<UserId>) {
        if self.link.is_some() {
            self.send(None, Watch { users: users.clone() });
        }
        self.watched = Some(users);
    }

    pub(crate) fn typing(&mut self, to: Target) {
        if self.link.is_some() {
            self.send(None, Typing { to });
        }
    }

    /// Sends what may be sent now.
    pub(crate) fn tick(&mut self, now: u64) {
        let Some(link) = self.link else { return };
        while let Some(step) = self.sends.next(now, self.request_last + 1) {
            let (purpose, frame) = match step {
                Step::Attempt(temp_id, frame) => (Purpose::Change(temp_id), frame),
                Step::Search(conversation, frame) => (Purpose::Search(conversation), frame),
            };
            self.request(link, purpose, frame);
        }
        if self.sync_at.is_some_and(|at| at <= now) {
            self.sync();
        }
        if self.syncing {
            return;
        }
        while let Some(fetch) = self.logs.next_fetch(now, self.request_last + 1) {
            self.request(link, Purpose::Hole(fetch.conversation), fetch.into());
        }
    }

    /// When [`Session::tick`] should be called without any other input.
    pub(crate) fn wake_at(&self) -> Option<u64> {
        self.link?;
        let fetch = if self.syncing { None } else { self.logs.wake_at() };
        [self.sends.wake_at(), fetch, self.sync_at].into_iter().flatten().min()
    }

    /// The client stops: everything unresolved ends so.
    pub(crate) fn close(&mut self) {
        for (temp_id, result) in self.sends.fail_all(&SendError::Closed) {
            self.effects.push_back(Effect::Resolved { temp_id, result });
        }
    }

    fn request(&mut self, link: LinkNumber, purpose: Purpose, frame: Frame) {
        self.request_last += 1;
        self.requests.insert(self.request_last, (link, purpose));
        self.send(Some(self.request_last), frame);
    }

    fn request_or_send(&mut self, purpose: Option<Purpose>, frame: impl Into<Frame>) -> u64 {
        match (self.link, purpose) {
            (Some(link), Some(purpose)) => self.request(link, purpose, frame.into()),
            _ => self.send(None, frame),
        }
        self.request_last
    }

    fn send(&mut self, request: Option<u64>, frame: impl Into<Frame>) {
        self.effects.push_back(Effect::Send(Envelope { request, frame: frame.into() }));
    }

    fn emit(&mut self, event: Event) {
        self.effects.push_back(Effect::Emit(event));
    }

    fn hand_out(&mut self, conversation: ConversationId, outs: logs::Outs) {
        let mut wrote = None;
        for out in outs {
            if let log::Out::Entry(Entry { seq, messages, sender, body, .. }) = &out
                && body.is_message()
                && self.me.as_ref() == Some(sender)
            {
                wrote = Some((*seq, *messages));
            }
            if let log::Out::Entry(Entry { seq, body: EntryBody::Left { user }, .. }) = &out
                && user.is_erased()
            {
                self.emit(Event::Erased { conversation, seq: *seq });
            }
            self.emit(match out {
                log::Out::Entry(entry) => Event::Entry { conversation, entry },
                log::Out::Gap { from, to } => Event::Gap { conversation, from, to },
            });
        }
        // Whoever writes has read what is above.
        if let Some((seq, messages)) = wrote {
            self.have_read(conversation, seq, messages);
        }
    }

    /// The user has read up to here, by another word than [`Session::read`].
    fn have_read(&mut self, conversation: ConversationId, seq: u64, messages: u64) {
        self.reads.retain(|read| read.conversation != conversation || read.seq > seq);
        if self.logs.read_to(conversation, seq) {
            self.emit(Event::Read { conversation, seq, messages });
        }
    }

    fn resolve(&mut self, temp_id: TempId, ack: SendAck) {
        self.effects.push_back(Effect::Save(SavedChange::Resolved { temp_id }));
        self.effects.push_back(Effect::Resolved { temp_id, result: Ok(ack) });
    }

    fn fail(&mut self, temp_id: TempId, change: &Change, error: SendError) {
        self.effects.push_back(Effect::Save(SavedChange::Resolved { temp_id }));
        self.effects.push_back(Effect::Resolved { temp_id, result: Err(error.clone()) });
        let to = match (&self.me, change) {
            (Some(me), change) => change.target(me, &temp_id),
            (None, Change::Message { to, .. }) => to.clone(),
            (None, _) => return,
        };
        self.emit(Event::SendFailed { temp_id, to, error });
    }

    /// No cursor holds on this server: everything is synced anew.
    pub(crate) fn resync(&mut self) {
        for conversation in self.logs.clear() {
            self.effects.push_back(Effect::Save(SavedChange::CursorDropped { conversation }));
        }
        self.effects.push_back(Effect::Forget(None));
        self.emit(Event::Resync { conversation: None });
        if self.link.is_some() {
            self.sync();
        }
    }
}

/// The same request may succeed later.
fn temporary(error: &tern_protocol::Error) -> bool {
    error.temporary || error.code.temporary() || error.code.class() == Class::Authenticate
}

/// The code means that the token must be renewed.
fn needs_token(code: Code) -> bool {
    code.class() == Class::Authenticate
}
