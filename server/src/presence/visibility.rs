//! Who may see whose presence: those who share a conversation.

use std::collections::HashSet;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use tern_protocol::{ConversationId, UserId};

use crate::store::{Conversation, Store, StoreError};

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
    stream::iter(users)
        .map(|user| async move {
            let pair = store.conversation(ConversationId::pair(me, user)).await?;
            Ok((user, pair.is_some_and(|pair| pair.member(me).is_some() && pair.member(user).is_some())))
        })
        .buffer_unordered(READS_AT_ONCE)
        .try_filter_map(|(user, found)| async move { Ok((!found).then_some(user)) })
        .try_collect()
        .await
}

/// Takes everybody out of `hidden` who is in a group with `me`.
async fn remove_group_members(
    store: &dyn Store,
    me: &UserId,
    hidden: &mut HashSet<&UserId>,
) -> Result<(), StoreError> {
    let rows = store.inbox(me).await?;
    let current = rows.into_iter().filter(|row| row.until_seq.is_none()).take(CONVERSATIONS_READ_MAX);
    let mut groups =
        stream::iter(current).map(|row| store.conversation(row.conversation)).buffer_unordered(READS_AT_ONCE);
    while !hidden.is_empty()
        && let Some(group) = groups.next().await
    {
        let shared = |group: &Conversation| group.member(me).is_some();
        for member in group?.filter(shared).into_iter().flat_map(|group| group.members) {
            hidden.remove(&member.user);
        }
    }
    Ok(())
}
