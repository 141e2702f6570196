//! A frame on its way to sessions, and how it is written on their links.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tern_protocol::{Decoder, Envelope, Incoming};

/// How frames are written on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// The binary codec.
    Binary,
    /// One JSON text per frame.
    Json,
}

impl Format {
    /// A frame in this format.
    pub fn encode(self, envelope: &Envelope) -> Bytes {
        match self {
            Self::Binary => tern_protocol::encode(envelope).into(),
            Self::Json => tern_protocol::to_json(envelope).into(),
        }
    }
}

/// A frame on its way to any number of sessions, encoded at most once per format. Cloning it
/// shares it.
#[derive(Clone, Debug)]
pub struct Outgoing(Arc<Encodings>);

/// Made of a frame or of its binary form; whatever else is asked for is made of that.
#[derive(Debug, Default)]
struct Encodings {
    /// `None` inside: the binary form is no frame of this version.
    envelope: OnceLock<Option<Envelope>>,
    binary: OnceLock<Bytes>,
    json: OnceLock<Option<Bytes>>,
}

impl Outgoing {
    /// Wraps a frame.
    pub fn new(frame: impl Into<Envelope>) -> Self {
        let envelope = OnceLock::from(Some(frame.into()));
        Self(Arc::new(Encodings { envelope, ..Encodings::default() }))
    }

    /// A frame that was encoded elsewhere, as one binary frame with its length. It is decoded only if a
    /// JSON session is to have it.
    pub fn from_binary(frame: Bytes) -> Self {
        Self(Arc::new(Encodings { binary: frame.into(), ..Encodings::default() }))
    }

    /// The frame; `None` if its bytes are none that this version knows.
    pub fn envelope(&self) -> Option<&Envelope> {
        let decode = || {
            let mut decoder = Decoder::default();
            decoder.extend(self.0.binary.get()?);
            match decoder.next() {
                Ok(Some(Incoming::Frame(envelope))) => Some(envelope),
                other => {
                    tracing::error!(?other, "a frame from elsewhere cannot be read");
                    None
                }
            }
        };
        self.0.envelope.get_or_init(decode).as_ref()
    }

    /// Its bytes in a format; the first call for a format encodes, later ones share. `None` if it was
    /// encoded elsewhere and cannot be told in this format.
    pub fn bytes(&self, format: Format) -> Option<Bytes> {
        match format {
            Format::Json => {
                self.0.json.get_or_init(|| self.envelope().map(|frame| format.encode(frame))).clone()
            }
            Format::Binary => match self.0.binary.get() {
                Some(bytes) => Some(bytes.clone()),
                None => {
                    let bytes = format.encode(self.envelope()?);
                    Some(self.0.binary.get_or_init(|| bytes).clone())
                }
            },
        }
    }
}
