//! Limits per client address: how many connections at a time, how many new ones per second.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tern_protocol::Code;
use tokio::time::Instant;

use super::{TransportConfig, TrustedProxies};
use crate::budget::{Budget, Charge};
use crate::ops::metrics::Metrics;

/// An idle address may use its rate for this long at once.
const BURST: Duration = Duration::from_secs(2);
/// About how much a connection takes before anything happens on it, in bytes: its task and its buffers, with
/// those of TLS or QUIC.
pub const CONNECTION_BYTES: usize = 24 * 1024;
/// A full table is searched for forgotten addresses at most this often.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Why a connection of an address is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressRefused {
    /// It has `address_connections_max` connections.
    #[error("the address has too many connections")]
    Connections,
    /// It makes more than `address_connections_per_s`.
    #[error("the address connects too often")]
    Rate,
    /// `addresses_max` other addresses are connected.
    #[error("too many addresses are connected")]
    Addresses,
    /// The node has no memory for one more connection.
    #[error("this node is short of memory")]
    Memory,
}

impl AddressRefused {
    /// In a word, for the log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Connections => "address_connections",
            Self::Rate => "address_rate",
            Self::Addresses => "addresses",
            Self::Memory => "memory",
        }
    }

    /// What a client is told that can be told anything.
    pub fn code(self) -> Code {
        match self {
            Self::Memory => Code::OVER_CAPACITY,
            Self::Connections | Self::Rate | Self::Addresses => Code::RATE_LIMITED,
        }
    }
}

/// What counts as one address: an IPv4 address, or the /64 that one IPv6 network has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Source {
    V4(Ipv4Addr),
    V6([u8; 8]),
}

impl Source {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let mut prefix = [0; 8];
                prefix.copy_from_slice(&address.octets()[..8]);
                Self::V6(prefix)
            }
        }
    }
}

#[derive(Debug)]
struct Usage {
    open: u32,
    /// When the connections made so far would be due at the allowed rate.
    due: Instant,
}

/// Counts connections by address. Pure: the time is an argument.
#[derive(Debug)]
pub struct AddressLimits {
    connections_max: u32,
    interval: Duration,
    addresses_max: usize,
    loopback_exempt: bool,
    proxies: TrustedProxies,
    addresses: HashMap<Source, Usage, RandomState>,
    swept: Option<Instant>,
}

impl AddressLimits {
    /// Nobody is connected yet.
    pub fn new(config: &TransportConfig) -> Self {
        Self {
            connections_max: config.address_connections_max,
            interval: Duration::from_secs(1) / config.address_connections_per_s.max(1),
            addresses_max: config.addresses_max,
            loopback_exempt: config.loopback_exempt,
            proxies: config.proxies(),
            addresses: HashMap::default(),
            swept: None,
        }
    }

    /// Whether [`AddressLimits::admit`] would admit; counts nothing.
    pub fn check(&self, address: IpAddr, now: Instant) -> Result<(), AddressRefused> {
        if self.exempt(address) {
            return Ok(());
        }
        match self.addresses.get(&Source::of(address)) {
            Some(usage) if usage.open >= self.connections_max => Err(AddressRefused::Connections),
            Some(usage) if usage.due + self.interval > now + BURST => Err(AddressRefused::Rate),
            _ => Ok(()),
        }
    }

    /// Counts a connection, to be given back by [`AddressLimits::release`].
    pub fn admit(&mut self, address: IpAddr, now: Instant) -> Result<(), AddressRefused> {
        self.check(address, now)?;
        if self.exempt(address) {
            return Ok(());
        }
        let source = Source::of(address);
        if self.addresses.len() >= self.addresses_max && !self.addresses.contains_key(&source) {
            self.sweep(now);
            if self.addresses.len() >= self.addresses_max {
                return Err(AddressRefused::Addresses);
            }
        }
        let usage = self.addresses.entry(source).or_insert(Usage { open: 0, due: now });
        usage.open += 1;
        usage.due = usage.due.max(now) + self.interval;
        Ok(())
    }

    /// A connection that was admitted is gone.
    pub fn release(&mut self, address: IpAddr, now: Instant) {
        let source = Source::of(address);
        let Some(usage) = self.addresses.get_mut(&source) else { return };
        usage.open = usage.open.saturating_sub(1);
        if usage.open == 0 && usage.due <= now {
            self.addresses.remove(&source);
        }
    }

    /// How many addresses are remembered.
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// No address is remembered.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// A proxy's connections are those of everybody behind it.
    fn exempt(&self, address: IpAddr) -> bool {
        self.loopback_exempt && address.to_canonical().is_loopback() || self.proxies.contains(address)
    }

    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|swept| now < swept + SWEEP_EVERY) {
            return;
        }
        self.swept = Some(now);
        self.addresses.retain(|_, usage| usage.open > 0 || usage.due > now);
    }
}

/// The limits shared by all listeners of a node. Clones share them.
#[derive(Clone, Debug)]
pub struct AddressGate {
    limits: Arc<Mutex<AddressLimits>>,
    memory: Budget,
    metrics: Metrics,
}

impl AddressGate {
    /// Nobody is connected yet. Each connection is charged to `memory`.
    pub fn new(config: &TransportConfig, memory: &Budget) -> Self {
        let limits = Arc::new(Mutex::new(AddressLimits::new(config)));
        Self { limits, memory: memory.clone(), metrics: Metrics::none() }
    }

    /// The same, counting here whom it turns away.
    #[must_use]
    pub fn counting(self, metrics: Metrics) -> Self {
        Self { metrics, ..self }
    }

    /// Whether [`AddressGate::admit`] would admit; counts nothing.
    pub fn check(&self, address: IpAddr) -> Result<(), AddressRefused> {
        if !self.memory.has_room(CONNECTION_BYTES) {
            return Err(AddressRefused::Memory);
        }
        self.limits.lock().check(address, Instant::now())
    }

    /// Somebody was turned away because of what [`AddressGate::check`] said.
    pub fn count(&self, refused: AddressRefused) {
        let sockets = &self.metrics.sockets;
        match refused {
            AddressRefused::Memory => sockets.refused_memory.increment(1),
            _ => sockets.refused_address.increment(1),
        }
    }

    /// Counts a connection until the permit is dropped.
    pub fn admit(&self, address: IpAddr) -> Result<AddressPermit, AddressRefused> {
        self.try_admit(address).inspect_err(|refused| self.count(*refused))
    }

    fn try_admit(&self, address: IpAddr) -> Result<AddressPermit, AddressRefused> {
        let memory = self.memory.try_charge(CONNECTION_BYTES).ok_or(AddressRefused::Memory)?;
        self.limits.lock().admit(address, Instant::now())?;
        Ok(AddressPermit { gate: self.clone(), address, _memory: memory })
    }
}

/// One connection counts for its address while this lives.
#[derive(Debug)]
pub struct AddressPermit {
    gate: AddressGate,
    address: IpAddr,
    _memory: Charge,
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        self.gate.limits.lock().release(self.address, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(connections_max: u32, per_s: u32, addresses_max: usize) -> AddressLimits {
        AddressLimits::new(&TransportConfig {
            address_connections_max: connections_max,
            address_connections_per_s: per_s,
            addresses_max,
            ..TransportConfig::default()
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_at_most_its_connections_and_a_closed_one_makes_room() {
        let (mut limits, now) = (limits(2, 1000, 10), Instant::now());
        let address = ip("192.0.2.1");
        assert_eq!(limits.admit(address, now), Ok(()));
        assert_eq!(limits.admit(address, now), Ok(()));
        assert_eq!(limits.admit(address, now), Err(AddressRefused::Connections));
        assert_eq!(limits.admit(ip("192.0.2.2"), now), Ok(()));
        limits.release(address, now);
        assert_eq!(limits.admit(address, now), Ok(()));
    }

    #[test]
    fn new_connections_come_at_the_rate_after_a_burst_of_two_seconds() {
        let (mut limits, now) = (limits(1000, 10, 10), Instant::now());
        let address = ip("192.0.2.1");
        for made in 0..20 {
            assert_eq!(limits.admit(address, now), Ok(()), "connection {made}");
            limits.release(address, now);
        }
        assert_eq!(limits.check(address, now), Err(AddressRefused::Rate));
        assert_eq!(limits.admit(address, now), Err(AddressRefused::Rate));
        let later = now + Duration::from_millis(100);
        assert_eq!(limits.admit(address, later), Ok(()));
        assert_eq!(limits.admit(address, later), Err(AddressRefused::Rate));
    }

    #[test]
    fn one_ipv6_network_is_one_address_and_mapped_ipv4_is_ipv4() {
        let (mut limits, now) = (limits(1, 1000, 10), Instant::now());
        assert_eq!(limits.admit(ip("2001:db8:1:2::1"), now), Ok(()));
        assert_eq!(limits.admit(ip("2001:db8:1:2:ffff::9"), now), Err(AddressRefused::Connections));
        assert_eq!(limits.admit(ip("2001:db8:1:3::1"), now), Ok(()));
        assert_eq!(limits.admit(ip("192.0.2.1"), now), Ok(()));
        assert_eq!(limits.admit(ip("::ffff:192.0.2.1"), now), Err(AddressRefused::Connections));
    }

    #[test]
    fn the_table_never_outgrows_its_limit_and_forgets_who_is_gone() {
        let (mut limits, now) = (limits(5, 1, 2), Instant::now());
        assert_eq!(limits.admit(ip("192.0.2.1"), now), Ok(()));
        assert_eq!(limits.admit(ip("192.0.2.2"), now), Ok(()));
        assert_eq!(limits.admit(ip("192.0.2.3"), now), Err(AddressRefused::Addresses));
        limits.release(ip("192.0.2.1"), now);
        assert_eq!(limits.len(), 2, "its rate is still remembered");
        let later = now + Duration::from_secs(3);
        assert_eq!(limits.admit(ip("192.0.2.3"), later), Ok(()));
        limits.release(ip("192.0.2.2"), later);
        assert_eq!(limits.len(), 1);
    }

    #[test]
    fn loopback_is_exempt_only_where_the_configuration_says_so() {
        let now = Instant::now();
        let mut exempt = limits(1, 1000, 1);
        for _ in 0..5 {
            assert_eq!(exempt.admit(ip("127.0.0.1"), now), Ok(()));
            assert_eq!(exempt.admit(ip("::1"), now), Ok(()));
        }
        assert!(exempt.is_empty());
        let config =
            TransportConfig { loopback_exempt: false, address_connections_max: 1, ..Default::default() };
        let mut strict = AddressLimits::new(&config);
        assert_eq!(strict.admit(ip("127.0.0.1"), now), Ok(()));
        assert_eq!(strict.admit(ip("127.0.0.1"), now), Err(AddressRefused::Connections));
    }

    #[test]
    fn a_trusted_proxy_is_not_held_to_the_limits_of_one_client() {
        let config = TransportConfig {
            address_connections_max: 1,
            trusted_proxies: vec!["192.0.2.0/24".into()],
            ..TransportConfig::default()
        };
        let (mut limits, now) = (AddressLimits::new(&config), Instant::now());
        for _ in 0..5 {
            assert_eq!(limits.admit(ip("192.0.2.1"), now), Ok(()));
        }
        assert_eq!(limits.admit(ip("198.51.100.1"), now), Ok(()));
        assert_eq!(limits.admit(ip("198.51.100.1"), now), Err(AddressRefused::Connections));
    }

    #[test]
    fn dropping_the_permit_is_what_gives_the_connection_back() {
        let config = TransportConfig { address_connections_max: 1, ..TransportConfig::default() };
        let gate = AddressGate::new(&config, &Budget::new(usize::MAX));
        let permit = gate.admit(ip("192.0.2.1")).unwrap();
        assert_eq!(gate.admit(ip("192.0.2.1")).err(), Some(AddressRefused::Connections));
        drop(permit);
        assert!(gate.admit(ip("192.0.2.1")).is_ok());
    }

    #[test]
    fn without_memory_no_connection_is_let_in_until_one_is_gone() {
        let memory = Budget::new(2 * CONNECTION_BYTES);
        let gate = AddressGate::new(&TransportConfig::default(), &memory);
        let first = gate.admit(ip("192.0.2.1")).unwrap();
        let _second = gate.admit(ip("192.0.2.2")).unwrap();
        assert_eq!(gate.admit(ip("192.0.2.3")).err(), Some(AddressRefused::Memory));
        drop(first);
        assert_eq!(memory.used(), CONNECTION_BYTES);
        assert!(gate.admit(ip("192.0.2.3")).is_ok());
    }
}
