//! The binary codec: varint length · varint type · flags · [varint request id] · postcard body.

use bytes::{Buf, BytesMut};

use crate::about;
use crate::envelope::{DecodeError, Envelope};
use crate::frame::{Deliver, Frame};
use crate::id::ConversationId;
use crate::limits::FRAME_BYTES_MAX;
use crate::varint::{VARINT32_BYTES_MAX, VARINT64_BYTES_MAX, Varint, put_varint, read_varint};

/// A receiver that does not know the type must refuse the frame instead of skipping it.
const FLAG_CRITICAL: u8 = 1;
/// A request id follows the flags.
const FLAG_REQUEST: u8 = 2;

/// What the decoder found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // nearly all of them are frames: a box would be paid for each
pub enum Incoming {
    /// A frame of this version.
    Frame(Envelope),
    /// A frame of a type this version does not know, not critical: skipped.
    Skipped(u32),
}

/// Appends the binary form of a frame. All frames of this version are sent as critical, except
/// those that may be lost anyway (typing) or skipped by those who do not know them (erased). The caller keeps to the limits: nothing that does has
/// more than [`FRAME_BYTES_MAX`] bytes.
pub fn encode_into(out: &mut Vec<u8>, envelope: &Envelope) {
    let frame = &envelope.frame;
    let optional = matches!(frame, Frame::Typing(_) | Frame::UserTyping(_) | Frame::Erased(_));
    let start = out.len();
    put_varint(out, u64::from(frame.number()));
    let critical = if optional { 0 } else { FLAG_CRITICAL };
    out.push(critical | if envelope.request.is_some() { FLAG_REQUEST } else { 0 });
    if let Some(request) = envelope.request {
        put_varint(out, request);
    }
    *out = frame.encode_body(std::mem::take(out)).expect("wire types serialise without failing");
    let length = out.len() - start;
    debug_assert!(length <= FRAME_BYTES_MAX, "{} of {length} bytes", frame.name());
    let mut prefix = Vec::with_capacity(VARINT32_BYTES_MAX);
    put_varint(&mut prefix, length as u64);
    out.splice(start..start, prefix);
}

/// The binary form of a frame.
pub fn encode(envelope: &Envelope) -> Vec<u8> {
    let mut out = Vec::new();
    encode_into(&mut out, envelope);
    out
}

/// The binary form of a Deliver of one entry that is encoded already (as postcard): for many receivers, and
/// without a second encoding of what the log has.
pub fn encode_deliver(conversation: ConversationId, entry: &[u8]) -> Vec<u8> {
    let frame = Frame::from(Deliver { conversation, entries: Vec::new() });
    let mut head = Vec::with_capacity(32);
    put_varint(&mut head, u64::from(frame.number()));
    head.push(FLAG_CRITICAL);
    let mut head = frame.encode_body(head).expect("wire types serialise without failing");
    // The body ends with the number of entries.
    if let Some(count) = head.last_mut() {
        *count = 1;
    }
    let length = head.len() + entry.len();
    debug_assert!(length <= FRAME_BYTES_MAX, "a deliver of {length} bytes");
    let mut out = Vec::with_capacity(VARINT32_BYTES_MAX + length);
    put_varint(&mut out, length as u64);
    out.extend_from_slice(&head);
    out.extend_from_slice(entry);
    out
}

/// Cuts a byte stream into frames. Feed it with [`Decoder::extend`], then call [`Decoder::next`]
/// until it says `None`.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Adds bytes from the stream.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that wait for the rest of their frame; at most one frame if `next` is called to the end.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// The stream has ended: an error if it ended inside a frame.
    pub fn finish(&self) -> Result<(), DecodeError> {
        if self.buffer.is_empty() { Ok(()) } else { Err(DecodeError::Truncated) }
    }

    /// The next frame, `None` if more bytes are needed. After an error that is not
    /// [fatal](DecodeError::fatal) the next call goes on with the next frame.
    #[allow(clippy::should_implement_trait)] // `None` means "not yet", not the end
    pub fn next(&mut self) -> Result<Option<Incoming>, DecodeError> {
        let (length, used) = match read_varint(&self.buffer, VARINT32_BYTES_MAX, u64::from(u32::MAX)) {
            Varint::Read(length, used) => (length, used),
            Varint::Short => return Ok(None),
            Varint::Bad => return Err(DecodeError::BadLength),
        };
        if length > FRAME_BYTES_MAX as u64 {
            return Err(DecodeError::TooLarge(length));
        }
        let length = length as usize;
        if self.buffer.len() < used + length {
            return Ok(None);
        }
        let decoded = decode_payload(&self.buffer[used..used + length]);
        self.buffer.advance(used + length);
        if self.buffer.is_empty() {
            // An idle connection keeps no buffer.
            self.buffer = BytesMut::new();
        }
        decoded.map(Some)
    }
}

fn decode_payload(payload: &[u8]) -> Result<Incoming, DecodeError> {
    let Varint::Read(number, used) = read_varint(payload, VARINT32_BYTES_MAX, u64::from(u32::MAX)) else {
        return Err(DecodeError::Header("the type is not a varint of at most 5 bytes"));
    };
    let number = number as u32;
    let (flags, mut rest) =
        payload[used..].split_first().ok_or(DecodeError::Header("the flags are missing"))?;
    if flags & !(FLAG_CRITICAL | FLAG_REQUEST) != 0 {
        return Err(DecodeError::Header("a reserved flag is set"));
    }
    let request = if flags & FLAG_REQUEST == 0 {
        None
    } else {
        let Varint::Read(request, used) = read_varint(rest, VARINT64_BYTES_MAX, u64::MAX) else {
            return Err(DecodeError::Header("the request id is not a varint of at most 10 bytes"));
        };
        rest = &rest[used..];
        Some(request)
    };
    match Frame::decode_body(number, rest) {
        None if flags & FLAG_CRITICAL != 0 => Err(DecodeError::UnknownCritical { number, request }),
        None => Ok(Incoming::Skipped(number)),
        Some(Ok((frame, 0))) => Ok(Incoming::Frame(Envelope { request, frame })),
        Some(Ok((frame, extra))) => {
            let about = about::in_binary(frame.name(), rest).0;
            Err(DecodeError::body(frame.name(), format_args!("{extra} bytes too many"), request, about))
        }
        Some(Err(error)) => {
            let name = name_of(number);
            let (about, wrong) = about::in_binary(name, rest);
            let detail = wrong.unwrap_or_else(|| in_words(&error).to_owned());
            Err(DecodeError::body(name, detail, request, about))
        }
    }
}

/// What is wrong with a body, where no field of it can be named.
fn in_words(error: &postcard::Error) -> &'static str {
    match error {
        postcard::Error::DeserializeUnexpectedEnd => "it ends too early",
        postcard::Error::DeserializeBadVarint => "a number has too many bytes or bits",
        postcard::Error::DeserializeBadBool => "a bool is neither 0 nor 1",
        postcard::Error::DeserializeBadOption => "an optional begins with 0 or 1",
        postcard::Error::DeserializeBadUtf8 => "a text is not UTF-8",
        postcard::Error::DeserializeBadEnum => "an enumeration has no variant of this number",
        _ => "a field has a value that its type does not have",
    }
}

fn name_of(number: u32) -> &'static str {
    Frame::TABLE.iter().find(|row| row.0 == number).map_or("frame", |row| row.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_is_encoded_already_makes_the_same_deliver() {
        let conversation = ConversationId::from_bytes([7; 16]);
        for bytes in [1, 200, 16_000] {
            let entry = crate::Entry {
                seq: 300,
                id: crate::EntryId::from_bytes([9; 16]),
                time_ms: 1_700_000_000_000,
                sender: crate::UserId::new("alice").unwrap(),
                sender_name: Some("Alice".into()),
                temp_id: None,
                messages: 200,
                body: crate::EntryBody::text("x".repeat(bytes)),
            };
            let encoded = postcard::to_stdvec(&entry).unwrap();
            let whole = encode(&Deliver { conversation, entries: vec![entry] }.into());
            assert_eq!(encode_deliver(conversation, &encoded), whole);
        }
    }

    #[test]
    fn a_declared_length_reserves_no_memory() {
        let mut decoder = Decoder::default();
        let mut header = Vec::new();
        put_varint(&mut header, FRAME_BYTES_MAX as u64);
        decoder.extend(&header);
        assert_eq!(decoder.next(), Ok(None));
        assert!(decoder.buffer.capacity() < 256, "{} bytes for a header", decoder.buffer.capacity());
    }

    #[test]
    fn a_decoder_between_frames_holds_no_buffer() {
        let mut decoder = Decoder::default();
        decoder.extend(&encode(&crate::Ping { nonce: 1 }.into()));
        assert!(matches!(decoder.next(), Ok(Some(_))));
        assert_eq!(decoder.buffer.capacity(), 0);
    }
}
