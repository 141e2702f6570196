//! Frames about the user and others: token renewal, presence, typing.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tern_protocol::{Code, Reauth, Reauthed, Typing, WATCH_USERS_MAX, Watch};

use super::active::Active;
use super::quota::Allowance;
use super::reads::Job;
use super::refused::Refused;
use super::step::{Handled, Step};
use crate::auth::{AuthError, Claims};

impl Active {
    /// A token whose key is known counts at once. One whose key is being fetched is settled by
    /// [`Active::on_renewed`], while everything else goes on; one at a time.
    pub(super) fn on_reauth(
        &mut self,
        request: Option<u64>,
        reauth: Reauth,
        now: Instant,
    ) -> Result<Handled, Refused> {
        let token = reauth.token;
        match self.gateway.auth.verify(&token.0, SystemTime::now()) {
            Err(error @ AuthError::KeysUnavailable { .. }) if self.renewal.is_some() => {
                Err(refusal_of(&error))
            }
            Err(AuthError::KeysUnavailable { .. }) => {
                let auth = Arc::clone(&self.gateway.auth);
                self.renewal =
                    Some(Box::pin(
                        async move { (request, auth.authenticate(&token.0, SystemTime::now()).await) },
                    ));
                Ok(Handled::Pending)
            }
            settled => self.renew(settled, now),
        }
    }

    /// The answer about a token that had to wait. Pending for ever while there is none. Cancel-safe.
    pub(super) async fn renewed(&mut self) -> (Option<u64>, Result<Claims, AuthError>) {
        match &mut self.renewal {
            None => std::future::pending().await,
            Some(renewal) => {
                let settled = renewal.await;
                self.renewal = None;
                settled
            }
        }
    }

    /// The key is here, or will not come.
    pub(super) fn on_renewed(
        &mut self,
        request: Option<u64>,
        settled: Result<Claims, AuthError>,
        now: Instant,
    ) -> Step {
        let handled = self.renew(settled, now);
        self.step_of(request, handled)
    }

    fn renew(&mut self, settled: Result<Claims, AuthError>, now: Instant) -> Result<Handled, Refused> {
        let claims = settled.map_err(|error| refusal_of(&error))?;
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
        if let Allowance::Refused { retry_after } = self.quota.watch(now) {
            return Err(Refused::rate_limited(retry_after, "changes of the watched users"));
        }
        self.ask_store(Job::Watch { request, users: watch.users })
    }

    /// Typing may be lost: what is too much or makes no sense is dropped without a word.
    pub(super) fn on_typing(&mut self, typing: Typing, now: Instant) -> Result<Handled, Refused> {
        if self.quota.typing(now).allowed() {
            let conversation = typing.to.conversation(&self.seat.user);
            let _ = self.reads.push(Job::Typing { conversation, since: now });
        }
        Ok(Handled::Silent)
    }
}

fn refusal_of(error: &AuthError) -> Refused {
    Refused { retry_after: error.retry_after(), ..Refused::new(error.code(), error.to_string()) }
}
