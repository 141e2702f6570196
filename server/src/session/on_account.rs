//! Frames about the user and others: token renewal, presence, typing.

use std::time::{Instant, SystemTime};

use tern_protocol::{Code, Reauth, Reauthed, Typing, UserTyping, WATCH_USERS_MAX, Watch};

use super::active::{Active, Handled};
use super::backlog::Job;
use super::quota::Verdict;
use super::refused::Refused;
use crate::delivery::{Class, Except, Parcel};
use crate::roster::Outgoing;

impl Active {
    pub(super) async fn on_reauth(&mut self, reauth: Reauth, now: Instant) -> Result<Handled, Refused> {
        let verified = self.gateway.parts.auth.authenticate(&reauth.token.0, SystemTime::now()).await;
        let claims = verified.map_err(|error| Refused {
            retry_after: error.retry_after(),
            ..Refused::new(error.code(), error.to_string())
        })?;
        if claims.user != self.seat.user {
            return Err(Refused::new(Code::TOKEN_SUBJECT, "the new token is for another user"));
        }
        self.claims = claims;
        self.token_renewed(now);
        Ok(Handled::Reply(Reauthed { token_expires_ms: self.claims.expires_ms }.into()))
    }

    pub(super) fn on_watch(
        &mut self,
        request: Option<u64>,
        watch: Watch,
        now: Instant,
    ) -> Result<Handled, Refused> {
        if watch.users.len() > WATCH_USERS_MAX {
            let detail = format!("{} users, at most {WATCH_USERS_MAX} can be watched", watch.users.len());
            return Err(Refused::new(Code::LIMIT_EXCEEDED, detail));
        }
        if let Verdict::Refused { retry_after } = self.quota.watch(now) {
            return Err(Refused::rate_limited(retry_after, "changes of the watched users"));
        }
        self.backlog.push(Job::Watch { request, users: watch.users })
    }

    /// Typing may be lost: what is too much or makes no sense is dropped without a word.
    pub(super) async fn on_typing(&mut self, typing: Typing, now: Instant) -> Result<Handled, Refused> {
        if let Verdict::Refused { .. } = self.quota.typing(now) {
            return Ok(Handled::Later);
        }
        let user = &self.seat.user;
        let conversation = typing.to.conversation(user);
        let parts = &self.gateway.parts;
        if let Ok(Some(state)) = parts.history.fellow_members(user, conversation).await {
            let to = state.members.iter().map(|member| member.user.clone()).collect();
            let body = Outgoing::new(UserTyping { conversation, user: user.clone() });
            let (class, except) = (Class::Datagram, Except::User(user.clone()));
            parts.delivery.hand_out(Parcel { to, class, body, except, arrived: None });
        }
        Ok(Handled::Later)
    }
}
