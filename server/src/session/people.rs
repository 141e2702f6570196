//! What a user decides about who reaches them: blocks, and groups that others put them in. The same by frame and
//! by HTTP.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tern_protocol::{
    BLOCKS_PAGE_MAX, BlockChanged, BlockList, BlockedUser, Code, ConversationId, Frame, GroupKept, GroupLeft,
    LEAVE_GROUPS_MAX, LeaveGroups, UserId,
};

use super::refused::Refused;
use crate::clock::unix_ms;
use crate::cluster::SessionRef;
use crate::conversation::{Ask, Change, Refusal, Reply, Submission, Wanted};
use crate::delivery::{Delivery, Except, Parcel, Relations};
use crate::roster::Outgoing;
use crate::router::Router;
use crate::store::{Barred, BlockChange, BlockOutcome, Lost, Right, Store};

/// Somebody who decides, and whom their other sessions are told by.
pub struct Deciding<'a> {
    /// Where it is kept.
    pub store: &'a dyn Store,
    /// The way to their sessions.
    pub delivery: &'a Delivery,
    /// Who.
    pub me: &'a UserId,
    /// By which token it is asked for.
    pub right: Right,
    /// The session that asks: it gets the answer instead.
    pub asker: Option<&'a SessionRef>,
}

impl Deciding<'_> {
    /// Blocks a user, or takes it back.
    pub async fn set_block(&self, user: UserId, blocked: bool) -> Result<BlockChanged, Refused> {
        if user == *self.me {
            return Err(Refused::new(Code::INVALID_ARGUMENT, "nobody blocks themselves"));
        }
        if blocked && user.is_erased() {
            return Err(Refused::new(Code::UNREACHABLE, "this user was erased: there is nobody to block"));
        }
        let (by, at_ms, right) = (self.me.clone(), unix_ms(), Some(self.right.clone()));
        let change = BlockChange { by, user: user.clone(), blocked, at_ms, right };
        let outcome = self.store.set_block(change).await?;
        let changed = BlockChanged { user: user.clone(), blocked };
        match outcome {
            BlockOutcome::Changed => self.tell(changed.clone()),
            BlockOutcome::Stood => {}
            BlockOutcome::Full(most) => {
                let detail = format!("you block {most} users, and more are not allowed: unblock somebody");
                return Err(Refused::new(Code::LIMIT_EXCEEDED, detail));
            }
            BlockOutcome::Barred(Barred::Sender(Lost::Erased)) => return Err(Refusal::Erased.into()),
            BlockOutcome::Barred(Barred::Sender(Lost::Revoked)) => return Err(Refusal::Revoked.into()),
            BlockOutcome::Barred(_) => {
                return Err(Refused::new(Code::UNAVAILABLE, "this user is being erased: try again later"));
            }
        }
        self.delivery.judge_again(&Relations::between(self.me, &user));
        Ok(changed)
    }

    /// A page of the users whom they block.
    pub async fn blocks(&self, after: Option<&UserId>) -> Result<BlockList, Refused> {
        let mut blocked = self.store.blocks(self.me, after, BLOCKS_PAGE_MAX + 1).await?;
        let more = blocked.len() > BLOCKS_PAGE_MAX;
        blocked.truncate(BLOCKS_PAGE_MAX);
        let next = blocked.last().filter(|_| more).map(|last| last.user.clone());
        let user =
            |blocked: crate::store::Blocked| BlockedUser { user: blocked.user, since_ms: blocked.since_ms };
        Ok(BlockList { users: blocked.into_iter().map(user).collect(), next })
    }

    /// Stays in a group that somebody else has put them in.
    pub async fn keep(&self, conversation: ConversationId) -> Result<GroupKept, Refused> {
        if !self.store.accept(self.me, conversation).await? {
            return Err(Refused::not_found().within(conversation));
        }
        let kept = GroupKept { conversation };
        self.tell(kept.clone());
        if let Some(state) = self.store.conversation(conversation).await? {
            let members = state.members.iter().map(|member| member.user.clone()).collect();
            self.delivery.judge_again(&Relations { members, moved: [self.me.clone()].into() });
        }
        Ok(kept)
    }

    fn tell(&self, frame: impl Into<Frame>) {
        let except = self.asker.map_or(Except::Nobody, |asker| Except::Session(asker.clone()));
        let parcel = Parcel::control([self.me.clone()], Outgoing::new(frame.into()));
        self.delivery.hand_out(parcel.except(except));
    }
}

/// Somebody who leaves many groups.
pub struct Leaving {
    /// Who.
    pub sender: UserId,
    /// Their display name.
    pub sender_name: Option<String>,
    /// The session that asks.
    pub asker: Option<SessionRef>,
    /// By which token it is asked for.
    pub right: Right,
}

/// Which groups are to be left, each once.
pub fn checked(groups: LeaveGroups) -> Result<LeaveGroups, Refused> {
    if groups.conversations.len() > LEAVE_GROUPS_MAX {
        let detail =
            format!("{} groups, at most {LEAVE_GROUPS_MAX} are left at once", groups.conversations.len());
        return Err(Refused::new(Code::LIMIT_EXCEEDED, detail));
    }
    if groups.conversations.is_empty() {
        return Err(Refused::new(Code::INVALID_ARGUMENT, "conversations is empty"));
    }
    let mut distinct = groups.conversations.clone();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.len() != groups.conversations.len() {
        return Err(Refused::new(Code::INVALID_ARGUMENT, "conversations names one twice"));
    }
    Ok(groups)
}

/// Has all of them left; `done` is called once all are answered, with one answer for each in their order.
pub fn leave(
    router: &Router,
    leaving: Leaving,
    groups: LeaveGroups,
    done: impl FnOnce(Vec<GroupLeft>) + Send + 'static,
) {
    let LeaveGroups { conversations, temp_id } = groups;
    let left = |conversation: &ConversationId| GroupLeft { conversation: *conversation, code: None };
    let all = Answers { groups: conversations.iter().map(left).collect(), done: Some(Box::new(done)) };
    // Whoever is the last to let go of it has all of them answered.
    let all = Arc::new(Mutex::new(all));
    for (place, conversation) in conversations.into_iter().enumerate() {
        let Wanted { change, .. } = Wanted::group(conversation, temp_id, Change::Leave);
        let ask = Ask {
            conversation,
            peer: None,
            sender: leaving.sender.clone(),
            sender_name: leaving.sender_name.clone(),
            asker: leaving.asker.clone(),
            temp_id,
            after: None,
            age_ms: crate::conversation::AGE_UNSAID_MS,
            right: Some(leaving.right.clone()),
            change,
        };
        let answers = Arc::clone(&all);
        let reply = Reply::new(move |outcome| {
            answers.lock().groups[place].code = outcome.err().map(|refusal| refusal.code());
        });
        router.submit(Submission { ask, arrived: Instant::now(), reply });
    }
}

/// The answers of many leaves.
struct Answers {
    groups: Vec<GroupLeft>,
    done: Option<Box<dyn FnOnce(Vec<GroupLeft>) + Send>>,
}

impl Drop for Answers {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            done(std::mem::take(&mut self.groups));
        }
    }
}
