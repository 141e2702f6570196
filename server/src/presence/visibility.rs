//! Who may see whose presence: those who share a conversation.

use std::collections::HashSet;

use tern_protocol::{ConversationId, UserId};

use crate::store::{Store, StoreError};

/// Most conversations of a user that are read to find shared groups: the most recently active ones.
pub const CONVERSATIONS_READ_MAX: usize = 256;

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
    let pairs: Vec<_> = asked.iter().map(|user| ConversationId::pair(me, user)).collect();
    for (user, pair) in asked.into_iter().zip(store.glance(&pairs).await?) {
        if pair.is_some_and(|pair| pair.state.member(me).is_some() && pair.state.member(user).is_some()) {
            without.remove(user);
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
    let rows = store.inbox(me, None, CONVERSATIONS_READ_MAX).await?;
    let current: Vec<ConversationId> =
        rows.iter().filter(|row| row.until_seq.is_none()).map(|row| row.conversation).collect();
    for group in store.glance(&current).await?.into_iter().flatten() {
        if group.state.member(me).is_some() {
            for member in &group.state.members {
                hidden.remove(&member.user);
            }
        }
    }
    Ok(())
}
