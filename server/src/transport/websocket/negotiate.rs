//! Whether a request may become a WebSocket, and what it will speak: pure, on the request's head.

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode, Uri};
use tern_protocol::{SUBPROTOCOL_BINARY, SUBPROTOCOL_JSON};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::super::{TransportConfig, origin};
use crate::roster::Format;

/// Names of query parameters that would carry a token.
const TOKEN_PARAMETERS: [&str; 3] = ["token", "access_token", "jwt"];
/// The base64 form of the 16 random bytes a client sends as its key.
const KEY_CHARS: usize = 24;

/// What a WebSocket will speak, and the answer to its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// How frames are written.
    pub format: Format,
    accept_key: HeaderValue,
    subprotocol: Option<&'static str>,
}

impl Negotiated {
    /// Headers of the answer, whose status is 101.
    pub fn response_headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, self.accept_key.clone());
        if let Some(name) = self.subprotocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
        }
        headers
    }
}

/// Why a request does not become a WebSocket. The text is for the body of the answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeError {
    /// It is an ordinary request.
    #[error("this path speaks WebSocket: send Connection: Upgrade and Upgrade: websocket")]
    NotWebSocket,
    /// It is another version of WebSocket.
    #[error("WebSocket version 13 is spoken here")]
    Version,
    /// Its key is missing or malformed.
    #[error("Sec-WebSocket-Key must be 16 bytes in base64")]
    Key,
    /// It offers subprotocols, and none of ours.
    #[error(
        "none of the offered subprotocols is spoken here: offer {SUBPROTOCOL_BINARY} (binary) or \
         {SUBPROTOCOL_JSON} (JSON text), or none at all for JSON"
    )]
    Subprotocol,
    /// It has a token in its URL, where proxies and logs would see it.
    #[error("a token must not be in the URL: send it in the first frame, hello")]
    TokenInUrl,
    /// It comes from a page that may not connect.
    #[error("pages from this origin may not connect; an operator can list it in transport.allowed_origins")]
    Origin,
}

impl UpgradeError {
    /// Status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotWebSocket | Self::Version => StatusCode::UPGRADE_REQUIRED,
            Self::Key | Self::Subprotocol | Self::TokenInUrl => StatusCode::BAD_REQUEST,
            Self::Origin => StatusCode::FORBIDDEN,
        }
    }

    /// Further headers of the answer: which upgrade is spoken here.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if self.status() == StatusCode::UPGRADE_REQUIRED {
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        headers
    }
}

/// Decides about a GET request for a WebSocket.
///
/// ```
/// use http::{HeaderMap, HeaderValue};
/// use tern::transport::{TransportConfig, websocket::{UpgradeError, negotiate}};
///
/// let answer = negotiate(&"/v1/connect".parse().unwrap(), &HeaderMap::new(), &TransportConfig::default());
/// assert_eq!(answer, Err(UpgradeError::NotWebSocket));
/// ```
pub fn negotiate(
    uri: &Uri,
    headers: &HeaderMap,
    config: &TransportConfig,
) -> Result<Negotiated, UpgradeError> {
    if token_in_query(uri) {
        return Err(UpgradeError::TokenInUrl);
    }
    if !lists(headers, header::CONNECTION, "upgrade") || !lists(headers, header::UPGRADE, "websocket") {
        return Err(UpgradeError::NotWebSocket);
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(UpgradeError::Version);
    }
    if !origin::may_connect(uri, headers, config) {
        return Err(UpgradeError::Origin);
    }
    let accept_key = accept_key(headers)?;
    let (format, subprotocol) = subprotocol(headers)?;
    Ok(Negotiated { format, accept_key, subprotocol })
}

/// Whether a URL carries a token. Such a request is refused wherever it goes, and its query is
/// not logged.
pub fn token_in_query(uri: &Uri) -> bool {
    uri.query().is_some_and(|query| {
        query.split('&').any(|pair| {
            let name = pair.split('=').next().unwrap_or_default();
            TOKEN_PARAMETERS.iter().any(|token| name.eq_ignore_ascii_case(token))
        })
    })
}

fn lists(headers: &HeaderMap, name: HeaderName, wanted: &str) -> bool {
    values(headers, name).any(|value| value.eq_ignore_ascii_case(wanted))
}

/// The comma-separated values of all headers of a name.
fn values(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::trim))
        .filter(|value| !value.is_empty())
}

fn accept_key(headers: &HeaderMap) -> Result<HeaderValue, UpgradeError> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or(UpgradeError::Key)?.as_bytes();
    let base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    if key.len() != KEY_CHARS || !key.ends_with(b"==") || !key[..KEY_CHARS - 2].iter().all(base64) {
        return Err(UpgradeError::Key);
    }
    HeaderValue::try_from(derive_accept_key(key)).map_err(|_| UpgradeError::Key)
}

/// The client's order is its preference.
fn subprotocol(headers: &HeaderMap) -> Result<(Format, Option<&'static str>), UpgradeError> {
    let mut offered = values(headers, header::SEC_WEBSOCKET_PROTOCOL).peekable();
    if offered.peek().is_none() {
        return Ok((Format::Json, None));
    }
    offered
        .find_map(|name| match name {
            SUBPROTOCOL_BINARY => Some((Format::Binary, Some(SUBPROTOCOL_BINARY))),
            SUBPROTOCOL_JSON => Some((Format::Json, Some(SUBPROTOCOL_JSON))),
            _ => None,
        })
        .ok_or(UpgradeError::Subprotocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(extra: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let base = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        for (name, value) in base.iter().chain(extra) {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn ask(extra: &[(&'static str, &str)]) -> Result<Negotiated, UpgradeError> {
        ask_with(&TransportConfig::default(), extra)
    }

    fn ask_with(
        config: &TransportConfig,
        extra: &[(&'static str, &str)],
    ) -> Result<Negotiated, UpgradeError> {
        negotiate(&Uri::from_static("/v1/connect"), &request(extra), config)
    }

    #[test]
    fn the_subprotocol_decides_the_format_and_none_means_json() {
        let protocol = |offer| ask(&[("sec-websocket-protocol", offer)]);
        let binary = protocol("tern.v1").unwrap();
        assert_eq!(binary.format, Format::Binary);
        assert_eq!(binary.response_headers()["sec-websocket-protocol"], "tern.v1");
        assert_eq!(protocol("tern.v1.json, tern.v1").unwrap().format, Format::Json);
        assert_eq!(protocol("chat, tern.v1").unwrap().format, Format::Binary);
        let none = ask(&[]).unwrap();
        assert_eq!(none.format, Format::Json);
        assert!(!none.response_headers().contains_key("sec-websocket-protocol"));
        // The example of RFC 6455, section 1.3.
        assert_eq!(none.response_headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn only_unknown_subprotocols_are_refused_naming_the_known_ones() {
        let error = ask(&[("sec-websocket-protocol", "chat, tern.v2")]).unwrap_err();
        assert_eq!(error, UpgradeError::Subprotocol);
        assert_eq!(error.status(), StatusCode::BAD_REQUEST);
        assert!(error.to_string().contains("tern.v1 (binary) or tern.v1.json"), "{error}");
    }

    #[test]
    fn a_foreign_page_is_refused_naming_the_setting_and_a_listed_one_is_not() {
        let config =
            TransportConfig { allowed_origins: vec!["https://chat.example".into()], ..Default::default() };
        assert!(ask_with(&config, &[("origin", "https://chat.example")]).is_ok());
        let foreign = [
            "https://chat.example.evil.test",
            "http://chat.example",
            "https://chat.example:8443",
            "https://evil.test",
            "null",
            "http://localhost",
        ];
        for origin in foreign {
            let error = ask_with(&config, &[("origin", origin)]).unwrap_err();
            assert_eq!(error.status(), StatusCode::FORBIDDEN, "{origin}");
            assert!(error.to_string().contains("transport.allowed_origins"));
        }
        let twice = [("origin", "https://chat.example"), ("origin", "https://evil.test")];
        assert_eq!(ask_with(&config, &twice), Err(UpgradeError::Origin));
        assert!(ask(&[]).is_ok(), "no browser, no origin");
    }

    #[test]
    fn pages_from_loopback_connect_only_where_development_allows_it() {
        let dev = TransportConfig { allow_loopback_origins: true, ..Default::default() };
        for origin in
            ["http://localhost", "https://localhost:8080", "http://127.0.0.1:3000", "http://[::1]:1"]
        {
            assert!(ask_with(&dev, &[("origin", origin)]).is_ok(), "{origin}");
            assert_eq!(ask(&[("origin", origin)]), Err(UpgradeError::Origin), "{origin}");
        }
        for origin in [
            "http://localhost.evil.test",
            "http://localhost:80.evil.test",
            "ftp://localhost",
            "http://127.0.0.10",
            "http://evil.test:80",
        ] {
            assert_eq!(ask_with(&dev, &[("origin", origin)]), Err(UpgradeError::Origin), "{origin}");
        }
    }

    #[test]
    fn a_token_in_the_url_is_refused_and_never_repeated() {
        for query in ["token=secret", "a=b&access_token=secret", "JWT=secret", "token"] {
            let uri: Uri = format!("/v1/connect?{query}").parse().unwrap();
            let error = negotiate(&uri, &request(&[]), &TransportConfig::default()).unwrap_err();
            assert_eq!(error, UpgradeError::TokenInUrl, "{query}");
            assert_eq!(error.status(), StatusCode::BAD_REQUEST);
            assert!(!format!("{error} {error:?}").contains("secret"));
        }
        let uri = Uri::from_static("/v1/connect?tokens=1&limit=2");
        assert!(negotiate(&uri, &request(&[]), &TransportConfig::default()).is_ok());
    }

    #[test]
    fn what_is_no_websocket_request_is_told_what_to_send() {
        let without = |name: &str, value: Option<&str>| {
            let mut headers = request(&[]);
            headers.remove(name);
            if let Some(value) = value {
                let name: HeaderName = name.parse().unwrap();
                headers.insert(name, HeaderValue::from_str(value).unwrap());
            }
            negotiate(&Uri::from_static("/v1/connect"), &headers, &TransportConfig::default()).unwrap_err()
        };
        assert_eq!(without("upgrade", None), UpgradeError::NotWebSocket);
        assert_eq!(without("upgrade", Some("h2c")), UpgradeError::NotWebSocket);
        assert_eq!(without("connection", Some("close")), UpgradeError::NotWebSocket);
        assert_eq!(without("sec-websocket-version", Some("8")), UpgradeError::Version);
        assert_eq!(without("sec-websocket-version", None).headers()["sec-websocket-version"], "13");
        for key in ["", "short==", "dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25j\u{a0}Q=="] {
            assert_eq!(without("sec-websocket-key", Some(key)), UpgradeError::Key, "{key:?}");
        }
    }
}
