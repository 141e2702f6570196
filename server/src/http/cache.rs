//! Answers that may be kept: their ETag, and 304 for who has them already.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64URL_NOPAD;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Bytes of the hash in an ETag: two answers with the same are the same.
const ETAG_BYTES: usize = 16;

/// How long somebody may keep an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// The user's own cache, and it asks each time whether it still holds.
    Ask,
    /// The user's own cache, for five minutes without asking: what is in it does not change. Not for
    /// longer, so that what is erased here does not live on there.
    Sealed,
    /// Any cache, for a minute without asking.
    Public,
}

impl Keep {
    fn cache_control(self) -> &'static str {
        match self {
            Self::Ask => "private, no-cache",
            Self::Sealed => "private, max-age=300",
            Self::Public => "public, max-age=60",
        }
    }
}

/// A JSON answer with an ETag, or 304 if the request names that.
pub(super) fn json(request: &HeaderMap, body: &impl Serialize, keep: Keep) -> Response {
    let bytes = serde_json::to_vec(body).expect("answers serialise without failing");
    kept(request, bytes::Bytes::from(bytes), keep)
}

/// The same for JSON that is written already.
pub(super) fn kept(request: &HeaderMap, body: bytes::Bytes, keep: Keep) -> Response {
    let etag = etag(&body);
    let mut response = if names(request, &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let mut response = Response::new(Body::from(body));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, HeaderValue::try_from(etag).expect("base64 in quotes"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(keep.cache_control()));
    let vary = if keep == Keep::Public { "Host" } else { "Authorization" };
    headers.append(header::VARY, HeaderValue::from_static(vary));
    response
}

fn etag(body: &[u8]) -> String {
    format!("\"{}\"", BASE64URL_NOPAD.encode(&Sha256::digest(body)[..ETAG_BYTES]))
}

/// Whether `If-None-Match` names this ETag. Weak ones count: the bytes are the same then as well.
fn names(request: &HeaderMap, etag: &str) -> bool {
    let values = request.get_all(header::IF_NONE_MATCH).into_iter().filter_map(|value| value.to_str().ok());
    let mut named = values.flat_map(|value| value.split(',')).map(str::trim);
    named.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(if_none_match: &str) -> StatusCode {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, if_none_match.parse().unwrap());
        json(&headers, &"body", Keep::Ask).status()
    }

    #[test]
    fn who_names_the_etag_gets_304_and_nobody_else() {
        let first = json(&HeaderMap::new(), &"body", Keep::Ask);
        assert_eq!(first.status(), StatusCode::OK);
        let etag = first.headers()[header::ETAG].to_str().unwrap();
        for same in [etag, &format!("W/{etag}"), &format!("\"x\", {etag}"), "*"] {
            assert_eq!(ask(same), StatusCode::NOT_MODIFIED, "{same}");
        }
        for other in ["\"x\"", "", &etag[1..], &etag.to_lowercase()] {
            assert_eq!(ask(other), StatusCode::OK, "{other}");
        }
    }
}
