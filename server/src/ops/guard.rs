//! Who may ask the ops port, and who may change something over it: programs, and no web page.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Names besides addresses and localhost under which the port may be read.
pub(super) type Hosts = Arc<[String]>;

/// A page can reach this port under a name of its own (DNS rebinding), so `Host` must be an address, localhost
/// or a name that the operator has listed. A change must also come from this machine, and not from a browser.
pub(super) async fn no_web_page(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    let refusal = if reads { unknown_name(request.headers(), &hosts) } else { unwanted_change(&request) };
    match refusal {
        None => next.run(request).await,
        Some(reason) => (StatusCode::FORBIDDEN, format!("{reason}\n")).into_response(),
    }
}

/// No browser leaves `Host` away.
fn unknown_name(headers: &HeaderMap, hosts: &[String]) -> Option<&'static str> {
    let host = headers.get(header::HOST)?.to_str().unwrap_or_default();
    let listed = hosts.iter().any(|listed| listed.eq_ignore_ascii_case(name_of(host)));
    (!listed && !is_local_name(host))
        .then_some("the Host header must be localhost, an address or a name of ops.hosts: list it there")
}

fn unwanted_change(request: &Request) -> Option<&'static str> {
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
    let name = name_of(host);
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

/// Without the port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
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
