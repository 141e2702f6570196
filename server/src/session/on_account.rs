//! Frames about the user and others: token renewal, presence, typing.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt;
use tern_protocol::{Code, Reauth, Reauthed, Typing, WATCH_USERS_MAX, Watch};

use super::Inner;
use super::active::{Active, Renewal};
use super::hello::lost_words;
use super::quota::Allowance;
use super::reads::Job;
use super::refused::Refused;
use super::step::{Handled, Step};
use crate::auth::{AuthError, Claims};

/// When another token may be tried while one is being looked at.
const RENEWAL_RETRY: Duration = Duration::from_millis(500);

impl Active {
    /// A token of which all is known counts at once. One whose key is being fetched, or whose user the store
    /// is being asked about, is settled by [`Active::on_renewed`], while everything else goes on; one at a time.
    pub(super) fn on_reauth(
        &mut self,
        request: Option<u64>,
        reauth: Reauth,
        now: Instant,
    ) -> Result<Handled, Refused> {
        let (gateway, token) = (Arc::clone(&self.gateway), reauth.token);
        let mut renewal: Renewal = Box::pin(async move { (request, judge(&gateway, &token.0).await) });
        match (&mut renewal).now_or_never() {
            Some((_, settled)) => self.renew(settled, now),
            None if self.renewal.is_some() => {
                let refused =
                    Refused::new(Code::UNAVAILABLE, "another token of this session is being looked at");
                Err(Refused { retry_after: Some(RENEWAL_RETRY), ..refused })
            }
            None => {
                self.renewal = Some(renewal);
                Ok(Handled::Pending)
            }
        }
    }

    /// The answer about a token that had to wait. Pending for ever while there is none. Cancel-safe.
    pub(super) async fn renewed(&mut self) -> (Option<u64>, Result<Claims, Refused>) {
        match &mut self.renewal {
            None => std::future::pending().await,
            Some(renewal) => {
                let settled = renewal.await;
                self.renewal = None;
                settled
            }
        }
    }

    /// It is known what the token is worth.
    pub(super) fn on_renewed(
        &mut self,
        request: Option<u64>,
        settled: Result<Claims, Refused>,
        now: Instant,
    ) -> Step {
        let handled = self.renew(settled, now);
        self.step_of(request, handled)
    }

    fn renew(&mut self, settled: Result<Claims, Refused>, now: Instant) -> Result<Handled, Refused> {
        let claims = settled?;
        if claims.user != self.seat.user {
            return Err(Refused::new(Code::TOKEN_SUBJECT, "the new token is for another user"));
        }
        self.seat.renewed(claims.issued_ms);
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

/// What a token is worth now: whether its signature is good, and whether the right was taken from it.
async fn judge(gateway: &Inner, token: &str) -> Result<Claims, Refused> {
    let claims = gateway.auth.authenticate(token, SystemTime::now()).await;
    let claims = claims.map_err(|error| refusal_of(&error))?;
    match gateway.store.standing(&claims.user).await?.lost(claims.issued_ms) {
        None => Ok(claims),
        Some(lost) => {
            let (code, detail) = lost_words(lost);
            Err(Refused::new(code, detail))
        }
    }
}

fn refusal_of(error: &AuthError) -> Refused {
    Refused { retry_after: error.retry_after(), ..Refused::new(error.code(), error.to_string()) }
}
