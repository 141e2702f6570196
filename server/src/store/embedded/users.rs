//! What is kept of users besides their conversations: names, last-seen, and what was taken from their tokens.

use async_trait::async_trait;
use tern_protocol::UserId;

use super::disk::Disk;
use super::op::Op;
use super::{EmbeddedStore, USER_BYTES, keys, values};
use crate::store::{Right, Standing, StoreError, User, UserChange, Users};

#[async_trait]
impl Users for EmbeddedStore {
    async fn users(&self, users: &[UserId]) -> Result<Vec<Option<User>>, StoreError> {
        let keys: Vec<_> = users.iter().map(keys::user).collect();
        let read = move |disk: &Disk| {
            let read =
                |key: &bytes::Bytes| disk.get(key)?.map(|bytes| values::decode("a user", &bytes)).transpose();
            keys.iter().map(read).collect()
        };
        self.scan(&self.scans, read).await
    }

    async fn change_user(
        &self,
        user: &UserId,
        change: UserChange,
        right: Option<Right>,
    ) -> Result<bool, StoreError> {
        let user = user.clone();
        self.submit(USER_BYTES, |reply| Op::ChangeUser { user, change, right, reply }).await
    }

    async fn standing(&self, user: &UserId) -> Result<Standing, StoreError> {
        Ok(self.disk.standings.get(user))
    }

    async fn refuse_before(&self, user: &UserId, before_ms: u64) -> Result<(), StoreError> {
        let user = user.clone();
        self.submit(USER_BYTES, |reply| Op::RefuseBefore { user, before_ms, reply }).await
    }
}
