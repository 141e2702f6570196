//! Answers the questions of one session.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tern_protocol::{
    Code, ConversationId, ConversationPage, Envelope, Frame, HaveRead, MemberList, Page, Position, Presence,
    Read, UserId, UserTyping,
};

use super::{Decision, Gone, Inner, Job, Part, Slot};
use crate::clock::now;
use crate::conversation::history::Marked;
use crate::delivery::{Class, Except, Parcel};
use crate::presence::{Notice, WatchError};
use crate::roster::{Outgoing, Seat};
use crate::session::people::Deciding;
use crate::session::refused::Refused;
use crate::store::ReadPosition;
use crate::store::Right;

/// A notice of typing that waited longer is not true any more.
const TYPING_KEPT: Duration = Duration::from_secs(3);

pub(super) struct Worker {
    pub(super) gateway: Arc<Inner>,
    pub(super) seat: Arc<Seat>,
    slot: Arc<Slot>,
    /// What is left of a sync.
    pub(super) catching_up: VecDeque<Part>,
    ended: bool,
}

impl Drop for Worker {
    fn drop(&mut self) {
        // One that panics or is gone leaves its place, so that the next question finds another.
        if !self.ended {
            self.slot.leave();
        }
    }
}

impl Worker {
    pub(super) fn new(gateway: Arc<Inner>, seat: Arc<Seat>, slot: Arc<Slot>) -> Self {
        Self { gateway, seat, slot, catching_up: VecDeque::new(), ended: false }
    }

    /// Questions first, since they are short; a sync goes on between them.
    pub(super) async fn run(mut self) {
        loop {
            let done = match self.slot.next(!self.catching_up.is_empty()) {
                Some(job) => self.work(job).await,
                None if self.catching_up.is_empty() => {
                    self.ended = true;
                    return;
                }
                None => self.catch_up().await,
            };
            if let Err(Gone) = done {
                return;
            }
        }
    }

    async fn work(&mut self, job: Job) -> Result<(), Gone> {
        let (request, conversation) = (job.request(), job.conversation());
        match self.answer(job).await {
            Ok(Some(frame)) => self.send(request, frame).await,
            Ok(None) => Ok(()),
            Err(refused) => {
                self.gateway.refused(refused.code);
                let refused = Refused { conversation: refused.conversation.or(conversation), ..refused };
                self.send(request, refused.into_frame().into()).await
            }
        }
    }

    async fn answer(&mut self, job: Job) -> Result<Option<Frame>, Refused> {
        let gateway = Arc::clone(&self.gateway);
        let (user, history) = (&self.seat.user, &gateway.history);
        match job {
            Job::Sync { request, cursors } => {
                self.begin_sync(request, cursors).await?;
                Ok(None)
            }
            Job::Fetch { conversation, anchor, limit, .. } => {
                let page = self.reading(history.page(user, conversation, anchor, limit)).await?;
                let page = page.ok_or_else(Refused::not_found)?;
                let (first_seq, head) = (page.access.first_seq, page.access.last_seq);
                Ok(Some(Page { conversation, entries: page.entries, first_seq, head }.into()))
            }
            Job::List { cursor, limit, .. } => {
                let page = self.reading(history.list(user, cursor.as_ref(), limit)).await?;
                Ok(Some(ConversationPage { conversations: page.conversations, next: page.next }.into()))
            }
            Job::Members { conversation, .. } => {
                let members = self.reading(history.members(user, conversation)).await?;
                let members = members.ok_or_else(Refused::not_found)?;
                Ok(Some(MemberList { conversation, members }.into()))
            }
            Job::Read { read, .. } => self.reading(self.read(read)).await.map(|()| None),
            Job::Watch { request, users } => {
                self.reading(self.watch(request, users)).await?;
                Ok(None)
            }
            Job::Decide { decision, right, .. } => self.reading(self.decide(decision, right)).await.map(Some),
            Job::Blocks { after, .. } => {
                let blocks = self.reading(self.deciding(Right::own(0)).blocks(after.as_ref())).await?;
                Ok(Some(blocks.into()))
            }
            Job::Ack { positions, .. } => self.reading(self.ack(positions)).await.map(|()| None),
            Job::Typing { conversation, since } => {
                self.reading(self.type_in(conversation, since)).await;
                Ok(None)
            }
        }
    }

    /// Waits for its turn at the store. Held while it is asked and not while the client takes the answer:
    /// one that is slow to take keeps nobody from asking.
    pub(super) async fn reading<T>(&self, asked: impl Future<Output = T>) -> T {
        let _turn = self.gateway.reads.acquire().await;
        asked.await
    }

    async fn read(&self, read: Read) -> Result<(), Refused> {
        let (Read { conversation, seq }, user) = (read, &self.seat.user);
        let marked = self.gateway.history.mark_read(user, conversation, seq).await?;
        match marked {
            Marked::NotFound => return Err(Refused::not_found().within(conversation)),
            Marked::Ahead(head) => return Err(self.ahead(conversation, seq, head)),
            // What was read was seen.
            Marked::Rose(_) | Marked::Stood => self.gateway.confirm(&self.seat, conversation, seq),
        }
        if let Marked::Rose(ReadPosition { seq, messages }) = marked {
            let have_read = Outgoing::new(HaveRead { conversation, seq, messages });
            let except = Except::Session(self.seat.at.clone());
            self.gateway.delivery.hand_out(Parcel::control([user.clone()], have_read).except(except));
        }
        Ok(())
    }

    async fn ack(&self, positions: Vec<Position>) -> Result<(), Refused> {
        let (history, user) = (&self.gateway.history, &self.seat.user);
        let ids: Vec<ConversationId> = positions.iter().map(|position| position.conversation).collect();
        let accesses = history.accesses(user, &ids).await?;
        let mut failed = Ok(());
        for (Position { conversation, seq }, access) in positions.into_iter().zip(accesses) {
            let mut access = match access {
                Ok(access) => access,
                // One that cannot be read keeps no other from being confirmed.
                Err(error) => {
                    failed = failed.and(Err(Refused::from(error).within(conversation)));
                    continue;
                }
            };
            if access.is_some_and(|access| seq > access.last_seq) {
                access = history.access_up_to(user, conversation, seq).await?;
            }
            // A position must lie in the part of the log that the user may see. The others count all the same.
            failed = failed.and(match access {
                None => Err(Refused::not_found().within(conversation)),
                Some(access) if seq > access.last_seq => Err(self.ahead(conversation, seq, access.last_seq)),
                Some(_) => {
                    self.gateway.confirm(&self.seat, conversation, seq);
                    Ok(())
                }
            });
        }
        failed
    }

    async fn decide(&self, decision: Decision, right: Right) -> Result<Frame, Refused> {
        let deciding = self.deciding(right);
        Ok(match decision {
            Decision::Block { user, blocked } => deciding.set_block(user, blocked).await?.into(),
            Decision::Keep(conversation) => deciding.keep(conversation).await?.into(),
        })
    }

    fn deciding(&self, right: Right) -> Deciding<'_> {
        Deciding {
            store: &*self.gateway.store,
            delivery: &self.gateway.delivery,
            me: &self.seat.user,
            right,
            asker: Some(&self.seat.at),
        }
    }

    /// The answer and later changes come through the notice.
    async fn watch(&self, request: Option<u64>, users: Vec<UserId>) -> Result<(), Refused> {
        let seat = Arc::clone(&self.seat);
        let notify = Arc::new(move |notice| {
            let (request, users) = match notice {
                Notice::Answer(users) => (request, users),
                Notice::Change(users) => (None, users),
            };
            let frame = Presence { users }.into();
            let _ = seat.outbox.push_control(&Outgoing::new(Envelope { request, frame }));
        });
        let watched = self.gateway.presence.watch(&self.seat, users, notify).await;
        watched.map_err(|error| match error {
            WatchError::Store(error) => error.into(),
            WatchError::TooMany(_) => Refused::new(Code::LIMIT_EXCEEDED, error.to_string()),
            WatchError::Full => Refused::new(Code::OVER_CAPACITY, error.to_string()),
        })
    }

    async fn type_in(&self, conversation: ConversationId, since: Instant) {
        if now().saturating_duration_since(since) > TYPING_KEPT {
            return;
        }
        let user = &self.seat.user;
        let state = self.gateway.history.fellow_members(user, conversation).await;
        if let Some(state) = state.ok().flatten().filter(|state| state.blocked_by.is_empty()) {
            let to = state.members.iter().map(|member| member.user.clone()).collect();
            let body = Outgoing::new(UserTyping { conversation, user: user.clone() });
            let (class, except) = (Class::Datagram, Except::User(user.clone()));
            self.gateway.delivery.hand_out(Parcel { to, class, body, except, arrived: None });
        }
    }

    pub(super) async fn send(&self, request: Option<u64>, frame: Frame) -> Result<(), Gone> {
        let outgoing = Outgoing::new(Envelope { request, frame });
        self.seat.outbox.push_backlog(&outgoing).await.map_err(|_| Gone)
    }

    fn ahead(&self, conversation: ConversationId, seq: u64, head: u64) -> Refused {
        self.gateway.rollback.note(conversation, seq, head, now());
        let detail = format!("seq {seq} is above the head {head} of {conversation}");
        Refused::new(Code::CURSOR_AHEAD, detail).within(conversation)
    }
}
