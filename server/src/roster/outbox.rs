//! The outbox: what one session is still to be sent, bounded, by priority, and pure of transport.
//!
//! Many producers push, one link takes. A push never waits (except backlog, which may) and never
//! grows the outbox beyond its limits: entries that find no room are dropped and named in one
//! `Lagged` frame, since the log has them; a client that does not even read replies is closed.

mod batch;
mod queues;
#[cfg(test)]
mod tests;
mod told;
mod weight;

use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tern_protocol::{Close, ConversationId};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::budget::Budget;

use super::outgoing::{Format, Outgoing};
pub use batch::{Batch, Queue};
use queues::{Queues, Room};

/// Limits of an outbox. Unsent means queued or handed to the link but not yet taken by the socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutboxConfig {
    /// Most unsent bytes of replies and live entries together. Entries get at most three quarters
    /// of it, so that they cannot crowd out replies.
    pub bytes_max: usize,
    /// Most unsent frames of replies and live entries together; of entries, three quarters.
    pub frames_max: usize,
    /// Most unsent bytes of catch-up and history; a single larger frame is taken alone.
    pub backlog_bytes_max: usize,
    /// Most unsent frames of catch-up and history.
    pub backlog_frames_max: usize,
    /// Most waiting datagrams; the oldest is dropped for a new one.
    pub datagrams_max: usize,
    /// Most conversations whose entries were dropped and whose `Lagged` is not yet sent; with one
    /// more the client counts as not reading and is closed.
    pub lagged_max: usize,
}

impl Default for OutboxConfig {
    fn default() -> Self {
        Self {
            bytes_max: 256 * 1024,
            frames_max: 1024,
            backlog_bytes_max: 128 * 1024,
            backlog_frames_max: 4,
            datagrams_max: 16,
            lagged_max: 256,
        }
    }
}

/// What became of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Pushed {
    /// It waits to be sent.
    Queued,
    /// It was dropped, and so was everything of its conversation that waited; the client will be
    /// told by one `Lagged` frame.
    Lagged,
    /// It cannot be told in the format of this link.
    Skipped,
    /// The outbox is closed.
    Closed,
}

/// The outbox is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the outbox is closed")]
pub struct Closed;

/// How much is taken at a time.
#[derive(Clone, Copy, Debug)]
pub struct TakeLimit {
    /// Most frames.
    pub frames: usize,
    /// Most bytes; a first frame that is larger is taken alone.
    pub bytes: usize,
}

/// The bounded queue of one session.
#[derive(Debug)]
pub struct Outbox {
    format: Format,
    queues: Mutex<Queues>,
    /// Wakes the one writer.
    work: Notify,
    /// Wakes those who wait for room in the backlog.
    room: Notify,
    /// Wakes the session when something is unsent again.
    filled: Notify,
}

impl Outbox {
    /// An empty outbox for a link of this format. What waits in it is charged to `memory`.
    pub fn new(format: Format, config: OutboxConfig, memory: &Budget) -> Arc<Self> {
        let queues = Mutex::new(Queues::new(format, config, memory, Instant::now()));
        Arc::new(Self { format, queues, work: Notify::new(), room: Notify::new(), filled: Notify::new() })
    }

    /// The format of its link.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Queues a reply or a notice, ahead of everything else. If there is no room the oldest claim
    /// goes to replies: waiting entries are dropped (and named in `Lagged`); without any, the
    /// outbox closes itself with SLOW_CONSUMER.
    pub fn push_control(&self, frame: &Outgoing) -> Pushed {
        let Some(bytes) = frame.bytes(self.format) else { return Pushed::Skipped };
        self.push(|queues, now| queues.push_control(bytes, now))
    }

    /// Queues the first frame of all, ahead of what was queued before it. For a link of which nothing was
    /// taken yet.
    pub fn push_first(&self, frame: &Outgoing) -> Pushed {
        let Some(bytes) = frame.bytes(self.format) else { return Pushed::Skipped };
        self.push(|queues, now| queues.push_first(bytes, now))
    }

    /// Queues live entries of one conversation, the last of them being `seq_last`. If there is no
    /// room, the conversation with most bytes waiting (perhaps this one) loses its queue and is
    /// named in one `Lagged` frame with its newest seq.
    pub fn push_entry(&self, conversation: ConversationId, seq_last: u64, frame: &Outgoing) -> Pushed {
        match frame.bytes(self.format) {
            Some(bytes) => self.push(|queues, now| queues.push_entry(conversation, seq_last, bytes, now)),
            // The log has it, and the client asks for it.
            None => self.push(|queues, _| queues.leave_out(conversation, seq_last)),
        }
    }

    /// Queues what may be lost; the newest are kept. A datagram on links that have datagrams,
    /// else a frame.
    pub fn push_datagram(&self, frame: &Outgoing) -> Pushed {
        let Some(bytes) = frame.bytes(self.format) else { return Pushed::Skipped };
        self.push(|queues, now| queues.push_datagram(bytes, now))
    }

    /// Queues catch-up or history behind everything else, waiting for room. Cancel-safe: a
    /// cancelled push was not queued.
    pub async fn push_backlog(&self, frame: &Outgoing) -> Result<(), Closed> {
        let Some(bytes) = frame.bytes(self.format) else { return Ok(()) };
        loop {
            // Made before looking: it hears of room made in between.
            let room = self.room.notified();
            let (pushed, filled) = {
                let mut queues = self.queues.lock();
                let pushed = queues.push_backlog(&bytes, Instant::now());
                queues.weigh();
                (pushed, queues.take_filled())
            };
            self.note_filled(filled);
            match pushed {
                Room::Taken => break,
                Room::Full => {}
                Room::Closed => return Err(Closed),
            }
            room.await;
        }
        self.work.notify_one();
        Ok(())
    }

    /// Closes: waiting entries, datagrams and backlog are dropped (the log has them), waiting
    /// replies still go out, `close` is the last frame. The first close counts.
    pub fn close(&self, close: Close) {
        {
            let mut queues = self.queues.lock();
            queues.close(close);
            queues.weigh();
        }
        self.wake_all();
    }

    /// The close that was asked for, or that the outbox gave itself.
    pub fn closing(&self) -> Option<Close> {
        self.queues.lock().closing().cloned()
    }

    /// Since when nothing has left although something is unsent; `None` if nothing is.
    pub fn stalled_since(&self) -> Option<Instant> {
        self.queues.lock().stalled_since()
    }

    /// Waits until something is unsent after nothing was. Cancel-safe; for one waiter, who may be woken
    /// for something that has left since.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    /// The client is told of everything in this conversation up to `seq` in another way than by
    /// [`Outbox::push_entry`].
    pub fn note_told(&self, conversation: ConversationId, seq: u64) {
        self.queues.lock().told().note(conversation, seq);
    }

    /// The client was told of this entry, so that it exists and they may see it. Of a bounded number of
    /// conversations, the latest; false of others.
    pub fn has_told(&self, conversation: ConversationId, seq: u64) -> bool {
        self.queues.lock().told().knows(conversation, seq)
    }

    /// Bytes queued or handed to the link and not yet taken by its socket, datagrams aside.
    pub fn unsent_bytes(&self) -> usize {
        self.queues.lock().unsent_bytes()
    }

    fn push(&self, push: impl FnOnce(&mut Queues, Instant) -> Pushed) -> Pushed {
        let (pushed, closed, filled) = {
            let mut queues = self.queues.lock();
            let pushed = push(&mut queues, Instant::now());
            queues.weigh();
            (pushed, queues.closing().is_some(), queues.take_filled())
        };
        self.note_filled(filled);
        if closed {
            self.wake_all();
        } else {
            self.work.notify_one();
        }
        pushed
    }

    fn note_filled(&self, filled: bool) {
        if filled {
            self.filled.notify_one();
        }
    }

    fn wake_all(&self) {
        self.work.notify_one();
        self.room.notify_waiters();
    }
}

/// The side of the link, which is the only taker.
impl Outbox {
    /// Waits until there may be something to take. Cancel-safe; for one waiter.
    pub async fn work(&self) {
        self.work.notified().await;
    }

    /// Takes frames of one queue: the first in order of priority that has any and is `free`.
    pub fn take_from(&self, limit: TakeLimit, free: &mut dyn FnMut(Queue) -> bool) -> Option<Batch> {
        self.queues.lock().take_from(limit, free, Instant::now())
    }

    /// Takes frames of all queues in the order of priority, one of each conversation in turn.
    /// Backlog is taken only when nothing else waits.
    pub fn take_any(&self, limit: TakeLimit) -> Option<Batch> {
        self.queues.lock().take_any(limit, Instant::now())
    }

    /// The frames of a batch are with the socket: their room is free again.
    pub fn sent(&self, batch: Batch) {
        {
            let mut queues = self.queues.lock();
            queues.settle(&batch, Instant::now());
            queues.weigh();
        }
        self.room.notify_waiters();
    }

    /// The frames of one queue will not arrive (the client stopped their stream): their room is
    /// free again and their conversation is named in `Lagged`.
    pub fn lost(&self, batch: Batch) {
        {
            let mut queues = self.queues.lock();
            queues.lose(&batch, Instant::now());
            queues.weigh();
        }
        self.wake_all();
    }

    /// The last frame, once it is its turn: closed, and nothing else is queued.
    pub fn last(&self) -> Option<Close> {
        self.queues.lock().last()
    }
}
