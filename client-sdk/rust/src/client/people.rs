//! Who reaches the user: blocks, and groups that others put them in. Asking again changes nothing more, so these are
//! asked again as questions are.

use tern_protocol::{
    Block, BlockChanged, BlockedUser, ConversationId, Frame, GroupLeft, KeepGroup, LeaveGroups, ListBlocks,
    Unblock, UserId,
};

use super::{Client, fresh_temp_id};
use crate::error::RequestError;

impl Client {
    /// Blocks a user, who is not told: between the two no messages in their 1-on-1 conversation, nobody of the two
    /// puts the other in a group, and neither sees whether the other is there. Groups that both are in stay.
    ///
    /// # Errors
    /// Refused ([`LIMIT_EXCEEDED`](crate::Code::LIMIT_EXCEEDED): as many are blocked as can be), no answer in time,
    /// or the client has stopped.
    pub async fn block(&self, user: UserId) -> Result<(), RequestError> {
        self.ask(Block { user }.into(), block_changed).await.map(drop)
    }

    /// Takes a block back.
    ///
    /// # Errors
    /// No answer in time, or the client has stopped.
    pub async fn unblock(&self, user: UserId) -> Result<(), RequestError> {
        self.ask(Unblock { user }.into(), block_changed).await.map(drop)
    }

    /// Everybody whom the user blocks, in the order of the bytes of the ids.
    ///
    /// # Errors
    /// No answer in time, or the client has stopped.
    pub async fn blocks(&self) -> Result<Vec<BlockedUser>, RequestError> {
        let (mut blocks, mut after) = (Vec::new(), None);
        loop {
            let list = self.ask(ListBlocks { after }.into(), |frame| match frame {
                Frame::BlockList(list) => Some(list),
                _ => None,
            });
            let list = list.await?;
            blocks.extend(list.users);
            after = list.next;
            if after.is_none() {
                return Ok(blocks);
            }
        }
    }

    /// Stays in a group into which somebody else has put the user, without writing in it: it counts no more towards
    /// how many that may be.
    ///
    /// # Errors
    /// Refused ([`NOT_FOUND`](crate::Code::NOT_FOUND)), no answer in time, or the client has stopped.
    pub async fn keep(&self, conversation: ConversationId) -> Result<(), RequestError> {
        let kept = self.ask(KeepGroup { conversation }.into(), |frame| match frame {
            Frame::GroupKept(kept) => Some(kept),
            _ => None,
        });
        kept.await.map(drop)
    }

    /// Leaves many groups, at most [`leave_groups`](crate::Limits::leave_groups): each by itself, and the answer
    /// says of each what became of it, in their order.
    ///
    /// # Errors
    /// Refused (too many, or one twice), no answer in time, or the client has stopped.
    pub async fn leave_many(
        &self,
        conversations: Vec<ConversationId>,
    ) -> Result<Vec<GroupLeft>, RequestError> {
        let temp_id = fresh_temp_id();
        self.ask(LeaveGroups { conversations, temp_id }.into(), |frame| match frame {
            Frame::GroupsLeft(left) => Some(left.groups),
            _ => None,
        })
        .await
    }
}

fn block_changed(frame: Frame) -> Option<BlockChanged> {
    match frame {
        Frame::BlockChanged(changed) => Some(changed),
        _ => None,
    }
}
