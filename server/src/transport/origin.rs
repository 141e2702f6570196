//! Which web pages may connect, on every transport that browsers use.

use http::header;
use http::{HeaderMap, Uri};

use super::TransportConfig;

/// Whether the page that a browser names may connect. Browsers say which page connects, and a page of
/// somebody else could use what the browser knows of its user. Whoever is no browser sends no Origin, or, as
/// React Native does, the server's own.
pub fn may_connect(uri: &Uri, headers: &HeaderMap, config: &TransportConfig) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).into_iter();
    let Some(origin) = origins.next() else { return true };
    let (None, Ok(origin)) = (origins.next(), origin.to_str()) else { return false };
    is_allowed(origin, uri, headers, config)
}

/// Whether pages from this origin may use this server: listed ones, and its own.
pub fn is_allowed(origin: &str, uri: &Uri, headers: &HeaderMap, config: &TransportConfig) -> bool {
    let listed = config.allowed_origins.iter().any(|allowed| allowed == origin);
    listed
        || asked_at(uri, headers).is_some_and(|asked| is_own(origin, asked))
        || config.allow_loopback_origins && is_loopback(origin)
}

/// The name, and perhaps the port, by which the server was asked.
fn asked_at<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let named = || headers.get(header::HOST)?.to_str().ok();
    uri.authority().map(http::uri::Authority::as_str).or_else(named)
}

/// Whether a page of this origin was loaded from where it connects to. A proxy may have taken TLS off.
fn is_own(origin: &str, asked: &str) -> bool {
    let (authority, port) = match origin.split_once("://") {
        Some(("https", authority)) => (authority, ":443"),
        Some(("http", authority)) => (authority, ":80"),
        _ => return false,
    };
    !authority.is_empty() && authority.eq_ignore_ascii_case(asked.strip_suffix(port).unwrap_or(asked))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(origin: &str, uri: &str, host: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, origin.parse().unwrap());
        if let Some(host) = host {
            headers.insert(header::HOST, host.parse().unwrap());
        }
        may_connect(&uri.parse().unwrap(), &headers, &TransportConfig::default())
    }

    #[test]
    fn the_servers_own_page_may_connect_without_being_listed() {
        let path = "/v1/connect";
        for (origin, host) in [
            ("https://chat.example", "chat.example"),
            ("https://chat.example", "Chat.Example:443"),
            ("http://chat.example", "chat.example:80"),
            ("https://chat.example:8443", "chat.example:8443"),
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("https://[::1]:4433", "[::1]:4433"),
        ] {
            assert!(allowed(origin, path, Some(host)), "{origin} at {host}");
        }
        assert!(allowed("https://chat.example", "https://chat.example/v1/connect", None), "HTTP/2 and 3");
    }

    #[test]
    fn a_page_of_another_name_or_port_is_foreign() {
        let path = "/v1/connect";
        for (origin, host) in [
            ("https://evil.test", "chat.example"),
            ("https://chat.example.evil.test", "chat.example"),
            ("https://chat.example:8443", "chat.example"),
            ("https://chat.example", "chat.example:80"),
            ("https://chat.example", "chat.example:8443"),
            ("ftp://chat.example", "chat.example"),
            ("null", "null"),
            ("https://", ""),
            ("chat.example", "chat.example"),
        ] {
            assert!(!allowed(origin, path, Some(host)), "{origin} at {host}");
        }
        assert!(!allowed("https://chat.example", path, None), "nobody knows where it asked");
        let foreign = allowed("https://evil.test", "https://chat.example/v1/connect", Some("evil.test"));
        assert!(!foreign, "the authority goes before Host");
    }
}
