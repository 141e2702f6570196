//! Frames by which the user decides who reaches them.

use std::sync::Arc;
use std::time::Instant;

use tern_protocol::{Block, Envelope, GroupsLeft, KeepGroup, LeaveGroups, ListBlocks, Unblock};

use super::active::Active;
use super::people::{Leaving, checked, leave};
use super::quota::Allowance;
use super::reads::{Decision, Job};
use super::refused::Refused;
use super::step::Handled;
use crate::roster::Outgoing;

impl Active {
    pub(super) fn on_block(
        &mut self,
        request: Option<u64>,
        block: Block,
        now: Instant,
    ) -> Result<Handled, Refused> {
        self.decide(request, Decision::Block { user: block.user, blocked: true }, now)
    }

    pub(super) fn on_unblock(
        &mut self,
        request: Option<u64>,
        unblock: Unblock,
        now: Instant,
    ) -> Result<Handled, Refused> {
        self.decide(request, Decision::Block { user: unblock.user, blocked: false }, now)
    }

    pub(super) fn on_keep_group(
        &mut self,
        request: Option<u64>,
        keep: KeepGroup,
        now: Instant,
    ) -> Result<Handled, Refused> {
        self.decide(request, Decision::Keep(keep.conversation), now)
    }

    pub(super) fn on_list_blocks(
        &mut self,
        request: Option<u64>,
        list: ListBlocks,
        now: Instant,
    ) -> Result<Handled, Refused> {
        self.allow_fetch(now)?;
        self.ask_store(Job::Blocks { request, after: list.after })
    }

    /// Each group is left by itself; the answer comes when all are decided.
    pub(super) fn on_leave_groups(
        &mut self,
        request: Option<u64>,
        groups: LeaveGroups,
        now: Instant,
    ) -> Result<Handled, Refused> {
        let groups = checked(groups)?;
        self.allow_sends(groups.conversations.len(), now)?;
        let leaving = Leaving {
            sender: self.seat.user.clone(),
            sender_name: self.claims.name.clone(),
            asker: Some(self.seat.at.clone()),
            right: self.claims.right(),
        };
        let seat = Arc::clone(&self.seat);
        leave(&self.gateway.router, leaving, groups, move |groups| {
            let frame = GroupsLeft { groups }.into();
            let _ = seat.outbox.push_control(&Outgoing::new(Envelope { request, frame }));
        });
        Ok(Handled::Pending)
    }

    fn decide(&mut self, request: Option<u64>, decision: Decision, now: Instant) -> Result<Handled, Refused> {
        self.allow_sends(1, now)?;
        let right = self.claims.right();
        self.ask_store(Job::Decide { request, decision, right })
    }

    /// Decisions count as sends do.
    fn allow_sends(&self, changes: usize, now: Instant) -> Result<(), Refused> {
        match self.gateway.quota.sends(&self.seat.user, changes, now) {
            Allowance::Allowed => Ok(()),
            Allowance::Refused { retry_after } => {
                Err(Refused::rate_limited(retry_after, "sends of this user"))
            }
        }
    }
}
