//! What a link takes of an outbox at a time, and how much room it holds until it is sent.

use std::collections::VecDeque;
use std::ops::{AddAssign, SubAssign};

use bytes::Bytes;
use smallvec::SmallVec;
use tern_protocol::ConversationId;

use super::TakeLimit;

/// Where a frame waits. The order is the priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Queue {
    /// Replies and notices.
    Control,
    /// What may be lost.
    Datagram,
    /// Live entries of one conversation.
    Conversation(ConversationId),
    /// Catch-up and history.
    Backlog,
}

/// A number of frames and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) frames: usize,
    pub(super) bytes: usize,
}

impl AddAssign<usize> for Amount {
    fn add_assign(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes;
    }
}

impl SubAssign<Amount> for Amount {
    fn sub_assign(&mut self, other: Amount) {
        self.frames -= other.frames;
        self.bytes -= other.bytes;
    }
}

/// Frames taken by the link; it hands the batch back by `sent` or `lost`.
#[derive(Debug)]
#[must_use = "room is freed by handing the batch back"]
pub struct Batch {
    /// The queue of the first frame; of all of them, if one queue was taken.
    pub queue: Queue,
    /// The encoded frames, in order.
    pub frames: SmallVec<[Bytes; 4]>,
    /// The newest seq that was queued when a conversation queue was taken.
    pub(super) seq_last: u64,
    pub(super) control: Amount,
    pub(super) entries: Amount,
    pub(super) backlog: Amount,
}

impl Batch {
    pub(super) fn new(queue: Queue) -> Self {
        let (control, entries, backlog) = Default::default();
        Self { queue, frames: SmallVec::new(), seq_last: 0, control, entries, backlog }
    }

    pub(super) fn add(&mut self, queue: Queue, frame: Bytes) {
        match queue {
            Queue::Control => self.control += frame.len(),
            Queue::Conversation(_) => self.entries += frame.len(),
            Queue::Backlog => self.backlog += frame.len(),
            Queue::Datagram => {}
        }
        self.frames.push(frame);
    }

    /// A further frame of `len` bytes fits, or it would be the first.
    pub(super) fn fits(&self, len: usize, limit: TakeLimit) -> bool {
        let bytes: usize = self.frames.iter().map(Bytes::len).sum();
        self.frames.is_empty() || (self.frames.len() < limit.frames && bytes + len <= limit.bytes)
    }
}

pub(super) fn amount_of(frames: &VecDeque<Bytes>) -> Amount {
    Amount { frames: frames.len(), bytes: frames.iter().map(Bytes::len).sum() }
}
