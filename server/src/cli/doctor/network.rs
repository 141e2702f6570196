//! The ports: free if no node runs, and answering with the right certificate if one does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http::Method;

use super::super::operator::ask;
use super::super::preflight;
use super::{Findings, handshake};
use crate::config::Config;
use crate::transport::tls::Identity;

const CHECK: &str = "network";
/// Longest wait for the ops port.
const OPS_TIME: Duration = Duration::from_secs(2);

pub(super) async fn check(config: &Config, findings: &mut Findings) {
    let answer = ask(reachable(config.ops.listen), Method::GET, "/readyz", String::new(), OPS_TIME).await;
    match answer {
        Ok(answer) if answer.status.is_success() => {
            findings.ok(CHECK, format!("a node runs and is ready ({})", config.ops.listen));
            check_running(config, findings).await;
        }
        Ok(answer) => {
            let text = format!("a node runs, but is not ready: {}", answer.body.trim());
            findings.warn(CHECK, text, "its log says more");
            check_running(config, findings).await;
        }
        Err(_) => check_free(config, findings),
    }
}

fn check_free(config: &Config, findings: &mut Findings) {
    let client = config.listen.client;
    let mut ports = vec![
        ("listen.client", "UDP", client, preflight::udp_port(client)),
        ("listen.client", "TCP", client, preflight::tcp_port(client)),
        ("ops.listen", "TCP", config.ops.listen, preflight::tcp_port(config.ops.listen)),
    ];
    if let Some(http) = config.listen.http {
        ports.push(("listen.http", "TCP", http, preflight::tcp_port(http)));
    }
    for (key, protocol, address, free) in ports {
        match free {
            Ok(()) => findings.ok(CHECK, format!("{key} = {address} ({protocol}) is free")),
            Err(error) => findings.fail(
                CHECK,
                format!("{key} = {address} ({protocol}): {error}"),
                format!("see who has it: ss -lntup 'sport = :{}'", address.port()),
            ),
        }
    }
}

/// Clients come over UDP and TCP, and are shown the certificate of the files.
async fn check_running(config: &Config, findings: &mut Findings) {
    let address = reachable(config.listen.client);
    let expected = match (&config.tls.cert_file, &config.tls.key_file) {
        (Some(cert), Some(key)) => Identity::from_pem_files(cert, key).ok().map(|files| files.sha256_hex()),
        _ => None,
    };
    for (protocol, shown) in [("UDP", handshake::quic(address).await), ("TCP", handshake::tls(address).await)]
    {
        match shown {
            Err(error) => findings.fail(
                CHECK,
                format!("{address} ({protocol}): {error}"),
                "is this the configuration of the node that runs? does a firewall drop it?",
            ),
            Ok(sha256) if expected.as_ref().is_some_and(|expected| *expected != sha256) => findings.fail(
                CHECK,
                format!("{address} ({protocol}) presents another certificate than tls.cert_file holds"),
                "the node could not take the new one, or runs by other files: see its log",
            ),
            Ok(_) => findings.ok(CHECK, format!("{address} ({protocol}) answers from this machine")),
        }
    }
}

/// An address at which a listener of this machine is reached from here.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
