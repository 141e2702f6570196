//! The JSON form: one text per frame, `"type"` names it, `"request_id"` numbers it.

use serde::Serialize;
use serde_json::Value;

use crate::codec::{DecodeError, Envelope, clip};
use crate::frame::Frame;
use crate::limits::DETAIL_BYTES_MAX;

const TYPE: &str = "type";
const REQUEST: &str = "request_id";
/// A frame without a type is a message: the shape that older clients send.
const BARE_SEND: &str = "send";
/// Longest part of an unknown type name that an error quotes, in bytes.
const QUOTED_NAME_BYTES_MAX: usize = 64;

/// A frame as it stands in JSON: the type first, so that people see it first.
#[derive(Serialize)]
pub(crate) struct Tagged<'a, Body> {
    #[serde(rename = "type")]
    pub(crate) name: &'static str,
    #[serde(rename = "request_id", skip_serializing_if = "Option::is_none")]
    pub(crate) request: Option<u64>,
    #[serde(flatten)]
    pub(crate) body: &'a Body,
}

/// The JSON text of a frame, on one line.
pub fn to_json(envelope: &Envelope) -> String {
    envelope.frame.to_json_text(envelope.request).expect("wire types serialise without failing")
}

/// Reads a JSON text. Unknown fields are ignored, an unknown type is an error.
///
/// A message may leave out `temp_id`: `fresh` then makes one, and a retry cannot be recognised.
pub fn from_json(text: &str, fresh: impl FnOnce() -> crate::TempId) -> Result<Envelope, DecodeError> {
    let value: Value = serde_json::from_str(text)
        .map_err(|error| DecodeError::Json(clip(format!("not JSON: {error}"), DETAIL_BYTES_MAX)))?;
    let Value::Object(mut map) = value else {
        return Err(DecodeError::Json("a frame is a JSON object".into()));
    };
    let request =
        match map.remove(REQUEST) {
            None | Some(Value::Null) => None,
            Some(value) => Some(value.as_u64().ok_or_else(|| {
                DecodeError::Json("request_id must be a whole number from 0 to 2^64-1".into())
            })?),
        };
    let name = match map.remove(TYPE) {
        None => BARE_SEND.to_owned(),
        Some(Value::String(name)) => name,
        Some(_) => return Err(DecodeError::Json("type must be a string".into())),
    };
    if name == BARE_SEND && !map.contains_key("temp_id") {
        map.insert("temp_id".into(), fresh().to_string().into());
    }
    match Frame::from_value(&name, Value::Object(map)) {
        None => Err(DecodeError::UnknownType { name: clip(name, QUOTED_NAME_BYTES_MAX), request }),
        Some(Ok(frame)) => Ok(Envelope { request, frame }),
        Some(Err(error)) => {
            let known = Frame::TABLE.iter().find(|row| row.1 == name).map_or("frame", |row| row.1);
            Err(DecodeError::body(known, error, request))
        }
    }
}
