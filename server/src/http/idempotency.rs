//! The header `Idempotency-Key`: another place for the `temp_id` of a change, where generic clients put it.

use axum::extract::FromRequestParts;
use http::HeaderName;
use http::request::Parts as Head;
use tern_protocol::{Code, TempId};

use super::{Api, Problem};

/// The header (draft-ietf-httpapi-idempotency-key-header): a string in quotes; many leave them out.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The key of a request, if it has one.
pub(super) struct Key(Option<TempId>);

impl FromRequestParts<Api> for Key {
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Head, _: &Api) -> Result<Self, Problem> {
        let mut values = head.headers.get_all(IDEMPOTENCY_KEY).into_iter();
        let (Some(value), more) = (values.next(), values.next()) else { return Ok(Self(None)) };
        let key = value.to_str().ok().filter(|_| more.is_none()).map(str::trim).and_then(|text| {
            let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            quoted.unwrap_or(text).parse().ok()
        });
        let detail =
            "Idempotency-Key must be one UUID: it is the temp_id of the change, the same for every retry";
        key.map(|key| Self(Some(key))).ok_or_else(|| Problem::of(Code::INVALID_ARGUMENT, detail))
    }
}

impl Key {
    /// What the change is named by: the key, or the `temp_id` beside it, or a new one: then a retry would be
    /// another change.
    pub(super) fn or(self, temp_id: Option<TempId>) -> Result<TempId, Problem> {
        match (self.0, temp_id) {
            (Some(key), Some(temp_id)) if key != temp_id => {
                let detail = "Idempotency-Key and temp_id differ: give one of them, or the same in both";
                Err(Problem::of(Code::INVALID_ARGUMENT, detail))
            }
            (key, temp_id) => Ok(key.or(temp_id).unwrap_or_else(|| TempId::from_uuid(uuid::Uuid::new_v4()))),
        }
    }
}
