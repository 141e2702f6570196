//! WebTransport sessions that a page in a browser holds: the browser carries the bytes, the frames
//! are written and read here.

use std::collections::{HashMap, VecDeque};

use data_encoding::BASE64;
use serde_json::Value;
use tern_protocol::{Decoder, Envelope, Frame, Incoming, StreamKind, encode};

use crate::caught::Caught;
use crate::chromium::Tab;
use crate::hang::within;
use crate::server::Server;

/// Bytes of the conversation's id after the kind of its stream.
const CONVERSATION_BYTES: usize = 16;

/// What a session of a page brought.
#[derive(Clone, Debug)]
pub enum Brought {
    /// A frame, and what it came on.
    Frame(PageLane, Envelope),
    /// The end, as the page sees it.
    End(Caught),
}

/// What a frame came on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageLane {
    /// The stream that the page opened.
    Control,
    /// A stream that the server opened.
    Stream(StreamKind),
    /// A datagram.
    Datagram,
}

/// One session.
pub struct PageSession {
    tab: Tab,
    number: u64,
    protocol: Option<String>,
    lanes: HashMap<String, PartialFrames>,
    brought: VecDeque<Brought>,
}

/// The bytes of one lane that are not a whole frame yet.
#[derive(Default)]
struct PartialFrames {
    header: Vec<u8>,
    decoder: Decoder,
}

impl PageSession {
    /// Opens one; else what the page was told.
    pub async fn open(tab: &Tab, server: &Server) -> Result<Self, String> {
        let sha256 = server.cert_sha256();
        Self::open_at(tab, &server.ready().webtransport_url, sha256).await
    }

    /// The same at another place, or with another certificate.
    pub async fn open_at(tab: &Tab, url: &str, sha256: [u8; 32]) -> Result<Self, String> {
        let call = format!("open({url:?}, {:?})", BASE64.encode(&sha256));
        let agreed = within("a session of the page", tab.run(&call)).await?;
        Ok(Self {
            tab: tab.clone(),
            number: agreed["number"].as_u64().expect("a number"),
            protocol: agreed["protocol"].as_str().map(str::to_owned),
            lanes: HashMap::new(),
            brought: VecDeque::new(),
        })
    }

    /// The subprotocol, where the browser tells it.
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// Sends a frame on the control stream.
    pub async fn send(&self, frame: impl Into<Envelope>) {
        self.try_send(frame).await.expect("the session is open");
    }

    /// Sends a frame on the control stream, if the session is still open.
    pub async fn try_send(&self, frame: impl Into<Envelope>) -> Result<(), String> {
        self.try_run(&format!("send({:?})", BASE64.encode(&encode(&frame.into())))).await.map(drop)
    }

    /// Sends a frame as a datagram.
    pub async fn send_datagram(&self, frame: impl Into<Envelope>) {
        self.run(&format!("sendDatagram({:?})", BASE64.encode(&encode(&frame.into())))).await;
    }

    /// Closes the session as a page does.
    pub async fn close(&self, code: u32, reason: &str) {
        self.run(&format!("wt.close({{ closeCode: {code}, reason: {reason:?} }})")).await;
    }

    /// The next frame, or the end.
    pub async fn next(&mut self) -> Brought {
        loop {
            if let Some(brought) = self.brought.pop_front() {
                return brought;
            }
            let told = self.run("next()").await;
            if let Some(end) = told.get("end") {
                let code = end["code"].as_u64();
                let reason = end["reason"].as_str().unwrap_or_default().to_owned();
                return Brought::End(Caught { code, reason });
            }
            self.take(&told);
        }
    }

    /// The first frame that `pick` takes; others are dropped.
    ///
    /// # Panics
    /// At the end of the session.
    pub async fn find<T>(&mut self, what: &str, mut pick: impl FnMut(PageLane, Frame) -> Option<T>) -> T {
        loop {
            match self.next().await {
                Brought::Frame(lane, envelope) => {
                    if let Some(found) = pick(lane, envelope.frame) {
                        return found;
                    }
                }
                Brought::End(end) => panic!("the session ended before {what}: {end:?}"),
            }
        }
    }

    /// Waits for the end and gives it, with the last frame before it.
    pub async fn end(&mut self) -> (Option<Frame>, Caught) {
        let mut last = None;
        loop {
            match self.next().await {
                Brought::Frame(_, envelope) => last = Some(envelope.frame),
                Brought::End(end) => return (last, end),
            }
        }
    }

    async fn run(&self, method: &str) -> Value {
        self.try_run(method).await.unwrap_or_else(|error| panic!("{error}"))
    }

    async fn try_run(&self, method: &str) -> Result<Value, String> {
        let call = format!("sessions[{}].{method}", self.number);
        within(method, self.tab.run(&call)).await.map_err(|error| format!("{call}: {error}"))
    }

    fn take(&mut self, told: &Value) {
        let name = told["lane"].as_str().expect("a lane");
        let mut bytes = BASE64.decode(told["bytes"].as_str().expect("bytes").as_bytes()).expect("base64");
        let lane = self.lanes.entry(name.to_owned()).or_default();
        let kind = match name {
            "control" => PageLane::Control,
            "datagram" => PageLane::Datagram,
            _ => match lane.past_header(&mut bytes) {
                Some(kind) => PageLane::Stream(kind),
                None => return,
            },
        };
        lane.decoder.extend(&bytes);
        while let Some(incoming) = lane.decoder.next().expect("the server sends good frames") {
            let Incoming::Frame(envelope) = incoming else { panic!("a frame of another version") };
            self.brought.push_back(Brought::Frame(kind, envelope));
        }
    }
}

impl PartialFrames {
    /// Takes what is missing of the stream's header; `None` while it is not whole.
    fn past_header(&mut self, bytes: &mut Vec<u8>) -> Option<StreamKind> {
        loop {
            let kind = self.header.first().map(|byte| StreamKind::from_byte(*byte).expect("a known kind"));
            let whole = match kind {
                None => 1,
                Some(StreamKind::Conversation) => 1 + CONVERSATION_BYTES,
                Some(StreamKind::Inbox | StreamKind::Backlog) => 1,
            };
            if self.header.len() == whole && kind.is_some() {
                return kind;
            }
            if bytes.is_empty() {
                return None;
            }
            let missing = (whole - self.header.len()).min(bytes.len());
            self.header.extend(bytes.drain(..missing));
        }
    }
}
