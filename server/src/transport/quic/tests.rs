use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, RecvStream, SendStream};
use tern_protocol::{Decoder, Envelope, Frame, Incoming, Ping, StreamKind, Target, Typing, UserId};

use super::super::LinkError;
use super::super::loopback::{ANY, DrivenLink, Tls, close, conversation, deliver, within};
use super::*;
use crate::budget::Budget;
use crate::roster::{OutboxConfig, Outgoing, Pushed};

pub(super) struct Client {
    connection: Connection,
    send: SendStream,
    recv: Frames,
    _endpoint: Endpoint,
}

/// Reads frames from a stream.
struct Frames {
    stream: RecvStream,
    decoder: Decoder,
}

impl Frames {
    fn new(stream: RecvStream) -> Self {
        Self { stream, decoder: Decoder::default() }
    }

    /// The next frame, `None` at the end of the stream.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            match self.decoder.next().unwrap() {
                Some(Incoming::Frame(envelope)) => return Some(envelope.frame),
                Some(Incoming::Skipped(number)) => panic!("frame {number}"),
                None => {}
            }
            match within(self.stream.read_chunk(64 * 1024, true)).await.unwrap() {
                Some(chunk) => self.decoder.extend(&chunk.bytes),
                None => return None,
            }
        }
    }
}

impl Client {
    async fn send(&mut self, frame: impl Into<Envelope>) {
        self.send.write_all(&tern_protocol::encode(&frame.into())).await.unwrap();
    }

    /// The next stream of the server: its kind, its conversation, its frames.
    async fn stream(&self) -> (StreamKind, Option<[u8; 16]>, Frames) {
        let mut stream = within(self.connection.accept_uni()).await.unwrap();
        let mut kind = [0];
        stream.read_exact(&mut kind).await.unwrap();
        let kind = StreamKind::from_byte(kind[0]).unwrap();
        let mut id = [0; 16];
        let id = if kind == StreamKind::Conversation {
            stream.read_exact(&mut id).await.unwrap();
            Some(id)
        } else {
            None
        };
        (kind, id, Frames::new(stream))
    }

    /// How the server closed the connection.
    async fn closed(&self) -> (u64, String) {
        match within(self.connection.closed()).await {
            ConnectionError::ApplicationClosed(close) => {
                (close.error_code.into_inner(), String::from_utf8(close.reason.to_vec()).unwrap())
            }
            other => panic!("{other}"),
        }
    }
}

pub(super) struct Server {
    listener: QuicListener,
    tls: Tls,
}

impl Server {
    pub(super) fn start(config: &TransportConfig) -> Self {
        let tls = Tls::new();
        let gate = AddressGate::new(config, &Budget::new(usize::MAX));
        Self {
            listener: QuicListener::bind(
                ANY,
                tls.quic.clone(),
                gate,
                &EndpointKeys::new(&[1; 32], "here"),
                config,
            )
            .unwrap(),
            tls,
        }
    }

    fn endpoint(&self, alpn: &[u8], transport: quinn::TransportConfig) -> Endpoint {
        let crypto = QuicClientConfig::try_from(self.tls.client(&[alpn])).unwrap();
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport));
        let mut endpoint = Endpoint::client(ANY).unwrap();
        endpoint.set_default_client_config(config);
        endpoint
    }

    async fn dial(&self, endpoint: &Endpoint) -> Result<Connection, ConnectionError> {
        within(endpoint.connect(self.listener.local_addr().unwrap(), "localhost").unwrap()).await
    }

    /// A link over a connection whose control stream the client has just opened with a ping.
    pub(super) async fn link(&self, transport: quinn::TransportConfig) -> (Client, Link) {
        let endpoint = self.endpoint(tern_protocol::ALPN, transport);
        let established = async {
            match within(self.listener.accept()).await.unwrap().establish().await.unwrap() {
                Established::Native(link) => *link,
                Established::Http3(_) => panic!("HTTP/3"),
            }
        };
        let dialled = async {
            let connection = self.dial(&endpoint).await.unwrap();
            let (mut send, recv) = connection.open_bi().await.unwrap();
            send.write_all(&tern_protocol::encode(&Envelope::from(Ping { nonce: 0 }))).await.unwrap();
            (connection, send, Frames::new(recv))
        };
        let (link, (connection, send, recv)) = tokio::join!(established, dialled);
        (Client { connection, send, recv, _endpoint: endpoint }, link)
    }

    /// A session over such a link, the ping read.
    async fn pair(&self, transport: quinn::TransportConfig, outbox: OutboxConfig) -> (Client, DrivenLink) {
        let (client, link) = self.link(transport).await;
        let mut session = DrivenLink::start(link, outbox);
        assert_eq!(session.frame().await, Ping { nonce: 0 }.into());
        (client, session)
    }
}

async fn default_pair() -> (Server, Client, DrivenLink) {
    let server = Server::start(&TransportConfig::default());
    let (client, session) = server.pair(quinn::TransportConfig::default(), OutboxConfig::default()).await;
    (server, client, session)
}

fn ping(nonce: u64) -> Outgoing {
    Outgoing::new(Ping { nonce })
}

fn connection_of(session: &DrivenLink) -> Connection {
    match &session.reader {
        LinkReader::Quic(reader) => match reader.carrier() {
            super::super::carrier::Carrier::Whole(connection) => connection.clone(),
            other => panic!("{other:?}"),
        },
        LinkReader::WebSocket(_) => panic!("not QUIC"),
    }
}

fn seq_of(frame: Option<Frame>) -> u64 {
    match frame {
        Some(Frame::Deliver(deliver)) => deliver.entries[0].seq,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn frames_go_both_ways_on_the_control_stream() {
    let (_server, mut client, mut session) = default_pair().await;
    assert_eq!(session.info.label(), "quic");
    assert!(session.info.remote.ip().is_loopback());
    for nonce in 1..=3 {
        client.send(Ping { nonce }).await;
        assert_eq!(session.frame().await, Ping { nonce }.into());
        assert_eq!(session.outbox.push_control(&ping(nonce)), Pushed::Queued);
        assert_eq!(client.recv.next().await, Some(Ping { nonce }.into()));
    }
}

#[tokio::test]
async fn a_server_close_comes_last_in_band_and_as_the_code_and_reason_of_the_connection() {
    let (_server, mut client, session) = default_pair().await;
    let _ = session.outbox.push_control(&ping(1));
    session.outbox.close(close(Code::DRAINING, "moving"));
    assert_eq!(client.recv.next().await, Some(Ping { nonce: 1 }.into()));
    assert_eq!(client.recv.next().await, Some(close(Code::DRAINING, "moving").into()));
    assert_eq!(client.closed().await, (4200, "moving".into()));
    within(session.driving).await.unwrap().unwrap();
}

#[tokio::test]
async fn everything_sent_before_a_client_close_is_read_before_its_code_and_reason() {
    let (_server, mut client, mut session) = default_pair().await;
    client.send(Ping { nonce: 1 }).await;
    // The answer to a frame sent later shows that the first has arrived, though nobody read it.
    let mut probe = client.connection.open_uni().await.unwrap();
    probe.write_all(b"x").await.unwrap();
    probe.finish().unwrap();
    within(probe.stopped()).await.unwrap();
    client.connection.close(4103u32.into(), b"bye\r\n");
    let lost = within(connection_of(&session).closed()).await;
    assert!(matches!(lost, ConnectionError::ApplicationClosed(_)));
    assert_eq!(session.frame().await, Ping { nonce: 1 }.into());
    match session.end().await {
        LinkError::Closed { code, reason } => {
            assert_eq!((code, reason.as_str()), (Some(Code::SESSION_REPLACED), "bye"));
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn two_active_conversations_use_two_streams_and_an_unread_one_leaves_the_other_flowing() {
    let server = Server::start(&TransportConfig::default());
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window((16u32 * 1024).into());
    let (mut client, session) = server.pair(transport, OutboxConfig::default()).await;

    let _ = session.outbox.push_entry(conversation(1), 1, &deliver(1, 1, 8_000));
    let (kind, id, _unread) = client.stream().await;
    assert_eq!((kind, id), (StreamKind::Conversation, Some([1; 16])));
    let _ = session.outbox.push_entry(conversation(2), 1, &deliver(2, 1, 100));
    let (kind, id, mut read) = client.stream().await;
    assert_eq!((kind, id), (StreamKind::Conversation, Some([2; 16])));
    assert_eq!(seq_of(read.next().await), 1);

    // More than the outbox may hold goes to the first, which the client does not read; the second
    // flows all the time, and the client is told what it misses of the first.
    let mut head = 1;
    for seq in 2..=200 {
        if session.outbox.push_entry(conversation(1), seq, &deliver(1, seq, 8_000)) == Pushed::Lagged {
            head = seq;
        }
        assert_eq!(session.outbox.push_entry(conversation(2), seq, &deliver(2, seq, 100)), Pushed::Queued);
        assert_eq!(seq_of(read.next().await), seq);
        assert!(session.outbox.unsent_bytes() <= 256 * 1024);
    }
    assert!(head > 1, "the first conversation has lagged");
    match client.recv.next().await {
        Some(Frame::Lagged(lagged)) => {
            assert_eq!(lagged.conversation, conversation(1));
            assert!((2..=head).contains(&lagged.head));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_client_without_streams_to_spare_gets_everything_anyway() {
    for allowed in [0u32, 1, 3] {
        let server = Server::start(&TransportConfig::default());
        let mut transport = quinn::TransportConfig::default();
        transport.max_concurrent_uni_streams(allowed.into());
        let (mut client, session) = server.pair(transport, OutboxConfig::default()).await;
        let (sender, mut received) = tokio::sync::mpsc::channel(64);
        let connection = client.connection.clone();
        let to_control = sender.clone();
        tokio::spawn(async move {
            while let Some(frame) = client.recv.next().await {
                to_control.send(frame).await.unwrap();
            }
        });
        tokio::spawn(async move {
            while let Ok(mut stream) = connection.accept_uni().await {
                let sender = sender.clone();
                tokio::spawn(async move {
                    let mut kind = [0];
                    stream.read_exact(&mut kind).await.unwrap();
                    if StreamKind::from_byte(kind[0]) == Some(StreamKind::Conversation) {
                        stream.read_exact(&mut [0; 16]).await.unwrap();
                    }
                    let mut frames = Frames::new(stream);
                    while let Some(frame) = frames.next().await {
                        sender.send(frame).await.unwrap();
                    }
                });
            }
        });
        for number in 1..=40 {
            let _ = session.outbox.push_entry(conversation(number), 1, &deliver(number, 1, 100));
            session.outbox.push_backlog(&deliver(number, 2, 100)).await.unwrap();
        }
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < 80 {
            match within(received.recv()).await.unwrap() {
                Frame::Deliver(deliver) => {
                    assert!(seen.insert((deliver.conversation, deliver.entries[0].seq)), "sent twice");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn conversations_leave_streams_for_the_shared_streams_of_a_client_that_allows_few() {
    let server = Server::start(&TransportConfig::default());
    let mut transport = quinn::TransportConfig::default();
    transport.max_concurrent_uni_streams(3u32.into());
    let (client, session) = server.pair(transport, OutboxConfig::default()).await;
    let connection = client.connection.clone();
    let pushing = tokio::spawn(async move {
        for seq in 1.. {
            for number in 1..=8 {
                let _ = session.outbox.push_entry(conversation(number), seq, &deliver(number, seq, 10));
            }
            if session.outbox.push_backlog(&ping(seq)).await.is_err() {
                return;
            }
        }
    });
    let (mut inbox, mut backlog) = (false, false);
    while !(inbox && backlog) {
        let mut stream = within(connection.accept_uni()).await.unwrap();
        let mut kind = [0];
        stream.read_exact(&mut kind).await.unwrap();
        inbox |= StreamKind::from_byte(kind[0]) == Some(StreamKind::Inbox);
        backlog |= StreamKind::from_byte(kind[0]) == Some(StreamKind::Backlog);
        // Read, so that a stream that has ended makes room for another.
        tokio::spawn(async move { while let Ok(Some(_)) = stream.read_chunk(usize::MAX, true).await {} });
    }
    pushing.abort();
}

#[tokio::test]
async fn more_conversations_than_streams_share_the_inbox_stream() {
    let config = TransportConfig { quic_conversation_streams_max: 1, ..TransportConfig::default() };
    let server = Server::start(&config);
    let (client, session) = server.pair(quinn::TransportConfig::default(), OutboxConfig::default()).await;
    let _ = session.outbox.push_entry(conversation(1), 1, &deliver(1, 1, 10));
    let (kind, ..) = client.stream().await;
    assert_eq!(kind, StreamKind::Conversation);
    for number in [2, 3] {
        let _ = session.outbox.push_entry(conversation(number), 1, &deliver(number, 1, 10));
    }
    let (kind, _, mut inbox) = client.stream().await;
    assert_eq!(kind, StreamKind::Inbox);
    for number in [2, 3] {
        match inbox.next().await {
            Some(Frame::Deliver(deliver)) => assert_eq!(deliver.conversation, conversation(number)),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_stream_without_traffic_ends_and_the_next_entry_opens_another() {
    let config = TransportConfig { quic_stream_idle_ms: 1, ..TransportConfig::default() };
    let server = Server::start(&config);
    let (client, session) = server.pair(quinn::TransportConfig::default(), OutboxConfig::default()).await;
    for seq in 1..=2 {
        let _ = session.outbox.push_entry(conversation(1), seq, &deliver(1, seq, 10));
        session.outbox.push_backlog(&ping(seq)).await.unwrap();
        let (kind, id, mut frames) = client.stream().await;
        assert_eq!((kind, id), (StreamKind::Conversation, Some([1; 16])));
        assert_eq!(seq_of(frames.next().await), seq);
        assert_eq!(frames.next().await, None, "the stream has ended");
        let (kind, _, mut backlog) = client.stream().await;
        assert_eq!(kind, StreamKind::Backlog);
        assert_eq!(backlog.next().await, Some(Ping { nonce: seq }.into()));
        assert_eq!(backlog.next().await, None);
    }
}

#[tokio::test]
async fn entries_of_a_stream_that_the_client_stopped_are_named_in_lagged() {
    let (_server, mut client, session) = default_pair().await;
    let _ = session.outbox.push_entry(conversation(1), 1, &deliver(1, 1, 10));
    let (_, _, mut frames) = client.stream().await;
    assert_eq!(seq_of(frames.next().await), 1);
    frames.stream.stop(0u32.into()).unwrap();
    // A round trip: the server has the stop.
    client.send(Ping { nonce: 1 }).await;
    let mut session = session;
    assert_eq!(session.frame().await, Ping { nonce: 1 }.into());
    let _ = session.outbox.push_entry(conversation(1), 2, &deliver(1, 2, 10));
    assert_eq!(
        client.recv.next().await,
        Some(tern_protocol::Lagged { conversation: conversation(1), head: 2 }.into())
    );
    let _ = session.outbox.push_entry(conversation(1), 3, &deliver(1, 3, 10));
    let (_, id, mut frames) = client.stream().await;
    assert_eq!(id, Some([1; 16]));
    assert_eq!(seq_of(frames.next().await), 3);
}

#[tokio::test]
async fn typing_goes_by_datagram_both_ways_and_nothing_else_is_taken_from_one() {
    let (_server, client, mut session) = default_pair().await;
    let to: Target = UserId::new("bob").unwrap().into();
    let datagram = |frame: Frame| tern_protocol::encode(&Envelope::from(frame));
    let typing: Frame = Typing { to }.into();
    client.connection.send_datagram(datagram(typing.clone()).into()).unwrap();
    assert_eq!(session.frame().await, typing);

    client.connection.send_datagram(datagram(Ping { nonce: 1 }.into()).into()).unwrap();
    assert_eq!(session.bad().await, "the frame header is malformed: only typing may come as a datagram");
    let mut two = datagram(typing.clone());
    two.extend(datagram(typing.clone()));
    for malformed in [&two[..], &two[..3], &[], &[0xff; 8]] {
        client.connection.send_datagram(malformed.to_vec().into()).unwrap();
        assert!(session.bad().await.contains("exactly one frame"), "{malformed:?}");
    }
    assert_eq!(session.outbox.push_datagram(&Outgoing::new(typing.clone())), Pushed::Queued);
    assert_eq!(within(client.connection.read_datagram()).await.unwrap(), datagram(typing));
}

#[tokio::test]
async fn a_client_without_datagrams_gets_frames() {
    let server = Server::start(&TransportConfig::default());
    let mut transport = quinn::TransportConfig::default();
    transport.datagram_receive_buffer_size(None);
    let (mut client, session) = server.pair(transport, OutboxConfig::default()).await;
    let _ = session.outbox.push_datagram(&ping(1));
    assert_eq!(client.recv.next().await, Some(Ping { nonce: 1 }.into()));
}

#[tokio::test]
async fn a_malformed_frame_is_reported_and_the_next_one_is_read() {
    let (_server, mut client, mut session) = default_pair().await;
    // Length 3: type 6 (ping), critical, a body that ends within its number.
    client.send.write_all(&[3, 6, 1, 0x80]).await.unwrap();
    assert!(session.bad().await.contains("malformed ping"));
    // Unknown and critical.
    client.send.write_all(&[3, 0xff, 0x7f, 1]).await.unwrap();
    assert!(session.bad().await.contains("unknown frame type 16383"));
    // Unknown and optional: skipped.
    client.send.write_all(&[3, 0xff, 0x7f, 0]).await.unwrap();
    client.send(Ping { nonce: 9 }).await;
    assert_eq!(session.frame().await, Ping { nonce: 9 }.into());
}

#[tokio::test]
async fn a_frame_declared_too_large_ends_the_link_and_says_why() {
    let (_server, mut client, mut session) = default_pair().await;
    client.send.write_all(&[0xff, 0xff, 0xff, 0xff, 0x0f]).await.unwrap();
    let error = session.end().await;
    assert!(matches!(&error, LinkError::Decode(tern_protocol::DecodeError::TooLarge(0xffff_ffff))));
    session.answer(&error).await;
    match client.recv.next().await {
        Some(Frame::Close(close)) => assert_eq!(close.code, Code::FRAME_TOO_LARGE),
        other => panic!("{other:?}"),
    }
    assert_eq!(client.closed().await.0, 4002);
}

#[tokio::test]
async fn a_control_stream_that_ends_within_a_frame_is_malformed() {
    let (_server, mut client, mut session) = default_pair().await;
    client.send.write_all(&[9, 6]).await.unwrap();
    client.send.finish().unwrap();
    assert!(matches!(session.end().await, LinkError::Decode(tern_protocol::DecodeError::Truncated)));
}

#[tokio::test]
async fn further_streams_of_a_client_are_refused_and_the_session_goes_on() {
    let (_server, mut client, mut session) = default_pair().await;
    let (mut bidi, mut answer) = client.connection.open_bi().await.unwrap();
    bidi.write_all(b"x").await.unwrap();
    let mut uni = client.connection.open_uni().await.unwrap();
    uni.write_all(b"x").await.unwrap();
    client.send(Ping { nonce: 1 }).await;
    assert_eq!(session.frame().await, Ping { nonce: 1 }.into());
    let reading = tokio::spawn(async move { while session.reader.recv().await.is_ok() {} });
    assert_eq!(within(bidi.stopped()).await.unwrap(), Some(4004u32.into()));
    assert_eq!(within(uni.stopped()).await.unwrap(), Some(4004u32.into()));
    match within(answer.read(&mut [0])).await {
        Err(quinn::ReadError::Reset(code)) => assert_eq!(code, 4004u32.into()),
        other => panic!("{other:?}"),
    }
    reading.abort();
}

#[tokio::test]
async fn a_flood_of_streams_ends_the_link() {
    let (_server, client, mut session) = default_pair().await;
    let flood = tokio::spawn(async move {
        while let Ok(mut stream) = client.connection.open_uni().await {
            let _ = stream.write_all(b"x").await;
        }
    });
    let error = session.end().await;
    assert!(matches!(error, LinkError::Violation { code: Code::UNEXPECTED_FRAME, .. }), "{error}");
    session.answer(&error).await;
    flood.abort();
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_closed_as_a_slow_consumer() {
    let server = Server::start(&TransportConfig { close_flush_ms: 10, ..TransportConfig::default() });
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(2048u32.into());
    let (client, session) = server.pair(transport, OutboxConfig::default()).await;
    let big = deliver(1, 1, 16_000);
    let pushed = (0..64).find(|_| session.outbox.push_control(&big) == Pushed::Closed);
    assert!(pushed.is_some(), "a session holds less than a mebibyte");
    assert_eq!(client.closed().await.0, 4302);
    within(session.driving).await.unwrap().unwrap();
}

#[tokio::test]
async fn only_tern_and_http3_are_spoken_here() {
    let server = Server::start(&TransportConfig::default());
    let endpoint = server.endpoint(b"h2", quinn::TransportConfig::default());
    let established = async { within(server.listener.accept()).await.unwrap().establish().await };
    let (established, dialled) = tokio::join!(established, server.dial(&endpoint));
    assert!(matches!(established, Err(EstablishError::Handshake(_))));
    assert!(dialled.is_err());
}

#[tokio::test]
async fn a_client_without_a_control_stream_is_let_go() {
    let server = Server::start(&TransportConfig { hello_timeout_ms: 1, ..TransportConfig::default() });
    let endpoint = server.endpoint(tern_protocol::ALPN, quinn::TransportConfig::default());
    let established = async { within(server.listener.accept()).await.unwrap().establish().await };
    let (established, dialled) = tokio::join!(established, server.dial(&endpoint));
    assert!(matches!(established, Err(EstablishError::NoControlStream)));
    assert!(matches!(
        within(dialled.unwrap().closed()).await,
        ConnectionError::ApplicationClosed(close) if close.error_code == 4005u32.into()
    ));
}

#[tokio::test]
async fn under_pressure_a_client_proves_its_address_first_and_still_gets_in() {
    let server = Server::start(&TransportConfig { quic_retry_above: 0, ..TransportConfig::default() });
    let (mut client, session) = server.pair(quinn::TransportConfig::default(), OutboxConfig::default()).await;
    let _ = session.outbox.push_control(&ping(1));
    assert_eq!(client.recv.next().await, Some(Ping { nonce: 1 }.into()));
    assert_eq!(server.listener.unproven.now(), 0);
    assert_eq!(server.listener.handshakes.now(), 0);
}

#[tokio::test]
async fn an_address_gets_no_more_connections_than_its_limit_until_one_is_gone() {
    let config =
        TransportConfig { loopback_exempt: false, address_connections_max: 1, ..TransportConfig::default() };
    let server = Server::start(&config);
    let (client, session) = server.pair(quinn::TransportConfig::default(), OutboxConfig::default()).await;
    let endpoint = server.endpoint(tern_protocol::ALPN, quinn::TransportConfig::default());
    let refused = {
        let accepting = server.listener.accept();
        tokio::pin!(accepting);
        tokio::select! {
            dialled = server.dial(&endpoint) => dialled,
            _ = &mut accepting => panic!("let in"),
        }
    };
    assert!(refused.is_err(), "refused after proving its address");
    client.connection.close(0u32.into(), b"");
    drop(session.reader);
    server.pair(quinn::TransportConfig::default(), OutboxConfig::default()).await;
}

#[tokio::test]
async fn a_closed_listener_tells_its_clients_and_accepts_no_more() {
    let (server, client, _session) = default_pair().await;
    server.listener.close(Code::SHUTDOWN, "going home");
    assert!(within(server.listener.accept()).await.is_none());
    assert_eq!(client.closed().await, (4202, "going home".into()));
    within(server.listener.wait_idle()).await;
}

#[tokio::test]
async fn a_client_that_is_turned_away_hears_of_it_at_once() {
    let server = Server::start(&TransportConfig::default());
    let endpoint = server.endpoint(tern_protocol::ALPN, quinn::TransportConfig::default());
    let refusing = async { within(server.listener.accept()).await.unwrap().refuse() };
    let ((), dialled) = tokio::join!(refusing, server.dial(&endpoint));
    assert!(matches!(dialled, Err(ConnectionError::ConnectionClosed(_))));
    assert_eq!(server.listener.handshakes.now(), 0);
}
