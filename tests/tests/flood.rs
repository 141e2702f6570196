//! Floods of strangers on the UDP port: everybody else's sends go on meanwhile, and all succeed.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use quinn::crypto::rustls::QuicClientConfig;
use tern_protocol::Code;
use tern_tests::http3::*;
use tern_tests::meter::Times;
use tern_tests::{RawClient, Server, Wire, loose, within};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Handshakes that are begun and not gone on with.
const HALF_OPEN: usize = 10_000;
/// Of those, sent between two pauses: more than the buffer of the server's socket would only be lost.
const BURST: usize = 50;
/// Such a pause.
const PAUSE: Duration = Duration::from_millis(25);
/// Sessions that never say hello.
const SILENT: usize = 1_000;
/// Sessions that one connection may have.
const PER_CONNECTION: usize = 4;

/// Sends before a flood begins, to compare with.
const CALM: usize = 500;

/// A client that sends one message after the other until it is told to stop.
struct Sender {
    calm: Times,
    stop: Arc<AtomicBool>,
    task: JoinHandle<Vec<Duration>>,
}

impl Sender {
    async fn start(server: &Server) -> Self {
        let mut alice = RawClient::open(server, Wire::Quic, "alice").await;
        let mut calm = Vec::new();
        for _ in 0..CALM {
            calm.push(time_one(&mut alice).await);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut times = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                times.push(time_one(&mut alice).await);
            }
            times
        });
        Self { calm: Times::of(calm), stop, task }
    }

    /// All sends were acked; says how long they took, and without the flood.
    async fn finish(self, during: &str) {
        self.stop.store(true, Ordering::Relaxed);
        let times = Times::of(self.task.await.expect("every send is acked"));
        println!("{during}: {times}; before: {}", self.calm);
    }
}

/// Sends one message and waits for its ack; panics if it is not acked.
async fn time_one(alice: &mut RawClient) -> Duration {
    let start = Instant::now();
    alice.say("bob", "meanwhile").await;
    start.elapsed()
}

/// The first packets of as many handshakes, made by a real client whose server never answers.
async fn first_packets(count: usize) -> Vec<Vec<u8>> {
    let sink = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = sink.local_addr().unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let endpoint = quinn::Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let mut packets = Vec::with_capacity(count);
    let mut seen = HashSet::new();
    let mut bytes = [0; 2048];
    while packets.len() < count {
        let connecting = endpoint.connect_with(config.clone(), address, "localhost").unwrap();
        let length = within("a first packet", sink.recv(&mut bytes)).await.unwrap();
        // The id of the connection follows the version and its own length. An attempt that is dropped
        // sends its goodbye under the same id.
        let id = bytes[6..6 + usize::from(bytes[5])].to_vec();
        if length >= 1200 && seen.insert(id) {
            packets.push(bytes[..length].to_vec());
        }
        drop(connecting);
    }
    endpoint.close(0u32.into(), b"");
    packets
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_half_open_handshakes_disturb_nobody() {
    let server = Server::start().await;
    let packets = first_packets(HALF_OPEN).await;
    let sender = Sender::start(&server).await;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (mut answered, mut bytes) = (0, [0; 2048]);
    for burst in packets.chunks(BURST) {
        for packet in burst {
            socket.send_to(packet, server.ready().quic_addr).await.unwrap();
        }
        tokio::time::sleep(PAUSE).await;
        while socket.try_recv(&mut bytes).is_ok() {
            answered += 1;
        }
    }
    println!("{answered} packets came back");
    // Newcomers get in while the flood is still there.
    RawClient::open(&server, Wire::Quic, "bob").await.settle().await;
    let client = Http3::connect(&server).await;
    assert_eq!(client.request(&get("/")).await.status, 200);
    sender.finish("10,000 half-open handshakes").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_sessions_without_hello_disturb_nobody_and_end() {
    let server = loose().set("TRANSPORT__HELLO_TIMEOUT_MS", "5000").start().await;
    let sender = Sender::start(&server).await;
    let mut clients = Vec::new();
    let mut sessions = Vec::new();
    for _ in 0..SILENT / PER_CONNECTION {
        let client = Http3::connect(&server).await;
        for _ in 0..PER_CONNECTION {
            let session = client.session().await;
            let control = session.open().await;
            sessions.push((session, control));
        }
        clients.push(client);
    }
    RawClient::open(&server, Wire::Quic, "bob").await.settle().await;
    for (session, _control) in &mut sessions {
        assert_eq!(session.closed().await.code, Some(Code::HELLO_TIMEOUT.0.into()));
    }
    server.metric_becomes(r#"tern_connections{transport="webtransport"}"#, |open| open == 0.0).await;
    sender.finish("1,000 sessions without hello").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_streams_and_resets_disturb_nobody() {
    let server = Server::start().await;
    let sender = Sender::start(&server).await;
    let flood = async |bytes: &'static [u8]| {
        for _ in 0..20 {
            let client = Http3::connect(&server).await;
            while let Ok((mut send, _)) = client.connection.open_bi().await {
                let _ = send.write_all(bytes).await;
                let _ = send.reset(quinn::VarInt::from_u32(0x10c));
            }
            assert_eq!(client.closed().await.code, Some(EXCESSIVE_LOAD));
        }
    };
    tokio::join!(flood(&[0x01, 0x10]), flood(&[]));
    RawClient::open(&server, Wire::Quic, "bob").await.settle().await;
    sender.finish("floods of streams").await;
}
