//! Frames that change a conversation: messages and group management.

use std::sync::Arc;
use std::time::Instant;

use tern_protocol::{
    Abandon, AddMembers, Code, ConversationId, CreateGroup, Envelope, LeaveGroup, RemoveMembers, RenameGroup,
    Send, SetRole, Target, TempId, UserId,
};

use super::active::{Active, Handled};
use super::lane::Admission;
use super::quota::Verdict;
use super::refused::Refused;
use super::run::close_for;
use crate::conversation::{Change, Reply, Submission, age_ms};
use crate::hub::Outgoing;

/// A change before its order and rate were looked at.
struct Asked {
    request: Option<u64>,
    conversation: ConversationId,
    peer: Option<UserId>,
    temp_id: TempId,
    age_ms: Option<u64>,
    change: Change,
}

impl Active {
    pub(super) fn on_send(
        &mut self,
        request: Option<u64>,
        send: Send,
        now: Instant,
    ) -> Result<Handled, Refused> {
        let conversation = send.to.conversation(&self.session.user);
        let peer = match send.to {
            Target::User(user) => Some(user),
            Target::Conversation(_) => None,
        };
        let (temp_id, age_ms) = (send.temp_id, send.age_ms);
        let change = Change::Message { text: send.text };
        self.ask(Asked { request, conversation, peer, temp_id, age_ms, change }, now)
    }

    pub(super) fn on_abandon(&mut self, abandon: Abandon) -> Result<Handled, Refused> {
        let conversation = abandon.to.conversation(&self.session.user);
        self.lanes.lock().abandon(conversation, abandon.temp_id);
        Ok(Handled::Later)
    }

    pub(super) fn on_create_group(
        &mut self,
        request: Option<u64>,
        create: CreateGroup,
        now: Instant,
    ) -> Result<Handled, Refused> {
        let CreateGroup { name, members, temp_id } = create;
        let conversation = ConversationId::group(&self.session.user, &temp_id);
        self.ask_group(request, conversation, temp_id, Change::Create { name, members }, now)
    }

    pub(super) fn on_add_members(
        &mut self,
        request: Option<u64>,
        add: AddMembers,
        now: Instant,
    ) -> Result<Handled, Refused> {
        let AddMembers { conversation, users, temp_id } = add;
        self.ask_group(request, conversation, temp_id, Change::Add { users }, now)
    }

    pub(super) fn on_remove_members(
        &mut self,
        request: Option<u64>,
        remove: RemoveMembers,
        now: Instant,
    ) -> Result<Handled, Refused> {
        let RemoveMembers { conversation, users, temp_id } = remove;
        self.ask_group(request, conversation, temp_id, Change::Remove { users }, now)
    }

    pub(super) fn on_leave_group(
        &mut self,
        request: Option<u64>,
        leave: LeaveGroup,
        now: Instant,
    ) -> Result<Handled, Refused> {
        self.ask_group(request, leave.conversation, leave.temp_id, Change::Leave, now)
    }

    pub(super) fn on_rename_group(
        &mut self,
        request: Option<u64>,
        rename: RenameGroup,
        now: Instant,
    ) -> Result<Handled, Refused> {
        let RenameGroup { conversation, name, temp_id } = rename;
        self.ask_group(request, conversation, temp_id, Change::Rename { name }, now)
    }

    pub(super) fn on_set_role(
        &mut self,
        request: Option<u64>,
        set: SetRole,
        now: Instant,
    ) -> Result<Handled, Refused> {
        let SetRole { conversation, user, role, temp_id } = set;
        self.ask_group(request, conversation, temp_id, Change::SetRole { user, role }, now)
    }

    /// A send that is refused for now before it was looked at keeps its place.
    pub(super) fn put_off(&mut self, conversation: ConversationId, temp_id: TempId) {
        let mut lanes = self.lanes.lock();
        if let Admission::Submit { attempt, .. } = lanes.admit(conversation, temp_id) {
            lanes.answered(conversation, temp_id, attempt, true);
        }
    }

    fn ask_group(
        &mut self,
        request: Option<u64>,
        conversation: ConversationId,
        temp_id: TempId,
        change: Change,
        now: Instant,
    ) -> Result<Handled, Refused> {
        self.ask(Asked { request, conversation, peer: None, temp_id, age_ms: None, change }, now)
    }

    /// The change itself first, then order, then rate, then the router. The answer comes through the reply.
    fn ask(&mut self, asked: Asked, now: Instant) -> Result<Handled, Refused> {
        let Asked { request, conversation, peer, temp_id, age_ms: age_said, change } = asked;
        let checked = change.check().and_then(|()| age_ms(age_said));
        let age_ms = checked.map_err(|refusal| Refused::from(refusal).about(temp_id))?;
        let admission = self.lanes.lock().admit(conversation, temp_id);
        let (attempt, after) = match admission {
            Admission::Submit { attempt, after } => (attempt, after),
            Admission::OutOfOrder => {
                return Err(Refused::from(crate::conversation::Refusal::OutOfOrder).about(temp_id));
            }
            Admission::TooMany => {
                let reason = "more than sends_in_flight unresolved sends in this session";
                return Ok(Handled::Fatal(close_for(Code::LIMIT_EXCEEDED, reason)));
            }
        };
        tracing::debug!(session = self.session.id, request, %conversation, %temp_id, "change asked for");
        let parts = &self.gateway.parts;
        if let Verdict::Refused { retry_after } = parts.quota.send(&self.session.user, now) {
            self.lanes.lock().answered(conversation, temp_id, attempt, true);
            return Err(Refused::rate_limited(retry_after, "sends of this user").about(temp_id));
        }
        let lanes = Arc::clone(&self.lanes);
        let session = Arc::clone(&self.session);
        let gateway = Arc::clone(&self.gateway);
        let reply = Reply::new(move |outcome| {
            let temporary = outcome.as_ref().is_err_and(|refusal| refusal.code().temporary());
            lanes.lock().answered(conversation, temp_id, attempt, temporary);
            let seq = outcome.as_ref().ok().map(|committed| committed.seq);
            let code = outcome.as_ref().err().map(|refusal| refusal.code().0);
            tracing::debug!(session = session.id, request, %conversation, %temp_id, seq, code, "change answered");
            let frame = match outcome {
                Ok(committed) => committed.ack(conversation, temp_id).into(),
                Err(refusal) => {
                    gateway.refused(refusal.code());
                    Refused::from(refusal).about(temp_id).into_frame().into()
                }
            };
            let _ = session.outbox.push_control(&Outgoing::new(Envelope { request, frame }));
        });
        parts.router.submit(Submission {
            conversation,
            peer,
            sender: self.session.user.clone(),
            sender_name: self.claims.name.clone(),
            origin: self.session.id,
            temp_id,
            after,
            age_ms,
            change,
            arrived: now,
            reply,
        });
        Ok(Handled::Later)
    }
}
