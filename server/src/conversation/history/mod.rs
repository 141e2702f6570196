//! Reading logs: who may see what, pages of history, lists of conversations, catching up. Each question
//! costs a constant number of round trips to the store, however many conversations it is about; the tests
//! say how many.

use std::collections::HashMap;
use std::sync::Arc;

use tern_protocol::{ConversationId, MemberInfo, UserId};

mod access;
mod catch_up;
mod inbox;
mod list_cursor;
mod pages;
#[cfg(test)]
mod tests;

pub use access::{Access, Marked};
pub use catch_up::{Ahead, Changed, Changes, Missing, Run};
pub use inbox::{Described, SummaryPage};
pub use list_cursor::ListCursor;
pub use pages::{Anchor, HistoryPage};

use crate::store::{Conversation, Store, StoreError, users_apart};

/// Handle for reading. Cheap to clone.
#[derive(Clone)]
pub struct History {
    store: Arc<dyn Store>,
}

impl History {
    /// Reads from `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// The conversation, if `user` is one of its members.
    pub async fn fellow_members(
        &self,
        user: &UserId,
        id: ConversationId,
    ) -> Result<Option<Arc<Conversation>>, StoreError> {
        let glance = self.glance_as(user, id).await?;
        Ok(glance.map(|glance| glance.state).filter(|state| state.member(user).is_some()))
    }

    /// The members with their display names, `None` whether absent or forbidden. Two round trips.
    pub async fn members(
        &self,
        user: &UserId,
        id: ConversationId,
    ) -> Result<Option<Vec<MemberInfo>>, StoreError> {
        let Some(state) = self.fellow_members(user, id).await? else { return Ok(None) };
        let names = self.names(state.members.iter().map(|member| &member.user)).await?;
        Ok(Some(members_of(&state, &names)))
    }

    /// The display names of these users, of those who have one.
    async fn names(
        &self,
        users: impl Iterator<Item = &UserId>,
    ) -> Result<HashMap<UserId, String>, StoreError> {
        let mut users: Vec<UserId> = users.cloned().collect();
        users.sort_unstable();
        users.dedup();
        if users.is_empty() {
            return Ok(HashMap::new());
        }
        let known = users_apart(&*self.store, &users).await?.found;
        let named = users.into_iter().zip(known);
        Ok(named.filter_map(|(user, known)| Some((user, known?.name?))).collect())
    }
}

fn members_of(state: &Conversation, names: &HashMap<UserId, String>) -> Vec<MemberInfo> {
    let info = |member: &crate::store::Member| MemberInfo {
        user: member.user.clone(),
        name: names.get(&member.user).cloned(),
        role: member.role,
    };
    state.members.iter().map(info).collect()
}
