//! One live session, as the rest of the server sees it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tern_protocol::{ConversationId, DeviceId, UserId};

use super::Outbox;
use crate::clock::{now, stamp_ms};
use crate::cluster::SessionRef;

/// Of so many deliveries to a session one is timed, from the arrival of its Send to the Ack.
const SAMPLED_ONE_IN: u32 = 64;
/// Timed deliveries that wait for their Ack; the oldest is forgotten.
const SAMPLES_MAX: usize = 4;

/// Where a session comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// On which transport, as it is called in metrics.
    pub transport: &'static str,
    /// Address of the client when the session began.
    pub address: IpAddr,
    /// When its token was issued, in Unix milliseconds; 0 if that does not say.
    pub token_issued_ms: u64,
}

/// What operators see of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Names it for as long as it lasts: no other session ever has this id.
    pub id: String,
    /// The device that it said it is.
    pub device: DeviceId,
    /// On which transport.
    pub transport: String,
    /// Address of the client when it began.
    pub address: IpAddr,
    /// When it began, in Unix milliseconds.
    pub since_ms: u64,
    /// When something was last heard from it, in Unix milliseconds.
    pub heard_ms: u64,
    /// When its token was issued, in Unix milliseconds; 0 if that does not say.
    pub token_issued_ms: u64,
}

/// One live session, as the rest of the server sees it.
pub struct Seat {
    /// What it is called in the fleet.
    pub at: SessionRef,
    /// Whose.
    pub user: UserId,
    /// On which device.
    pub device: DeviceId,
    /// What it is to be sent.
    pub outbox: Arc<Outbox>,
    origin: Origin,
    /// When the token was issued that it has now.
    token_issued_ms: AtomicU64,
    began_ms: u64,
    began: Instant,
    /// When something was last heard, in milliseconds since it began.
    heard_ms: AtomicU64,
    /// Who reads of edges is told of its end as well.
    pub(super) watching: AtomicBool,
    deliveries: AtomicU32,
    samples: Mutex<Vec<Sample>>,
}

/// A delivery that is timed.
struct Sample {
    conversation: ConversationId,
    seq: u64,
    arrived: Instant,
}

impl Seat {
    /// A session that was heard just now.
    pub fn new(at: SessionRef, user: UserId, device: DeviceId, outbox: Arc<Outbox>, origin: Origin) -> Self {
        Self {
            at,
            user,
            device,
            outbox,
            origin,
            token_issued_ms: AtomicU64::new(origin.token_issued_ms),
            began_ms: stamp_ms(),
            began: now(),
            heard_ms: AtomicU64::new(0),
            watching: AtomicBool::new(false),
            deliveries: AtomicU32::new(0),
            samples: Mutex::new(Vec::new()),
        }
    }

    /// Its number on this node.
    pub fn id(&self) -> u64 {
        self.at.session
    }

    /// It has another token, issued then, in Unix milliseconds.
    pub fn renewed(&self, issued_ms: u64) {
        self.token_issued_ms.store(issued_ms, Ordering::Relaxed);
    }

    /// What operators see of it.
    pub fn info(&self) -> SessionInfo {
        let SessionRef { node, boot, session } = &self.at;
        SessionInfo {
            id: format!("{node}-{boot:x}-{session}"),
            device: self.device.clone(),
            transport: self.origin.transport.into(),
            address: self.origin.address,
            since_ms: self.began_ms,
            heard_ms: self.began_ms + self.heard_ms.load(Ordering::Relaxed),
            token_issued_ms: self.token_issued_ms.load(Ordering::Relaxed),
        }
    }

    /// Something was heard from it.
    pub fn heard(&self, now: Instant) {
        let since = now.saturating_duration_since(self.began).as_millis() as u64;
        self.heard_ms.store(since, Ordering::Relaxed);
    }

    /// When something was last heard from it.
    pub fn last_heard(&self) -> Instant {
        self.began + Duration::from_millis(self.heard_ms.load(Ordering::Relaxed))
    }

    /// An entry whose Send arrived at `arrived` was queued for it.
    pub fn delivered(&self, conversation: ConversationId, seq: u64, arrived: Instant) {
        if !self.deliveries.fetch_add(1, Ordering::Relaxed).is_multiple_of(SAMPLED_ONE_IN) {
            return;
        }
        let mut samples = self.samples.lock();
        if samples.len() == SAMPLES_MAX {
            samples.remove(0);
        }
        samples.push(Sample { conversation, seq, arrived });
    }

    /// It has acked up to `seq`: how long each timed delivery took.
    pub fn acked(&self, conversation: ConversationId, seq: u64, mut took: impl FnMut(Duration)) {
        let mut samples = self.samples.lock();
        if samples.is_empty() {
            return;
        }
        samples.retain(|sample| {
            let done = sample.conversation == conversation && sample.seq <= seq;
            if done {
                took(sample.arrived.elapsed());
            }
            !done
        });
        if samples.is_empty() {
            *samples = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::seat;
    use super::*;

    const HERE: ConversationId = ConversationId::from_bytes([1; 16]);

    #[test]
    fn one_delivery_in_many_is_timed_and_only_once() {
        let seat = seat(1, "alice", "phone");
        for seq in 1..=u64::from(SAMPLED_ONE_IN) + 1 {
            seat.delivered(HERE, seq, Instant::now());
        }
        let mut timed = 0;
        seat.acked(HERE, u64::from(SAMPLED_ONE_IN), |_| timed += 1);
        seat.acked(HERE, u64::from(SAMPLED_ONE_IN), |_| timed += 1);
        assert_eq!(timed, 1, "the first of them");
        seat.acked(HERE, u64::MAX, |_| timed += 1);
        assert_eq!(timed, 2);
        assert_eq!(seat.samples.lock().capacity(), 0, "a session that has acked everything keeps nothing");
    }

    #[test]
    fn samples_do_not_grow_with_what_a_client_never_acks() {
        let seat = seat(1, "alice", "phone");
        for seq in 1..=100_000 {
            seat.delivered(HERE, seq, Instant::now());
        }
        let mut timed = 0;
        seat.acked(HERE, u64::MAX, |_| timed += 1);
        assert_eq!(timed, SAMPLES_MAX);
    }
}
