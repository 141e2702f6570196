//! Users and their blocks in a store that misbehaves.

use async_trait::async_trait;
use tern_protocol::{ConversationId, UserId};

use super::{Call, Shaky};
use crate::store::{
    BlockChange, BlockOutcome, Blocked, People, Right, Standing, StoreError, User, UserChange, Users,
};

#[async_trait]
impl Users for Shaky {
    async fn users(&self, users: &[UserId]) -> Result<Vec<Option<User>>, StoreError> {
        self.read(Call::Users).await?;
        self.store.users(users).await
    }

    async fn change_user(
        &self,
        user: &UserId,
        change: UserChange,
        right: Option<Right>,
    ) -> Result<bool, StoreError> {
        self.count(Call::ChangeUser)?;
        self.store.change_user(user, change, right).await
    }

    async fn standing(&self, user: &UserId) -> Result<Standing, StoreError> {
        self.read(Call::Users).await?;
        self.store.standing(user).await
    }

    async fn refuse_before(&self, user: &UserId, before_ms: u64) -> Result<(), StoreError> {
        self.count(Call::ChangeUser)?;
        self.store.refuse_before(user, before_ms).await
    }
}

#[async_trait]
impl People for Shaky {
    async fn set_block(&self, change: BlockChange) -> Result<BlockOutcome, StoreError> {
        self.count(Call::People)?;
        self.store.set_block(change).await
    }

    async fn blocks(
        &self,
        user: &UserId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<Blocked>, StoreError> {
        self.read(Call::People).await?;
        self.store.blocks(user, after, limit).await
    }

    async fn blocked_between(&self, user: &UserId, others: &[UserId]) -> Result<Vec<bool>, StoreError> {
        self.read(Call::People).await?;
        self.store.blocked_between(user, others).await
    }

    async fn accept(&self, user: &UserId, conversation: ConversationId) -> Result<bool, StoreError> {
        self.count(Call::People)?;
        self.store.accept(user, conversation).await
    }

    async fn forget_blocks(&self, user: &UserId, limit: usize) -> Result<bool, StoreError> {
        self.count(Call::People)?;
        self.store.forget_blocks(user, limit).await
    }
}
