//! Settings that can be read but can never match, never hold or never mean what they say. Pure; what a section
//! checks by itself is not repeated here.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use http::uri::Authority;
use tern_protocol::WATCH_USERS_MAX;

use super::Config;

/// A day in milliseconds and in seconds: no wait of a node is longer.
const DAY_MS: u64 = 24 * 3600 * 1000;
const DAY_S: u64 = 24 * 3600;
/// Parts of a table of quotas: with fewer entries than parts most of them would share one.
const QUOTA_ENTRIES_MIN: usize = 1024;

/// A setting that cannot mean what it says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} {problem}")]
pub struct Senseless {
    /// The key with its section.
    pub key: &'static str,
    /// What is wrong, and what to do.
    pub problem: String,
}

/// All of them.
pub fn senseless(config: &Config) -> Vec<Senseless> {
    let mut found = Found(Vec::new());
    found.in_auth(config);
    found.in_addresses(config);
    found.in_directories(config);
    found.in_limits(config);
    found.in_times(config);
    found.0
}

struct Found(Vec<Senseless>);

impl Found {
    fn add(&mut self, key: &'static str, problem: impl Into<String>) {
        self.0.push(Senseless { key, problem: problem.into() });
    }

    fn unless(&mut self, holds: bool, key: &'static str, problem: &str) {
        if !holds {
            self.add(key, problem);
        }
    }

    fn in_auth(&mut self, config: &Config) {
        let auth = &config.auth;
        let is_word = |text: &str| !text.is_empty() && text.trim() == text;
        let unlike = "is empty or has spaces around it, as no token has: take them away, or take the key out";
        let texts = [("auth.issuer", auth.issuer.as_deref()), ("auth.audience", auth.audience.as_deref())];
        let kids = auth.keys.iter().map(|key| ("auth.keys.kid", key.kid.as_deref()));
        let issuers = auth.jwks.iter().map(|jwks| ("auth.jwks.issuer", Some(jwks.issuer.as_str())));
        let audiences = auth.jwks.iter().map(|jwks| ("auth.jwks.audience", jwks.audience.as_deref()));
        for (key, text) in texts.into_iter().chain(kids).chain(issuers).chain(audiences) {
            self.unless(text.is_none_or(is_word), key, unlike);
        }
        if auth.keys.is_empty() && !auth.jwks.is_empty() {
            let unseen =
                "is looked at for tokens of auth.keys, and there are none: an [[auth.jwks]] has its own";
            self.unless(auth.issuer.is_none(), "auth.issuer", unseen);
            self.unless(auth.audience.is_none(), "auth.audience", unseen);
        }
        let fetched = |issuer: &String| auth.jwks.iter().any(|jwks| jwks.issuer == *issuer);
        if auth.issuer.as_ref().is_some_and(fetched) {
            self.add(
                "auth.issuer",
                "is that of an [[auth.jwks]]: its tokens are verified by those keys alone, never by auth.keys",
            );
        }
        self.unless(auth.lifetime_s_max != Some(0), "auth.lifetime_s_max", "0 lets in no token at all");
        let notice_s = config.session.expiry_notice_s;
        if auth.lifetime_s_max.is_some_and(|life_s| life_s / 2 < notice_s) {
            self.add(
                "session.expiry_notice_s",
                format!("{notice_s} s before the end is more than half of auth.lifetime_s_max: set it lower"),
            );
        }
    }

    fn in_addresses(&mut self, config: &Config) {
        let named: Vec<(&'static str, SocketAddr)> = [
            ("listen.client", Some(config.listen.client)),
            ("listen.http", config.listen.http),
            ("ops.listen", Some(config.ops.listen)),
        ]
        .into_iter()
        .filter_map(|(key, address)| Some((key, address?)))
        .collect();
        for (at, (key, address)) in named.iter().enumerate() {
            if let Some((other, _)) = named[..at].iter().find(|(_, other)| overlap(*other, *address)) {
                self.add(key, format!("{address} is taken by {other} already: choose another port"));
            }
        }
        if let Some(public) = &config.listen.public {
            let name =
                public.parse::<Authority>().ok().filter(|name| name.port_u16().is_some_and(|at| at > 0));
            let plain = name.is_some_and(|name| !name.as_str().contains('@') && !name.host().is_empty());
            self.unless(plain, "listen.public", "must be host:port, such as chat.example:443");
        }
        for origin in &config.transport.allowed_origins {
            if let Some(problem) = never_sent(origin) {
                self.add("transport.allowed_origins", format!("{origin:?} never matches: {problem}"));
            }
        }
    }

    fn in_directories(&mut self, config: &Config) {
        let empty = |path: &Path| path.as_os_str().is_empty();
        self.unless(!empty(&config.node.data_dir), "node.data_dir", "is empty: name a directory");
        self.unless(!empty(&config.store.dir), "store.dir", "is empty: name a directory of its own");
        self.unless(!empty(&config.events.dir), "events.dir", "is empty: name a directory of its own");
        let clean = |path: PathBuf| path.components().collect::<PathBuf>();
        let (store, events) = (clean(config.store_config().dir), clean(config.events_config().dir));
        if store.starts_with(&events) || events.starts_with(&store) {
            self.add("events.dir", "is, or is in, store.dir, or the other way round: each needs its own");
        }
    }

    fn in_limits(&mut self, config: &Config) {
        let (session, transport, quota) = (&config.session, &config.transport, &config.quota);
        self.unless(session.sessions_per_user >= 1, "session.sessions_per_user", "must be at least 1");
        self.unless(
            session.reads_max >= 1,
            "session.reads_max",
            "must be at least 1, or nothing is ever read",
        );
        self.unless(
            config.presence.watches_max >= WATCH_USERS_MAX,
            "presence.watches_max",
            "must be at least 200: every client is told that it may watch so many",
        );
        self.unless(
            transport.quic_uni_streams_max >= 3,
            "transport.quic_uni_streams_max",
            "must be at least 3: HTTP/3, and so WebTransport, takes three",
        );
        self.unless(
            transport.quic_retry_above < transport.quic_handshakes_max,
            "transport.quic_retry_above",
            "must be below quic_handshakes_max, or nobody is ever asked to prove an address",
        );
        for (key, entries) in
            [("quota.users_max", quota.users_max), ("quota.addresses_max", quota.addresses_max)]
        {
            self.unless(
                entries >= QUOTA_ENTRIES_MIN,
                key,
                "must be at least 1024, or strangers share one limit",
            );
        }
        let outbox = &config.outbox;
        for (key, frames) in [
            ("outbox.frames_max", outbox.frames_max),
            ("outbox.backlog_frames_max", outbox.backlog_frames_max),
            ("outbox.datagrams_max", outbox.datagrams_max),
            ("outbox.lagged_max", outbox.lagged_max),
        ] {
            self.unless(frames >= 1, key, "must be at least 1, or nothing of it is ever sent");
        }
        let frame = tern_protocol::FRAME_BYTES_MAX;
        self.unless(
            outbox.bytes_max / 4 * 3 >= frame,
            "outbox.bytes_max",
            "three quarters of it must hold the largest frame: at least 87382",
        );
        self.unless(outbox.backlog_bytes_max >= frame, "outbox.backlog_bytes_max", "must be at least 65536");
    }

    fn in_times(&mut self, config: &Config) {
        let seconds = [
            ("session.stalled_s", config.session.stalled_s, 1),
            ("session.expiry_notice_s", config.session.expiry_notice_s, 0),
            ("conversation.idle_s", config.conversation.idle_s, 0),
            ("tls.reload_every_s", config.tls.reload_every_s, 0),
        ];
        for (key, value, least) in seconds {
            if !(least..=DAY_S).contains(&value) {
                self.add(key, format!("must be {least} to {DAY_S} (a day)"));
            }
        }
        let milliseconds = [
            ("conversation.settle_ms", config.conversation.settle_ms, 1),
            ("presence.grace_ms", config.presence.grace_ms, 0),
            ("presence.batch_ms", config.presence.batch_ms, 1),
            ("push.delay_ms", config.push.delay_ms, 0),
        ];
        for (key, value, least) in milliseconds {
            if !(least..=DAY_MS).contains(&value) {
                self.add(key, format!("must be {least} to {DAY_MS} (a day)"));
            }
        }
    }
}

/// Both cannot be listened on.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same_ip = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && same_ip
}

/// Why no browser ever names this origin.
fn never_sent(origin: &str) -> Option<&'static str> {
    let (scheme, authority) = origin.split_once("://")?; // the section itself refuses it
    let default = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => "",
    };
    if origin.chars().any(|char| char.is_ascii_uppercase()) {
        return Some("browsers write it in lower case");
    }
    if !origin.is_ascii() {
        return Some("browsers write such names as xn--…");
    }
    if !default.is_empty() && authority.ends_with(default) {
        return Some("browsers leave out the port of the scheme");
    }
    let odd = |char: char| char.is_ascii_whitespace() || matches!(char, '@' | '?' | '#' | '\\');
    origin.chars().any(odd).then_some("it is only a scheme, a name and perhaps a port")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of what makes no sense in this text.
    fn keys(text: &str) -> Vec<&'static str> {
        let config: Config = toml::from_str(text).unwrap();
        senseless(&config).into_iter().map(|found| found.key).collect()
    }

    #[test]
    fn the_defaults_make_sense() {
        assert_eq!(senseless(&Config::default()), []);
        assert_eq!(senseless(&Config::dev([]).unwrap()), []);
    }

    #[test]
    fn what_can_never_match_is_named() {
        const KEY: &str = "[[auth.keys]]\nalgorithm = \"HS256\"\nsecret_file = \"s\"\n";
        const JWKS: &str =
            "[[auth.jwks]]\nissuer = \"https://i\"\nurl = \"https://i/k\"\nalgorithms = [\"ES256\"]\n";
        assert_eq!(keys(&format!("[auth]\nissuer = \"\"\n{KEY}")), ["auth.issuer"]);
        assert_eq!(keys(&format!("[auth]\naudience = \" chat\"\n{KEY}")), ["auth.audience"]);
        assert_eq!(keys(&format!("{KEY}kid = \"\"")), ["auth.keys.kid"]);
        assert_eq!(keys(&format!("{JWKS}audience = \"\"")), ["auth.jwks.audience"]);
        assert_eq!(
            keys(&format!("[auth]\nissuer = \"me\"\naudience = \"chat\"\n{JWKS}")),
            ["auth.issuer", "auth.audience"]
        );
        assert_eq!(keys(&format!("[auth]\nissuer = \"https://i\"\n{KEY}{JWKS}")), ["auth.issuer"]);
        assert_eq!(keys(&format!("[auth]\nissuer = \"https://j\"\n{KEY}{JWKS}")), [] as [&str; 0]);
        assert_eq!(keys("[auth]\nlifetime_s_max = 0")[0], "auth.lifetime_s_max");
        assert_eq!(keys("[auth]\nlifetime_s_max = 500"), ["session.expiry_notice_s"]);
        for origin in
            ["https://Chat.example", "https://chat.example:443", "http://a:80", "https://bücher.example"]
        {
            let text = format!("[transport]\nallowed_origins = [{origin:?}]");
            assert_eq!(keys(&text), ["transport.allowed_origins"], "{origin}");
        }
        for origin in ["https://chat.example", "https://chat.example:8443", "http://a:443", "app://x"] {
            assert_eq!(keys(&format!("[transport]\nallowed_origins = [{origin:?}]")), [] as [&str; 0]);
        }
    }

    #[test]
    fn limits_that_do_not_fit_each_other_are_named() {
        for (text, key) in [
            ("[listen]\nhttp = \"127.0.0.1:4433\"", "listen.http"),
            ("[listen]\nclient = \"127.0.0.1:9433\"", "ops.listen"),
            ("[listen]\npublic = \"chat.example\"", "listen.public"),
            ("[store]\ndir = \"events\"", "events.dir"),
            ("[events]\ndir = \"store/events\"", "events.dir"),
            ("[node]\ndata_dir = \"\"", "node.data_dir"),
            ("[session]\nsessions_per_user = 0", "session.sessions_per_user"),
            ("[session]\nstalled_s = 0", "session.stalled_s"),
            ("[session]\nreads_max = 0", "session.reads_max"),
            ("[presence]\nwatches_max = 199", "presence.watches_max"),
            ("[presence]\nbatch_ms = 0", "presence.batch_ms"),
            ("[push]\ndelay_ms = 9223372036854775807", "push.delay_ms"),
            ("[conversation]\nsettle_ms = 0", "conversation.settle_ms"),
            ("[transport]\nquic_uni_streams_max = 2", "transport.quic_uni_streams_max"),
            ("[transport]\nquic_retry_above = 4096", "transport.quic_retry_above"),
            ("[quota]\nusers_max = 0", "quota.users_max"),
            ("[outbox]\nbytes_max = 65536", "outbox.bytes_max"),
            ("[outbox]\nframes_max = 0", "outbox.frames_max"),
        ] {
            assert_eq!(keys(text), [key], "{text}");
        }
    }
}
