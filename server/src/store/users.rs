//! What is kept of a user besides their conversations.

use async_trait::async_trait;
use tern_protocol::UserId;

use super::{Right, Standing, StoreError};

/// What is kept of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct User {
    /// Display name of their last token.
    pub name: Option<String>,
    /// When their last session ended, in Unix milliseconds; 0 while none has.
    pub last_seen_ms: u64,
}

/// What becomes known of a user. Each touches only its own part of [`User`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserChange {
    /// They are here, under this display name: from now on they are known.
    Name(Option<String>),
    /// Their last session ended then, in Unix milliseconds. Never goes back but as [`last_seen`] says, and makes
    /// nobody known: it may come after an erasure.
    LastSeen(u64),
}

impl UserChange {
    /// The user after the change, `None` if it changes nothing.
    pub fn apply(self, before: Option<&User>) -> Option<User> {
        match (self, before) {
            (Self::Name(name), None) => Some(User { name, ..User::default() }),
            (Self::Name(name), Some(user)) if user.name != name => Some(User { name, ..user.clone() }),
            (Self::LastSeen(seen_ms), Some(user)) => {
                let last_seen_ms = last_seen(user.last_seen_ms, seen_ms);
                (last_seen_ms != user.last_seen_ms).then(|| User { last_seen_ms, ..user.clone() })
            }
            (Self::Name(_) | Self::LastSeen(_), _) => None,
        }
    }
}

/// Times that are noted late are noted within this time, in milliseconds.
const NOTED_WITHIN_MS: u64 = 24 * 3600 * 1000;

/// Which of two times somebody was last seen, the second one noted later. The higher one is right, as they may
/// come in any order; but one that is far above a later one was told by a clock that was ahead.
pub fn last_seen(before_ms: u64, later_ms: u64) -> u64 {
    if before_ms > later_ms.saturating_add(NOTED_WITHIN_MS) { later_ms } else { before_ms.max(later_ms) }
}

/// The users this server has seen.
#[async_trait]
pub trait Users: Send + Sync {
    /// The user, `None` if they never connected; one answer per question, in order.
    async fn users(&self, users: &[UserId]) -> Result<Vec<Option<User>>, StoreError>;

    /// Changes a user in one atomic step. Durable when it returns.
    ///
    /// `right` is that of the token by which it was asked for, as in [`NewEntry`](super::NewEntry): false, and
    /// nothing is changed, if it was lost.
    async fn change_user(
        &self,
        user: &UserId,
        change: UserChange,
        right: Option<Right>,
    ) -> Result<bool, StoreError>;

    /// What was taken from the user's tokens.
    async fn standing(&self, user: &UserId) -> Result<Standing, StoreError>;

    /// Tokens of the user issued before this time, in Unix milliseconds, give no right any more: once this has
    /// returned, what bears one is [`Barred`](super::Barred). Durable; never goes back. Makes nobody known.
    async fn refuse_before(&self, user: &UserId, before_ms: u64) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_seen_never_goes_back_but_from_what_a_clock_ahead_has_told() {
        const DAY_MS: u64 = 24 * 3600 * 1000;
        let now = 100 * DAY_MS;
        assert_eq!(last_seen(now, now - 5_000), now, "noted late");
        assert_eq!(last_seen(now, now + 5_000), now + 5_000);
        assert_eq!(last_seen(now + 40 * DAY_MS, now), now);
        assert_eq!(last_seen(0, now), now);
    }
}
