//! Which proxies are believed, and whom they speak for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, HeaderName};

/// Where a proxy says for whom it asks, the nearest last.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Where a proxy says what its client spoke.
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Bits of an IPv4 address before the address itself, in its IPv6 form.
const MAPPED_BITS: u32 = 96;
/// Fixed bits of the widest networks that somebody has to themselves.
const WIDE_BITS: u32 = 8;

/// The addresses of `trusted_proxies`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Network>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    base: u128,
    bits: u32,
}

impl Network {
    /// `10.0.0.0/8`, `fd00::/8` or a single address. `None`: it is neither.
    fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let address: IpAddr = address.parse().ok()?;
        let (longest, before) = if address.is_ipv4() { (32, MAPPED_BITS) } else { (128, 0) };
        let length = match length {
            None => longest,
            Some(text) => text.parse().ok().filter(|length| *length <= longest)?,
        };
        Some(Self { base: number(address), bits: before + length })
    }

    fn is_v4(self) -> bool {
        Ipv6Addr::from_bits(self.base).to_ipv4_mapped().is_some()
    }

    fn contains(self, address: IpAddr) -> bool {
        let rest = u128::BITS - self.bits;
        (self.base ^ number(address)).checked_shr(rest).unwrap_or(0) == 0
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => Ipv6Addr::to_bits(v6),
    }
}

impl TrustedProxies {
    /// From the configuration; `None` if an entry is no address and no network.
    pub fn parse(texts: &[String]) -> Option<Self> {
        texts.iter().map(|text| Network::parse(text)).collect::<Option<_>>().map(Self)
    }

    /// Those that are no network of anybody: with fewer fixed bits than the widest private ones (`10.0.0.0/8`,
    /// `fd00::/8`). Each as it is written, and what it holds.
    pub fn wide(&self) -> Vec<(String, &'static str)> {
        let wide = self.0.iter().filter_map(|network| {
            let (address, bits) = match network.bits.checked_sub(MAPPED_BITS) {
                Some(bits) if network.is_v4() => (Ipv4Addr::from_bits(network.base as u32).to_string(), bits),
                _ => (Ipv6Addr::from_bits(network.base).to_string(), network.bits),
            };
            let holds = if bits == 0 { "every address" } else { "a large part of all addresses" };
            (bits < WIDE_BITS).then(|| (format!("{address}/{bits}"), holds))
        });
        wide.collect()
    }

    /// Whether this is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Who asks: the peer itself, or whom the nearest trusted proxies name. What stands before the
    /// first address that is not a proxy of ours could have been written by anybody.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer;
        let named = headers.get_all(FORWARDED_FOR).into_iter().filter_map(|value| value.to_str().ok());
        let chain: Vec<&str> = named.flat_map(|value| value.split(',')).map(str::trim).collect();
        for text in chain.iter().rev() {
            if !self.contains(client) {
                break;
            }
            let Some(address) = address(text) else { break };
            client = address;
        }
        client
    }

    /// Whether a trusted proxy says that its client spoke TLS.
    pub fn says_tls(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        self.contains(peer) && headers.get(FORWARDED_PROTO).is_some_and(|value| value == "https")
    }
}

/// An address as proxies write it: also with a port, and IPv6 in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = || text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    text.parse().ok().or_else(bare).or_else(bracketed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(texts: &[&str]) -> TrustedProxies {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        TrustedProxies::parse(&texts).unwrap()
    }

    fn client(proxies: &TrustedProxies, peer: &str, forwarded: &[&'static str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        proxies.client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_may_speak_for_somebody_else() {
        let ours = proxies(&["10.0.0.0/8", "::1"]);
        assert_eq!(client(&ours, "192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(client(&ours, "10.1.2.3", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client(&ours, "::1", &["[2001:db8::5]:443"]), "2001:db8::5");
        assert_eq!(client(&ours, "10.1.2.3", &[]), "10.1.2.3");
        assert_eq!(client(&proxies(&[]), "127.0.0.1", &["198.51.100.7"]), "127.0.0.1");
    }

    #[test]
    fn what_the_client_itself_wrote_into_the_chain_is_not_believed() {
        let ours = proxies(&["10.0.0.0/8"]);
        assert_eq!(client(&ours, "10.0.0.1", &["1.2.3.4, 198.51.100.7, 10.0.0.2"]), "198.51.100.7");
        assert_eq!(client(&ours, "10.0.0.1", &["1.2.3.4", "198.51.100.7,10.0.0.2"]), "198.51.100.7");
        assert_eq!(client(&ours, "10.0.0.1", &["198.51.100.7, nonsense"]), "10.0.0.1");
    }

    #[test]
    fn networks_of_nobody_are_named() {
        let named = |text: &str| proxies(&[text]).wide().pop().map(|(network, _)| network);
        for wide in ["0.0.0.0/0", "::/0", "128.0.0.0/1", "2000::/3"] {
            assert_eq!(named(wide).as_deref(), Some(wide));
        }
        for fine in ["10.0.0.0/8", "fd00::/8", "127.0.0.1", "::1", "192.0.2.0/24"] {
            assert_eq!(named(fine), None, "{fine}");
        }
    }

    #[test]
    fn networks_hold_what_their_length_says() {
        assert!(proxies(&["0.0.0.0/0"]).contains("203.0.113.9".parse().unwrap()));
        assert!(!proxies(&["0.0.0.0/0"]).contains("2001:db8::1".parse().unwrap()));
        assert!(proxies(&["::/0"]).contains("2001:db8::1".parse().unwrap()));
        assert!(proxies(&["10.0.0.0/8"]).contains("::ffff:10.9.9.9".parse().unwrap()));
        assert!(!proxies(&["10.0.0.4/31"]).contains("10.0.0.6".parse().unwrap()));
        for bad in ["10.0.0.0/33", "::/129", "host", "10.0.0.0/", "", "10.0.0.0/-1"] {
            assert_eq!(TrustedProxies::parse(&[bad.to_owned()]), None, "{bad}");
        }
    }
}
