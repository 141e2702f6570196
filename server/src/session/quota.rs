//! How often a connection, a user and an address may do what. Pure: time is an argument.
//!
//! Buckets follow the generic cell rate algorithm (ITU-T I.371): a bucket is one number, the time at
//! which it would be full again. Users and addresses are remembered beyond their connections, so
//! reconnecting resets nothing.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tern_protocol::UserId;

/// Shards of a table: more than the cores that lock them at once.
const SHARDS: usize = 16;

/// The `[quota]` section. Every rate has a steady part and a burst on top of an idle start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuotaConfig {
    /// Messages and other changes one user may send per second, over all their sessions.
    pub user_sends_per_second: NonZeroU32,
    /// Sends at once after a pause.
    pub user_sends_burst: NonZeroU32,
    /// Messages one back end may send per second: the bearer of a token with the scope `messages:write`, over
    /// HTTP, in its own name and in those of others.
    pub backend_sends_per_second: NonZeroU32,
    /// Such sends at once after a pause.
    pub backend_sends_burst: NonZeroU32,
    /// Pages of history and lists one user may ask for per second, over all their sessions.
    pub user_fetches_per_second: NonZeroU32,
    /// Fetches at once after a pause.
    pub user_fetches_burst: NonZeroU32,
    /// Frames of any kind per second on one connection.
    pub connection_frames_per_second: NonZeroU32,
    /// Frames at once after a pause.
    pub connection_frames_burst: NonZeroU32,
    /// Typing notices per second on one connection; more are dropped without a word.
    pub connection_typing_per_second: NonZeroU32,
    /// Typing notices at once after a pause.
    pub connection_typing_burst: NonZeroU32,
    /// Presence watches per second on one connection.
    pub connection_watches_per_second: NonZeroU32,
    /// Watches at once after a pause.
    pub connection_watches_burst: NonZeroU32,
    /// New connections per second from one address (IPv4, or IPv6 /64). An IPv6 /48, which one subscriber may
    /// have, is allowed 8 times as much.
    pub address_connects_per_second: NonZeroU32,
    /// New connections at once after a pause.
    pub address_connects_burst: NonZeroU32,
    /// HTTP requests per second without a good token from one address. Requests with a good token
    /// count for their user only.
    pub address_requests_per_second: NonZeroU32,
    /// Such requests at once after a pause.
    pub address_requests_burst: NonZeroU32,
    /// Addresses of this machine have no limit: for development only.
    pub loopback_exempt: bool,
    /// Most users remembered per kind of limit. Only full buckets are forgotten; where there is no
    /// room, newcomers share one bucket.
    pub users_max: usize,
    /// Most addresses remembered, by the same rule.
    pub addresses_max: usize,
}

const fn count(number: u32) -> NonZeroU32 {
    match NonZeroU32::new(number) {
        Some(number) => number,
        None => NonZeroU32::MIN,
    }
}

impl Default for QuotaConfig {
    fn default() -> Self {
        Self {
            user_sends_per_second: count(50),
            user_sends_burst: count(200),
            backend_sends_per_second: count(1_000),
            backend_sends_burst: count(5_000),
            user_fetches_per_second: count(100),
            user_fetches_burst: count(1_000),
            connection_frames_per_second: count(200),
            connection_frames_burst: count(1_000),
            connection_typing_per_second: count(2),
            connection_typing_burst: count(5),
            connection_watches_per_second: count(2),
            connection_watches_burst: count(20),
            address_connects_per_second: count(50),
            address_connects_burst: count(200),
            address_requests_per_second: count(50),
            address_requests_burst: count(200),
            loopback_exempt: false,
            users_max: 65_536,
            addresses_max: 65_536,
        }
    }
}

/// May it be done now?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Allowance {
    /// Yes, and it was counted.
    Allowed,
    /// No, and it was not counted.
    Refused {
        /// After this time it is allowed, if nothing else is done meanwhile. Never zero.
        retry_after: Duration,
    },
}

impl Allowance {
    /// It is [`Allowance::Allowed`].
    pub fn allowed(self) -> bool {
        self == Self::Allowed
    }
}

/// A steady rate with a burst, in the numbers the algorithm wants.
#[derive(Clone, Copy, Debug)]
struct Rate {
    /// Time that one event costs, in nanoseconds.
    cost_ns: u64,
    /// Time that an idle bucket holds, in nanoseconds: burst × cost.
    depth_ns: u64,
}

impl Rate {
    fn new(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        let cost_ns = (SECOND_NS / u64::from(per_second.get())).max(1);
        Self { cost_ns, depth_ns: cost_ns * u64::from(burst.get()) }
    }

    /// That of so many events at once, as one event.
    fn of(self, events: usize) -> Self {
        Self {
            cost_ns: self.cost_ns.saturating_mul(events as u64).min(self.depth_ns),
            depth_ns: self.depth_ns,
        }
    }

    /// So many times as much, as fast and at once.
    fn times(self, factor: u32) -> Self {
        Self { cost_ns: (self.cost_ns / u64::from(factor)).max(1), depth_ns: self.depth_ns }
    }
}

/// One bucket: when it will be full again, in nanoseconds since its epoch. 0 is full.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    full_ns: u64,
}

impl Bucket {
    fn take(&mut self, rate: Rate, now_ns: u64) -> Allowance {
        let full_ns = self.full_ns.max(now_ns) + rate.cost_ns;
        match (full_ns - now_ns).checked_sub(rate.depth_ns) {
            None | Some(0) => {
                self.full_ns = full_ns;
                Allowance::Allowed
            }
            Some(wait_ns) => Allowance::Refused { retry_after: Duration::from_nanos(wait_ns) },
        }
    }
}

const SECOND_NS: u64 = 1_000_000_000;

/// Nanoseconds since `epoch`; enough for 584 years.
fn since(epoch: Instant, now: Instant) -> u64 {
    now.saturating_duration_since(epoch).as_nanos() as u64
}

/// The buckets of one connection. They live and die with it.
#[derive(Debug)]
pub struct ConnectionQuota {
    epoch: Instant,
    frames: (Rate, Bucket),
    typing: (Rate, Bucket),
    watches: (Rate, Bucket),
}

impl ConnectionQuota {
    /// Full buckets for a connection that begins now.
    pub fn new(config: &QuotaConfig, now: Instant) -> Self {
        let full = |per_second, burst| (Rate::new(per_second, burst), Bucket::default());
        Self {
            epoch: now,
            frames: full(config.connection_frames_per_second, config.connection_frames_burst),
            typing: full(config.connection_typing_per_second, config.connection_typing_burst),
            watches: full(config.connection_watches_per_second, config.connection_watches_burst),
        }
    }

    /// A frame came, of any kind. Who is refused waits until a second's worth of frames may come, not for
    /// the next one to be refused again.
    pub fn frame(&mut self, now: Instant) -> Allowance {
        let (rate, bucket) = &mut self.frames;
        match bucket.take(*rate, since(self.epoch, now)) {
            Allowance::Allowed => Allowance::Allowed,
            Allowance::Refused { retry_after } => {
                let more_ns = SECOND_NS.min(rate.depth_ns).saturating_sub(rate.cost_ns);
                Allowance::Refused { retry_after: retry_after + Duration::from_nanos(more_ns) }
            }
        }
    }

    /// A typing notice came. A refused one is dropped without an answer.
    pub fn typing(&mut self, now: Instant) -> Allowance {
        self.typing.1.take(self.typing.0, since(self.epoch, now))
    }

    /// A presence watch came.
    pub fn watch(&mut self, now: Instant) -> Allowance {
        self.watches.1.take(self.watches.0, since(self.epoch, now))
    }
}

/// The buckets of users and addresses of this node, shared by all its sessions.
pub struct Quota {
    sends: Shards<UserId>,
    backend_sends: Shards<UserId>,
    fetches: Shards<UserId>,
    connects: Addresses,
    requests: Addresses,
    loopback_exempt: bool,
}

impl Quota {
    /// Full buckets for everybody. `epoch` is any time that no later argument precedes.
    pub fn new(config: &QuotaConfig, epoch: Instant) -> Self {
        let sends = Rate::new(config.user_sends_per_second, config.user_sends_burst);
        let backend_sends = Rate::new(config.backend_sends_per_second, config.backend_sends_burst);
        let fetches = Rate::new(config.user_fetches_per_second, config.user_fetches_burst);
        let connects = Rate::new(config.address_connects_per_second, config.address_connects_burst);
        let requests = Rate::new(config.address_requests_per_second, config.address_requests_burst);
        Self {
            sends: Shards::new(sends, config.users_max, epoch),
            backend_sends: Shards::new(backend_sends, config.users_max, epoch),
            fetches: Shards::new(fetches, config.users_max, epoch),
            connects: Addresses::new(connects, config.addresses_max, epoch),
            requests: Addresses::new(requests, config.addresses_max, epoch),
            loopback_exempt: config.loopback_exempt,
        }
    }

    /// The user sends a message or asks for another change.
    pub fn send(&self, user: &UserId, now: Instant) -> Allowance {
        self.sends.take(user, now)
    }

    /// The user makes so many changes at once, which count as so many sends; more than their bucket holds as all
    /// that it holds.
    pub fn sends(&self, user: &UserId, changes: usize, now: Instant) -> Allowance {
        self.sends.take_many(user, changes, now)
    }

    /// A back end sends a message, in whosever name.
    pub fn send_of_back_end(&self, bearer: &UserId, now: Instant) -> Allowance {
        self.backend_sends.take(bearer, now)
    }

    /// The user asks for a page of history or a list, by frame or by HTTP.
    pub fn fetch(&self, user: &UserId, now: Instant) -> Allowance {
        self.fetches.take(user, now)
    }

    /// A connection comes from this address.
    pub fn connect(&self, address: IpAddr, now: Instant) -> Allowance {
        self.limited(address).map_or(Allowance::Allowed, |address| self.connects.take(address, now))
    }

    /// A request without a good token came from this address.
    pub fn request(&self, address: IpAddr, now: Instant) -> Allowance {
        self.limited(address).map_or(Allowance::Allowed, |address| self.requests.take(address, now))
    }

    /// Whether [`Quota::request`] would allow one more; counts nothing. Asked before a token is
    /// verified, so that guessing costs this node nothing.
    pub fn may_request(&self, address: IpAddr, now: Instant) -> Allowance {
        self.limited(address).map_or(Allowance::Allowed, |address| self.requests.peek(address, now))
    }

    fn limited(&self, address: IpAddr) -> Option<IpAddr> {
        let address = address.to_canonical();
        let exempt = self.loopback_exempt && address.is_loopback();
        (!exempt).then_some(address)
    }
}

/// What a site (IPv6 /48) may do, as a multiple of what one address may.
const SITE_FACTOR: u32 = 8;

/// Buckets of addresses. In IPv6 a subscriber has at least a /64, and may have a /48: that has a bucket of its
/// own, so that the 65,536 networks of one site cannot fill the table and leave newcomers to share a bucket.
struct Addresses {
    addresses: Shards<IpAddr>,
    sites: Shards<Ipv6Addr>,
}

impl Addresses {
    fn new(rate: Rate, keys_max: usize, epoch: Instant) -> Self {
        let addresses = Shards::new(rate, keys_max, epoch);
        Self { addresses, sites: Shards::new(rate.times(SITE_FACTOR), keys_max, epoch) }
    }

    fn take(&self, address: IpAddr, now: Instant) -> Allowance {
        let site = site(address);
        if let Some(refused) = site.map(|site| self.sites.peek(&site, now)).filter(|site| !site.allowed()) {
            return refused;
        }
        let allowance = self.addresses.take(&network(address), now);
        if let (true, Some(site)) = (allowance.allowed(), site) {
            // Refused only if others of the site were quicker in between: then it has a little more.
            let _ = self.sites.take(&site, now);
        }
        allowance
    }

    /// What [`Addresses::take`] would say.
    fn peek(&self, address: IpAddr, now: Instant) -> Allowance {
        let site = site(address).map(|site| self.sites.peek(&site, now));
        let refused = site.filter(|site| !site.allowed());
        refused.unwrap_or_else(|| self.addresses.peek(&network(address), now))
    }
}

/// Whom an address stands for: in IPv6 its /64.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

/// The /48 of an address in IPv6.
fn site(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => Some(Ipv6Addr::from_bits(v6.to_bits() >> 80 << 80)),
    }
}

/// Tables by hash of the key, so that sessions seldom wait for each other.
struct Shards<K> {
    hasher: RandomState,
    epoch: Instant,
    rate: Rate,
    tables: [Mutex<Table<K>>; SHARDS],
}

impl<K: Clone + Eq + Hash> Shards<K> {
    fn new(rate: Rate, keys_max: usize, epoch: Instant) -> Self {
        let keys_max = keys_max.div_ceil(SHARDS);
        let tables = std::array::from_fn(|_| Mutex::new(Table::new(keys_max)));
        Self { hasher: RandomState::default(), epoch, rate, tables }
    }

    fn take(&self, key: &K, now: Instant) -> Allowance {
        self.table(key).lock().take(key, self.rate, since(self.epoch, now))
    }

    fn take_many(&self, key: &K, events: usize, now: Instant) -> Allowance {
        self.table(key).lock().take(key, self.rate.of(events), since(self.epoch, now))
    }

    fn peek(&self, key: &K, now: Instant) -> Allowance {
        self.table(key).lock().peek(key, self.rate, since(self.epoch, now))
    }

    fn table(&self, key: &K) -> &Mutex<Table<K>> {
        &self.tables[(self.hasher.hash_one(key) >> 32) as usize % SHARDS]
    }
}

/// Buckets by key, in two generations. Every `depth` of the rate the older one is dropped: what was
/// not touched for that long is full, and a full bucket is the same as none.
struct Table<K> {
    keys_max: usize,
    young: HashMap<K, Bucket, RandomState>,
    old: HashMap<K, Bucket, RandomState>,
    /// When the next generation begins, in nanoseconds since the epoch.
    turn_ns: u64,
    /// Shared by keys for which there is no room.
    overflow: Bucket,
}

impl<K: Clone + Eq + Hash> Table<K> {
    fn new(keys_max: usize) -> Self {
        Self {
            keys_max: keys_max.max(1),
            young: HashMap::default(),
            old: HashMap::default(),
            turn_ns: 0,
            overflow: Bucket::default(),
        }
    }

    fn take(&mut self, key: &K, rate: Rate, now_ns: u64) -> Allowance {
        if now_ns >= self.turn_ns {
            let idle = now_ns >= self.turn_ns.saturating_add(rate.depth_ns);
            self.old = std::mem::take(&mut self.young);
            if idle {
                // Nothing at all was touched for a whole generation.
                self.old = HashMap::default();
            }
            self.turn_ns = now_ns + rate.depth_ns;
        }
        if let Some(bucket) = self.young.get_mut(key) {
            return bucket.take(rate, now_ns);
        }
        let mut bucket = match self.old.remove(key) {
            Some(bucket) => bucket,
            None if self.len() >= self.keys_max => return self.overflow.take(rate, now_ns),
            None => Bucket::default(),
        };
        let allowance = bucket.take(rate, now_ns);
        self.young.insert(key.clone(), bucket);
        allowance
    }

    /// What [`Table::take`] would say.
    fn peek(&self, key: &K, rate: Rate, now_ns: u64) -> Allowance {
        let known = self.young.get(key).or_else(|| self.old.get(key)).copied();
        let unknown = || if self.len() >= self.keys_max { self.overflow } else { Bucket::default() };
        known.unwrap_or_else(unknown).take(rate, now_ns)
    }

    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests;
