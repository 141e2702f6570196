//! Metrics of the connections below sessions: what is open, refused and cut, and the descriptors for it.

use metrics::{Counter, Gauge};

use super::Maker;

/// The connections of clients, whether a session is on them or not.
#[derive(Debug)]
pub struct SocketMetrics {
    /// `tern_tcp_connections`: open TCP connections of clients; each takes a file descriptor.
    pub tcp: Gauge,
    /// `tern_tcp_connections_max`: how many of them there may be.
    pub tcp_max: Gauge,
    /// `tern_accept_errors_total`: times the system did not give a connection, such as for want of
    /// descriptors. Somebody should look.
    pub accept_errors: Counter,
    /// `tern_connections_refused_total{reason="full"}`: closed at once since there are
    /// `tern_tcp_connections_max`. Somebody should look.
    pub refused_full: Counter,
    /// `tern_connections_refused_total{reason="address"}`: closed at once since their address has too many or
    /// connects too often.
    pub refused_address: Counter,
    /// `tern_connections_refused_total{reason="memory"}`: closed at once since the byte budget of the process is
    /// used up. Somebody should look.
    pub refused_memory: Counter,
    /// `tern_connections_cut_total{reason="silent"}`: TCP connections that asked nothing in time.
    pub cut_silent: Counter,
    /// `tern_connections_cut_total{reason="unread"}`: HTTP connections whose answers nobody took in time.
    pub cut_unread: Counter,
    /// `tern_connections_cut_total{reason="flood"}`: HTTP/2 connections with many frames that ask nothing.
    pub cut_flood: Counter,
}

impl SocketMetrics {
    pub(super) fn register(make: &Maker<'_>) -> Self {
        let refused = "tern_connections_refused_total";
        let cut = "tern_connections_cut_total";
        Self {
            tcp: make.gauge("tern_tcp_connections", "Open TCP connections of clients."),
            tcp_max: make.gauge("tern_tcp_connections_max", "How many TCP connections clients may have."),
            accept_errors: make
                .counter("tern_accept_errors_total", "Times the system did not give a connection."),
            refused_full: make.counter_of(refused, "reason", "full", "Connections closed at once."),
            refused_address: make.counter_of(refused, "reason", "address", "Connections closed at once."),
            refused_memory: make.counter_of(refused, "reason", "memory", "Connections closed at once."),
            cut_silent: make.counter_of(cut, "reason", "silent", "Connections cut, by reason."),
            cut_unread: make.counter_of(cut, "reason", "unread", "Connections cut, by reason."),
            cut_flood: make.counter_of(cut, "reason", "flood", "Connections cut, by reason."),
        }
    }
}
