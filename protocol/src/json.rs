//! The JSON form: one text per frame, `"type"` names it, `"request_id"` numbers it.

use serde_json::{Map, Value};

use crate::codec::{DecodeError, Envelope};
use crate::frame::Frame;

const TYPE: &str = "type";
const REQUEST: &str = "request_id";
/// A frame without a type is a message: the shape that older clients send.
const BARE_SEND: &str = "send";

/// The JSON text of a frame.
pub fn to_json(envelope: &Envelope) -> String {
    let mut map = Map::new();
    map.insert(TYPE.into(), envelope.frame.name().into());
    if let Some(request) = envelope.request {
        map.insert(REQUEST.into(), request.into());
    }
    if let Value::Object(body) = envelope.frame.to_value().expect("wire types serialise without failing") {
        map.extend(body);
    }
    Value::Object(map).to_string()
}

/// Reads a JSON text. Unknown fields are ignored, an unknown type is an error.
///
/// A message may leave out `temp_id`: `fresh` then makes one, and a retry cannot be recognised.
pub fn from_json(text: &str, fresh: impl FnOnce() -> crate::TempId) -> Result<Envelope, DecodeError> {
    let value: Value =
        serde_json::from_str(text).map_err(|error| DecodeError::Json(format!("not JSON: {error}")))?;
    let Value::Object(mut map) = value else {
        return Err(DecodeError::Json("a frame is a JSON object".into()));
    };
    let request = match map.remove(REQUEST) {
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
        None => Err(DecodeError::Json(format!("unknown type {name:?}"))),
        Some(Ok(frame)) => Ok(Envelope { request, frame }),
        Some(Err(error)) => Err(DecodeError::Body {
            name: Frame::TABLE.iter().find(|row| row.1 == name).map_or("frame", |row| row.1),
            detail: error.to_string(),
            request,
        }),
    }
}
