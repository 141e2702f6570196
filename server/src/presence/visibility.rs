//! Who may see whose presence: those who share a conversation.

use std::collections::HashSet;

use futures_util::future::try_join_all;
use tern_protocol::{ConversationId, UserId};

use crate::store::{Store, StoreError};

/// Most conversations of a user that are read to find shared groups: the most recently active ones.
pub const CONVERSATIONS_READ_MAX: usize = 256;
/// Reads at a time.
const READS_AT_ONCE: usize = 16;

/// Whether `me` may see each of `users`: oneself, the other side of an existing 1-on-1 conversation,
/// and those in a group that `me` is in. One answer per user, in order.
pub async fn visible(store: &dyn Store, me: &UserId, users: &[UserId]) -> Result<Vec<bool>, StoreError> {
    let others: HashSet<&UserId> = users.iter().filter(|user| *user != me).collect();
    let mut hidden = without_pair(store, me, others).await?;
    if !hidden.is_empty() {
        remove_group_members(store, me, &mut hidden).await?;
    }
    Ok(users.iter().map(|user| !hidden.contains(user)).collect())
}

/// Those of `users` who have no 1-on-1 conversation with `me`.
async fn without_pair<'a>(
    store: &dyn Store,
    me: &UserId,
    users: HashSet<&'a UserId>,
) -> Result<HashSet<&'a UserId>, StoreError> {
    let asked: Vec<&UserId> = users.iter().copied().collect();
    let mut without = users;
    for some in asked.chunks(READS_AT_ONCE) {
        let reads = some.iter().map(|user| store.conversation(ConversationId::pair(me, user)));
        for (user, pair) in some.iter().zip(try_join_all(reads).await?) {
            if pair.is_some_and(|pair| pair.member(me).is_some() && pair.member(user).is_some()) {
                without.remove(user);
            }
        }
    }
    Ok(without)
}

/// Takes everybody out of `hidden` who is in a group with `me`.
async fn remove_group_members(
    store: &dyn Store,
    me: &UserId,
    hidden: &mut HashSet<&UserId>,
) -> Result<(), StoreError> {
    let rows = store.inbox(me).await?;
    let current: Vec<ConversationId> = rows
        .iter()
        .filter(|row| row.until_seq.is_none())
        .take(CONVERSATIONS_READ_MAX)
        .map(|row| row.conversation)
        .collect();
    for some in current.chunks(READS_AT_ONCE) {
        if hidden.is_empty() {
            break;
        }
        let groups = try_join_all(some.iter().map(|id| store.conversation(*id))).await?;
        for group in groups.into_iter().flatten().filter(|group| group.member(me).is_some()) {
            for member in &group.members {
                hidden.remove(&member.user);
            }
        }
    }
    Ok(())
}
