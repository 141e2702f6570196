//! An open session: its state, and which handler gets which frame.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tern_protocol::{
    BAD_FRAMES_MAX, Close, Code, DecodeError, Envelope, Frame, Pong, Position, TokenExpiring,
};

use super::Inner;
use super::backlog::Backlog;
use super::lane::Lanes;
use super::quota::{ConnectionQuota, Verdict};
use super::refused::Refused;
use super::run::close_for;
use crate::auth::Claims;
use crate::clock::unix_ms;
use crate::conversation::{Wanted, change_of};
use crate::registry::SessionAddress;
use crate::roster::{Outgoing, Seat, SeatGuard};
use crate::transport::Inbound;

/// A token counts this long after its expiry, like everywhere tokens are checked.
const LEEWAY: Duration = Duration::from_secs(30);

/// What the loop does next.
pub(super) enum Step {
    /// Queue this frame for the client.
    Send(Outgoing),
    /// Go on.
    Nothing,
    /// End the session with this as the last frame.
    Close(Close),
}

/// What a handler did with a request.
pub(super) enum Handled {
    /// Answer with this frame.
    Reply(Frame),
    /// The answer comes later, or there is none.
    Later,
    /// The session cannot go on.
    Fatal(Close),
}

/// An open session. Dropping it unregisters it here; [`Active::finish`] also tells the fleet.
pub(super) struct Active {
    pub(super) gateway: Arc<Inner>,
    pub(super) seat: Arc<Seat>,
    pub(super) claims: Claims,
    pub(super) lanes: Arc<Mutex<Lanes>>,
    pub(super) quota: ConnectionQuota,
    /// Cursors of a Sync whose last frame has not come yet.
    pub(super) cursors: Vec<Position>,
    pub(super) backlog: Backlog,
    address: SessionAddress,
    last_heard: Instant,
    expires: Instant,
    notice_due: Option<Instant>,
    bad_frames: u32,
    _guard: SeatGuard,
    _presence: PresenceGuard,
}

/// Ends the session's presence and watches, however the session ends.
struct PresenceGuard {
    gateway: Arc<Inner>,
    seat: Arc<Seat>,
}

impl Drop for PresenceGuard {
    fn drop(&mut self) {
        let presence = &self.gateway.parts.presence;
        presence.session_ended(&self.seat.user, self.seat.id, unix_ms());
    }
}

impl Active {
    pub(super) fn new(
        gateway: Arc<Inner>,
        guard: SeatGuard,
        address: SessionAddress,
        claims: Claims,
    ) -> Self {
        let seat = Arc::clone(guard.seat());
        let now = Instant::now();
        let mut active = Self {
            quota: ConnectionQuota::new(&gateway.parts.rates, now),
            backlog: Backlog::new(Arc::clone(&gateway), Arc::clone(&seat)),
            _presence: PresenceGuard { gateway: Arc::clone(&gateway), seat: Arc::clone(&seat) },
            gateway,
            seat,
            claims,
            lanes: Arc::default(),
            cursors: Vec::new(),
            address,
            last_heard: now,
            expires: now,
            notice_due: None,
            bad_frames: 0,
            _guard: guard,
        };
        active.token_renewed(now);
        active
    }

    /// Sets the deadlines of the token in `claims`.
    pub(super) fn token_renewed(&mut self, now: Instant) {
        let expires = UNIX_EPOCH + Duration::from_millis(self.claims.expires_ms);
        let wall = SystemTime::now();
        let left_until = |time: SystemTime| time.duration_since(wall).unwrap_or_default();
        // A token that came within its leeway has only the rest of it.
        self.expires = now + left_until(expires + LEEWAY);
        let left = left_until(expires);
        let notice = Duration::from_secs(self.gateway.parts.config.expiry_notice_s).min(left / 2);
        self.notice_due = Some(now + left - notice);
    }

    /// When [`Active::on_deadline`] must be called at the latest.
    pub(super) fn deadline(&self) -> Instant {
        let token = self.notice_due.unwrap_or(self.expires);
        token.min(self.last_heard + self.gateway.parts.transport.dead_after())
    }

    /// Something is due: silence, the token, or a queue that does not move.
    pub(super) fn on_deadline(&mut self, now: Instant) -> Step {
        if now >= self.last_heard + self.gateway.parts.transport.dead_after() {
            return Step::Close(close_for(Code::HEARTBEAT_TIMEOUT, "nothing was heard for dead_after_s"));
        }
        let stalled = Duration::from_secs(self.gateway.parts.config.stalled_s);
        if self.seat.outbox.stalled_for(now.into()).is_some_and(|since| since >= stalled) {
            return Step::Close(close_for(Code::SLOW_CONSUMER, "the client does not read what it is sent"));
        }
        if now >= self.expires {
            return Step::Close(close_for(
                Code::TOKEN_EXPIRED,
                "the token has expired; reauth before it does",
            ));
        }
        if self.notice_due.is_some_and(|due| now >= due) {
            self.notice_due = None;
            return Step::Send(Outgoing::new(TokenExpiring { token_expires_ms: self.claims.expires_ms }));
        }
        Step::Nothing
    }

    /// Something came in.
    pub(super) async fn on_inbound(&mut self, inbound: Inbound, now: Instant) -> Step {
        self.last_heard = now;
        let envelope = match inbound {
            Inbound::Frame(envelope) => envelope,
            Inbound::Bad(error) => return self.on_bad_frame(&error),
        };
        let request = envelope.request;
        let change = change_of(envelope.frame, &self.seat.user);
        if let Verdict::Refused { retry_after } = self.quota.frame(now) {
            return self.on_flood(request, change.as_ref().ok(), retry_after);
        }
        let handled = match change {
            Ok(wanted) => self.on_change(request, wanted, now),
            Err(frame) => self.on_frame(request, frame, now).await,
        };
        match handled {
            Ok(Handled::Reply(frame)) => Step::Send(Outgoing::new(Envelope { request, frame })),
            Ok(Handled::Later) => Step::Nothing,
            Ok(Handled::Fatal(close)) => Step::Close(close),
            Err(refused) => {
                self.gateway.refused(refused.code);
                let frame = refused.into_frame().into();
                Step::Send(Outgoing::new(Envelope { request, frame }))
            }
        }
    }

    async fn on_frame(
        &mut self,
        request: Option<u64>,
        frame: Frame,
        now: Instant,
    ) -> Result<Handled, Refused> {
        match frame {
            Frame::Abandon(body) => self.on_abandon(body),
            Frame::Ack(body) => self.on_ack(body).await,
            Frame::Read(body) => self.on_read(request, body).await,
            Frame::Sync(body) => self.on_sync(request, body, now),
            Frame::Fetch(body) => self.on_fetch(request, body, now),
            Frame::ListConversations(body) => self.on_list_conversations(request, body, now),
            Frame::ListMembers(body) => self.on_list_members(request, body, now),
            Frame::Watch(body) => self.on_watch(request, body, now),
            Frame::Typing(body) => self.on_typing(body, now).await,
            Frame::Reauth(body) => self.on_reauth(body, now).await,
            Frame::Ping(body) => Ok(Handled::Reply(Pong { nonce: body.nonce }.into())),
            Frame::Pong(_) => Ok(Handled::Later),
            Frame::Close(_) => Ok(Handled::Fatal(close_for(Code::NORMAL, "the client closed the session"))),
            Frame::Hello(_) => Err(self.unexpected("hello was sent already in this session")),
            other => Err(self.unexpected(&format!("{} is sent by servers only", other.name()))),
        }
    }

    fn unexpected(&mut self, detail: &str) -> Refused {
        self.bad_frames += 1;
        Refused::new(Code::UNEXPECTED_FRAME, detail)
    }

    fn on_bad_frame(&mut self, error: &DecodeError) -> Step {
        self.bad_frames += 1;
        self.gateway.refused(error.code());
        if self.bad_frames >= BAD_FRAMES_MAX {
            let reason = format!("{BAD_FRAMES_MAX} malformed frames; the last: {error}");
            return Step::Close(close_for(Code::TOO_MANY_ERRORS, reason));
        }
        let frame = Refused::new(error.code(), error.to_string()).into_frame().into();
        Step::Send(Outgoing::new(Envelope { request: error.request(), frame }))
    }

    /// More frames than allowed: each is refused, and a change stays first in its lane.
    fn on_flood(&mut self, request: Option<u64>, change: Option<&Wanted>, retry_after: Duration) -> Step {
        let mut refused = Refused::rate_limited(retry_after, "frames on this connection");
        if let Some(wanted) = change {
            self.put_off(wanted.conversation, wanted.temp_id);
            refused = refused.about(wanted.conversation, wanted.temp_id);
        }
        self.gateway.refused(refused.code);
        Step::Send(Outgoing::new(Envelope { request, frame: refused.into_frame().into() }))
    }

    /// The session closes for this reason.
    pub(super) fn count_close(&self, code: Code) {
        self.gateway.refused(code);
    }

    /// Tells the fleet that the session is gone.
    pub(super) async fn finish(self) {
        let parts = &self.gateway.parts;
        if let Err(error) = parts.registry.unregister(&self.seat.user, &self.address).await {
            tracing::debug!(session = self.seat.id, %error, "left to expire in the registry");
        }
    }
}
