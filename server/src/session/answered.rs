//! The way of an answer back to the session that asked for a change.

use std::sync::Arc;

use parking_lot::Mutex;
use tern_protocol::{ConversationId, Envelope, TempId};

use super::Inner;
use super::lane::{Attempt, Lanes};
use super::refused::Refused;
use crate::conversation::Outcome;
use crate::roster::{Outgoing, Seat};

/// A change that was asked for, until its answer is here.
pub(super) struct Awaited {
    pub(super) gateway: Arc<Inner>,
    pub(super) seat: Arc<Seat>,
    pub(super) lanes: Arc<Mutex<Lanes>>,
    pub(super) request: Option<u64>,
    pub(super) conversation: ConversationId,
    pub(super) temp_id: TempId,
    pub(super) attempt: Attempt,
}

impl Awaited {
    /// Resolves the change in its lane, and tells the client. Called by whoever decided, once what was
    /// committed is durable; the session may have ended.
    pub(super) fn settle(self, outcome: Outcome) {
        let Self { gateway, seat, lanes, request, conversation, temp_id, attempt } = self;
        let temporary = outcome.as_ref().is_err_and(|refusal| refusal.code().temporary());
        lanes.lock().answered(conversation, temp_id, attempt, temporary);
        let seq = outcome.as_ref().ok().map(|committed| committed.seq);
        let code = outcome.as_ref().err().map(|refusal| refusal.code().0);
        tracing::debug!(session = seat.id(), request, %conversation, %temp_id, seq, code, "change answered");
        let frame = match outcome {
            Ok(committed) => {
                // The ack stands for the entry: the client may ack it in turn.
                seat.outbox.note_told(conversation, committed.seq);
                committed.ack(conversation, temp_id).into()
            }
            Err(refusal) => {
                gateway.refused(refusal.code());
                Refused::from(refusal).about(conversation, temp_id).into_frame().into()
            }
        };
        let _ = seat.outbox.push_control(&Outgoing::new(Envelope { request, frame }));
    }
}
