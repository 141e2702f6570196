//! One client over any wire, with what tests say most often.

use std::collections::{BTreeMap, VecDeque};

use tern_protocol::{
    Ack, Close, ConversationId, ConversationSummary, CreateGroup, Deliver, DeviceId, Entry, EntryBody,
    Envelope, Erased, Error, Fetch, Frame, Gap, Hello, Page, Ping, Position, Send, SendAck, Sync, Target,
    TempId, Token, UserId, Welcome,
};
use uuid::Uuid;

use crate::caught::Caught;
use crate::hang::within;
use crate::quic::QuicLink;
use crate::server::Server;
use crate::websocket::{Subprotocol, WebSocketLink};

/// A way to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Native QUIC.
    Quic,
    /// WebTransport over HTTP/3, by an implementation that is not ours.
    WebTransport,
    /// WebSocket over TLS with binary frames.
    WebSocketBinary,
    /// WebSocket without TLS with JSON.
    WebSocketJson,
}

impl Wire {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Quic, Self::WebTransport, Self::WebSocketBinary, Self::WebSocketJson];

    /// As tests are called by it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::WebTransport => "webtransport",
            Self::WebSocketBinary => "websocket_binary",
            Self::WebSocketJson => "websocket_json",
        }
    }

    /// The value of the `transport` label of the server's metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::WebTransport => "webtransport",
            Self::WebSocketBinary | Self::WebSocketJson => "websocket",
        }
    }

    /// The number that this wire's own close carries for a code of the protocol.
    pub fn close_code(self, code: tern_protocol::Code) -> u64 {
        match (self, code.0) {
            (Self::WebSocketBinary | Self::WebSocketJson, 0) => 1000,
            (_, number) => number.into(),
        }
    }
}

/// The end of a session, seen by its client.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The last frame, if it was a Close.
    pub close: Option<Close>,
    /// What the transport said.
    pub transport: Caught,
    /// The frames before the Close that nobody had asked for.
    pub frames: Vec<Frame>,
}

enum Link {
    /// Native, or below WebTransport.
    Quic(Box<QuicLink>),
    WebSocket(Box<WebSocketLink>),
}

/// What a sync brought.
#[derive(Clone, Debug, Default)]
pub struct Synced {
    /// The summaries, in their order.
    pub summaries: Vec<ConversationSummary>,
    /// The entries of each conversation, in the order in which they came.
    pub entries: BTreeMap<ConversationId, Vec<Entry>>,
    /// The gaps, in their order.
    pub gaps: Vec<Gap>,
    /// What was said to be erased, in its order.
    pub erased: Vec<Erased>,
    /// What was refused.
    pub errors: Vec<Error>,
    /// `changed` of SyncEnd.
    pub changed: u32,
}

/// A client that does what it is told.
pub struct RawClient {
    link: Link,
    /// Frames that came while something else was waited for.
    queue: VecDeque<Envelope>,
    requests: u64,
    welcome: Option<Welcome>,
}

/// A fresh `temp_id`.
pub fn fresh() -> TempId {
    TempId::from_uuid(Uuid::new_v4())
}

/// A user id.
pub fn user(name: &str) -> UserId {
    UserId::new(name).expect("a user id")
}

/// The 1-on-1 conversation of two users.
pub fn pair(a: &str, b: &str) -> ConversationId {
    ConversationId::pair(&user(a), &user(b))
}

/// A message with a fresh `temp_id`.
pub fn message(to: impl Into<Target>, text: &str) -> Send {
    Send { to: to.into(), text: text.into(), temp_id: fresh(), age_ms: None, data: None, reply_to: None }
}

/// A message to a user.
pub fn to(name: &str, text: &str) -> Send {
    message(Target::User(user(name)), text)
}

/// The text of an entry that is a message.
pub fn text(entry: &Entry) -> &str {
    match &entry.body {
        EntryBody::Message { text, .. } => text,
        other => panic!("not a message: {other:?}"),
    }
}

/// The seqs of entries.
pub fn seqs(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.seq).collect()
}

impl RawClient {
    /// Connects and says nothing.
    pub async fn connect(server: &Server, wire: Wire) -> Self {
        let link = match wire {
            Wire::Quic => Link::Quic(Box::new(QuicLink::connect(server).await)),
            Wire::WebTransport => Link::Quic(Box::new(QuicLink::connect_webtransport(server).await)),
            Wire::WebSocketBinary => {
                Link::WebSocket(Box::new(WebSocketLink::connect(server, Subprotocol::Binary).await))
            }
            Wire::WebSocketJson => {
                Link::WebSocket(Box::new(WebSocketLink::connect(server, Subprotocol::Json).await))
            }
        };
        Self { link, queue: VecDeque::new(), requests: 0, welcome: None }
    }

    /// A client over an open WebSocket.
    pub fn over(link: WebSocketLink) -> Self {
        Self { link: Link::WebSocket(Box::new(link)), queue: VecDeque::new(), requests: 0, welcome: None }
    }

    /// Connects as a user on a fresh device.
    pub async fn open(server: &Server, wire: Wire, name: &str) -> Self {
        Self::open_device(server, wire, name, &Uuid::new_v4().to_string()).await
    }

    /// Connects as a user on this device.
    pub async fn open_device(server: &Server, wire: Wire, name: &str, device: &str) -> Self {
        let mut client = Self::connect(server, wire).await;
        client.hello(&server.token(name), device).await;
        client
    }

    /// Says hello and waits for Welcome.
    pub async fn hello(&mut self, token: &str, device: &str) -> &Welcome {
        match self.greet(token, device).await {
            Frame::Welcome(welcome) => self.welcome.insert(welcome),
            other => panic!("not welcome: {other:?}"),
        }
    }

    /// Says hello and takes the answer.
    pub async fn greet(&mut self, token: &str, device: &str) -> Frame {
        let device = Some(DeviceId::new(device).expect("a device id"));
        let token = Token(token.into());
        self.send(Hello { token, device, agent: Some("tern-tests".into()), features: 0 }).await;
        if matches!(self.link, Link::WebSocket(_)) {
            return self.recv().await;
        }
        // An entry on a stream of its own can overtake it.
        self.find("the answer to hello", |envelope| {
            (!matches!(envelope.frame, Frame::Deliver(_))).then(|| envelope.frame.clone())
        })
        .await
    }

    /// What the server said at the start.
    pub fn welcome(&self) -> &Welcome {
        self.welcome.as_ref().expect("hello was said")
    }

    /// The link below, on QUIC and WebTransport.
    pub fn quic(&mut self) -> &mut QuicLink {
        match &mut self.link {
            Link::Quic(link) => link,
            Link::WebSocket(_) => panic!("not QUIC"),
        }
    }

    /// The WebSocket below.
    pub fn websocket(&mut self) -> &mut WebSocketLink {
        match &mut self.link {
            Link::WebSocket(link) => link,
            Link::Quic(_) => panic!("not a WebSocket"),
        }
    }

    /// Sends a frame.
    pub async fn send(&mut self, frame: impl Into<Envelope>) {
        let envelope = frame.into();
        match &mut self.link {
            Link::Quic(link) => link.send(&envelope).await,
            Link::WebSocket(link) => link.send(&envelope).await,
        }
    }

    /// Sends bytes that need not be a frame.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        match &mut self.link {
            Link::Quic(link) => link.send_bytes(bytes).await,
            Link::WebSocket(link) => link.send_bytes(bytes).await,
        }
    }

    async fn read(&mut self) -> Option<Envelope> {
        match &mut self.link {
            Link::Quic(link) => link.next().await.map(|arrival| arrival.envelope),
            Link::WebSocket(link) => link.next().await,
        }
    }

    /// The next frame with its request id, `None` at the end.
    pub async fn next(&mut self) -> Option<Envelope> {
        match self.queue.pop_front() {
            Some(envelope) => Some(envelope),
            None => within("a frame", self.read()).await,
        }
    }

    /// The next frame.
    ///
    /// # Panics
    /// At the end of the session.
    pub async fn recv(&mut self) -> Frame {
        self.next().await.expect("the session has ended").frame
    }

    /// The first frame that `pick` takes; others stay for later.
    pub async fn find<T>(&mut self, what: &str, mut pick: impl FnMut(&Envelope) -> Option<T>) -> T {
        let mut looked_at = 0;
        loop {
            while let Some(envelope) = self.queue.get(looked_at) {
                if let Some(found) = pick(envelope) {
                    self.queue.remove(looked_at);
                    return found;
                }
                looked_at += 1;
            }
            match within(what, self.read()).await {
                Some(envelope) => self.queue.push_back(envelope),
                None => panic!("the session ended before {what}; unread: {:?}", self.queue),
            }
        }
    }

    /// Frames that came while others were waited for and were not taken.
    pub fn unread(&self) -> impl Iterator<Item = &Frame> {
        self.queue.iter().map(|envelope| &envelope.frame)
    }

    /// Sends a request and gives the first answer to it; other frames stay for later.
    pub async fn ask(&mut self, frame: impl Into<Frame>) -> Frame {
        let request = self.request(frame).await;
        self.find("the answer", |envelope| {
            (envelope.request == Some(request)).then(|| envelope.frame.clone())
        })
        .await
    }

    /// Sends a request and gives its number.
    pub async fn request(&mut self, frame: impl Into<Frame>) -> u64 {
        self.requests += 1;
        self.send(Envelope { request: Some(self.requests), frame: frame.into() }).await;
        self.requests
    }

    /// Makes a change, which must succeed.
    pub async fn acked(&mut self, frame: impl Into<Frame>) -> SendAck {
        match self.ask(frame).await {
            Frame::SendAck(ack) => ack,
            other => panic!("not acked: {other:?}"),
        }
    }

    /// Makes a request, which must be refused.
    pub async fn refused(&mut self, frame: impl Into<Frame>) -> Error {
        match self.ask(frame).await {
            Frame::Error(error) => error,
            other => panic!("not refused: {other:?}"),
        }
    }

    /// Sends a message to a user and waits for the ack.
    pub async fn say(&mut self, name: &str, text: &str) -> SendAck {
        self.acked(to(name, text)).await
    }

    /// Sends a message to a conversation and waits for the ack.
    pub async fn say_in(&mut self, conversation: ConversationId, text: &str) -> SendAck {
        self.acked(message(Target::Conversation(conversation), text)).await
    }

    /// Creates a group.
    pub async fn group(&mut self, name: &str, members: &[&str]) -> ConversationId {
        let members = members.iter().map(|name| user(name)).collect();
        self.acked(CreateGroup { name: name.into(), members, temp_id: fresh() }).await.conversation
    }

    /// The next Deliver; other frames stay for later.
    pub async fn delivery(&mut self) -> Deliver {
        self.find("a Deliver", |envelope| match &envelope.frame {
            Frame::Deliver(deliver) => Some(deliver.clone()),
            _ => None,
        })
        .await
    }

    /// The next entry of a conversation, which must come alone.
    pub async fn entry(&mut self, conversation: ConversationId) -> Entry {
        let mut entries = self
            .find("an entry", |envelope| match &envelope.frame {
                Frame::Deliver(deliver) if deliver.conversation == conversation => {
                    Some(deliver.entries.clone())
                }
                _ => None,
            })
            .await;
        assert_eq!(entries.len(), 1, "live entries come one by one");
        entries.remove(0)
    }

    /// Catches up from these cursors.
    pub async fn sync(&mut self, cursors: &[(ConversationId, u64)]) -> Synced {
        let cursors = positions(cursors);
        let request = self.request(Sync { cursors, more: false }).await;
        self.synced(request).await
    }

    /// The answer to a Sync, up to SyncEnd.
    pub async fn synced(&mut self, request: u64) -> Synced {
        let mut synced = Synced::default();
        loop {
            let frame = self
                .find("the end of the sync", |envelope| {
                    (envelope.request == Some(request)).then(|| envelope.frame.clone())
                })
                .await;
            match frame {
                Frame::SyncPage(page) => synced.summaries.extend(page.conversations),
                Frame::Deliver(deliver) => {
                    synced.entries.entry(deliver.conversation).or_default().extend(deliver.entries);
                }
                Frame::Gap(gap) => {
                    let entries = synced.entries.get(&gap.conversation).map_or(0, Vec::len);
                    assert_eq!(entries, 0, "a gap comes before the entries after it");
                    synced.gaps.push(gap);
                }
                Frame::Erased(erased) => synced.erased.push(erased),
                Frame::Error(error) => synced.errors.push(error),
                Frame::SyncEnd(end) => {
                    synced.changed = end.changed;
                    return synced;
                }
                other => panic!("not an answer to Sync: {other:?}"),
            }
        }
    }

    /// A page of history.
    pub async fn fetch(&mut self, fetch: Fetch) -> Page {
        match self.ask(fetch).await {
            Frame::Page(page) => page,
            other => panic!("no page: {other:?}"),
        }
    }

    /// Confirms a position.
    pub async fn ack(&mut self, conversation: ConversationId, seq: u64) {
        self.send(Ack { positions: vec![Position { conversation, seq }] }).await;
    }

    /// Waits until the server has handled every frame sent before.
    pub async fn settle(&mut self) {
        let answer = self.ask(Ping { nonce: 7 }).await;
        assert!(matches!(answer, Frame::Pong(_)), "{answer:?}");
    }

    /// Waits for the end of the session.
    pub async fn end(&mut self) -> Ended {
        let mut frames = Vec::new();
        let mut close = None;
        while let Some(envelope) = self.next().await {
            match envelope.frame {
                Frame::Close(last) => close = Some(last),
                frame => {
                    assert!(close.is_none(), "{frame:?} after Close");
                    frames.push(frame);
                }
            }
        }
        let transport = match &self.link {
            Link::Quic(link) => link.closed().await,
            Link::WebSocket(link) => link.closed(),
        };
        Ended { close, transport, frames }
    }

    /// Says goodbye and waits for the end.
    pub async fn leave(mut self) -> Ended {
        let code = tern_protocol::Code::NORMAL;
        self.send(Close { code, reason: String::new(), retry_after_ms: None, target: None }).await;
        self.end().await
    }
}

/// Cursors as positions.
pub fn positions(cursors: &[(ConversationId, u64)]) -> Vec<Position> {
    cursors.iter().map(|&(conversation, seq)| Position { conversation, seq }).collect()
}

/// The newest page of a conversation.
pub fn newest(conversation: ConversationId) -> Fetch {
    Fetch { conversation, before: None, after: None, around: None, limit: None }
}
