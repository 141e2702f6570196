//! The JSON form: one text per frame, `"type"` names it, `"request_id"` numbers it.

use serde::Deserialize;
use serde_json::Value;

use crate::about;
use crate::data::Data;
use crate::envelope::{DecodeError, Envelope, clip};
use crate::frame::{Frame, Send};
use crate::id::{Target, TempId};
use crate::limits::DETAIL_BYTES_MAX;
use crate::number::{age_or_none, whole, whole_or_none};
use crate::surrogate::without_lone_surrogates;

/// A frame without a type is a message: the shape that older clients send.
const BARE_SEND: &str = "send";
/// Longest part of an unknown type name that an error quotes, in bytes.
const QUOTED_NAME_BYTES_MAX: usize = 64;

/// What is read first of any frame.
#[derive(Deserialize)]
#[serde(expecting = "a frame is a JSON object")]
struct Head {
    #[serde(rename = "type")]
    name: Option<Value>,
    request_id: Option<Value>,
}

/// A message as clients may write it.
#[derive(Deserialize)]
struct LooseSend {
    to: Target,
    #[serde(default)]
    text: String,
    temp_id: Option<TempId>,
    #[serde(default, deserialize_with = "age_or_none")]
    age_ms: Option<u64>,
    data: Option<Data>,
    #[serde(default, deserialize_with = "whole_or_none")]
    reply_to: Option<u64>,
}

/// The JSON text of a frame, on one line.
pub fn to_json(envelope: &Envelope) -> String {
    envelope.frame.to_json_text(envelope.request).expect("wire types serialise without failing")
}

/// Reads a JSON text. Unknown fields are ignored, an unknown type is an error.
///
/// An escape of half a character stands for U+FFFD, a number may have a fraction of zero, an age any.
/// A message may leave out `temp_id`: `fresh` then makes one, and a retry cannot be recognised.
pub fn from_json(text: &str, fresh: impl FnOnce() -> TempId) -> Result<Envelope, DecodeError> {
    let text = &*without_lone_surrogates(text);
    let Head { name, request_id } = serde_json::from_str(text).map_err(|error| not_a_frame(text, &error))?;
    let request = request_id.map(whole::<u64, _>).transpose();
    let (Ok(request), None | Some(Value::String(_))) = (&request, &name) else {
        let detail = match &request {
            Err(_) => "request_id must be a whole number from 0 to 2^64-1",
            Ok(_) => "type must be a string",
        };
        let request = request.ok().flatten();
        return Err(DecodeError::Json { detail: detail.into(), request, about: about::in_json(text) });
    };
    let request = *request;
    let name = match name {
        Some(Value::String(name)) => name,
        _ => BARE_SEND.to_owned(),
    };
    let read = if name == BARE_SEND {
        Some(serde_json::from_str::<LooseSend>(text).map(|send| send.or_fresh(fresh).into()))
    } else {
        Frame::from_json_text(&name, text)
    };
    match read {
        None => Err(DecodeError::UnknownType { name: clip(name, QUOTED_NAME_BYTES_MAX), request }),
        Some(Ok(frame)) => Ok(Envelope { request, frame }),
        Some(Err(error)) => {
            let known = Frame::TABLE.iter().find(|row| row.1 == name).map_or("frame", |row| row.1);
            Err(DecodeError::body(known, error, request, about::in_json(text)))
        }
    }
}

fn not_a_frame(text: &str, error: &serde_json::Error) -> DecodeError {
    let detail = match error.is_data() {
        true if text.trim_start().starts_with('{') => error.to_string(),
        true => "a frame is a JSON object".into(),
        false => format!("not JSON: {error}"),
    };
    let about = about::in_json(text);
    DecodeError::Json { detail: clip(detail, DETAIL_BYTES_MAX), request: None, about }
}

impl LooseSend {
    fn or_fresh(self, fresh: impl FnOnce() -> TempId) -> Send {
        let Self { to, text, temp_id, age_ms, data, reply_to } = self;
        Send { to, text, temp_id: temp_id.unwrap_or_else(fresh), age_ms, data, reply_to }
    }
}
