//! The driver's side of one open link: what waits to be written, and when it counts as dead.

use std::collections::VecDeque;
use std::time::Duration;

use tern_protocol::{Close, Code, Envelope, Frame, Ping, Welcome};

use super::plan::Ending;
use super::pulse::{Beat, Owed, Pulse};
use crate::link::{Inbound, Link, Outgoing, TooLarge};
use crate::session::LinkNumber;

/// Frames that wait to be written. The session's windows keep it far below; a link that still
/// gets there is stuck.
const OUTGOING_MAX: usize = 4_096;
/// Above this many waiting frames nothing optional is added (typing, acks).
const OUTGOING_BUSY: usize = 64;
/// How long a link may take to write its last frames and close.
const FINISH_TIME: Duration = Duration::from_secs(2);

/// An open link.
pub(super) struct Active {
    pub(super) number: LinkNumber,
    pub(super) link: Link,
    pub(super) opened_ms: u64,
    /// Requests for a token renewal on this link that were not granted.
    pub(super) reauths: u32,
    outgoing: VecDeque<Outgoing>,
    pulse: Pulse,
}

impl Active {
    pub(super) fn new(number: LinkNumber, link: Link, welcome: &Welcome, now: u64) -> Self {
        let pulse = Pulse::new(welcome.limits.keepalive_s, welcome.limits.dead_after_s, now);
        Self { number, link, opened_ms: now, reauths: 0, outgoing: VecDeque::new(), pulse }
    }

    /// Queues a frame. An error means that the frame is longer than any link carries.
    pub(super) fn push(&mut self, envelope: &Envelope, now: u64) -> Result<(), TooLarge> {
        if matches!(envelope.frame, Frame::Typing(_)) && self.busy() {
            return Ok(());
        }
        let item = self.link.encode(envelope)?;
        self.outgoing.push_back(item);
        let pong = matches!(envelope.frame, Frame::Ping(_)).then_some(Owed::Pong);
        self.pulse.sent(envelope.request.map(Owed::To).or(pong), now);
        Ok(())
    }

    /// Queues a Close frame, after which the writer closes the transport with the same code.
    pub(super) fn say_goodbye(&mut self, now: u64) {
        let close = Close { code: Code::NORMAL, reason: String::new(), retry_after_ms: None, target: None };
        // A close has a few bytes.
        let _ = self.push(&Envelope::from(close), now);
        self.outgoing.push_back(Outgoing::Close(Code::NORMAL));
    }

    /// Writes what waits and ends the link, within a time limit.
    pub(super) async fn finish(mut self) {
        let rest = async {
            while !self.outgoing.is_empty() {
                if let Inbound::End(_) = self.recv().await {
                    return;
                }
            }
            self.link.written().await;
        };
        // A peer that takes nothing is cut off when the link is dropped.
        let _ = tokio::time::timeout(FINISH_TIME, rest).await;
    }

    /// Nothing optional should be added now.
    pub(super) fn busy(&self) -> bool {
        self.outgoing.len() > OUTGOING_BUSY
    }

    /// Pings when it is time; gives the ending of a link that is dead.
    pub(super) fn tick(&mut self, now: u64) -> Option<Ending> {
        if self.outgoing.len() > OUTGOING_MAX {
            return Some(Ending::Lost("the connection takes no more data".into()));
        }
        match self.pulse.tick(now) {
            Beat::Nothing => {}
            Beat::Ping => {
                let ping = Envelope::from(Ping { nonce: 0 });
                // A ping has a few bytes.
                let _ = self.push(&ping, now);
            }
            Beat::Dead(s) => {
                return Some(Ending::Lost(format!("nothing was heard from the server for {s} s")));
            }
        }
        None
    }

    pub(super) fn wake_at(&self) -> u64 {
        self.pulse.wake_at()
    }

    /// Writes what waits while waiting for the next thing to come in. Cancel-safe.
    pub(super) async fn recv(&mut self) -> Inbound {
        self.link.exchange(&mut self.outgoing).await
    }

    pub(super) fn heard(&mut self, inbound: &Inbound, now: u64) {
        let answer = match inbound {
            Inbound::Frame(Envelope { frame: Frame::Pong(_), .. }) => Some(Owed::Pong),
            Inbound::Frame(envelope) => envelope.request.map(Owed::To),
            Inbound::Bad(_) | Inbound::End(_) => None,
        };
        self.pulse.heard(answer, now);
    }
}
