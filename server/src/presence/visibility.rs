//! Who may see whose presence: those who share a conversation in which the other has shown themselves.

use std::collections::HashSet;

use tern_protocol::{ConversationId, UserId};

use crate::store::{Conversation, Store, StoreError, glance_apart};

/// Most conversations of a user that are read to find shared groups: the most recently active ones.
pub const CONVERSATIONS_READ_MAX: usize = 256;

/// Whether `me` may see each of `users`: oneself, and whoever [is shown](shows) to me by our 1-on-1 conversation
/// or a group, if neither of us blocks the other. One answer per user, in order. Four round trips.
pub async fn visible(store: &dyn Store, me: &UserId, users: &[UserId]) -> Result<Vec<bool>, StoreError> {
    let others: Vec<UserId> = users.iter().filter(|user| *user != me).cloned().collect();
    if others.is_empty() {
        return Ok(vec![true; users.len()]);
    }
    let mut hidden = without_pair(store, me, others.iter().collect()).await?;
    if !hidden.is_empty() {
        remove_group_members(store, me, &mut hidden).await?;
    }
    let blocked = others.iter().zip(store.blocked_between(me, &others).await?);
    hidden.extend(blocked.filter_map(|(user, blocked)| blocked.then_some(user)));
    Ok(users.iter().map(|user| !hidden.contains(user)).collect())
}

/// A conversation shows a user to me: both are in it, and it was not me who brought them in, unless they have
/// written in it or kept it since. So nobody sees others for having written to them, or for having added them.
fn shows(state: &Conversation, me: &UserId, user: &UserId) -> bool {
    let is_shown = |added_by: Option<&UserId>| added_by != Some(me);
    state.member(me).is_some() && state.member(user).is_some_and(|other| is_shown(other.added_by.as_ref()))
}

/// Those of `users` whom no 1-on-1 conversation shows to me.
async fn without_pair<'a>(
    store: &dyn Store,
    me: &UserId,
    users: HashSet<&'a UserId>,
) -> Result<HashSet<&'a UserId>, StoreError> {
    let asked: Vec<&UserId> = users.iter().copied().collect();
    let mut without = users;
    let pairs: Vec<_> = asked.iter().map(|user| ConversationId::pair(me, user)).collect();
    for (user, pair) in asked.into_iter().zip(glance_apart(store, &pairs).await?.found) {
        if pair.is_some_and(|pair| shows(&pair.state, me, user)) {
            without.remove(user);
        }
    }
    Ok(without)
}

/// Takes everybody out of `hidden` whom a group shows to me.
async fn remove_group_members(
    store: &dyn Store,
    me: &UserId,
    hidden: &mut HashSet<&UserId>,
) -> Result<(), StoreError> {
    let rows = store.inbox(me, None, CONVERSATIONS_READ_MAX).await?;
    let current: Vec<ConversationId> =
        rows.iter().filter(|row| row.until_seq.is_none()).map(|row| row.conversation).collect();
    for group in glance_apart(store, &current).await?.found.into_iter().flatten() {
        hidden.retain(|user| !shows(&group.state, me, user));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tern_protocol::{ConversationKind, WATCH_USERS_MAX};

    use super::*;
    use crate::store::contract::{Talk, fresh_temp_id};
    use crate::store::memory::MemoryStore;
    use crate::store::shaky::{Call, Shaky};

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    #[tokio::test]
    async fn however_many_are_looked_at_it_costs_four_round_trips() {
        let shaky = Shaky::new(Arc::new(MemoryStore::new()));
        let store: Arc<dyn Store> = shaky.clone();
        let me = user("me");
        let others: Vec<UserId> =
            (0..WATCH_USERS_MAX).map(|number| user(&format!("user-{number}"))).collect();
        // Of three, one is in a pair with me, one in a group, and one a stranger.
        for (number, other) in others.iter().enumerate().filter(|(number, _)| number % 3 < 2) {
            let mut talk = Talk::new(&[&me, other]);
            if number % 3 == 0 {
                talk.id = ConversationId::pair(&me, other);
                Arc::make_mut(&mut talk.state).kind = ConversationKind::Pair;
            }
            let group = talk.group(&me, &[(fresh_temp_id(), "hi")]);
            talk.apply(&store, group).await;
        }
        let before = shaky.round_trips();
        let seen = visible(&*store, &me, &others).await.unwrap();
        let expected: Vec<bool> = (0..others.len()).map(|number| number % 3 < 2).collect();
        assert_eq!(seen, expected);
        assert_eq!(shaky.round_trips() - before, 4, "pairs, list, groups, blocks");
        assert_eq!(shaky.calls(Call::Conversation), 0);
    }
}
