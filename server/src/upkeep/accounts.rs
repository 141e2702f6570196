//! What an operator does about a user's sessions and tokens: sees and closes the ones, revokes the others. Each
//! act leaves a line in the log that says who did what to whom.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tern_protocol::{Close, Code, UserId};

use crate::clock::unix_ms;
use crate::delivery::{Class, Delivery, Except, Parcel, Which};
use crate::ops::metrics::Metrics;
use crate::roster::{Outgoing, SessionInfo};
use crate::store::{Standing, Store, StoreError, has_profile};

/// Tokens say when they were issued in whole seconds, so that one of the second of a revocation cannot be told
/// from one before it: it is refused, and whoever has it is to wait until the second is over.
const SECOND_MS: u64 = 1000;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The bearer of a token that may.
    Bearer(UserId),
    /// Who has the rights to the data directory.
    Machine,
}

/// A user's sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// Whose.
    pub user: UserId,
    /// Tokens issued before this time are refused, in Unix milliseconds; 0: none were revoked.
    pub refused_before_ms: u64,
    /// Those open on this node, the oldest first; at most `sessions_per_user`.
    pub sessions: Vec<SessionInfo>,
}

/// What closing came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// Whose sessions.
    pub user: UserId,
    /// How many were told to end.
    pub closed: usize,
}

/// What a revocation came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// Whose tokens.
    pub user: UserId,
    /// Those issued before this time are refused, in Unix milliseconds: what was asked for, or a later time of
    /// an earlier revocation.
    pub refused_before_ms: u64,
    /// Sessions that were opened with one and were told to end.
    pub closed: usize,
}

/// What is to be revoked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Revocation {
    /// Tokens issued before this time, in Unix milliseconds; absent: before now.
    pub before_ms: Option<u64>,
    /// Also if nobody of this id has ever been here.
    pub even_unknown: bool,
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The id may be mistyped.
    #[error(
        "nobody with the id {0} has ever been here: check it; tern token revoke has --even-unknown, HTTP even_unknown"
    )]
    UnknownUser(UserId),
    /// It has ended, or never was.
    #[error("the user has no session {0} on this node; list them again")]
    UnknownSession(String),
    /// Nobody knows the tokens that are issued until then.
    #[error("before is {0} ms in the future; tokens can be revoked that were issued until now")]
    Future(u64),
    /// Such ids are never of users.
    #[error("{0} stands for a user who was erased")]
    Erased(UserId),
}

/// Looks after sessions and tokens. Cheap to clone.
#[derive(Clone)]
pub struct Accounts {
    store: Arc<dyn Store>,
    delivery: Delivery,
    metrics: Metrics,
}

impl Accounts {
    /// Of the users of this store and the sessions that are delivered to.
    pub fn new(store: Arc<dyn Store>, delivery: Delivery, metrics: Metrics) -> Self {
        Self { store, delivery, metrics }
    }

    /// The user's sessions.
    pub async fn sessions(&self, by: &Operator, user: &UserId) -> Result<Sessions, AccountError> {
        let sessions = self.delivery.sessions(user);
        if sessions.is_empty() {
            self.known(user).await?;
        }
        let refused_before_ms = self.store.standing(user).await?.refused_before_ms;
        tracing::info!(target: AUDIT, %by, act = "list sessions", %user, count = sessions.len(), "audit");
        Ok(Sessions { user: user.clone(), refused_before_ms, sessions })
    }

    /// Ends one session, or all. Whoever had it may come back with a new token.
    pub async fn close(
        &self,
        by: &Operator,
        user: &UserId,
        session: Option<&str>,
    ) -> Result<Closed, AccountError> {
        let sessions = self.delivery.sessions(user);
        let closed = match session {
            Some(id) if !sessions.iter().any(|session| session.id == id) => {
                self.known(user).await?;
                return Err(AccountError::UnknownSession(id.into()));
            }
            Some(id) => self.end(user, Which::Session(id.into()), closing()),
            None => {
                if sessions.is_empty() {
                    self.known(user).await?;
                }
                self.end(user, Which::All, closing())
            }
        };
        self.metrics.accounts.closed.increment(closed as u64);
        tracing::info!(target: AUDIT, %by, act = "close sessions", %user, session, count = closed, "audit");
        Ok(Closed { user: user.clone(), closed })
    }

    /// Refuses the user's tokens issued before a moment, from now on and after every restart, and ends the
    /// sessions that were opened with one. What they asked for and is still on its way is not written.
    pub async fn revoke(
        &self,
        by: &Operator,
        user: &UserId,
        revocation: Revocation,
    ) -> Result<Revoked, AccountError> {
        let now_ms = unix_ms();
        let before_ms = revocation.before_ms.unwrap_or(now_ms);
        if before_ms > now_ms {
            return Err(AccountError::Future(before_ms - now_ms));
        }
        if user.is_erased() {
            return Err(AccountError::Erased(user.clone()));
        }
        if !revocation.even_unknown && !self.delivery.is_here(user) {
            self.known(user).await?;
        }
        self.store.refuse_before(user, before_ms).await?;
        let standing = self.store.standing(user).await?;
        let refused_before_ms = standing.refused_before_ms;
        // Once it is durable: a session that begins or renews its token from here on sees it.
        let closed = self.end(user, Which::IssuedBefore(refused_before_ms), revoked(&standing, now_ms));
        self.metrics.accounts.revocations.increment(1);
        self.metrics.accounts.revoked.increment(closed as u64);
        tracing::info!(
            target: AUDIT, %by, act = "revoke tokens", %user, refused_before_ms, count = closed, "audit"
        );
        Ok(Revoked { user: user.clone(), refused_before_ms, closed })
    }

    async fn known(&self, user: &UserId) -> Result<(), AccountError> {
        let is_known = has_profile(&*self.store, user).await?;
        if is_known { Ok(()) } else { Err(AccountError::UnknownUser(user.clone())) }
    }

    fn end(&self, user: &UserId, which: Which, close: Close) -> usize {
        let ended = self.delivery.sessions(user).iter().filter(|session| which.is(session)).count();
        self.delivery.hand_out(Parcel {
            to: [user.clone()].into(),
            class: Class::Close(which),
            body: Outgoing::new(close),
            except: Except::Nobody,
            arrived: None,
        });
        ended
    }
}

/// The target of the lines that say what operators did.
const AUDIT: &str = "tern::audit";

/// What whoever comes with a revoked token is told.
pub const REVOKED: &str = "this token was revoked; get a new one";

fn closing() -> Close {
    let reason = "an operator closed this session; a new token opens another".into();
    Close { code: Code::SESSION_CLOSED, reason, retry_after_ms: None, target: None }
}

/// The Close for a revoked token: a new one counts once the second of the revocation is over.
pub fn revoked(standing: &Standing, now_ms: u64) -> Close {
    let good_from_ms = standing.refused_before_ms.div_ceil(SECOND_MS) * SECOND_MS;
    let wait_ms = good_from_ms.saturating_sub(now_ms).min(SECOND_MS);
    let retry_after_ms = (wait_ms > 0).then_some(wait_ms as u32);
    Close { code: Code::TOKEN_REVOKED, reason: REVOKED.into(), retry_after_ms, target: None }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bearer(user) => write!(f, "{user}"),
            Self::Machine => f.write_str("(the command line)"),
        }
    }
}
