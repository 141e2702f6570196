//! Who keeps whom away, and how many groups others have put somebody in.
//!
//! Both are decided by the writer of the store, in the step that would break them: see [`Barred`](super::Barred).

use std::num::NonZero;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tern_protocol::{BLOCKS_MAX, ConversationId, ConversationKind, UserId};

use super::{Barred, Conversation, Member, Right, StoreError};

/// Milliseconds in an hour.
const HOUR_MS: u64 = 3600 * 1000;

/// The `[people]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PeopleConfig {
    /// Most users whom one user blocks.
    pub blocks: u32,
    /// Most groups a user can be in that others put them in and that they have not accepted, by writing or by
    /// keeping the group.
    pub added_groups: u32,
    /// So many groups an hour others can put one user in, as many at once.
    pub added_groups_per_hour: NonZero<u32>,
}

impl Default for PeopleConfig {
    fn default() -> Self {
        let added_groups_per_hour = const { NonZero::new(600).unwrap() };
        Self { blocks: BLOCKS_MAX as u32, added_groups: 500, added_groups_per_hour }
    }
}

/// What is counted of a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Users whom they block.
    pub blocks: u32,
    /// Groups that others put them in and that they have not accepted.
    pub added: u32,
    /// When the last addition would have been if all had come evenly at the highest rate, in Unix milliseconds.
    pub paced_ms: u64,
}

impl Tally {
    /// Why somebody else cannot put the user in a group at this time.
    pub fn bars(&self, user: &UserId, now_ms: u64, config: &PeopleConfig) -> Option<Barred> {
        if self.added >= config.added_groups {
            return Some(Barred::Crowded(user.clone()));
        }
        let ahead_ms = self.paced(now_ms, config).saturating_sub(now_ms);
        let retry_after_ms = ahead_ms.saturating_sub(HOUR_MS - interval_ms(config));
        (retry_after_ms > 0).then(|| Barred::TooFast { user: user.clone(), retry_after_ms })
    }

    /// Somebody else has put the user in a group at this time.
    pub fn joined(self, now_ms: u64, config: &PeopleConfig) -> Self {
        let paced_ms = self.paced(now_ms, config).max(now_ms) + interval_ms(config);
        Self { added: self.added.saturating_add(1), paced_ms, ..self }
    }

    /// One of those groups is accepted, or the user has left it.
    pub fn settled(self) -> Self {
        Self { added: self.added.saturating_sub(1), ..self }
    }

    /// A clock that was ahead for a moment keeps nobody waiting for more than an hour.
    fn paced(&self, now_ms: u64, config: &PeopleConfig) -> u64 {
        self.paced_ms.min(now_ms + HOUR_MS + interval_ms(config))
    }
}

/// Between two additions at the highest rate.
fn interval_ms(config: &PeopleConfig) -> u64 {
    (HOUR_MS / u64::from(config.added_groups_per_hour.get())).max(1)
}

/// How the groups that somebody was put in change: who waits to accept one more, and who one less.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Accepting {
    pub(super) joined: Vec<UserId>,
    pub(super) settled: Vec<UserId>,
}

impl Accepting {
    /// From one state of a conversation to the next.
    pub(super) fn between(before: Option<&Conversation>, after: &Conversation) -> Self {
        if after.kind != ConversationKind::Group {
            return Self::default();
        }
        let waits = |state: &Conversation, at: usize, member: &Member| {
            same_member(state, at, member).is_some_and(|other| other.added_by.is_some())
        };
        let of = |of: &Conversation, other: Option<&Conversation>| -> Vec<UserId> {
            let waiting = of.members.iter().enumerate().filter(|(_, member)| member.added_by.is_some());
            let new = waiting.filter(|(at, member)| !other.is_some_and(|other| waits(other, *at, member)));
            new.map(|(_, member)| member.user.clone()).collect()
        };
        Self {
            joined: of(after, before),
            settled: before.map(|before| of(before, Some(after))).unwrap_or_default(),
        }
    }
}

/// The state that an append makes, with what only the store itself changes: who blocks whom, and what was accepted
/// since its owner has read it.
pub(super) fn carried(state: &Arc<Conversation>, current: &Conversation) -> Arc<Conversation> {
    let accepted = |(at, member): (usize, &Member)| {
        let is_accepted = |current: &Member| current.added_by.is_none();
        let accepted = member.added_by.is_some() && same_member(current, at, member).is_some_and(is_accepted);
        accepted.then_some(at)
    };
    let accepted: Vec<usize> = state.members.iter().enumerate().filter_map(accepted).collect();
    if accepted.is_empty() && state.blocked_by == current.blocked_by {
        return Arc::clone(state);
    }
    let mut carried = (**state).clone();
    carried.blocked_by.clone_from(&current.blocked_by);
    accepted.into_iter().for_each(|at| carried.members[at].added_by = None);
    Arc::new(carried)
}

/// A member of another state who has been one since the same entry; most are at the same place.
fn same_member<'a>(state: &'a Conversation, at: usize, member: &Member) -> Option<&'a Member> {
    let is_same = |other: &&Member| other.user == member.user && other.first_seq == member.first_seq;
    state.members.get(at).filter(is_same).or_else(|| state.members.iter().find(is_same))
}

/// Somebody whom a user blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Who.
    pub user: UserId,
    /// Since when, in Unix milliseconds.
    pub since_ms: u64,
}

/// That a user blocks another, or does not any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockChange {
    /// Who decides.
    pub by: UserId,
    /// About whom; somebody else.
    pub user: UserId,
    /// They are to be blocked.
    pub blocked: bool,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// By which token it is asked for, as in [`NewEntry`](super::NewEntry).
    pub right: Option<Right>,
}

/// What became of a change of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockOutcome {
    /// It is as it was asked for, durably.
    Changed,
    /// It was so before.
    Stood,
    /// They block as many as they can: this many.
    Full(u32),
    /// One of the two was or is being erased.
    Barred(Barred),
}

/// Who is kept away by whom, and what a user has accepted.
#[async_trait]
pub trait People: Send + Sync {
    /// Changes a block. From the moment it returns no append writes a message between the two in their pair, or
    /// makes one of them a member of a group in the name of the other; nor does one that was asked for before.
    /// Where it is taken back they are written again. Durable when it returns.
    async fn set_block(&self, change: BlockChange) -> Result<BlockOutcome, StoreError>;

    /// Whom a user blocks, those after `after` in the order of the bytes of the ids, at most `limit`.
    async fn blocks(
        &self,
        user: &UserId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<Blocked>, StoreError>;

    /// Whether one of the two blocks the other; one answer per question, in order. One round trip.
    async fn blocked_between(&self, user: &UserId, others: &[UserId]) -> Result<Vec<bool>, StoreError>;

    /// A member accepts that somebody else has put them in this conversation, durably: it counts for nothing any
    /// more. False if they are no member. It is no entry and moves no head. Idempotent.
    async fn accept(&self, user: &UserId, conversation: ConversationId) -> Result<bool, StoreError>;

    /// Forgets blocks by a user and of them, at most `limit`; true if there may be more. For an erasure: while it
    /// is open none is added.
    async fn forget_blocks(&self, user: &UserId, limit: usize) -> Result<bool, StoreError>;
}

#[cfg(test)]
mod tests {
    use tern_protocol::Role;

    use super::*;

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    fn config(added_groups: u32, per_hour: u32) -> PeopleConfig {
        let added_groups_per_hour = NonZero::new(per_hour).unwrap();
        PeopleConfig { added_groups, added_groups_per_hour, ..PeopleConfig::default() }
    }

    #[test]
    fn who_is_put_in_groups_too_fast_is_in_the_next_after_the_wait() {
        let (config, bob) = (config(1_000, 60), user("bob"));
        let (mut tally, mut now_ms) = (Tally::default(), 50 * HOUR_MS);
        for _ in 0..60 {
            assert_eq!(tally.bars(&bob, now_ms, &config), None);
            tally = tally.joined(now_ms, &config);
        }
        let Some(Barred::TooFast { user, retry_after_ms }) = tally.bars(&bob, now_ms, &config) else {
            panic!("the hour's worth is used up");
        };
        assert_eq!((user, retry_after_ms), (bob.clone(), 60_000));
        now_ms += retry_after_ms;
        assert_eq!(tally.bars(&bob, now_ms, &config), None);
        tally = tally.joined(now_ms, &config);
        assert!(tally.bars(&bob, now_ms, &config).is_some(), "one at a time from then on");
        assert_eq!(tally.bars(&bob, now_ms + HOUR_MS, &config), None);
    }

    #[test]
    fn a_clock_that_was_ahead_keeps_nobody_waiting_for_long() {
        let (config, bob) = (config(1_000, 60), user("bob"));
        let ahead = Tally::default().joined(9_000 * HOUR_MS, &config);
        let now_ms = 10 * HOUR_MS;
        let Some(Barred::TooFast { retry_after_ms, .. }) = ahead.bars(&bob, now_ms, &config) else {
            panic!("it looks like an hour's worth");
        };
        assert!(retry_after_ms <= 2 * 60_000, "{retry_after_ms}");
        assert!(ahead.joined(now_ms, &config).paced_ms <= now_ms + HOUR_MS + 3 * 60_000);
    }

    #[test]
    fn what_is_not_accepted_is_bounded_whatever_the_rate() {
        let (config, bob) = (config(2, 1_000), user("bob"));
        let full = Tally { added: 2, ..Tally::default() };
        assert_eq!(full.bars(&bob, 5, &config), Some(Barred::Crowded(bob.clone())));
        assert_eq!(full.settled().bars(&bob, 5, &config), None);
        assert_eq!(Tally::default().settled(), Tally::default());
    }

    fn state(members: &[(&str, Option<&str>, u64)]) -> Conversation {
        let member = |(name, by, first_seq): &(&str, Option<&str>, u64)| Member {
            user: user(name),
            role: Role::Member,
            first_seq: *first_seq,
            added_by: by.map(user),
        };
        Conversation {
            kind: ConversationKind::Group,
            name: None,
            head: 9,
            messages: 0,
            last_time_ms: 0,
            members: members.iter().map(member).collect(),
            blocked_by: Vec::new(),
        }
    }

    #[test]
    fn joining_accepting_and_leaving_are_told_apart() {
        let a = Some("a");
        let before = state(&[("a", None, 1), ("b", a, 1), ("c", a, 1), ("d", a, 1), ("e", a, 1)]);
        // b writes, c goes, d goes and is put in again, f comes.
        let after = state(&[("a", None, 1), ("b", None, 1), ("e", a, 1), ("d", a, 8), ("f", a, 9)]);
        let users = |names: &[&str]| names.iter().map(|name| user(name)).collect::<Vec<_>>();
        let Accepting { joined, settled } = Accepting::between(Some(&before), &after);
        assert_eq!((joined, settled), (users(&["d", "f"]), users(&["b", "c", "d"])));
        assert_eq!(Accepting::between(Some(&after), &after), Accepting::default());
        assert_eq!(Accepting::between(None, &after).joined, users(&["e", "d", "f"]));
    }

    #[test]
    fn an_append_on_an_older_state_undoes_no_block_and_nothing_that_was_accepted() {
        let (a, bob) = (Some("a"), user("bob"));
        let known = Arc::new(state(&[("a", None, 1), ("b", a, 1), ("c", a, 1)]));
        assert!(Arc::ptr_eq(&carried(&known, &known), &known), "nothing to carry, nothing copied");
        let mut current = state(&[("a", None, 1), ("b", None, 1), ("c", a, 1)]);
        current.blocked_by = vec![bob.clone()];
        let carried_on = carried(&known, &current);
        let waiting: Vec<bool> = carried_on.members.iter().map(|member| member.added_by.is_some()).collect();
        assert_eq!((waiting, &carried_on.blocked_by), (vec![false, false, true], &vec![bob]));
        // Who was put in again since has not accepted that.
        let again = Arc::new(state(&[("a", None, 1), ("c", a, 1), ("b", a, 10)]));
        assert!(carried(&again, &current).members[2].added_by.is_some());
    }
}
