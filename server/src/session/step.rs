//! What comes of a frame or a deadline: for the loop, and from a handler.

use tern_protocol::{CLOSE_REASON_BYTES_MAX, Close, Code, Frame};

use crate::roster::Outgoing;

/// What the loop does next.
pub(super) enum Step {
    /// Queue this frame for the client.
    Send(Outgoing),
    /// Go on.
    Nothing,
    /// End the session with this as the last frame.
    Close(Close),
}

/// What a handler did with a frame.
pub(super) enum Handled {
    /// Answer with this frame.
    Reply(Frame),
    /// The answer comes later.
    Pending,
    /// There is no answer.
    Silent,
    /// The session cannot go on.
    Fatal(Close),
}

/// A Close for a reason.
pub fn close_for(code: Code, reason: impl Into<String>) -> Close {
    let mut reason: String = reason.into();
    reason.truncate(reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX));
    Close { code, reason, retry_after_ms: None, target: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let close = close_for(Code::NORMAL, "ä".repeat(CLOSE_REASON_BYTES_MAX));
        assert!(close.reason.len() <= CLOSE_REASON_BYTES_MAX && close.reason.ends_with('ä'));
    }
}
