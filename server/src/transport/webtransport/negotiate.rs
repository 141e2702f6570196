//! Whether a request may become a WebTransport session, and what it will speak: pure, on its head.

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use tern_protocol::{CONNECT_PATH, SUBPROTOCOL_BINARY};

use super::super::{TransportConfig, origin, websocket};

/// Says which draft is spoken; browsers that speak draft 02 want it.
const DRAFT: HeaderName = HeaderName::from_static("sec-webtransport-http3-draft");
/// The subprotocols that a client offers: a list of strings by RFC 9651.
const AVAILABLE_PROTOCOLS: HeaderName = HeaderName::from_static("wt-available-protocols");
/// The one that is spoken: a string.
const PROTOCOL: HeaderName = HeaderName::from_static("wt-protocol");

/// Why a request does not become a session. The text is for the body of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionRefused {
    /// Sessions are elsewhere.
    #[error("sessions are at {CONNECT_PATH}")]
    Path,
    /// It has a token in its URL, where logs would see it.
    #[error("a token must not be in the URL: send it in the first frame, hello")]
    TokenInUrl,
    /// It comes from a page that may not connect.
    #[error("pages from this origin may not connect; an operator can list it in transport.allowed_origins")]
    Origin,
    /// It offers subprotocols, and not ours.
    #[error("none of the offered subprotocols is spoken here: offer {SUBPROTOCOL_BINARY}, or none")]
    Subprotocol,
    /// The connection has as many sessions as it may have.
    #[error("this connection has as many sessions as it may have: open another connection")]
    TooMany,
    /// The node goes away.
    #[error("this node is going away: connect to another")]
    Draining,
}

impl SessionRefused {
    /// Status of the answer.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Path => StatusCode::NOT_FOUND,
            Self::TokenInUrl | Self::Subprotocol => StatusCode::BAD_REQUEST,
            Self::Origin => StatusCode::FORBIDDEN,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Decides about a CONNECT request; gives the answer that opens the session.
pub(super) fn negotiate(
    request: &Request<()>,
    config: &TransportConfig,
) -> Result<Response<()>, SessionRefused> {
    if request.uri().path() != CONNECT_PATH {
        return Err(SessionRefused::Path);
    }
    if websocket::token_in_query(request.uri()) {
        return Err(SessionRefused::TokenInUrl);
    }
    if !origin::may_connect(request.uri(), request.headers(), config) {
        return Err(SessionRefused::Origin);
    }
    let mut response = Response::new(());
    response.headers_mut().insert(DRAFT, HeaderValue::from_static("draft02"));
    let mut offered = offered(request.headers()).peekable();
    if offered.peek().is_some() {
        if !offered.any(|name| name == SUBPROTOCOL_BINARY) {
            return Err(SessionRefused::Subprotocol);
        }
        let spoken = HeaderValue::try_from(format!("\"{SUBPROTOCOL_BINARY}\"")).expect("plain text");
        response.headers_mut().insert(PROTOCOL, spoken);
    }
    Ok(response)
}

/// The strings of all lists, without their parameters.
fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(AVAILABLE_PROTOCOLS)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|item| item.split(';').next())
        .map(|item| item.trim().trim_matches('"'))
        .filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str, headers: &[(&'static str, &str)]) -> Request<()> {
        let mut request = Request::connect(format!("https://127.0.0.1:4433{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn answer(path: &str, headers: &[(&'static str, &str)]) -> Result<Option<String>, SessionRefused> {
        let mut config = TransportConfig { allow_loopback_origins: true, ..TransportConfig::default() };
        config.allowed_origins.push("https://chat.example".into());
        let response = negotiate(&request(path, headers), &config)?;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["sec-webtransport-http3-draft"], "draft02");
        Ok(response.headers().get(PROTOCOL).map(|value| value.to_str().unwrap().to_owned()))
    }

    #[test]
    fn a_session_speaks_the_subprotocol_that_was_offered() {
        assert_eq!(answer(CONNECT_PATH, &[]), Ok(None));
        let spoken = Ok(Some("\"tern.v1\"".to_owned()));
        for offer in ["\"tern.v1\"", "\"a\", \"tern.v1\";q=1", "\"tern.v1\" , \"b\""] {
            assert_eq!(answer(CONNECT_PATH, &[("wt-available-protocols", offer)]), spoken, "{offer}");
        }
        let others = answer(CONNECT_PATH, &[("wt-available-protocols", "\"tern.v9\"")]);
        assert_eq!(others, Err(SessionRefused::Subprotocol));
    }

    #[test]
    fn wrong_paths_tokens_in_urls_and_foreign_pages_are_refused() {
        assert_eq!(answer("/", &[]), Err(SessionRefused::Path));
        assert_eq!(answer("/v1/connect/", &[]), Err(SessionRefused::Path));
        assert_eq!(answer("/v1/connect?token=x", &[]), Err(SessionRefused::TokenInUrl));
        for origin in ["https://evil.example", "null", "https://chat.example.evil"] {
            assert_eq!(answer(CONNECT_PATH, &[("origin", origin)]), Err(SessionRefused::Origin), "{origin}");
        }
        for origin in ["https://chat.example", "http://localhost:8080"] {
            assert_eq!(answer(CONNECT_PATH, &[("origin", origin)]), Ok(None), "{origin}");
        }
    }
}
