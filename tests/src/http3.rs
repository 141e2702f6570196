//! HTTP/3 and WebTransport by hand over raw QUIC, so that everything can be sent that should not be.

use bytes::Bytes;
use quinn::{Connection, ConnectionError, Endpoint, ReadError, RecvStream, SendStream, VarInt};
use tern_protocol::{Decoder, Envelope, Frame, Incoming, encode};

use crate::caught::Caught;
use crate::hang::within;
use crate::quic::dial;
use crate::server::Server;

/// DATA.
pub const DATA: u64 = 0x00;
/// HEADERS.
pub const HEADERS: u64 = 0x01;
/// SETTINGS.
pub const SETTINGS: u64 = 0x04;
/// Start of a bidirectional stream of a session.
pub const SESSION_BIDI: u64 = 0x41;
/// Type of a unidirectional stream of a session.
pub const SESSION_UNI: u64 = 0x54;
/// The capsule that closes a session.
pub const CLOSE_CAPSULE: u64 = 0x2843;

/// `H3_EXCESSIVE_LOAD`.
pub const EXCESSIVE_LOAD: u64 = 0x107;
/// `H3_ID_ERROR`.
pub const ID_ERROR: u64 = 0x108;
/// `H3_NO_ERROR`.
pub const NO_ERROR: u64 = 0x100;

/// A QUIC varint in as few bytes as it needs.
pub fn varint(value: u64) -> Vec<u8> {
    match value {
        0..0x40 => vec![value as u8],
        0x40..0x4000 => (value as u16 | 0x4000).to_be_bytes().into(),
        0x4000..0x4000_0000 => (value as u32 | 0x8000_0000).to_be_bytes().into(),
        _ => (value | 0xc000_0000_0000_0000).to_be_bytes().into(),
    }
}

/// Type and length of a frame or capsule.
pub fn head(kind: u64, length: u64) -> Vec<u8> {
    [varint(kind), varint(length)].concat()
}

/// A frame or capsule.
pub fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    [head(kind, payload.len() as u64), payload.to_vec()].concat()
}

/// A header section by QPACK (RFC 9204): literals only.
pub fn section(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0, 0];
    for (name, value) in fields {
        prefixed(0x20, 3, name.len(), &mut block);
        block.extend_from_slice(name.as_bytes());
        prefixed(0x00, 7, value.len(), &mut block);
        block.extend_from_slice(value.as_bytes());
    }
    block
}

fn prefixed(mark: u8, bits: u32, value: usize, out: &mut Vec<u8>) {
    let most = (1usize << bits) - 1;
    if value < most {
        out.push(mark | value as u8);
        return;
    }
    out.push(mark | most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// The fields of a request for a session.
pub const CONNECT: [(&str, &str); 6] = [
    (":method", "CONNECT"),
    (":protocol", "webtransport"),
    (":scheme", "https"),
    (":authority", "127.0.0.1"),
    (":path", "/v1/connect"),
    ("sec-webtransport-http3-draft02", "1"),
];

/// The fields of a GET.
pub fn get(path: &str) -> [(&str, &str); 4] {
    [(":method", "GET"), (":scheme", "https"), (":authority", "127.0.0.1"), (":path", path)]
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http3Answer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
}

/// A connection that speaks HTTP/3.
pub struct Http3 {
    /// The connection.
    pub connection: Connection,
    /// The control stream, once it is open.
    pub control: Option<SendStream>,
    _endpoint: Endpoint,
}

impl Http3 {
    /// Connects and sends SETTINGS as a browser does.
    pub async fn connect(server: &Server) -> Self {
        let mut client = Self::dial(server).await;
        client.settings().await;
        client
    }

    /// Connects and says nothing.
    pub async fn dial(server: &Server) -> Self {
        let (endpoint, connection) = dial(server, b"h3").await;
        Self { connection: connection.expect("a connection"), control: None, _endpoint: endpoint }
    }

    /// Opens the control stream with the settings of a browser.
    pub async fn settings(&mut self) {
        let settings = [head(0x2b60_3742, 1), head(0x33, 1), head(0x08, 1)].concat();
        let bytes = [varint(0), frame(SETTINGS, &settings)].concat();
        let mut control = self.connection.open_uni().await.expect("a stream");
        control.write_all(&bytes).await.expect("an open stream");
        self.control = Some(control);
    }

    /// Opens a bidirectional stream with these bytes.
    pub async fn open(&self, bytes: &[u8]) -> (SendStream, RecvStream) {
        let opened = within("a stream", self.connection.open_bi()).await;
        let (mut send, recv) = opened.expect("a connection");
        send.write_all(bytes).await.expect("an open stream");
        (send, recv)
    }

    /// Opens a unidirectional stream with these bytes.
    pub async fn open_uni(&self, bytes: &[u8]) -> SendStream {
        let mut send = within("a stream", self.connection.open_uni()).await.expect("a connection");
        send.write_all(bytes).await.expect("an open stream");
        send
    }

    /// A request without a body.
    pub async fn request(&self, fields: &[(&str, &str)]) -> Http3Answer {
        let (mut send, recv) = self.open(&frame(HEADERS, &section(fields))).await;
        let _ = send.finish();
        within("an answer", answer(recv)).await.expect("an answer")
    }

    /// Opens a session.
    pub async fn session(&self) -> ConnectStream {
        self.session_with(&CONNECT).await.expect("a session")
    }

    /// Opens a session with these fields, or says what was answered.
    pub async fn session_with(&self, fields: &[(&str, &str)]) -> Result<ConnectStream, Http3Answer> {
        let (send, mut recv) = self.open(&frame(HEADERS, &section(fields))).await;
        let status = within("an answer", status(&mut recv)).await.expect("an answer");
        if status != 200 {
            let body = within("a body", body(&mut recv)).await.expect("a body");
            return Err(Http3Answer { status, body });
        }
        Ok(ConnectStream { connection: self.connection.clone(), id: send.id().into(), send, recv })
    }

    /// Code and reason with which the server closed the connection.
    pub async fn closed(&self) -> Caught {
        match within("the end of the connection", self.connection.closed()).await {
            ConnectionError::ApplicationClosed(close) => Caught {
                code: Some(close.error_code.into_inner()),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            other => Caught { code: None, reason: other.to_string() },
        }
    }
}

/// A session, by its CONNECT stream.
pub struct ConnectStream {
    connection: Connection,
    /// Its id.
    pub id: u64,
    /// To the server.
    pub send: SendStream,
    /// From the server.
    pub recv: RecvStream,
}

impl ConnectStream {
    /// Opens a bidirectional stream of the session.
    pub async fn open(&self) -> Control {
        let (mut send, recv) = within("a stream", self.connection.open_bi()).await.expect("a connection");
        send.write_all(&head(SESSION_BIDI, self.id)).await.expect("an open stream");
        Control { send: Some(send), recv, decoder: Decoder::default() }
    }

    /// What a datagram of the session begins with.
    pub fn datagram(&self, payload: &[u8]) -> Bytes {
        [varint(self.id / 4), payload.to_vec()].concat().into()
    }

    /// Sends a capsule.
    pub async fn capsule(&mut self, kind: u64, payload: &[u8]) {
        let capsule = frame(kind, payload);
        self.send.write_all(&frame(DATA, &capsule)).await.expect("an open stream");
    }

    /// Closes the session as browsers do.
    pub async fn close(&mut self, code: u32, reason: &str) {
        let payload = [&code.to_be_bytes()[..], reason.as_bytes()].concat();
        self.capsule(CLOSE_CAPSULE, &payload).await;
        let _ = self.send.finish();
    }

    /// Code and reason with which the server ends the session; no code if it only ends the stream.
    pub async fn closed(&mut self) -> Caught {
        let bytes = within("the end of the session", body(&mut self.recv)).await;
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => return Caught { code: None, reason: error.to_string() },
        };
        let prefix = varint(CLOSE_CAPSULE);
        let Some(rest) = bytes.strip_prefix(&prefix[..]) else { return Caught::default() };
        let (length, used) = read_varint(rest).expect("a whole capsule");
        let payload = &rest[used..];
        assert_eq!(payload.len() as u64, length, "the capsule is the last thing");
        Caught {
            code: Some(u32::from_be_bytes(payload[..4].try_into().expect("four bytes")).into()),
            reason: String::from_utf8(payload[4..].to_vec()).expect("text"),
        }
    }
}

/// A stream of a session, read by frames.
pub struct Control {
    /// To the server; absent for a unidirectional one of the server.
    pub send: Option<SendStream>,
    /// From the server.
    pub recv: RecvStream,
    decoder: Decoder,
}

impl Control {
    /// Reads frames from a stream of the server, behind its header.
    pub fn reading(recv: RecvStream) -> Self {
        Self { send: None, recv, decoder: Decoder::default() }
    }

    /// Sends a frame.
    pub async fn send(&mut self, frame: impl Into<Envelope>) {
        let send = self.send.as_mut().expect("a bidirectional stream");
        send.write_all(&encode(&frame.into())).await.expect("an open stream");
    }

    /// The next frame, `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            match self.decoder.next().expect("the server sends good frames") {
                Some(Incoming::Frame(envelope)) => return Some(envelope.frame),
                Some(Incoming::Skipped(number)) => panic!("frame {number} of another version"),
                None => {}
            }
            let chunk = within("a frame", self.recv.read_chunk(64 * 1024, true)).await;
            match chunk {
                Ok(Some(chunk)) => self.decoder.extend(&chunk.bytes),
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

async fn answer(mut recv: RecvStream) -> Result<Http3Answer, ReadError> {
    let status = status(&mut recv).await?;
    Ok(Http3Answer { status, body: body(&mut recv).await? })
}

/// Reads the header of an answer.
pub async fn status(recv: &mut RecvStream) -> Result<u16, ReadError> {
    let (kind, payload) = next_frame(recv).await?.expect("a header");
    assert_eq!(kind, HEADERS);
    Ok(status_of(&payload))
}

/// Reads DATA frames up to the end of the stream.
async fn body(recv: &mut RecvStream) -> Result<Vec<u8>, ReadError> {
    let mut body = Vec::new();
    while let Some((kind, payload)) = next_frame(recv).await? {
        assert_eq!(kind, DATA);
        body.extend(payload);
    }
    Ok(body)
}

async fn next_frame(recv: &mut RecvStream) -> Result<Option<(u64, Vec<u8>)>, ReadError> {
    let Some(kind) = next_varint(recv).await? else { return Ok(None) };
    let length = next_varint(recv).await?.expect("a length");
    let mut payload = vec![0; length as usize];
    exact(recv, &mut payload).await?;
    Ok(Some((kind, payload)))
}

/// Reads a varint, `None` at the end of the stream.
pub async fn next_varint(recv: &mut RecvStream) -> Result<Option<u64>, ReadError> {
    let mut bytes = [0; 8];
    if recv.read(&mut bytes[..1]).await?.is_none() {
        return Ok(None);
    }
    let length = 1 << (bytes[0] >> 6);
    exact(recv, &mut bytes[1..length]).await?;
    Ok(read_varint(&bytes).map(|(value, _)| value))
}

async fn exact(recv: &mut RecvStream, bytes: &mut [u8]) -> Result<(), ReadError> {
    match recv.read_exact(bytes).await {
        Ok(()) => Ok(()),
        Err(quinn::ReadExactError::ReadError(error)) => Err(error),
        Err(quinn::ReadExactError::FinishedEarly(_)) => panic!("the stream ends within a frame"),
    }
}

/// The varint at the start of bytes, and its length.
pub fn read_varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let length = 1 << (bytes.first()? >> 6);
    let (first, rest) = bytes.get(..length)?.split_first()?;
    Some((rest.iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte)), length))
}

/// The status comes first: an entry of the static table, or its name with digits in Huffman's code.
fn status_of(block: &[u8]) -> u16 {
    let field = &block[2..];
    let statuses = [
        (24, 103),
        (25, 200),
        (26, 304),
        (27, 404),
        (28, 503),
        (63, 100),
        (64, 204),
        (65, 206),
        (66, 302),
        (67, 400),
        (68, 403),
        (69, 421),
        (70, 425),
        (71, 500),
    ];
    // Indexed and static: 0b11 and six bits of index, with a second byte from 63 on.
    if field[0] & 0xc0 == 0xc0 {
        let index = if field[0] == 0xff { 63 + u16::from(field[1]) } else { u16::from(field[0] & 0x3f) };
        let found = statuses.iter().find(|(known, _)| *known == index);
        return found.unwrap_or_else(|| panic!("entry {index} is no status")).1;
    }
    // Literal with a static name: 0b01, never-indexed bit, static bit, four bits of index.
    assert_eq!(field[0] & 0xd0, 0x50, "a status: {field:02x?}");
    let value = if field[0] & 0x0f == 0x0f { &field[2..] } else { &field[1..] };
    let length = usize::from(value[0] & 0x7f);
    let text = &value[1..=length];
    if value[0] & 0x80 == 0 {
        return str::from_utf8(text).expect("digits").parse().expect("a number");
    }
    let bits: Vec<u8> = text.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let (mut number, mut at) = (0, 0);
    for _ in 0..3 {
        let take = |from: usize, count| bits[from..from + count].iter().fold(0, |sum, bit| sum << 1 | bit);
        // 0, 1 and 2 have five bits, the other digits six from 0b011001 on.
        let (digit, used) = match take(at, 5) {
            short @ 0..3 => (short, 5),
            _ => (take(at, 6) - 0b01_1001 + 3, 6),
        };
        number = number * 10 + u16::from(digit);
        at += used;
    }
    number
}

/// A code of the application as an HTTP/3 error code.
pub fn stream_code(code: u32) -> VarInt {
    let code = u64::from(code);
    VarInt::from_u64(0x52e4_a40f_a8db + code + code / 0x1e).expect("a code")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read_in_all_their_forms() {
        assert_eq!(status_of(&[0, 0, 0xd9]), 200);
        assert_eq!(status_of(&[0, 0, 0xff, 0x05]), 403);
        assert_eq!(status_of(&[0, 0, 0x5f, 0x09, 0x03, b'4', b'2', b'9']), 429);
        // "429" in Huffman's code: 011010 00010 011111 and padding.
        assert_eq!(status_of(&[0, 0, 0x5f, 0x09, 0x83, 0b0110_1000, 0b0100_1111, 0b1111_1111]), 429);
    }
}
