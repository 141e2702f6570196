//! A refused request, on its way to an Error frame.

use std::time::Duration;

use tern_protocol::{Code, Error, TempId};

use crate::conversation::Refusal;
use crate::store::StoreError;

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
}

impl Refused {
    /// A refusal with a reason.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), retry_after: None, temp_id: None }
    }

    /// The request named a conversation that is absent or forbidden.
    pub fn not_found() -> Self {
        Self::new(Code::NOT_FOUND, "no such conversation for this user")
    }

    /// The request came too early.
    pub fn rate_limited(retry_after: Duration, what: &str) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(Code::RATE_LIMITED, format!("too many {what}")) }
    }

    /// The same refusal, about this change.
    pub fn about(self, temp_id: TempId) -> Self {
        Self { temp_id: Some(temp_id), ..self }
    }

    /// As a frame.
    pub fn into_frame(self) -> Error {
        Error {
            code: self.code,
            temporary: self.code.temporary(),
            retry_after_ms: self
                .retry_after
                .map(|after| after.as_millis().clamp(1, u128::from(u32::MAX)) as u32),
            detail: self.detail,
            temp_id: self.temp_id,
        }
    }
}

/// What a client waits before it asks a store again that did not answer.
const STORE_RETRY: Duration = Duration::from_millis(500);

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let retry_after = matches!(refusal, Refusal::Unavailable(_)).then_some(STORE_RETRY);
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
