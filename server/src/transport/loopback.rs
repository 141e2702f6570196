//! For tests: certificates, and the server's end of a link, on loopback.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tern_certs::DevCert;
use tern_protocol::{Close, Code, Deliver, Entry, EntryBody, EntryId, Frame, UserId};
use tokio::task::JoinHandle;

use super::tls::{Certificate, Identity, quic_server_config, tcp_server_config};
use super::{Inbound, Link, LinkError, LinkInfo, LinkReader};
use crate::budget::Budget;
use crate::roster::{Outbox, OutboxConfig, Outgoing};
use tern_protocol::ConversationId;

/// Any free port of 127.0.0.1.
pub(super) const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Nothing on loopback takes this long; only a hang does.
const HANG: Duration = Duration::from_secs(20);

/// Ends a test that hangs.
pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, future).await.expect("hangs")
}

/// TLS of a server and of clients that trust it.
pub(super) struct Tls {
    pub(super) quic: Arc<ServerConfig>,
    pub(super) tcp: Arc<ServerConfig>,
    roots: Arc<RootCertStore>,
}

impl Tls {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let dev = DevCert::load_or_create(dir.path()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(dev.cert.clone()).unwrap();
        let certificate = Certificate::new(Identity::from_der(vec![dev.cert], &dev.key).unwrap());
        Self {
            quic: quic_server_config(certificate.clone()),
            tcp: tcp_server_config(certificate),
            roots: roots.into(),
        }
    }

    pub(super) fn client(&self, alpn: &[&[u8]]) -> ClientConfig {
        self.client_with(alpn, rustls::DEFAULT_VERSIONS)
    }

    pub(super) fn client_with(
        &self,
        alpn: &[&[u8]],
        versions: &[&'static SupportedProtocolVersion],
    ) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config
    }
}

/// The server's end of a link: its writer is driven, its reader waits for the test.
pub(super) struct DrivenLink {
    pub(super) info: LinkInfo,
    pub(super) reader: LinkReader,
    pub(super) outbox: Arc<Outbox>,
    pub(super) driving: JoinHandle<Result<(), LinkError>>,
}

impl DrivenLink {
    pub(super) fn start(link: Link, config: OutboxConfig) -> Self {
        let info = link.info().clone();
        let (reader, mut writer) = link.split();
        let outbox = Outbox::new(info.format, config, &Budget::new(usize::MAX));
        let driven = outbox.clone();
        let driving = tokio::spawn(async move { writer.drive(&driven).await });
        Self { info, reader, outbox, driving }
    }

    /// What is more than a sign of life.
    async fn inbound(&mut self) -> Result<Inbound, LinkError> {
        loop {
            match within(self.reader.recv()).await {
                Ok(Inbound::Alive) => {}
                other => return other,
            }
        }
    }

    pub(super) async fn frame(&mut self) -> Frame {
        match self.inbound().await.unwrap() {
            Inbound::Frame(envelope) => envelope.frame,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn bad(&mut self) -> String {
        match self.inbound().await.unwrap() {
            Inbound::Bad(error) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn end(&mut self) -> LinkError {
        self.inbound().await.unwrap_err()
    }

    /// What a session does about an error that it can answer.
    pub(super) async fn answer(self, error: &LinkError) {
        self.outbox.close(error.reply().expect("has an answer"));
        within(self.driving).await.unwrap().unwrap();
    }
}

pub(super) fn conversation(number: u8) -> ConversationId {
    ConversationId::from_bytes([number; 16])
}

/// One entry with a text of this length.
pub(super) fn deliver(number: u8, seq: u64, text_bytes: usize) -> Outgoing {
    Outgoing::new(Deliver {
        conversation: conversation(number),
        entries: vec![Entry {
            seq,
            id: EntryId::from_bytes([0; 16]),
            time_ms: 0,
            sender: UserId::new("alice").unwrap(),
            sender_name: None,
            temp_id: None,
            messages: seq,
            body: EntryBody::text("x".repeat(text_bytes)),
        }],
    })
}

pub(super) fn close(code: Code, reason: &str) -> Close {
    Close { code, reason: reason.into(), retry_after_ms: None, target: None }
}
