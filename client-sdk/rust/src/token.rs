//! Where tokens come from: asked at every connect, before expiry, and after a refusal.

use std::sync::Arc;

use async_trait::async_trait;
use tern_protocol::Code;

/// Why a token is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenReason {
    /// A session is about to be opened.
    Connect,
    /// The token of the live session expires soon; the new one must be for the same user.
    Expiring,
    /// The server refused the last token with this code: the same one will be refused again.
    Rejected(Code),
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Perhaps later, for example because the sign-in service cannot be reached. Asked again with back-off.
    #[error("no token at the moment: {0}")]
    Temporary(String),
    /// There will be none. The client stops.
    #[error("no token: {0}")]
    Permanent(String),
}

/// Gives tokens (JWT, at most 4 KiB each). `String` and `&str` are sources of one fixed token.
#[async_trait]
pub trait TokenSource: Send + Sync {
    /// A token that is valid now. Called for one session at a time; may take as long as
    /// [`Config::attempt_timeout`](crate::Config::attempt_timeout).
    async fn token(&self, reason: TokenReason) -> Result<String, TokenError>;
}

fn fixed(token: &str, reason: TokenReason) -> Result<String, TokenError> {
    match reason {
        TokenReason::Rejected(code) => {
            Err(TokenError::Permanent(format!("the only token was refused with {code}")))
        }
        TokenReason::Connect | TokenReason::Expiring => Ok(token.to_owned()),
    }
}

#[async_trait]
impl TokenSource for String {
    async fn token(&self, reason: TokenReason) -> Result<String, TokenError> {
        fixed(self, reason)
    }
}

#[async_trait]
impl TokenSource for &'static str {
    async fn token(&self, reason: TokenReason) -> Result<String, TokenError> {
        fixed(self, reason)
    }
}

#[async_trait]
impl<T: TokenSource + ?Sized> TokenSource for Arc<T> {
    async fn token(&self, reason: TokenReason) -> Result<String, TokenError> {
        (**self).token(reason).await
    }
}
