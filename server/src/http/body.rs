//! JSON bodies of requests: bounded in bytes and time, and refused with the reason.

use std::time::Duration;

use axum::extract::{FromRequest, Request};
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use tern_protocol::{Code, without_lone_surrogates};

use super::{Api, Problem};

/// Longest body in bytes: a text of 16 KiB of which JSON escapes every byte, or a hundred long user ids.
pub(super) const BODY_BYTES_MAX: usize = 128 * 1024;
/// A body must be complete within this time.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The body of a request, read as JSON.
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Api> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &Api) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            let detail = "send the body as JSON, with Content-Type: application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", detail));
        }
        let bytes = read(request).await?;
        // An array of the fields' values would be read as well, and nobody means that.
        if bytes.trim_ascii_start().first() == Some(&b'[') {
            return Err(Problem::of(Code::INVALID_ARGUMENT, "the body must be a JSON object"));
        }
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| Problem::of(Code::MALFORMED, "the body is not JSON: it is not UTF-8"))?;
        serde_json::from_str(&without_lone_surrogates(text)).map(Self).map_err(|error| {
            match error.classify() {
                Category::Data => Problem::of(Code::INVALID_ARGUMENT, error.to_string()),
                _ => Problem::of(Code::MALFORMED, format!("the body is not JSON: {error}")),
            }
        })
    }
}

async fn read(request: Request) -> Result<bytes::Bytes, Problem> {
    let too_large = || {
        let detail = format!("a body has at most {BODY_BYTES_MAX} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
    };
    // Said before it is sent: a client that waits for 100 Continue need not send it.
    let said = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if said.and_then(|text| text.parse::<u64>().ok()).is_some_and(|bytes| bytes > BODY_BYTES_MAX as u64) {
        return Err(too_large());
    }
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
    match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::of(Code::MALFORMED, "the body broke off")),
        Err(_) => {
            let detail = format!("the body was not complete within {} s", BODY_TIMEOUT.as_secs());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", detail))
        }
    }
}

/// Nothing but JSON: a page of another origin can send other types without asking first.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers.get(header::CONTENT_TYPE).map(|value| value.to_str()) else { return false };
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}
