//! What the writer of a store does not write although the head is right: who may write, and who may be put where,
//! is looked at where it is used up, since a request may be long on its way.

use tern_protocol::{ConversationKind, UserId};

use super::{AppendGroup, Barred, Member, PeopleConfig, Standing, StoreError, Tally};

/// What the writer knows of users, as of everything it has written.
pub trait Grounds {
    /// What was taken from a user's tokens.
    fn standing(&self, user: &UserId) -> Standing;
    /// One user blocks another.
    fn blocks(&self, by: &UserId, user: &UserId) -> Result<bool, StoreError>;
    /// What is counted of a user.
    fn tally(&self, user: &UserId) -> Result<Tally, StoreError>;
}

impl AppendGroup {
    /// Entries by index that must not be written, and why; ascending, each once.
    pub fn barred(
        &self,
        grounds: &dyn Grounds,
        config: &PeopleConfig,
    ) -> Result<Vec<(usize, Barred)>, StoreError> {
        let mut barred = Vec::new();
        for (index, new) in self.entries.iter().enumerate() {
            let Some(right) = &new.right else { continue };
            if let Some(lost) = right.lost(&new.entry.sender, |user| grounds.standing(user)) {
                barred.push((index, Barred::Sender(lost)));
            } else if let Some(why) = self.bars_message(index, grounds)? {
                barred.push((index, why));
            }
        }
        for member in self.state.members.iter().filter(|member| member.first_seq > self.expected_head) {
            let index = (member.first_seq - self.expected_head - 1) as usize;
            if barred.iter().any(|(other, _)| *other == index) {
                continue;
            }
            if let Some(why) = self.bars_joining(index, member, grounds, config)? {
                barred.push((index, why));
            }
        }
        barred.sort_unstable_by_key(|(index, _)| *index);
        Ok(barred)
    }

    /// Why the message at this place must not be written to the other user of the pair.
    fn bars_message(&self, index: usize, grounds: &dyn Grounds) -> Result<Option<Barred>, StoreError> {
        let entry = &self.entries[index].entry;
        if self.state.kind != ConversationKind::Pair || !entry.body.is_message() {
            return Ok(None);
        }
        let other = self.state.members.iter().map(|member| &member.user).find(|user| **user != entry.sender);
        Ok(match other {
            Some(other) if grounds.blocks(&entry.sender, other)? => Some(Barred::Blocking(other.clone())),
            Some(other) if grounds.blocks(other, &entry.sender)? => Some(Barred::Blocked),
            _ => None,
        })
    }

    /// Why this user must not become a member by the entry at this place.
    fn bars_joining(
        &self,
        index: usize,
        member: &Member,
        grounds: &dyn Grounds,
        config: &PeopleConfig,
    ) -> Result<Option<Barred>, StoreError> {
        let user = &member.user;
        if grounds.standing(user).erasure.is_some_and(|erasure| erasure.open.is_some()) {
            return Ok(Some(Barred::Joining));
        }
        let Some(new) = self.entries.get(index) else { return Ok(None) };
        let (by, now_ms) = (&new.entry.sender, new.entry.time_ms);
        if self.state.kind != ConversationKind::Group || by == user {
            return Ok(None);
        }
        if grounds.blocks(by, user)? {
            return Ok(Some(Barred::Blocking(user.clone())));
        }
        if grounds.blocks(user, by)? {
            return Ok(Some(Barred::BlockedJoin(user.clone())));
        }
        Ok(grounds.tally(user)?.bars(user, now_ms, config))
    }
}
