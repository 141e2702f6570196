//! Who may change something over the ops port: programs on this machine, and no web page.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Lets reading through. A change must come from this machine, and not from a browser: a page can
/// reach loopback under a name of its own (DNS rebinding), so `Host` must be an address or localhost.
pub(super) async fn changes_are_local(request: Request, next: Next) -> Response {
    if [Method::GET, Method::HEAD].contains(request.method()) {
        return next.run(request).await;
    }
    match refusal(&request) {
        None => next.run(request).await,
        Some(reason) => (StatusCode::FORBIDDEN, format!("{reason}\n")).into_response(),
    }
}

fn refusal(request: &Request) -> Option<&'static str> {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
    if !peer.is_none_or(|peer| peer.to_canonical().is_loopback()) {
        return Some("changes are taken from this machine only");
    }
    let headers = request.headers();
    if headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site") {
        return Some("changes are not taken from web pages");
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !is_local_name(host) {
        return Some("the Host header must be localhost or an address");
    }
    None
}

/// `localhost` or an IP address, with or without a port.
fn is_local_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_no_page_can_claim_are_local() {
        for good in ["localhost", "LOCALHOST:9433", "127.0.0.1:9433", "127.0.0.1", "[::1]:9433", "[::1]"] {
            assert!(is_local_name(good), "{good}");
        }
        for bad in
            ["", ":", "evil.example", "evil.example:9433", "127.0.0.1.evil.example:9433", "localhost.evil"]
        {
            assert!(!is_local_name(bad), "{bad}");
        }
    }
}
