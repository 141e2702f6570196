//! A refused request, on its way to an Error frame.

use std::time::Duration;

use tern_protocol::{Code, ConversationId, Error, TempId};

use crate::conversation::Refusal;
use crate::store::StoreError;

/// When to ask again for what there is no memory for.
const MEMORY_RETRY: Duration = Duration::from_secs(1);

/// Why a request was refused; the session goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What the client does about it.
    pub code: Code,
    /// For people.
    pub detail: String,
    /// When to try again.
    pub retry_after: Option<Duration>,
    /// The change it was about.
    pub temp_id: Option<TempId>,
    /// The conversation it was about.
    pub conversation: Option<ConversationId>,
}

impl Refused {
    /// A refusal with a reason.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), retry_after: None, temp_id: None, conversation: None }
    }

    /// The request named a conversation that is absent or forbidden.
    pub fn not_found() -> Self {
        Self::new(Code::NOT_FOUND, "no such conversation for this user")
    }

    /// The request came too early.
    pub fn rate_limited(retry_after: Duration, what: &str) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(Code::RATE_LIMITED, format!("too many {what}")) }
    }

    /// There is no memory for one more question of anybody.
    pub fn short_of_memory() -> Self {
        Self {
            retry_after: Some(MEMORY_RETRY),
            ..Self::new(Code::OVER_CAPACITY, "this node is short of memory")
        }
    }

    /// The same refusal, about this change of a conversation.
    pub fn about(self, conversation: ConversationId, temp_id: TempId) -> Self {
        Self { temp_id: Some(temp_id), ..self.within(conversation) }
    }

    /// The same refusal, about this conversation.
    pub fn within(self, conversation: ConversationId) -> Self {
        Self { conversation: Some(conversation), ..self }
    }

    /// As a frame.
    pub fn into_frame(self) -> Error {
        Error {
            code: self.code,
            temporary: self.code.temporary(),
            retry_after_ms: self.retry_after.map(whole_ms),
            detail: self.detail,
            temp_id: self.temp_id,
            conversation: self.conversation,
        }
    }
}

/// A wait as clients are told it, in whole milliseconds: rounded up, so that who waits as told is
/// not refused again, and never 0.
pub fn whole_ms(wait: Duration) -> u32 {
    wait.as_nanos().div_ceil(1_000_000).clamp(1, u128::from(u32::MAX)) as u32
}

/// What a client waits before it asks a store again that did not answer.
const STORE_RETRY: Duration = Duration::from_millis(500);

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let retry_after = refusal.retry_after();
        Self { retry_after, ..Self::new(refusal.code(), refusal.to_string()) }
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        tracing::warn!(%error, "a read failed");
        Self {
            retry_after: Some(STORE_RETRY),
            ..Self::new(Code::UNAVAILABLE, "the message store does not answer")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_never_told_shorter_than_it_is() {
        assert_eq!(whole_ms(Duration::ZERO), 1);
        assert_eq!(whole_ms(Duration::from_millis(7)), 7);
        assert_eq!(whole_ms(Duration::from_nanos(1_000_001)), 2);
        assert_eq!(whole_ms(Duration::MAX), u32::MAX);
    }
}
