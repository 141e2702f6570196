//! Where the server is, and how a link to it is made: by a race of the transports, and within each
//! by a race of the addresses that its name stands for.

use std::net::SocketAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tern_protocol::CONNECT_PATH;
use tokio_tungstenite::tungstenite::http::Uri;
use url::Url;

use super::race::{Runner, race};
use super::tls::Tls;
use super::{Format, Link, quic, websocket};
use crate::config::{Config, ConfigError, TransportChoice, WebSocketFormat};
use crate::persistence::Transport;

/// Head start of one address of a name over the next (an unreachable one is often silent).
const ADDRESS_HEAD_START: Duration = Duration::from_millis(100);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;
/// Keep-alive until the server has told its own.
const KEEPALIVE_DEFAULT: Duration = Duration::from_secs(20);

/// `host:port` and URLs, checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Addresses {
    quic: Option<HostPort>,
    webtransport: Option<Url>,
    websocket: Option<Uri>,
}

#[derive(Clone, Debug, PartialEq)]
struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.strip_prefix('[').map_or(Some(host), |inner| inner.strip_suffix(']'))?;
        let port = port.parse().ok().filter(|port| *port != 0)?;
        (!host.is_empty() && !host.contains('/')).then(|| Self { host: host.to_owned(), port })
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, String> {
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let found = found.map_err(|error| format!("{}: {error}", self.host))?;
        Ok(found.take(ADDRESSES_MAX).collect())
    }
}

impl Addresses {
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        let quic = config.quic.as_deref();
        let webtransport = config.webtransport.as_deref();
        let websocket = config.websocket.as_deref();
        let (quic, webtransport, websocket) = match config.transport {
            // Both are QUIC below: where one does not get through, neither does the other.
            TransportChoice::Auto => (quic, webtransport.filter(|_| quic.is_none()), websocket),
            TransportChoice::Quic => (quic, None, None),
            TransportChoice::WebTransport => (None, webtransport, None),
            TransportChoice::WebSocket => (None, None, websocket),
        };
        if quic.is_none() && webtransport.is_none() && websocket.is_none() {
            return Err(ConfigError::NoAddress(config.transport));
        }
        let bad = |field, value: &str, problem| ConfigError::Address { field, value: value.into(), problem };
        let quic = quic
            .map(|text| HostPort::parse(text).ok_or_else(|| bad("quic", text, "must be host:port")))
            .transpose()?;
        let webtransport = webtransport
            .map(|text| parse_https(text).map_err(|problem| bad("webtransport", text, problem)))
            .transpose()?;
        let websocket = websocket
            .map(|text| parse_url(text).map_err(|problem| bad("websocket", text, problem)))
            .transpose()?;
        Ok(Self { quic, webtransport, websocket })
    }

    /// There is a transport to fall back to.
    pub(crate) fn has_fallback(&self) -> bool {
        (self.quic.is_some() || self.webtransport.is_some()) && self.websocket.is_some()
    }

    /// The same transports at the place that a server names: `host:port`, or the URL of a
    /// WebTransport session or a WebSocket. `None` if it cannot be read or would give up TLS.
    pub(crate) fn moved_to(&self, target: &str) -> Option<Self> {
        if target.starts_with("https://") {
            let webtransport = Some(parse_https(target).ok()?);
            return self.webtransport.is_some().then_some(Self { webtransport, ..Self::default() });
        }
        if target.contains("://") {
            let uri = parse_url(target).ok()?;
            let downgrade = self.websocket.as_ref().is_some_and(is_tls) && !is_tls(&uri);
            return (!downgrade && self.websocket.is_some())
                .then_some(Self { websocket: Some(uri), ..Self::default() });
        }
        let place = HostPort::parse(target)?;
        let webtransport =
            self.webtransport.as_ref().map(|url| parse_https(&format!("https://{target}{}", url.path())));
        let websocket = self.websocket.as_ref().map(|uri| {
            let scheme = if is_tls(uri) { "wss" } else { "ws" };
            parse_url(&format!("{scheme}://{target}{}", uri.path()))
        });
        Some(Self {
            quic: self.quic.is_some().then_some(place),
            webtransport: webtransport.transpose().ok()?,
            websocket: websocket.transpose().ok()?,
        })
    }
}

fn is_tls(uri: &Uri) -> bool {
    uri.scheme_str() == Some("wss")
}

fn parse_url(text: &str) -> Result<Uri, &'static str> {
    let uri: Uri = text.parse().map_err(|_| "is not a URL")?;
    if !matches!(uri.scheme_str(), Some("ws" | "wss")) || uri.host().is_none_or(str::is_empty) {
        return Err("must be a ws:// or wss:// URL");
    }
    if uri.query().is_some() {
        return Err("must not have a query (tokens never go into URLs)");
    }
    if uri.path() != "/" {
        return Ok(uri);
    }
    let mut parts = uri.into_parts();
    parts.path_and_query = CONNECT_PATH.parse().ok();
    Uri::from_parts(parts).map_err(|_| "is not a URL")
}

fn parse_https(text: &str) -> Result<Url, &'static str> {
    let mut url: Url = text.parse().map_err(|_| "is not a URL")?;
    if url.scheme() != "https" || url.host_str().is_none_or(str::is_empty) {
        return Err("must be an https:// URL");
    }
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
        return Err("must only have a host, a port and a path (tokens never go into URLs)");
    }
    if url.path() == "/" {
        url.set_path(CONNECT_PATH);
    }
    Ok(url)
}

/// Makes links.
#[derive(Debug)]
pub(crate) struct Dialer {
    tls: Tls,
    format: Format,
    head_start: Duration,
    /// What the server said last.
    keepalive: Mutex<Duration>,
}

/// A link, and why a transport tried before it was not used.
pub(crate) struct Dialed {
    pub(crate) link: Link,
    pub(crate) fallback: Option<String>,
}

impl Dialer {
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        let format = match config.websocket_format {
            WebSocketFormat::Binary => Format::Binary,
            WebSocketFormat::Json => Format::Json,
        };
        let keepalive = Mutex::new(KEEPALIVE_DEFAULT);
        Ok(Self { tls: Tls::new(&config.trust)?, format, head_start: config.head_start, keepalive })
    }

    pub(crate) fn set_keepalive(&self, keepalive: Duration) {
        *self.keepalive.lock() = keepalive;
    }

    /// Races the transports there are addresses for; `first` has the head start.
    pub(crate) async fn dial(&self, addresses: &Addresses, first: Transport) -> Result<Dialed, String> {
        let mut order = vec![first];
        let others = [Transport::Quic, Transport::WebTransport, Transport::WebSocket];
        order.extend(others.into_iter().filter(|other| *other != first));
        let runners: Vec<_> = order
            .into_iter()
            .filter_map(|transport| {
                let run = match transport {
                    Transport::Quic => self.dial_quic(addresses.quic.clone()?),
                    Transport::WebTransport => self.dial_webtransport(addresses.webtransport.clone()?),
                    Transport::WebSocket => self.dial_websocket(addresses.websocket.clone()?),
                };
                Some((transport, Runner { head_start: self.head_start, run }))
            })
            .collect();
        let (names, runners): (Vec<_>, Vec<_>) = runners.into_iter().unzip();
        let said = |errors: Vec<(usize, String)>| {
            let parts = errors.into_iter().map(|(index, error)| format!("{}: {error}", names[index]));
            parts.collect::<Vec<_>>().join("; ")
        };
        match race(runners).await {
            Ok((0, link, _)) => Ok(Dialed { link, fallback: None }),
            Ok((_, link, errors)) if errors.is_empty() => {
                let ms = self.head_start.as_millis();
                let fallback = Some(format!("{} did not answer within {ms} ms", names[0]));
                Ok(Dialed { link, fallback })
            }
            Ok((_, link, errors)) => Ok(Dialed { link, fallback: Some(said(errors)) }),
            Err(errors) => Err(said(errors)),
        }
    }

    fn dial_quic(&self, place: HostPort) -> Attempt {
        let config = quic::config(&self.tls.quic, *self.keepalive.lock());
        Box::pin(async move {
            let config = config?;
            let found = place.resolve().await?;
            first_of(found, |remote| {
                Box::pin(quic::connect(remote, place.host.clone(), config.clone())) as Attempt
            })
            .await
        })
    }

    fn dial_webtransport(&self, url: Url) -> Attempt {
        let config = quic::config(&self.tls.webtransport, *self.keepalive.lock());
        Box::pin(async move {
            let config = config?;
            let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
            let place = HostPort { host: host.to_owned(), port: url.port().unwrap_or(443) };
            let found = place.resolve().await?;
            first_of(found, |remote| {
                let (host, url, config) = (place.host.clone(), url.clone(), config.clone());
                Box::pin(quic::connect_webtransport(remote, host, url, config)) as Attempt
            })
            .await
        })
    }

    fn dial_websocket(&self, uri: Uri) -> Attempt {
        let tls = is_tls(&uri).then(|| self.tls.websocket.clone());
        let format = self.format;
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
            let port = uri.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
            let place = HostPort { host: host.to_owned(), port };
            let found = place.resolve().await?;
            first_of(found, |remote| {
                let (host, uri, tls) = (place.host.clone(), uri.clone(), tls.clone());
                Box::pin(websocket::connect(remote, host, uri, tls, format)) as Attempt
            })
            .await
        })
    }
}

type Attempt = std::pin::Pin<Box<dyn Future<Output = Result<Link, String>> + Send>>;

async fn first_of(found: Vec<SocketAddr>, connect: impl Fn(SocketAddr) -> Attempt) -> Result<Link, String> {
    let runners =
        found.into_iter().map(|remote| Runner { head_start: ADDRESS_HEAD_START, run: connect(remote) });
    match race(runners.collect()).await {
        Ok((_, link, _)) => Ok(link),
        Err(errors) => {
            Err(errors.into_iter().next().map_or_else(|| "no address".to_owned(), |(_, error)| error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::new("token")
    }

    #[test]
    fn addresses_are_checked_before_anything_starts() {
        assert!(matches!(Addresses::new(&config()), Err(ConfigError::NoAddress(_))));
        for bad in ["host", "host:0", ":1", "host:99999", "[::1:1", "a/b:1"] {
            let refused = Addresses::new(&config().quic(bad));
            assert!(matches!(refused, Err(ConfigError::Address { field: "quic", .. })), "{bad}");
        }
        for bad in ["host:1", "http://host", "ws://", "wss://h/?token=x", "ws://a b"] {
            let refused = Addresses::new(&config().websocket(bad));
            assert!(matches!(refused, Err(ConfigError::Address { field: "websocket", .. })), "{bad}");
        }
        for bad in ["host:1", "http://host", "https://", "https://h/?token=x", "https://token@h"] {
            let refused = Addresses::new(&config().webtransport(bad));
            assert!(matches!(refused, Err(ConfigError::Address { field: "webtransport", .. })), "{bad}");
        }
        let only_quic =
            config().websocket("ws://h").webtransport("https://h").transport(TransportChoice::Quic);
        assert_eq!(Addresses::new(&only_quic), Err(ConfigError::NoAddress(TransportChoice::Quic)));
    }

    #[test]
    fn a_url_without_a_path_means_the_connect_path() {
        assert_eq!(parse_url("ws://h:80").unwrap().path(), "/v1/connect");
        assert_eq!(parse_url("ws://h:80/chat").unwrap().path(), "/chat");
        assert_eq!(parse_https("https://h:4433").unwrap().path(), "/v1/connect");
        assert_eq!(HostPort::parse("[::1]:4433").unwrap().host, "::1");
    }

    #[test]
    fn webtransport_is_for_where_there_is_no_native_quic() {
        let both = config().quic("a:1").webtransport("https://a:1").websocket("wss://a:1");
        let addresses = Addresses::new(&both).unwrap();
        assert!(addresses.quic.is_some() && addresses.webtransport.is_none() && addresses.has_fallback());
        let addresses = Addresses::new(&both.transport(TransportChoice::WebTransport)).unwrap();
        assert!(addresses.quic.is_none() && addresses.webtransport.is_some() && !addresses.has_fallback());
    }

    #[test]
    fn a_target_moves_every_transport_and_never_gives_up_tls() {
        let here = Addresses::new(&config().quic("a:1").websocket("wss://a:1")).unwrap();
        let there = here.moved_to("b:2").unwrap();
        assert_eq!(there, Addresses::new(&config().quic("b:2").websocket("wss://b:2")).unwrap());
        assert_eq!(here.moved_to("wss://b:2").unwrap().quic, None);
        assert_eq!(here.moved_to("ws://b:2"), None);
        assert_eq!(here.moved_to("https://b:2"), None);
        assert_eq!(here.moved_to("nonsense"), None);
        let here = Addresses::new(&config().webtransport("https://a:1/chat").websocket("wss://a:1")).unwrap();
        let there =
            Addresses::new(&config().webtransport("https://b:2/chat").websocket("wss://b:2")).unwrap();
        assert_eq!(here.moved_to("b:2").unwrap(), there);
        assert_eq!(here.moved_to("https://b:2/chat").unwrap().webtransport, there.webtransport);
    }
}
