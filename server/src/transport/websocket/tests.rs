use futures_util::{FutureExt, SinkExt, StreamExt};
use tern_protocol::{Code, Decoder, Envelope, Frame, Incoming, Ping, Pong};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::super::Inbound;
use super::super::loopback::{ANY, DrivenLink, close, conversation, deliver, within};
use super::*;
use crate::roster::{OutboxConfig, Outgoing, Pushed};

/// Room for everything a test writes without reading.
const PIPE_BYTES: usize = 1024 * 1024;

type Client = WebSocketStream<DuplexStream>;

async fn session(format: Format, pipe_bytes: usize, config: &TransportConfig) -> (DuplexStream, DrivenLink) {
    let (near, far) = duplex(pipe_bytes);
    let link = from_upgraded(far, format, config, ANY).await;
    (near, DrivenLink::start(link, OutboxConfig::default()))
}

async fn pair_with(format: Format, pipe_bytes: usize) -> (Client, DrivenLink) {
    let (io, session) = session(format, pipe_bytes, &TransportConfig::default()).await;
    (WebSocketStream::from_raw_socket(io, Role::Client, None).await, session)
}

async fn pair(format: Format) -> (Client, DrivenLink) {
    pair_with(format, PIPE_BYTES).await
}

fn ping(nonce: u64) -> Outgoing {
    Outgoing::new(Ping { nonce })
}

fn binary(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        tern_protocol::encode_into(&mut bytes, &Envelope::from(frame.clone()));
    }
    bytes
}

fn unpack(message: Message) -> Vec<Frame> {
    let mut decoder = Decoder::default();
    decoder.extend(&message.into_data());
    let mut frames = Vec::new();
    while let Some(Incoming::Frame(envelope)) = decoder.next().unwrap() {
        frames.push(envelope.frame);
    }
    decoder.finish().unwrap();
    frames
}

async fn message(client: &mut Client) -> Message {
    within(client.next()).await.unwrap().unwrap()
}

fn close_frame(code: u16, reason: &str) -> CloseFrame {
    CloseFrame { code: code.into(), reason: reason.into() }
}

#[tokio::test]
async fn one_binary_message_carries_several_whole_frames_each_way() {
    let (mut client, mut session) = pair(Format::Binary).await;
    assert_eq!(session.info.label(), "websocket_binary");
    for nonce in 1..=3 {
        // The writer has not run yet: all three wait for it.
        let _ = session.outbox.push_control(&ping(nonce));
    }
    let frames: Vec<Frame> = (1..=3).map(|nonce| Ping { nonce }.into()).collect();
    assert_eq!(unpack(message(&mut client).await), frames);

    client.send(Message::binary(binary(&frames))).await.unwrap();
    for frame in frames {
        assert_eq!(session.frame().await, frame);
    }
}

#[tokio::test]
async fn a_write_takes_at_most_sixteen_frames() {
    let (mut client, session) = pair(Format::Binary).await;
    for nonce in 0..20 {
        let _ = session.outbox.push_control(&ping(nonce));
    }
    assert_eq!(unpack(message(&mut client).await).len(), 16);
    assert_eq!(unpack(message(&mut client).await).len(), 4);
}

#[tokio::test]
async fn json_is_one_text_for_each_frame_and_a_bare_send_gets_a_temp_id() {
    let (mut client, mut session) = pair(Format::Json).await;
    assert_eq!(session.info.label(), "websocket_json");
    for nonce in 1..=2 {
        let _ = session.outbox.push_control(&ping(nonce));
    }
    for nonce in 1..=2 {
        let text = message(&mut client).await.into_text().unwrap();
        let envelope = tern_protocol::from_json(&text, || panic!("no send")).unwrap();
        assert_eq!(envelope.frame, Ping { nonce }.into());
    }
    client.send(Message::text(r#"{"to":"bob","text":"hi"}"#)).await.unwrap();
    match session.frame().await {
        Frame::Send(send) => assert_eq!(send.text, "hi"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn bad_frames_are_reported_and_the_next_one_is_read() {
    let (mut client, mut session) = pair(Format::Json).await;
    for text in ["{", "[]", r#"{"type":"nothing"}"#, r#"{"type":"ping","nonce":-1}"#] {
        client.send(Message::text(text)).await.unwrap();
        assert!(!session.bad().await.is_empty());
    }
    client.send(Message::text(r#"{"type":"ping","nonce":1}"#)).await.unwrap();
    assert_eq!(session.frame().await, Ping { nonce: 1 }.into());

    let (mut client, mut session) = pair(Format::Binary).await;
    let mut bytes = vec![3, 6, 1, 0x80];
    bytes.extend(binary(&[Ping { nonce: 1 }.into()]));
    client.send(Message::binary(bytes)).await.unwrap();
    assert!(session.bad().await.contains("malformed ping"));
    assert_eq!(session.frame().await, Ping { nonce: 1 }.into());
}

#[tokio::test]
async fn a_server_close_comes_last_in_band_and_as_the_code_and_reason_of_the_socket() {
    for (code, number) in [(Code::DRAINING, 4200), (Code::NORMAL, 1000)] {
        for format in [Format::Binary, Format::Json] {
            let (mut client, session) = pair(format).await;
            let _ = session.outbox.push_control(&ping(1));
            session.outbox.close(close(code, "moving"));
            let first = message(&mut client).await;
            let last = message(&mut client).await;
            match format {
                Format::Binary => {
                    assert_eq!(unpack(first), [Ping { nonce: 1 }.into()]);
                    assert_eq!(unpack(last), [close(code, "moving").into()]);
                }
                Format::Json => {
                    let envelope = tern_protocol::from_json(last.to_text().unwrap(), || panic!("no send"));
                    assert_eq!(envelope.unwrap().frame, close(code, "moving").into());
                }
            }
            assert_eq!(message(&mut client).await, Message::Close(Some(close_frame(number, "moving"))));
            assert!(within(client.next()).await.is_none(), "the socket is closed in order");
            drop(client);
            within(session.driving).await.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn a_client_close_brings_its_code_and_reason_and_is_answered() {
    let cases = [
        (Some(close_frame(4103, "bye\n")), Some(Code::SESSION_REPLACED), "bye"),
        (Some(close_frame(1000, "")), Some(Code::NORMAL), ""),
        (Some(close_frame(1001, "")), Some(Code::NORMAL), ""),
        (None, None, ""),
    ];
    for (frame, expected, text) in cases {
        let (mut client, mut session) = pair(Format::Binary).await;
        client.send(Message::binary(binary(&[Ping { nonce: 1 }.into()]))).await.unwrap();
        client.close(frame.clone()).await.unwrap();
        assert_eq!(session.frame().await, Ping { nonce: 1 }.into(), "sent before the close");
        match session.end().await {
            LinkError::Closed { code, reason } => assert_eq!((code, reason.as_str()), (expected, text)),
            other => panic!("{other}"),
        }
        assert_eq!(message(&mut client).await, Message::Close(frame));
    }
}

#[tokio::test]
async fn a_client_that_vanishes_is_a_reset() {
    let (client, mut session) = pair(Format::Binary).await;
    drop(client);
    assert!(matches!(session.end().await, LinkError::Reset));
    assert_eq!(LinkError::Reset.reply(), None);
}

#[tokio::test]
async fn a_slow_reader_is_told_what_it_missed_and_the_queue_never_grows() {
    let (mut client, session) = pair_with(Format::Binary, 4096).await;
    let mut head = 0;
    for seq in 1..=100 {
        if session.outbox.push_entry(conversation(1), seq, &deliver(1, seq, 8_000)) == Pushed::Lagged {
            head = seq;
        }
        tokio::task::yield_now().await;
        assert!(session.outbox.unsent_bytes() <= 256 * 1024);
    }
    assert!(head > 0, "100 entries of 8 kB are more than a session holds");
    let last = deliver(2, 1, 10);
    let _ = session.outbox.push_entry(conversation(2), 1, &last);
    let (mut applied, mut told) = (0, 0);
    loop {
        for frame in unpack(message(&mut client).await) {
            match frame {
                Frame::Deliver(deliver) if deliver.conversation == conversation(1) => {
                    let seq = deliver.entries[0].seq;
                    assert!(seq > applied, "{seq} after {applied}");
                    applied = seq;
                }
                Frame::Lagged(lagged) => told = lagged.head,
                frame => {
                    assert_eq!(frame, last.envelope().unwrap().frame);
                    assert_eq!(applied.max(told), 100, "the newest entry came or was named");
                    return;
                }
            }
        }
    }
}

#[tokio::test]
async fn replies_overtake_entries_that_wait_for_the_socket() {
    let (mut client, session) = pair_with(Format::Binary, 1024).await;
    for seq in 1..=8 {
        let _ = session.outbox.push_entry(conversation(1), seq, &deliver(1, seq, 16_000));
    }
    tokio::task::yield_now().await;
    let _ = session.outbox.push_control(&ping(1));
    assert!(matches!(&unpack(message(&mut client).await)[..], [Frame::Deliver(_)]), "was under way already");
    let next = unpack(message(&mut client).await);
    assert_eq!(next[0], Ping { nonce: 1 }.into());
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_closed_as_a_slow_consumer_in_bounded_time() {
    let config = TransportConfig { close_flush_ms: 10, ..TransportConfig::default() };
    let (_client, session) = session(Format::Binary, 1024, &config).await;
    let big = deliver(1, 1, 16_000);
    assert!((0..64).any(|_| { session.outbox.push_control(&big) == Pushed::Closed }));
    assert_eq!(session.outbox.closing().unwrap().code, Code::SLOW_CONSUMER);
    within(session.driving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_read_can_be_cancelled_at_any_byte() {
    let (mut io, mut session) = session(Format::Binary, PIPE_BYTES, &TransportConfig::default()).await;
    let payload = binary(&[Ping { nonce: 300 }.into(), Pong { nonce: 70_000 }.into()]);
    let mut got = Vec::new();
    for byte in raw(0x82, &payload) {
        io.write_all(&[byte]).await.unwrap();
        while let Some(inbound) = session.reader.recv().now_or_never() {
            match inbound.unwrap() {
                Inbound::Frame(envelope) => got.push(envelope.frame),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(got, [Ping { nonce: 300 }.into(), Pong { nonce: 70_000 }.into()]);
}

/// A frame as a client sends it, with a mask of zeros. `first` is the first byte: FIN, RSV, opcode.
fn raw(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..126 => bytes.push(0x80 | len as u8),
        len @ 126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// Sends raw bytes to a session and tells how it ended: the code in the Close frame and the code
/// of the WebSocket close frame, as the client sees them.
async fn ends_with(format: Format, mut bytes: Vec<u8>) -> (u16, u16) {
    // The client's own close frame, which the server waits for where it can still read it.
    bytes.extend(raw(0x88, &1000u16.to_be_bytes()));
    let (io, mut session) = session(format, PIPE_BYTES, &TransportConfig::default()).await;
    let (mut read, mut write) = tokio::io::split(io);
    let writing = tokio::spawn(async move {
        // The server may stop reading before the end.
        let _ = write.write_all(&bytes).await;
        write
    });
    let error = loop {
        match within(session.reader.recv()).await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    let told = tokio::spawn(async move {
        let mut bytes = Vec::new();
        within(read.read_to_end(&mut bytes)).await.unwrap();
        bytes
    });
    let answering = tokio::spawn(async move { session.answer(&error).await });
    let told = told.await.unwrap();
    drop(writing.await.unwrap());
    within(answering).await.unwrap();
    codes(&told)
}

/// Reads what a server wrote: pongs, the message with the Close frame, the close frame.
fn codes(mut bytes: &[u8]) -> (u16, u16) {
    let mut in_band = None;
    loop {
        let (opcode, len) = (bytes[0] & 0x0f, usize::from(bytes[1]));
        assert!(len < 126, "answers are short");
        let (payload, rest) = bytes[2..].split_at(len);
        match opcode {
            1 => {
                let text = std::str::from_utf8(payload).unwrap();
                match tern_protocol::from_json(text, || panic!("no send")).unwrap().frame {
                    Frame::Close(close) => in_band = Some(close.code.0),
                    other => panic!("{other:?}"),
                }
            }
            2 => match unpack(Message::binary(payload.to_vec())).pop() {
                Some(Frame::Close(close)) => in_band = Some(close.code.0),
                other => panic!("{other:?}"),
            },
            8 => {
                assert!(rest.is_empty(), "nothing follows the close frame");
                return (in_band.unwrap(), u16::from_be_bytes([payload[0], payload[1]]));
            }
            10 => {}
            other => panic!("opcode {other}"),
        }
        bytes = rest;
    }
}

#[tokio::test]
async fn the_wrong_kind_of_message_is_closed_with_1003() {
    assert_eq!(ends_with(Format::Binary, raw(0x81, b"{}")).await, (4000, 1003));
    assert_eq!(ends_with(Format::Json, raw(0x82, &[2, 6, 1])).await, (4000, 1003));
}

#[tokio::test]
async fn text_that_is_not_utf8_is_closed_with_1007() {
    assert_eq!(ends_with(Format::Json, raw(0x81, &[b'"', 0xff, b'"'])).await, (4000, 1007));
}

#[tokio::test]
async fn a_message_too_large_is_refused_before_its_bytes_are_there() {
    // 2^63 - 1 bytes are declared; nothing follows.
    let mut declared = vec![0x82, 0xff];
    declared.extend((i64::MAX as u64).to_be_bytes());
    declared.extend([0; 4]);
    assert_eq!(ends_with(Format::Binary, declared).await, (4002, 4002));
    let over = vec![0; FRAME_BYTES_MAX + 6];
    assert_eq!(ends_with(Format::Binary, raw(0x82, &over)).await, (4002, 4002));
    let mut fragments = raw(0x02, &over[..FRAME_BYTES_MAX]);
    fragments.extend(raw(0x80, &[0; 6]));
    assert_eq!(ends_with(Format::Binary, fragments).await, (4002, 4002));
}

#[tokio::test]
async fn a_frame_declared_larger_than_allowed_within_a_message_is_refused() {
    assert_eq!(ends_with(Format::Binary, raw(0x82, &[0xff, 0xff, 0xff, 0x7f])).await, (4002, 4002));
}

#[tokio::test]
async fn a_frame_does_not_go_on_in_the_next_message() {
    assert_eq!(ends_with(Format::Binary, raw(0x82, &[9, 6, 1])).await, (4000, 4000));
}

#[tokio::test]
async fn messages_of_exactly_the_limit_are_read_however_many_there_are() {
    let (mut client, mut session) = pair(Format::Binary).await;
    let one = binary(&[Ping { nonce: 0 }.into()]);
    // Each of these is a whole frame; together they are 64 KiB.
    let frames = FRAME_BYTES_MAX / one.len();
    let message = one.repeat(frames);
    assert_eq!(message.len(), FRAME_BYTES_MAX);
    for _ in 0..2 * MESSAGE_WIRE_BYTES_MAX / FRAME_BYTES_MAX {
        client.send(Message::binary(message.clone())).await.unwrap();
        for _ in 0..frames {
            assert_eq!(session.frame().await, Ping { nonce: 0 }.into());
        }
    }
}

#[tokio::test]
async fn what_is_not_the_websocket_protocol_is_closed_with_1002() {
    let unmasked = vec![0x82, 0x01, 0x00];
    let cases = [
        ("unmasked", unmasked),
        ("RSV1", raw(0xc2, &[])),
        ("reserved opcode", raw(0x83, &[])),
        ("control frame of 126 bytes", raw(0x89, &[0; 126])),
        ("fragmented control frame", raw(0x09, &[])),
        ("continuation of nothing", raw(0x80, &[])),
    ];
    for (name, bytes) in cases {
        assert_eq!(ends_with(Format::Binary, bytes).await, (4000, 1002), "{name}");
    }
}

#[tokio::test]
async fn pings_are_answered_and_a_flood_of_them_is_closed_with_1008() {
    let (mut client, mut session) = pair(Format::Binary).await;
    let reading = tokio::spawn(async move { while let Ok(Inbound::Alive) = session.reader.recv().await {} });
    for number in 0..5u8 {
        client.send(Message::Ping(vec![number].into())).await.unwrap();
        assert_eq!(message(&mut client).await, Message::Pong(vec![number].into()));
    }
    reading.abort();
    assert_eq!(ends_with(Format::Binary, raw(0x89, b"?").repeat(200)).await, (4014, 1008));
}

#[tokio::test]
async fn a_message_of_endless_empty_fragments_is_closed_with_1008() {
    let mut bytes = raw(0x02, &[]);
    bytes.extend(raw(0x00, &[]).repeat(MESSAGE_WIRE_BYTES_MAX / 6 + 2000));
    assert_eq!(ends_with(Format::Binary, bytes).await, (4014, 1008));
}

#[tokio::test]
async fn pings_over_hours_do_not_count_as_one_long_message() {
    let (mut client, mut session) = pair(Format::Binary).await;
    let LinkReader::WebSocket(reader) = &mut session.reader else { panic!("not a WebSocket") };
    reader.allow_pings();
    let pings = MESSAGE_WIRE_BYTES_MAX / 100;
    let flood = tokio::spawn(async move {
        for _ in 0..pings {
            client.send(Message::Ping(vec![0; 100].into())).await.unwrap();
            let _ = message(&mut client).await;
        }
        client.send(Message::binary(binary(&[Ping { nonce: 1 }.into()]))).await.unwrap();
        client
    });
    assert_eq!(session.frame().await, Ping { nonce: 1 }.into());
    flood.await.unwrap();
}

#[tokio::test]
async fn a_real_upgrade_over_tls_ends_in_a_link() {
    use super::super::address::AddressGate;
    use super::super::loopback::Tls;
    use super::super::tcp::{Places, TcpListener};
    use crate::budget::Budget;
    use crate::descriptors::Descriptors;
    use crate::ops::metrics::Metrics;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;

    let (tls, config) = (Tls::new(), Arc::new(TransportConfig::default()));
    let gate = AddressGate::new(&config, &Budget::new(usize::MAX));
    let places = Places::new(&config, Descriptors::now(), Metrics::none());
    let listener = TcpListener::bind(ANY, Some(tls.tcp.clone()), gate, places, &config).unwrap();
    let address = listener.local_addr().unwrap();
    let (links, mut linked) = tokio::sync::mpsc::channel(1);
    let serving = tokio::spawn(async move {
        let connection = listener.accept().await.establish().await.unwrap();
        assert!(connection.is_tls());
        let remote = connection.remote();
        let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            let (config, links) = (config.clone(), links.clone());
            async move {
                let negotiated = negotiate(request.uri(), request.headers(), &config).unwrap();
                let headers = negotiated.response_headers();
                tokio::spawn(async move {
                    let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
                    let link = from_upgraded(TokioIo::new(upgraded), negotiated.format, &config, remote);
                    links.send(link.await).await.unwrap();
                });
                let mut response = hyper::Response::new(String::new());
                *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
                *response.headers_mut() = headers;
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let http = hyper::server::conn::http1::Builder::new();
        http.serve_connection(TokioIo::new(connection), service).with_upgrades().await.unwrap();
    });

    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls.client(&[b"http/1.1"])));
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let io = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
    let mut request = format!("wss://localhost:{}/v1/connect", address.port()).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "tern.v1".parse().unwrap());
    let (mut client, response) = within(tokio_tungstenite::client_async(request, io)).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "tern.v1");

    let mut session = DrivenLink::start(within(linked.recv()).await.unwrap(), OutboxConfig::default());
    client.send(Message::binary(binary(&[Ping { nonce: 1 }.into()]))).await.unwrap();
    assert_eq!(session.frame().await, Ping { nonce: 1 }.into());
    let _ = session.outbox.push_control(&ping(2));
    session.outbox.close(close(Code::SHUTDOWN, "night"));
    let first = within(client.next()).await.unwrap().unwrap();
    assert_eq!(unpack(first), [Ping { nonce: 2 }.into()]);
    let last = within(client.next()).await.unwrap().unwrap();
    assert_eq!(unpack(last), [close(Code::SHUTDOWN, "night").into()]);
    let end = within(client.next()).await.unwrap().unwrap();
    assert_eq!(end, Message::Close(Some(close_frame(4202, "night"))));
    within(serving).await.unwrap();
}
