//! How links end, and what to tell the peer about it.

use std::io;

use quinn::ConnectionError;
use tern_protocol::{CLOSE_REASON_BYTES_MAX, Close, Code, DecodeError};
use tokio_tungstenite::tungstenite;

use super::address::AddressRefused;
use super::webtransport::SessionRefused;

/// Why a link has ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The peer closed it.
    #[error("closed by the peer ({}): {reason:?}", code.map_or_else(|| "no code".to_owned(), |code| code.to_string()))]
    Closed {
        /// Its code, if the transport carried one.
        code: Option<Code>,
        /// Its reason, at most 120 bytes without control characters.
        reason: String,
    },
    /// The connection is gone without a word.
    #[error("the connection was reset")]
    Reset,
    /// Nothing was heard from the peer for `dead_after`.
    #[error("nothing was heard from the peer")]
    IdleTimeout,
    /// The system or the transport protocol failed.
    #[error("input or output failed: {0}")]
    Io(#[from] io::Error),
    /// The bytes cannot be read any further.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The peer broke a rule of the transport.
    #[error("{rule}")]
    Violation {
        /// The code to tell it.
        code: Code,
        /// The code of the WebSocket close frame: one of its own (RFC 6455, section 7.4.1) where a rule of
        /// WebSocket was broken.
        websocket: u16,
        /// Which rule.
        rule: &'static str,
    },
}

impl LinkError {
    /// The end of a QUIC connection that is one link.
    pub(super) fn of_connection(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => Self::Closed {
                code: u16::try_from(close.error_code.into_inner()).ok().map(Code),
                reason: clean_reason(&String::from_utf8_lossy(&close.reason)),
            },
            error => Self::of_lost(error),
        }
    }

    /// The same under a WebTransport session: such connections are closed with codes of HTTP/3.
    pub(super) fn of_session(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => {
                Self::Closed { code: None, reason: clean_reason(&String::from_utf8_lossy(&close.reason)) }
            }
            error => Self::of_lost(error),
        }
    }

    fn of_lost(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ConnectionClosed(_)
            | ConnectionError::Reset
            | ConnectionError::LocallyClosed => Self::Reset,
            ConnectionError::TimedOut => Self::IdleTimeout,
            error => Self::Io(error.into()),
        }
    }

    /// What happened on a WebSocket.
    pub(super) fn of_websocket(error: tungstenite::Error) -> Self {
        use tungstenite::Error::{AttackAttempt, Capacity, Io, Protocol, Utf8};
        use tungstenite::error::ProtocolError::{ResetWithoutClosingHandshake, SendAfterClosing};
        let violation = |code, websocket, rule| Self::Violation { code, websocket, rule };
        match error {
            Capacity(_) => {
                violation(Code::FRAME_TOO_LARGE, 4002, "a WebSocket message is longer than any frame")
            }
            Utf8(_) => violation(Code::MALFORMED, 1007, "a text message is UTF-8"),
            Protocol(ResetWithoutClosingHandshake | SendAfterClosing) => Self::Reset,
            Protocol(_) | AttackAttempt => violation(Code::MALFORMED, 1002, "not the WebSocket protocol"),
            Io(error) => match error.kind() {
                io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof => Self::Reset,
                _ => Self::Io(error),
            },
            _ => Self::Reset,
        }
    }

    /// What the peer should still be told, `None` if it cannot hear it. Give it to
    /// `Outbox::close` and drive the writer to its end.
    pub fn reply(&self) -> Option<Close> {
        let code = match self {
            Self::Closed { .. } | Self::Reset | Self::Io(_) => return None,
            Self::IdleTimeout => Code::HEARTBEAT_TIMEOUT,
            Self::Decode(error) => error.code(),
            Self::Violation { code, .. } => *code,
        };
        Some(Close { code, reason: clean_reason(&self.to_string()), retry_after_ms: None, target: None })
    }

    /// The code of the WebSocket close frame, where it is not the code of the reply.
    pub(super) fn websocket_code(&self) -> Option<u16> {
        match self {
            Self::Violation { websocket, .. } => Some(*websocket),
            _ => None,
        }
    }
}

/// Why a connection did not become a link.
#[derive(Debug, thiserror::Error)]
pub enum EstablishError {
    /// The handshake took longer than `handshake_timeout_ms`.
    #[error("the handshake took too long")]
    HandshakeTimeout,
    /// The handshake failed.
    #[error("the handshake failed: {0}")]
    Handshake(String),
    /// No control stream was opened within `hello_timeout_ms`.
    #[error("no control stream was opened in time")]
    NoControlStream,
    /// The address has too many connections.
    #[error(transparent)]
    Address(#[from] AddressRefused),
    /// A WebTransport session was refused.
    #[error(transparent)]
    Session(SessionRefused),
    /// The link ended before it began.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// A reason fit for logs and close frames: at most 120 bytes, no control characters.
pub(super) fn clean_reason(text: &str) -> String {
    let mut reason: String = text.chars().filter(|char| !char.is_control()).collect();
    reason.truncate(reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX));
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_cut_at_a_character_and_carry_no_control_characters() {
        assert_eq!(clean_reason("a\r\nb\x1b[31m"), "ab[31m");
        let long = clean_reason(&"ü".repeat(100));
        assert_eq!(long.len(), 120);
        let odd = clean_reason(&format!("x{}", "ü".repeat(100)));
        assert_eq!(odd.len(), 119);
    }

    #[test]
    fn a_peer_that_can_still_hear_is_told_why() {
        let told = |error: LinkError| error.reply().map(|close| close.code);
        assert_eq!(told(LinkError::Reset), None);
        assert_eq!(told(LinkError::IdleTimeout), Some(Code::HEARTBEAT_TIMEOUT));
        assert_eq!(told(DecodeError::TooLarge(1 << 30).into()), Some(Code::FRAME_TOO_LARGE));
        assert_eq!(told(DecodeError::Truncated.into()), Some(Code::MALFORMED));
    }
}
