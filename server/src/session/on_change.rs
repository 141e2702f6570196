//! Frames that change a conversation: messages and group management.

use std::sync::Arc;
use std::time::Instant;

use tern_protocol::{Abandon, Code, ConversationId, TempId};

use super::active::Active;
use super::answered::Awaited;
use super::lane::Admission;
use super::quota::Allowance;
use super::refused::Refused;
use super::step::{Handled, close_for};
use crate::conversation::{Ask, Refusal, Reply, Submission, Wanted};

impl Active {
    pub(super) fn on_abandon(&mut self, abandon: Abandon) -> Result<Handled, Refused> {
        let conversation = abandon.to.conversation(&self.seat.user);
        self.lanes.lock().abandon(conversation, abandon.temp_id);
        Ok(Handled::Silent)
    }

    /// A change that is refused for now before it was looked at keeps its place.
    pub(super) fn put_off(&mut self, conversation: ConversationId, temp_id: TempId) {
        let mut lanes = self.lanes.lock();
        if let Admission::Submit { attempt, .. } = lanes.admit(conversation, temp_id) {
            lanes.answered(conversation, temp_id, attempt, true);
        }
    }

    /// The change itself first, then order, then rate, then the router. The answer comes through the reply.
    pub(super) fn on_change(
        &mut self,
        request: Option<u64>,
        wanted: Wanted,
        now: Instant,
    ) -> Result<Handled, Refused> {
        let checked = wanted.check();
        let Wanted { conversation, peer, temp_id, change, .. } = wanted;
        let age_ms = checked.map_err(|refusal| {
            // Refused for good: if an attempt was put off before it was looked at, nothing waits for it.
            self.lanes.lock().abandon(conversation, temp_id);
            Refused::from(refusal).about(conversation, temp_id)
        })?;
        let admission = self.lanes.lock().admit(conversation, temp_id);
        let (attempt, after) = match admission {
            Admission::Submit { attempt, after } => (attempt, after),
            Admission::OutOfOrder => {
                return Err(Refused::from(Refusal::OutOfOrder).about(conversation, temp_id));
            }
            Admission::TooMany => {
                let reason = "more than sends_in_flight unresolved sends in this session";
                return Ok(Handled::Fatal(close_for(Code::LIMIT_EXCEEDED, reason)));
            }
        };
        tracing::debug!(session = self.seat.id(), request, %conversation, %temp_id, "change asked for");
        if let Allowance::Refused { retry_after } = self.gateway.quota.send(&self.seat.user, now) {
            self.lanes.lock().answered(conversation, temp_id, attempt, true);
            return Err(Refused::rate_limited(retry_after, "sends of this user").about(conversation, temp_id));
        }
        let awaited = Awaited {
            gateway: Arc::clone(&self.gateway),
            seat: Arc::clone(&self.seat),
            lanes: Arc::clone(&self.lanes),
            request,
            conversation,
            temp_id,
            attempt,
        };
        let ask = Ask {
            conversation,
            peer,
            sender: self.seat.user.clone(),
            sender_name: self.claims.name.clone(),
            asker: Some(self.seat.at.clone()),
            temp_id,
            after,
            age_ms,
            right: Some(self.claims.right()),
            change,
        };
        let reply = Reply::new(move |outcome| awaited.settle(outcome));
        self.gateway.router.submit(Submission { ask, arrived: now, reply });
        Ok(Handled::Pending)
    }
}
