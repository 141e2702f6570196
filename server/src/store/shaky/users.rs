//! Users of a store that misbehaves.

use async_trait::async_trait;
use tern_protocol::UserId;

use super::{Call, Shaky};
use crate::store::{Right, Standing, StoreError, User, UserChange, Users};

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
