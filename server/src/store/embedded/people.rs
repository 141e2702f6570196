//! Blocks on disk, and who accepts what.

use async_trait::async_trait;
use tern_protocol::{ConversationId, UserId};

use super::disk::Disk;
use super::failures::read_failed;
use super::op::Op;
use super::{EmbeddedStore, USER_BYTES, keys, values};
use crate::store::{BlockChange, BlockOutcome, Blocked, People, StoreError};

#[async_trait]
impl People for EmbeddedStore {
    async fn set_block(&self, change: BlockChange) -> Result<BlockOutcome, StoreError> {
        self.submit(USER_BYTES, |reply| Op::SetBlock { change, reply }).await
    }

    async fn blocks(
        &self,
        user: &UserId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Result<Vec<Blocked>, StoreError> {
        let (user, after) = (user.clone(), after.cloned());
        self.scan(&self.scans, move |disk| disk.blocks(&user, after.as_ref(), limit)).await
    }

    async fn blocked_between(&self, user: &UserId, others: &[UserId]) -> Result<Vec<bool>, StoreError> {
        let (user, others) = (user.clone(), others.to_vec());
        let between = move |disk: &Disk| {
            let one = |other: &UserId| {
                Ok(disk.get(&keys::block(&user, other))?.is_some()
                    || disk.get(&keys::block(other, &user))?.is_some())
            };
            others.iter().map(one).collect()
        };
        self.scan(&self.scans, between).await
    }

    async fn accept(&self, user: &UserId, conversation: ConversationId) -> Result<bool, StoreError> {
        let user = user.clone();
        self.submit(USER_BYTES, |reply| Op::Accept { user, conversation, reply }).await
    }

    async fn forget_blocks(&self, user: &UserId, limit: usize) -> Result<bool, StoreError> {
        let user = user.clone();
        let blocks = self.scan(&self.scans, move |disk| disk.blocks_about(&user, limit)).await?;
        let more = blocks.len() == limit;
        if !blocks.is_empty() {
            let bytes = blocks.len() * USER_BYTES;
            self.submit(bytes, |reply| Op::ForgetBlocks { blocks, reply }).await?;
        }
        Ok(more)
    }
}

impl Disk {
    /// Whom a user blocks, in the order of the bytes of the ids.
    fn blocks(&self, by: &UserId, after: Option<&UserId>, limit: usize) -> Result<Vec<Blocked>, StoreError> {
        let prefix = keys::blocks_by(by);
        // The first key after that of `after` itself.
        let first =
            after.map_or_else(|| prefix.clone(), |after| [&keys::block(by, after)[..], &[0]].concat().into());
        let mut blocked = Vec::new();
        for item in self.space.range(first..).take(limit) {
            let (key, value) = item.into_inner().map_err(read_failed)?;
            if !key.starts_with(&prefix) {
                break;
            }
            let (_, user) = keys::block_users(&key)?;
            blocked.push(Blocked { user, since_ms: values::decode("a block", &value)? });
        }
        Ok(blocked)
    }

    /// Blocks by a user and of them: by whom and whose.
    fn blocks_about(&self, user: &UserId, limit: usize) -> Result<Vec<(UserId, UserId)>, StoreError> {
        let mut blocks = Vec::new();
        for (prefix, is_by) in [(keys::blocks_by(user), true), (keys::blocks_of(user), false)] {
            for item in self.space.prefix(prefix) {
                if blocks.len() == limit {
                    return Ok(blocks);
                }
                let (first, second) = keys::block_users(&item.key().map_err(read_failed)?)?;
                blocks.push(if is_by { (first, second) } else { (second, first) });
            }
        }
        Ok(blocks)
    }
}
