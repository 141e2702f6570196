//! The UDP sockets of the process: one per address family and runtime, shared by all clients,
//! since each costs buffers and a task.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use tokio::runtime;

/// An endpoint that lives as long as somebody holds it.
pub(super) type Shared = Arc<Endpoint>;

struct Row {
    runtime: runtime::Id,
    ipv6: bool,
    endpoint: Weak<Endpoint>,
}

/// One row per live endpoint: bounded by runtimes times two, dead ones are removed at each use.
static ENDPOINTS: Mutex<Vec<Row>> = Mutex::new(Vec::new());

/// The shared endpoint for this address family on the current runtime.
pub(super) fn shared(remote: &SocketAddr) -> io::Result<Shared> {
    let (runtime, ipv6) = (runtime::Handle::current().id(), remote.is_ipv6());
    let mut rows = ENDPOINTS.lock();
    rows.retain(|row| row.endpoint.strong_count() > 0);
    let found = rows.iter().find(|row| row.runtime == runtime && row.ipv6 == ipv6);
    if let Some(endpoint) = found.and_then(|row| row.endpoint.upgrade()) {
        return Ok(endpoint);
    }
    let local: SocketAddr =
        if ipv6 { (Ipv6Addr::UNSPECIFIED, 0).into() } else { (Ipv4Addr::UNSPECIFIED, 0).into() };
    let socket = std::net::UdpSocket::bind(local)?;
    // The default connection ids have 8 bytes; empty ones would not do on a shared socket.
    let endpoint = Arc::new(Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))?);
    rows.push(Row { runtime, ipv6, endpoint: Arc::downgrade(&endpoint) });
    Ok(endpoint)
}
