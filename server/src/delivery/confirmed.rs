//! Who has seen what lately, kept until the push of it is decided: a few positions for each conversation that
//! was written in or acked a moment ago. A position never goes back. What is forgotten costs a push event for
//! something already seen, never a message.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tern_protocol::{ConversationId, UserId};

/// Parts, to keep their locks apart.
const PARTS: usize = 64;
/// Positions in one part, a million in all, some 60 MB at most.
const PART_POSITIONS_MAX: usize = 16 * 1024;
/// What nobody asked about for so long, in seconds, is of no use any more.
const KEPT_S: u32 = 600;

/// Positions of users in conversations. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Confirmed(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: Vec<Mutex<Part>>,
    hasher: RandomState,
    began: Instant,
    /// Seconds since then, as of the last [`Confirmed::age`].
    now_s: AtomicU32,
}

#[derive(Debug, Default)]
struct Part {
    rings: HashMap<ConversationId, Ring, RandomState>,
    positions: usize,
    /// When it was looked through last.
    aged_s: u32,
}

/// Positions in one conversation.
#[derive(Debug)]
struct Ring {
    /// By a hash of the user: what is kept is small, and two of 2^64 do not meet among a hundred.
    positions: SmallVec<[(u64, u64); 2]>,
    touched_s: u32,
}

impl Confirmed {
    /// Nothing is confirmed.
    pub fn new(now: Instant) -> Self {
        let parts = (0..PARTS).map(|_| Mutex::default()).collect();
        let (hasher, now_s) = (RandomState::default(), AtomicU32::new(0));
        Self(Arc::new(Inner { parts, hasher, began: now, now_s }))
    }

    /// The user has seen everything up to `seq`, on some device.
    pub fn note(&self, conversation: ConversationId, user: &UserId, seq: u64) {
        let (user, now_s) = (self.0.hasher.hash_one(user), self.0.now_s.load(Ordering::Relaxed));
        self.part(conversation).lock().note(conversation, user, seq, now_s);
    }

    /// What the user has seen, as far as it is remembered; 0: nothing.
    pub fn seen(&self, conversation: ConversationId, user: &UserId) -> u64 {
        let user = self.0.hasher.hash_one(user);
        let part = self.part(conversation).lock();
        let ring = part.rings.get(&conversation);
        ring.and_then(|ring| ring.positions.iter().find(|at| at.0 == user)).map_or(0, |at| at.1)
    }

    /// The pushes of everything up to `seq` are decided: positions up to there are of no use any more.
    pub fn decided(&self, conversation: ConversationId, seq: u64) {
        let mut part = self.part(conversation).lock();
        let Some(ring) = part.rings.get_mut(&conversation) else { return };
        let before = ring.positions.len();
        ring.positions.retain(|at| at.1 > seq);
        let (gone, is_empty) = (before - ring.positions.len(), ring.positions.is_empty());
        part.positions -= gone;
        if is_empty {
            part.rings.remove(&conversation);
        }
    }

    /// Lets time pass: forgets what is old, a little at each call.
    pub fn age(&self, now: Instant) {
        let now_s = now.saturating_duration_since(self.0.began).as_secs() as u32;
        self.0.now_s.store(now_s, Ordering::Relaxed);
        for part in &self.0.parts {
            let mut part = part.lock();
            if part.aged_s + KEPT_S / 4 <= now_s {
                part.aged_s = now_s;
                part.keep_since(now_s.saturating_sub(KEPT_S));
                break;
            }
        }
    }

    fn part(&self, conversation: ConversationId) -> &Mutex<Part> {
        &self.0.parts[self.0.hasher.hash_one(conversation) as usize % PARTS]
    }
}

impl Part {
    fn note(&mut self, conversation: ConversationId, user: u64, seq: u64, now_s: u32) {
        if self.positions >= PART_POSITIONS_MAX {
            let oldest_s = self.rings.values().map(|ring| ring.touched_s).min().unwrap_or(now_s);
            self.keep_since(oldest_s + (now_s - oldest_s) / 2 + 1);
        }
        let ring = self.rings.entry(conversation);
        let ring = ring.or_insert_with(|| Ring { positions: SmallVec::new(), touched_s: now_s });
        ring.touched_s = now_s;
        match ring.positions.iter_mut().find(|at| at.0 == user) {
            Some(at) => at.1 = at.1.max(seq),
            None => {
                ring.positions.push((user, seq));
                self.positions += 1;
            }
        }
    }

    fn keep_since(&mut self, since_s: u32) {
        self.rings.retain(|_, ring| ring.touched_s >= since_s);
        self.positions = self.rings.values().map(|ring| ring.positions.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn id(number: u32) -> ConversationId {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        ConversationId::from_bytes(bytes)
    }

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    #[test]
    fn a_position_never_goes_back() {
        let confirmed = Confirmed::new(Instant::now());
        let (alice, bob) = (user("alice"), user("bob"));
        for seq in [3, 7, 5, 1] {
            confirmed.note(id(1), &alice, seq);
        }
        confirmed.note(id(1), &bob, 2);
        confirmed.note(id(2), &alice, 9);
        let seen = |number, user| confirmed.seen(id(number), user);
        assert_eq!((seen(1, &alice), seen(1, &bob), seen(2, &alice), seen(2, &bob)), (7, 2, 9, 0));
    }

    #[test]
    fn what_is_decided_takes_no_room_and_what_is_newer_stays() {
        let confirmed = Confirmed::new(Instant::now());
        let (alice, bob) = (user("alice"), user("bob"));
        confirmed.note(id(1), &alice, 4);
        confirmed.note(id(1), &bob, 6);
        confirmed.decided(id(1), 5);
        assert_eq!((confirmed.seen(id(1), &alice), confirmed.seen(id(1), &bob)), (0, 6));
        confirmed.decided(id(1), 6);
        confirmed.decided(id(1), 6);
        assert!(confirmed.0.parts.iter().all(|part| part.lock().rings.is_empty()));
        assert!(confirmed.0.parts.iter().all(|part| part.lock().positions == 0));
    }

    #[test]
    fn what_is_old_goes_and_the_room_is_bounded() {
        let start = Instant::now();
        let confirmed = Confirmed::new(start);
        let alice = user("alice");
        confirmed.note(id(1), &alice, 4);
        let age_all = |after: u64| {
            for _ in 0..=PARTS {
                confirmed.age(start + Duration::from_secs(after));
            }
        };
        age_all(u64::from(KEPT_S) - 1);
        assert_eq!(confirmed.seen(id(1), &alice), 4);
        age_all(u64::from(KEPT_S) * 2);
        assert_eq!(confirmed.seen(id(1), &alice), 0);

        for number in 0..(PARTS * PART_POSITIONS_MAX * 2) as u32 {
            if number % 100_000 == 0 {
                confirmed.age(start + Duration::from_secs(2_000 + u64::from(number) / 100_000));
            }
            confirmed.note(id(number), &alice, 1);
        }
        let kept: usize = confirmed.0.parts.iter().map(|part| part.lock().positions).sum();
        assert!(kept <= PARTS * PART_POSITIONS_MAX && kept > PARTS * PART_POSITIONS_MAX / 4, "{kept}");
        assert_eq!(confirmed.seen(id((PARTS * PART_POSITIONS_MAX * 2) as u32 - 1), &alice), 1, "the newest");
    }
}
