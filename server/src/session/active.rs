//! An open session: its state, and which handler gets which frame. No handler waits for anything.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tern_protocol::{BAD_FRAMES_MAX, Code, DecodeError, Envelope, Frame, Pong, Position, TokenExpiring};

use super::Inner;
use super::deadline::{Deadlines, Due};
use super::lane::Lanes;
use super::quota::{Allowance, ConnectionQuota};
use super::reads::Reads;
use super::refused::{Refused, whole_ms};
use super::step::{Handled, Step, close_for};
use super::strikes::Strikes;
use crate::auth::Claims;
use crate::budget::Charge;
use crate::clock::unix_ms;
use crate::conversation::{Wanted, change_of};
use crate::roster::{Outgoing, Seat, SeatGuard};
use crate::transport::Inbound;

/// A token that waits for the key of its issuer or for the store, with the number of its request.
pub(super) type Renewal = Pin<Box<dyn Future<Output = (Option<u64>, Result<Claims, Refused>)> + Send>>;

/// An open session. Dropping it ends all it has begun.
pub(super) struct Active {
    pub(super) gateway: Arc<Inner>,
    pub(super) seat: Arc<Seat>,
    pub(super) claims: Claims,
    pub(super) lanes: Arc<Mutex<Lanes>>,
    pub(super) quota: ConnectionQuota,
    /// Cursors of a Sync whose last frame has not come yet.
    pub(super) cursors: Vec<Position>,
    pub(super) reads: Reads,
    pub(super) renewal: Option<Renewal>,
    deadlines: Deadlines,
    strikes: Strikes,
    _guard: SeatGuard,
    /// What the session takes, with the cursors of a sync that is not whole yet.
    pub(super) memory: Charge,
}

impl Active {
    pub(super) fn new(
        gateway: Arc<Inner>,
        guard: SeatGuard,
        claims: Claims,
        memory: Charge,
        now: Instant,
    ) -> Self {
        let seat = Arc::clone(guard.seat());
        Self {
            quota: ConnectionQuota::new(&gateway.settings.rates, now),
            reads: Reads::new(Arc::clone(&gateway), Arc::clone(&seat)),
            deadlines: Deadlines::new(gateway.patience(), now, unix_ms(), claims.expires_ms),
            gateway,
            seat,
            claims,
            lanes: Arc::default(),
            cursors: Vec::new(),
            renewal: None,
            strikes: Strikes::default(),
            _guard: guard,
            memory,
        }
    }

    /// Sets the deadlines of the token in `claims`.
    pub(super) fn token_renewed(&mut self, now: Instant) {
        self.deadlines.renewed(now, unix_ms(), self.claims.expires_ms);
    }

    /// When [`Active::on_deadline`] must be called at the latest.
    pub(super) fn deadline(&self) -> Instant {
        self.deadlines.next()
    }

    /// Frames are to be read now.
    pub(super) fn reads(&self) -> bool {
        self.deadlines.reads()
    }

    /// It is to be told when the outbox fills.
    pub(super) fn wants_filled(&self) -> bool {
        !self.deadlines.looks_at_queue()
    }

    /// Something waits in the outbox, after nothing did.
    pub(super) fn on_filled(&mut self, now: Instant) -> Step {
        self.deadlines.filled(now);
        Step::Nothing
    }

    /// Something may be due: silence, the token, or a queue that does not move.
    pub(super) fn on_deadline(&mut self, now: Instant) -> Step {
        let unmoved = self.seat.outbox.stalled_since().map(tokio::time::Instant::into_std);
        match self.deadlines.due(now, unix_ms(), unmoved) {
            None => Step::Nothing,
            Some(Due::Expiring) => {
                Step::Send(Outgoing::new(TokenExpiring { token_expires_ms: self.claims.expires_ms }))
            }
            Some(Due::Silent) => {
                Step::Close(close_for(Code::HEARTBEAT_TIMEOUT, "nothing was heard for dead_after_s"))
            }
            Some(Due::Stalled) => {
                Step::Close(close_for(Code::SLOW_CONSUMER, "the client does not read what it is sent"))
            }
            Some(Due::Expired) => token_expired(),
        }
    }

    /// Something came in.
    pub(super) fn on_inbound(&mut self, inbound: Inbound, now: Instant) -> Step {
        self.deadlines.heard(now);
        self.seat.heard(now);
        if self.deadlines.token_is_over(unix_ms()) {
            return token_expired();
        }
        let envelope = match inbound {
            Inbound::Frame(envelope) => envelope,
            Inbound::Bad(error) => return self.on_bad_frame(&error),
            Inbound::Alive => return Step::Nothing,
        };
        let request = envelope.request;
        let change = change_of(envelope.frame, &self.seat.user);
        if let Allowance::Refused { retry_after } = self.quota.frame(now) {
            return self.on_flood(request, change.as_ref().ok(), retry_after, now);
        }
        let handled = match change {
            Ok(wanted) => self.on_change(request, wanted, now),
            Err(frame) => self.on_frame(request, frame, now),
        };
        self.step_of(request, handled)
    }

    pub(super) fn step_of(&mut self, request: Option<u64>, handled: Result<Handled, Refused>) -> Step {
        match handled {
            Ok(Handled::Reply(frame)) => Step::Send(Outgoing::new(Envelope { request, frame })),
            Ok(Handled::Pending | Handled::Silent) => Step::Nothing,
            Ok(Handled::Fatal(close)) => Step::Close(close),
            Err(refused) => self.refuse(request, refused),
        }
    }

    fn refuse(&mut self, request: Option<u64>, refused: Refused) -> Step {
        self.gateway.refused(refused.code);
        Step::Send(Outgoing::new(Envelope { request, frame: refused.into_frame().into() }))
    }

    fn on_frame(&mut self, request: Option<u64>, frame: Frame, now: Instant) -> Result<Handled, Refused> {
        match frame {
            Frame::Abandon(body) => self.on_abandon(body),
            Frame::Ack(body) => self.on_ack(request, body),
            Frame::Read(body) => self.on_read(request, body),
            Frame::Sync(body) => self.on_sync(request, body, now),
            Frame::Fetch(body) => self.on_fetch(request, body, now),
            Frame::ListConversations(body) => self.on_list_conversations(request, body, now),
            Frame::ListMembers(body) => self.on_list_members(request, body, now),
            Frame::LeaveGroups(body) => self.on_leave_groups(request, body, now),
            Frame::KeepGroup(body) => self.on_keep_group(request, body, now),
            Frame::Block(body) => self.on_block(request, body, now),
            Frame::Unblock(body) => self.on_unblock(request, body, now),
            Frame::ListBlocks(body) => self.on_list_blocks(request, body, now),
            Frame::Watch(body) => self.on_watch(request, body, now),
            Frame::Typing(body) => self.on_typing(body, now),
            Frame::Reauth(body) => self.on_reauth(request, body, now),
            Frame::Ping(body) => Ok(Handled::Reply(Pong { nonce: body.nonce }.into())),
            Frame::Pong(_) => Ok(Handled::Silent),
            Frame::Close(_) => Ok(Handled::Fatal(close_for(Code::NORMAL, "the client closed the session"))),
            Frame::Hello(_) => self.unexpected("hello was sent already in this session"),
            other => self.unexpected(&format!("{} is sent by servers only", other.name())),
        }
    }

    fn unexpected(&mut self, detail: &str) -> Result<Handled, Refused> {
        if self.strikes.bad_frame() {
            return Ok(Handled::Fatal(too_many(detail)));
        }
        Err(Refused::new(Code::UNEXPECTED_FRAME, detail))
    }

    fn on_bad_frame(&mut self, error: &DecodeError) -> Step {
        if self.strikes.bad_frame() {
            self.gateway.refused(error.code());
            return Step::Close(too_many(&error.to_string()));
        }
        let about = error.about();
        let mut refused = Refused::new(error.code(), error.to_string());
        refused.conversation = about.to.map(|to| to.conversation(&self.seat.user));
        refused.temp_id = about.temp_id;
        if let (Some(conversation), Some(temp_id)) = (refused.conversation, refused.temp_id) {
            // Refused for good: nothing waits for it.
            self.lanes.lock().abandon(conversation, temp_id);
        }
        self.refuse(error.request(), refused)
    }

    /// A frame over the limit is refused, and nothing is read before one may come again. A change stays
    /// first in its lane. Who never slows down is closed.
    fn on_flood(
        &mut self,
        request: Option<u64>,
        change: Option<&Wanted>,
        retry_after: Duration,
        now: Instant,
    ) -> Step {
        if self.strikes.flooded(now) {
            let retry_after_ms = Some(whole_ms(FLOOD_REST));
            let reason = "frames go on over the limit although they are refused";
            return Step::Close(tern_protocol::Close {
                retry_after_ms,
                ..close_for(Code::RATE_LIMITED, reason)
            });
        }
        self.deadlines.pause(now + retry_after);
        let mut refused = Refused::rate_limited(retry_after, "frames on this connection");
        if let Some(wanted) = change {
            self.put_off(wanted.conversation, wanted.temp_id);
            refused = refused.about(wanted.conversation, wanted.temp_id);
        }
        self.refuse(request, refused)
    }

    /// The session closes for this reason.
    pub(super) fn count_close(&self, code: Code) {
        self.gateway.refused(code);
    }
}

/// What a client waits that was closed for its flood.
const FLOOD_REST: Duration = Duration::from_secs(10);

fn token_expired() -> Step {
    Step::Close(close_for(Code::TOKEN_EXPIRED, "the token has expired; reauth before it does"))
}

fn too_many(last: &str) -> tern_protocol::Close {
    close_for(Code::TOO_MANY_ERRORS, format!("{BAD_FRAMES_MAX} bad frames; the last: {last}"))
}
