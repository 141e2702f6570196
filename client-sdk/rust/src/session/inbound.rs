//! What the session makes of the server's frames, one arm per frame.

use tern_protocol::{
    Abandon, Class, ConversationId, Deliver, Entry, EntryBody, Envelope, Error, Frame, Page, SendAck,
    SyncPage, TempId,
};

use super::sends::Refusal;
use super::{Change, Effect, LinkNumber, Purpose, Session, needs_token, temporary};
use crate::draft::Draft;
use crate::error::SendError;
use crate::event::Event;
use crate::persistence::SavedChange;

/// Wait before a sync is asked for again where the server gives no hint.
const SYNC_RETRY_MS: u64 = 1_000;

impl Session {
    /// A frame came on a link. Frames about the link itself (Ping, GoAway, Close, tokens) are not
    /// the session's; it ignores them.
    pub(crate) fn received(&mut self, link: LinkNumber, envelope: Envelope, now: u64) {
        let Envelope { request, frame } = envelope;
        match frame {
            Frame::SendAck(ack) => self.on_ack(request, ack, now),
            Frame::Error(error) => self.on_error(request, error, now),
            Frame::Deliver(deliver) => self.on_deliver(deliver, now),
            Frame::Gap(gap) => {
                let outs = self.logs.gap(gap.conversation, gap.from, gap.to, now);
                self.hand_out(gap.conversation, outs);
            }
            Frame::Erased(erased) => {
                self.emit(Event::Erased { conversation: erased.conversation, seq: erased.seq });
            }
            Frame::Lagged(lagged) => self.logs.hear(lagged.conversation, lagged.head, true, now),
            Frame::SyncPage(page) => self.on_sync_page(page, now),
            Frame::SyncEnd(_) if self.link == Some(link) => {
                request.map(|request| self.requests.remove(&request));
                self.syncing = false;
                self.effects.push_back(Effect::Synced);
            }
            Frame::Page(page) => self.on_page(request, page, now),
            Frame::BlockChanged(changed) if request.is_none() => {
                self.emit(Event::BlockChanged { user: changed.user, blocked: changed.blocked });
            }
            frame @ (Frame::ConversationPage(_)
            | Frame::MemberList(_)
            | Frame::BlockChanged(_)
            | Frame::BlockList(_)
            | Frame::GroupKept(_)
            | Frame::GroupsLeft(_)) => self.on_answer(request, frame),
            Frame::HaveRead(read) => {
                self.have_read(read.conversation, read.seq, read.messages);
            }
            Frame::Presence(presence) => self.emit(Event::Presence(presence.users)),
            Frame::UserTyping(typing) => {
                self.emit(Event::Typing { conversation: typing.conversation, user: typing.user });
            }
            _ => {}
        }
        self.tick(now);
    }

    fn on_ack(&mut self, request: Option<u64>, ack: SendAck, now: u64) {
        request.map(|request| self.requests.remove(&request));
        let (conversation, seq) = (ack.conversation, ack.seq);
        match self.sends.acked(&ack.temp_id) {
            Some(Change::Message { draft, .. }) => {
                // This session gets no Deliver for its own message: the ack stands for the entry.
                let entry = self.own_entry(&ack, draft);
                self.resolve(ack.temp_id, ack);
                if let Some(entry) = entry {
                    let outs = self.logs.offer(conversation, entry, now);
                    self.hand_out(conversation, outs);
                }
            }
            Some(_) => {
                self.resolve(ack.temp_id, ack);
                self.logs.hear(conversation, seq, false, now);
            }
            None => self.logs.hear(conversation, seq, false, now),
        }
    }

    fn own_entry(&self, ack: &SendAck, draft: Draft) -> Option<Entry> {
        let Draft { text, data, reply_to } = draft;
        Some(Entry {
            seq: ack.seq,
            id: ack.id,
            time_ms: ack.time_ms,
            sender: self.me.clone()?,
            sender_name: self.name.clone(),
            temp_id: Some(ack.temp_id),
            messages: ack.messages,
            body: EntryBody::Message { text, data, reply_to },
        })
    }

    fn on_deliver(&mut self, deliver: Deliver, now: u64) {
        let mut outs = Vec::new();
        for entry in deliver.entries {
            outs.extend(self.logs.offer(deliver.conversation, entry, now));
        }
        self.hand_out(deliver.conversation, outs);
    }

    fn on_sync_page(&mut self, page: SyncPage, now: u64) {
        for row in &page.conversations {
            let outs = self.logs.summary(row.conversation, row.first_seq, row.head, now);
            self.hand_out(row.conversation, outs);
        }
        if !page.conversations.is_empty() {
            self.emit(Event::Conversations(page.conversations));
        }
    }

    fn on_page(&mut self, request: Option<u64>, page: Page, now: u64) {
        let Some(request) = request else { return };
        let conversation = page.conversation;
        match self.requests.get(&request).map(|(_, purpose)| purpose.clone()) {
            Some(Purpose::Hole(asked)) if asked == conversation => {
                self.requests.remove(&request);
                let (outs, result) = self.logs.page(page, request, now);
                self.hand_out(conversation, outs);
                if result.is_err() {
                    self.reset(conversation, now);
                }
            }
            Some(Purpose::Search(asked)) if asked == conversation => {
                self.requests.remove(&request);
                let (acks, lost) = self.sends.searched(&page, request, now);
                for (ack, change) in acks {
                    self.abandon(ack.temp_id, &change);
                    self.resolve(ack.temp_id, ack);
                }
                self.give_up(lost);
            }
            _ => self.on_answer(Some(request), page.into()),
        }
    }

    fn on_answer(&mut self, request: Option<u64>, frame: Frame) {
        let Some(question) = request else { return };
        if let Some((_, Purpose::Question)) = self.requests.get(&question) {
            self.requests.remove(&question);
            self.effects.push_back(Effect::Answer { question, answer: Some(Ok(Box::new(frame))) });
        }
    }

    fn on_error(&mut self, request: Option<u64>, error: Error, now: u64) {
        if needs_token(error.code) {
            self.effects.push_back(Effect::Reauth(error.code));
        }
        let temporary = temporary(&error);
        match request.and_then(|request| self.requests.remove(&request)) {
            Some((_, Purpose::Change(temp_id))) => self.on_refusal(temp_id, request, error, temporary, now),
            Some((_, Purpose::Hole(conversation))) => {
                if error.code.class() == Class::Resync {
                    self.reset(conversation, now);
                }
                let refusal = Some((&error, temporary || error.code.class() == Class::Resync));
                self.logs.fetch_failed(conversation, request.unwrap_or(0), refusal, now);
            }
            Some((_, Purpose::Search(conversation))) => {
                let lost = self.sends.search_refused(conversation, &error, temporary, now);
                self.give_up(lost);
            }
            Some((_, Purpose::Question)) => {
                let question = request.unwrap_or(0);
                self.effects.push_back(Effect::Answer { question, answer: Some(Err(error)) });
            }
            Some((link, Purpose::Sync)) => match ahead(&error) {
                // One cursor does not hold; the sync goes on.
                Some(conversation) => {
                    self.requests.extend(request.map(|request| (request, (link, Purpose::Sync))));
                    self.reset(conversation, now);
                }
                None => self.on_sync_refused(error, temporary, now),
            },
            None => match error.temp_id {
                Some(temp_id) if request.is_none() => {
                    self.on_refusal(temp_id, None, error, temporary, now);
                }
                _ if error.code.class() == Class::Resync => match error.conversation {
                    Some(conversation) => self.reset(conversation, now),
                    None => self.resync(),
                },
                _ => {}
            },
        }
    }

    fn on_sync_refused(&mut self, error: Error, temporary: bool, now: u64) {
        if error.code.class() == Class::Resync {
            self.resync();
        } else if temporary {
            self.sync_at = Some(now + error.retry_after_ms.map_or(SYNC_RETRY_MS, u64::from));
        } else {
            self.effects.push_back(Effect::SyncRefused(error));
        }
    }

    fn on_refusal(&mut self, temp_id: TempId, request: Option<u64>, error: Error, temporary: bool, now: u64) {
        if let Refusal::Final(change) = self.sends.refused(&temp_id, request, &error, temporary, now) {
            self.fail(temp_id, &change, SendError::Refused { code: error.code, detail: error.detail });
        }
    }

    fn give_up(&mut self, lost: Vec<(TempId, Change)>) {
        for (temp_id, change) in lost {
            self.abandon(temp_id, &change);
            self.fail(temp_id, &change, SendError::Expired);
        }
    }

    /// The server may wait for this one before it takes later ones.
    fn abandon(&mut self, temp_id: TempId, change: &Change) {
        if let Some(me) = &self.me {
            let to = change.target(me, &temp_id);
            self.send(None, Abandon { to, temp_id });
        }
    }

    fn reset(&mut self, conversation: ConversationId, now: u64) {
        self.logs.reset(conversation, now);
        self.effects.push_back(Effect::Save(SavedChange::CursorDropped { conversation }));
        self.effects.push_back(Effect::Forget(Some(conversation)));
        self.emit(Event::Resync { conversation: Some(conversation) });
    }
}

/// The conversation whose cursor is above its head.
fn ahead(error: &Error) -> Option<ConversationId> {
    error.conversation.filter(|_| error.code.class() == Class::Resync)
}
