//! A frame with what surrounds it, and why something is not a frame: the same for both forms.

use crate::about::About;
use crate::code::Code;
use crate::frame::Frame;
use crate::limits::{DETAIL_BYTES_MAX, FRAME_BYTES_MAX};

/// A frame with the request it belongs to: a client numbers its requests as it likes, the
/// answers carry the number back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Number of the request, if the client wants answers to carry one.
    pub request: Option<u64>,
    /// The frame.
    pub frame: Frame,
}

impl<F: Into<Frame>> From<F> for Envelope {
    fn from(frame: F) -> Self {
        Self { request: None, frame: frame.into() }
    }
}

/// Why bytes are not a frame. The texts are at most [`DETAIL_BYTES_MAX`] bytes and may quote the
/// input: they are for the peer that sent it, not for logs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The frame is longer than allowed; the reader cannot go on.
    #[error("frame of {0} bytes, at most {FRAME_BYTES_MAX} are allowed")]
    TooLarge(u64),
    /// The length is not a varint of 32 bits; the reader cannot go on.
    #[error("the frame length is not a varint of at most 5 bytes")]
    BadLength,
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Truncated,
    /// The header of a frame is broken; the next frame can be read.
    #[error("the frame header is malformed: {0}")]
    Header(&'static str),
    /// A frame of unknown type is marked critical; the next frame can be read.
    #[error("unknown frame type {number} is marked critical")]
    UnknownCritical {
        /// The type.
        number: u32,
        /// The request, to answer it.
        request: Option<u64>,
    },
    /// The body is broken; the next frame can be read.
    #[error("malformed {name}: {detail}")]
    Body {
        /// Which frame.
        name: &'static str,
        /// What is wrong with it.
        detail: String,
        /// The request, to answer it.
        request: Option<u64>,
        /// What it was about, as far as it could be read.
        about: About,
    },
    /// A JSON text names a type that this version does not know; the next can be read.
    #[error("unknown type {name:?}")]
    UnknownType {
        /// The name, cut to 64 bytes.
        name: String,
        /// The request, to answer it.
        request: Option<u64>,
    },
    /// A JSON text is not a frame; the next can be read.
    #[error("{detail}")]
    Json {
        /// What is wrong with it.
        detail: String,
        /// The request, to answer it.
        request: Option<u64>,
        /// What it was about, as far as it could be read.
        about: About,
    },
}

impl DecodeError {
    /// After this the byte stream cannot be read any further.
    pub fn fatal(&self) -> bool {
        matches!(self, Self::TooLarge(_) | Self::BadLength | Self::Truncated)
    }

    /// The code to answer with.
    pub fn code(&self) -> Code {
        match self {
            Self::TooLarge(_) => Code::FRAME_TOO_LARGE,
            Self::UnknownCritical { .. } | Self::UnknownType { .. } => Code::UNKNOWN_CRITICAL,
            _ => Code::MALFORMED,
        }
    }

    /// The request the broken frame belongs to, where it could be read.
    pub fn request(&self) -> Option<u64> {
        match self {
            Self::UnknownCritical { request, .. }
            | Self::UnknownType { request, .. }
            | Self::Json { request, .. }
            | Self::Body { request, .. } => *request,
            _ => None,
        }
    }

    /// What the broken frame was about, as far as it could be read.
    pub fn about(&self) -> About {
        match self {
            Self::Json { about, .. } | Self::Body { about, .. } => about.clone(),
            _ => About::default(),
        }
    }

    pub(crate) fn body(
        name: &'static str,
        error: impl std::fmt::Display,
        request: Option<u64>,
        about: About,
    ) -> Self {
        Self::Body { name, detail: clip(error.to_string(), DETAIL_BYTES_MAX), request, about }
    }
}

/// Cuts a text at a character. What a peer sent comes back to it in an Error frame, which must
/// fit however long the input was.
pub(crate) fn clip(mut text: String, bytes_max: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_detail_is_cut_at_a_character() {
        assert_eq!(clip("aöö".into(), 2), "a");
        assert_eq!(clip("aöö".into(), 3), "aö");
        assert_eq!(clip("aöö".into(), 99), "aöö");
    }
}
