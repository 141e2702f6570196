//! Which web pages may connect, on every transport that browsers use.

use http::HeaderMap;
use http::header;

use super::TransportConfig;

/// Whether the page that a browser names may connect. Browsers say which page connects, and a page of
/// somebody else could use what the browser knows of its user. Whoever is no browser sends no Origin.
pub fn may_connect(headers: &HeaderMap, config: &TransportConfig) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).into_iter();
    let Some(origin) = origins.next() else { return true };
    let (None, Ok(origin)) = (origins.next(), origin.to_str()) else { return false };
    is_allowed(origin, config)
}

/// Whether pages from this origin may use this server.
pub fn is_allowed(origin: &str, config: &TransportConfig) -> bool {
    let listed = config.allowed_origins.iter().any(|allowed| allowed == origin);
    listed || config.allow_loopback_origins && is_loopback(origin)
}

/// `http` or `https` on a loopback name, with any port.
fn is_loopback(origin: &str) -> bool {
    let Some(authority) = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) else {
        return false;
    };
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|host| match authority.strip_prefix(host) {
        None => false,
        Some("") => true,
        Some(rest) => rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok()),
    })
}
