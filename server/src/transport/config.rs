//! The settings of the transports, with their defaults and what they may be.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::TrustedProxies;

/// The `[transport]` section of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransportConfig {
    /// A client pings when it has sent nothing for this long, in seconds. A peer is dead after
    /// twice this and 5 seconds of silence. With a million idle sessions set 60.
    pub keepalive_s: u64,
    /// Longest handshake (QUIC, TLS), in milliseconds.
    pub handshake_timeout_ms: u64,
    /// From the end of the handshake to the first frame, in milliseconds.
    pub hello_timeout_ms: u64,
    /// How long a closing link waits for its last frame to arrive, in milliseconds.
    pub close_flush_ms: u64,
    /// A connection for HTTP must have sent its first bytes, and the header of a request it has begun, within
    /// this many milliseconds. With HTTP/1.1 also the next request.
    pub request_head_timeout_ms: u64,
    /// A request must be answered, and its answer taken by the client, within this many milliseconds.
    pub answer_timeout_ms: u64,
    /// A connection of HTTP/2 or HTTP/3 is closed when nothing was asked for this many milliseconds.
    pub http_idle_timeout_ms: u64,
    /// Most requests of one connection that are worked on, or whose answers wait to be taken; the others wait
    /// their turn.
    pub http_answers_max: usize,

    /// Most TCP connections of clients, whatever is spoken on them; further ones are closed at once.
    /// 0: as many as the limit of file descriptors leaves room for.
    pub tcp_connections_max: usize,
    /// Most bytes sent on one TCP connection that the system keeps until the client has taken them. Linux
    /// counts twice as many, for what surrounds them.
    pub tcp_send_buffer_bytes: usize,
    /// The same for what the client has sent and the node has not read.
    pub tcp_receive_buffer_bytes: usize,

    /// Most bytes a client may have under way on one QUIC stream.
    pub quic_stream_window_bytes: u32,
    /// Most bytes a client may have under way on one QUIC connection.
    pub quic_connection_window_bytes: u32,
    /// Most bytes sent on one QUIC connection that the client has not confirmed.
    pub quic_send_window_bytes: u32,
    /// Most bidirectional streams a client may have open. One is the control stream.
    pub quic_bidi_streams_max: u32,
    /// Most unidirectional streams a client may have open. HTTP/3 takes three.
    pub quic_uni_streams_max: u32,
    /// Most bytes of waiting QUIC datagrams, each way.
    pub quic_datagram_buffer_bytes: usize,
    /// Most conversations with a stream of their own on one connection; the others share one.
    pub quic_conversation_streams_max: usize,
    /// A stream of a conversation ends after this long without traffic, in milliseconds.
    pub quic_stream_idle_ms: u64,
    /// Most handshakes under way; further ones are refused.
    pub quic_handshakes_max: usize,
    /// With more handshakes than this whose source address is not proven, clients are made to
    /// prove theirs first (Retry).
    pub quic_retry_above: usize,

    /// Most WebTransport sessions on one HTTP/3 connection. Browsers open a connection for each.
    pub webtransport_sessions_max: usize,

    /// Read buffer of a WebSocket in bytes, allocated per connection.
    pub websocket_read_buffer_bytes: usize,
    /// Most bytes of one outgoing WebSocket message and the control frames behind it.
    pub websocket_write_buffer_bytes: usize,
    /// Most pings and pongs of a WebSocket client per second.
    pub websocket_control_frames_per_s: u32,
    /// Origins (`https://chat.example`) whose pages may connect. A client that is no browser sends
    /// no Origin and is not concerned.
    pub allowed_origins: Vec<String>,
    /// Pages from `localhost`, `127.0.0.1` and `[::1]` may connect too, for development.
    pub allow_loopback_origins: bool,

    /// Most connections of one address (IPv4, or /64 of IPv6) at a time.
    pub address_connections_max: u32,
    /// Most new connections of one address per second, on average; a burst of twice as many passes.
    pub address_connections_per_s: u32,
    /// Most addresses whose connections are counted; with more, connections of new ones are refused.
    pub addresses_max: usize,
    /// The limits per address do not hold for loopback, for development and tests.
    pub loopback_exempt: bool,
    /// Proxies in front of this node, as addresses or networks (`10.0.0.0/8`): the limits per address
    /// hold for whom their `X-Forwarded-For` names, not for them. Nobody else's is looked at.
    pub trusted_proxies: Vec<String>,
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self {
            keepalive_s: 20,
            handshake_timeout_ms: 10_000,
            hello_timeout_ms: 5_000,
            close_flush_ms: 1_000,
            request_head_timeout_ms: 10_000,
            answer_timeout_ms: 30_000,
            http_idle_timeout_ms: 60_000,
            http_answers_max: 4,
            tcp_connections_max: 0,
            tcp_send_buffer_bytes: 64 * 1024,
            tcp_receive_buffer_bytes: 64 * 1024,
            quic_stream_window_bytes: 64 * 1024,
            quic_connection_window_bytes: 256 * 1024,
            quic_send_window_bytes: 256 * 1024,
            quic_bidi_streams_max: 16,
            quic_uni_streams_max: 8,
            quic_datagram_buffer_bytes: 16 * 1024,
            quic_conversation_streams_max: 32,
            quic_stream_idle_ms: 30_000,
            quic_handshakes_max: 4096,
            quic_retry_above: 256,
            webtransport_sessions_max: 4,
            websocket_read_buffer_bytes: 4 * 1024,
            websocket_write_buffer_bytes: 512 * 1024,
            websocket_control_frames_per_s: 10,
            allowed_origins: Vec::new(),
            allow_loopback_origins: false,
            address_connections_max: 500,
            address_connections_per_s: 50,
            addresses_max: 1_000_000,
            loopback_exempt: true,
            trusted_proxies: Vec::new(),
        }
    }
}

/// A setting has a value that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("transport.{key} must be {rule}")]
pub struct SettingError {
    /// The key within the section.
    pub key: &'static str,
    /// What it must be.
    pub rule: &'static str,
}

impl TransportConfig {
    /// A peer that was silent for this long is dead, on every transport.
    pub fn dead_after(&self) -> Duration {
        Duration::from_secs(2 * self.keepalive_s + 5)
    }

    /// A WebSocket that was silent for this long is pinged: its client has missed the time for its own ping.
    pub fn ping_after(&self) -> Duration {
        Duration::from_secs(self.keepalive_s + 5)
    }

    /// Longest handshake.
    pub fn handshake_timeout(&self) -> Duration {
        Duration::from_millis(self.handshake_timeout_ms)
    }

    /// From the end of the handshake to the first frame.
    pub fn hello_timeout(&self) -> Duration {
        Duration::from_millis(self.hello_timeout_ms)
    }

    /// How long a closing link waits for its last frame to arrive.
    pub fn close_flush(&self) -> Duration {
        Duration::from_millis(self.close_flush_ms)
    }

    /// For the first bytes and each header of HTTP.
    pub fn request_head_timeout(&self) -> Duration {
        Duration::from_millis(self.request_head_timeout_ms)
    }

    /// From a request to the last byte of its answer being taken.
    pub fn answer_timeout(&self) -> Duration {
        Duration::from_millis(self.answer_timeout_ms)
    }

    /// Without a request on HTTP/2 or HTTP/3.
    pub fn http_idle_timeout(&self) -> Duration {
        Duration::from_millis(self.http_idle_timeout_ms)
    }

    /// A stream of a conversation ends after this long without traffic.
    pub fn quic_stream_idle(&self) -> Duration {
        Duration::from_millis(self.quic_stream_idle_ms)
    }

    /// The proxies that are believed. [`TransportConfig::check`] has found each to be one.
    pub fn proxies(&self) -> TrustedProxies {
        TrustedProxies::parse(&self.trusted_proxies).unwrap_or_default()
    }

    /// Finds the first setting that cannot work.
    pub fn check(&self) -> Result<(), SettingError> {
        let frame = tern_protocol::FRAME_BYTES_MAX;
        let buffer = 4096..=16 * 1024 * 1024;
        let rules = [
            ("keepalive_s", "1 to 3600", (1..=3600).contains(&self.keepalive_s)),
            ("handshake_timeout_ms", "1 to 10000", (1..=10_000).contains(&self.handshake_timeout_ms)),
            ("hello_timeout_ms", "1 to 60000", (1..=60_000).contains(&self.hello_timeout_ms)),
            ("close_flush_ms", "at most 10000", self.close_flush_ms <= 10_000),
            ("request_head_timeout_ms", "1 to 60000", (1..=60_000).contains(&self.request_head_timeout_ms)),
            ("answer_timeout_ms", "1 to 600000", (1..=600_000).contains(&self.answer_timeout_ms)),
            ("http_idle_timeout_ms", "1 to 3600000", (1..=3_600_000).contains(&self.http_idle_timeout_ms)),
            ("http_answers_max", "1 to 1024", (1..=1024).contains(&self.http_answers_max)),
            ("tcp_send_buffer_bytes", "4096 to 16777216", buffer.contains(&self.tcp_send_buffer_bytes)),
            ("tcp_receive_buffer_bytes", "4096 to 16777216", buffer.contains(&self.tcp_receive_buffer_bytes)),
            ("quic_stream_window_bytes", "at least 1024", self.quic_stream_window_bytes >= 1024),
            (
                "quic_connection_window_bytes",
                "at least quic_stream_window_bytes",
                self.quic_connection_window_bytes >= self.quic_stream_window_bytes,
            ),
            ("quic_send_window_bytes", "at least 16384", self.quic_send_window_bytes >= 16 * 1024),
            ("quic_bidi_streams_max", "1 to 1024", (1..=1024).contains(&self.quic_bidi_streams_max)),
            ("quic_uni_streams_max", "at most 1024", self.quic_uni_streams_max <= 1024),
            ("quic_datagram_buffer_bytes", "at least 2048", self.quic_datagram_buffer_bytes >= 2048),
            ("quic_conversation_streams_max", "at most 1024", self.quic_conversation_streams_max <= 1024),
            ("quic_stream_idle_ms", "1 to 86400000", (1..=86_400_000).contains(&self.quic_stream_idle_ms)),
            ("quic_handshakes_max", "at least 1", self.quic_handshakes_max >= 1),
            (
                "webtransport_sessions_max",
                "at most half of quic_bidi_streams_max: each has two streams",
                2 * self.webtransport_sessions_max <= self.quic_bidi_streams_max as usize,
            ),
            (
                "websocket_read_buffer_bytes",
                "512 to 131072",
                (512..=128 * 1024).contains(&self.websocket_read_buffer_bytes),
            ),
            (
                "websocket_write_buffer_bytes",
                "at least 262144",
                self.websocket_write_buffer_bytes >= 4 * frame,
            ),
            ("websocket_control_frames_per_s", "at least 1", self.websocket_control_frames_per_s >= 1),
            (
                "allowed_origins",
                "origins such as https://chat.example, without a path",
                self.allowed_origins.iter().all(|origin| is_origin(origin)),
            ),
            ("address_connections_max", "at least 1", self.address_connections_max >= 1),
            ("address_connections_per_s", "at least 1", self.address_connections_per_s >= 1),
            ("addresses_max", "at least 1", self.addresses_max >= 1),
            (
                "trusted_proxies",
                "addresses, or networks such as 10.0.0.0/8",
                TrustedProxies::parse(&self.trusted_proxies).is_some(),
            ),
        ];
        match rules.into_iter().find(|(_, _, holds)| !holds) {
            None => Ok(()),
            Some((key, rule, _)) => Err(SettingError { key, rule }),
        }
    }
}

/// A scheme and an authority, as browsers write them: an entry with a slash at its end would
/// never match.
fn is_origin(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty() && !rest.is_empty() && !rest.contains(['/', '*', ' '])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_their_own_rules_and_unknown_keys_are_errors() {
        assert_eq!(TransportConfig::default().check(), Ok(()));
        assert_eq!(TransportConfig::default().dead_after(), Duration::from_secs(45));
        let known: TransportConfig = toml::from_str("keepalive_s = 60").unwrap();
        assert_eq!(known.dead_after(), Duration::from_secs(125));
        let error = toml::from_str::<TransportConfig>("keepalive = 60").unwrap_err();
        assert!(error.to_string().contains("unknown field `keepalive`"), "{error}");
    }

    #[test]
    fn a_setting_that_cannot_work_is_named() {
        let wrong = |change: fn(&mut TransportConfig)| {
            let mut config = TransportConfig::default();
            change(&mut config);
            config.check().unwrap_err().key
        };
        assert_eq!(wrong(|config| config.keepalive_s = 0), "keepalive_s");
        assert_eq!(wrong(|config| config.handshake_timeout_ms = 10_001), "handshake_timeout_ms");
        assert_eq!(
            wrong(|config| config.quic_connection_window_bytes = 2048),
            "quic_connection_window_bytes"
        );
        for origin in ["https://chat.example/", "chat.example", "*", "https://*.example"] {
            let mut config = TransportConfig::default();
            config.allowed_origins.push(origin.into());
            assert_eq!(config.check().unwrap_err().key, "allowed_origins", "{origin}");
        }
    }
}
