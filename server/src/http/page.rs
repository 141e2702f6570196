//! The chat page: files built from client-sdk/web/page, checked in under server/page.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Bootstrap;

/// The `[page]` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PageConfig {
    /// Serve the chat page at `/`, where people sign in by pasting a token. Off by default.
    pub enabled: bool,
}

/// A file of the page.
struct File {
    path: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

const FILES: [File; 5] = [
    File { path: "/", kind: "text/html; charset=utf-8", bytes: include_bytes!("../../page/index.html") },
    File {
        path: "/app.js",
        kind: "text/javascript; charset=utf-8",
        bytes: include_bytes!("../../page/app.js"),
    },
    File {
        path: "/sdk.js",
        kind: "text/javascript; charset=utf-8",
        bytes: include_bytes!("../../page/sdk.js"),
    },
    File {
        path: "/style.css",
        kind: "text/css; charset=utf-8",
        bytes: include_bytes!("../../page/style.css"),
    },
    File { path: "/icon.svg", kind: "image/svg+xml", bytes: include_bytes!("../../page/icon.svg") },
];

/// Bytes of the hash in an ETag.
const ETAG_BYTES: usize = 16;

/// On every file: nothing is guessed, told to others, or opened from other pages.
const HEADERS: [(HeaderName, &str); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// The routes of all files.
pub(super) fn routes<S: Clone + Send + Sync + 'static>(bootstrap: &Bootstrap) -> Router<S> {
    FILES.iter().fold(Router::new(), |router, file| {
        let page = Site(bootstrap.clone());
        let etag = etag(file.bytes);
        router.route(
            file.path,
            get(move |request: Request| {
                let answer = page.answer(file, &etag, request.uri(), request.headers());
                async move { answer }
            }),
        )
    })
}

/// The page of a node that clients reach like this.
#[derive(Clone)]
struct Site(Bootstrap);

impl Site {
    fn answer(&self, file: &File, etag: &HeaderValue, uri: &Uri, request: &HeaderMap) -> Response {
        let mut response = if request.get(header::IF_NONE_MATCH) == Some(etag) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let mut response = Response::new(Body::from(Bytes::from_static(file.bytes)));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(file.kind));
            response
        };
        let headers = response.headers_mut();
        headers.insert(header::ETAG, etag.clone());
        // Asked for each time: after an upgrade old and new files must not meet.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(header::CONTENT_SECURITY_POLICY, self.policy(uri, request));
        for (name, value) in HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }

    /// Nothing from elsewhere and nothing inline. What `'self'` does not say is the port for clients;
    /// browsers differ in whether `'self'` means WebSocket too.
    fn policy(&self, uri: &Uri, request: &HeaderMap) -> HeaderValue {
        let connect = asked_at(uri, request).map_or_else(String::new, |asked| {
            let client = match &self.0.public {
                Some(public) => public.to_string(),
                None => format!("{}:{}", asked.host(), self.0.client_port),
            };
            format!(" ws://{asked} wss://{asked} wss://{client} https://{client}")
        });
        let policy = format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'{connect}; \
             frame-src 'self'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'; \
             require-trusted-types-for 'script'; trusted-types 'none'"
        );
        HeaderValue::try_from(policy)
            .expect("an authority of letters, digits, dots and colons is a header value")
    }
}

/// The host by which the page was asked for, if it is one that can stand in a policy.
fn asked_at(uri: &Uri, request: &HeaderMap) -> Option<Authority> {
    // HTTP/2 has it in the URI, HTTP/1 in a header.
    let host = || request.get(header::HOST)?.to_str().ok()?.parse().ok();
    let authority: Authority = uri.authority().cloned().or_else(host)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte);
    authority.as_str().bytes().all(plain).then_some(authority)
}

fn etag(bytes: &[u8]) -> HeaderValue {
    let hash = BASE64URL_NOPAD.encode(&Sha256::digest(bytes)[..ETAG_BYTES]);
    HeaderValue::try_from(format!("\"{hash}\"")).expect("base64 in quotes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(public: Option<&str>) -> Site {
        let public = public.map(|text| text.parse().unwrap());
        Site(Bootstrap { client_port: 4433, public, pinned: None })
    }

    fn policy(host: &'static str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static(host));
        page(None).policy(&Uri::from_static("/"), &headers).to_str().unwrap().to_owned()
    }

    #[test]
    fn the_page_may_connect_to_its_own_host_and_to_nothing_else() {
        let policy = policy("127.0.0.1:8080");
        let connect = policy.split("; ").find(|part| part.starts_with("connect-src")).unwrap();
        assert_eq!(
            connect,
            "connect-src 'self' ws://127.0.0.1:8080 wss://127.0.0.1:8080 wss://127.0.0.1:4433 https://127.0.0.1:4433"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
    }

    #[test]
    fn a_host_that_is_none_adds_nothing_to_the_policy() {
        for host in ["a;script-src", "a b", "*", "", "user@host", "a'"] {
            assert!(policy(host).contains("connect-src 'self'; "), "{host}: {}", policy(host));
        }
    }

    #[test]
    fn the_files_need_nothing_inline_and_nothing_from_elsewhere() {
        let html = std::str::from_utf8(FILES[0].bytes).unwrap();
        for wrong in ["style=", "http://", "https://", "<style"] {
            assert!(!html.contains(wrong), "{wrong} in {html}");
        }
        let handler = |word: &str| word.starts_with("on") && word.contains('=');
        assert!(!html.split_whitespace().any(handler), "{html}");
        assert_eq!(html.matches("<script").count(), 1, "{html}");
    }

    #[test]
    fn who_has_a_file_already_is_told_so() {
        let etag = etag(FILES[1].bytes);
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, etag.clone());
        let page = page(None);
        let uri = Uri::from_static("/app.js");
        assert_eq!(page.answer(&FILES[1], &etag, &uri, &headers).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(page.answer(&FILES[1], &etag, &uri, &HeaderMap::new()).status(), StatusCode::OK);
    }
}
