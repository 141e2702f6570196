//! The registry of a server that is alone: nothing is leased, since it dies with its sessions.

use std::collections::HashMap;

use async_trait::async_trait;
use foldhash::fast::RandomState;
use parking_lot::RwLock;
use smallvec::SmallVec;
use tern_protocol::UserId;

use super::{Registry, RegistryError, SessionAddress};

/// Sessions by user, under one lock that is held for single steps only.
#[derive(Default)]
pub struct MemoryRegistry {
    /// A user with no session has no entry, so the map is as large as what is connected. Most have
    /// one session.
    sessions: RwLock<HashMap<UserId, SmallVec<[SessionAddress; 1]>, RandomState>>,
}

impl MemoryRegistry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }
}

/// What tells two sessions apart: the device is told along, but is not part of it.
fn is_same(a: &SessionAddress, b: &SessionAddress) -> bool {
    a.session == b.session && a.boot == b.boot && a.node == b.node
}

#[async_trait]
impl Registry for MemoryRegistry {
    async fn register(&self, user: &UserId, address: &SessionAddress) -> Result<(), RegistryError> {
        let mut sessions = self.sessions.write();
        let of_user = sessions.entry(user.clone()).or_default();
        match of_user.iter_mut().find(|known| is_same(known, address)) {
            Some(known) => known.clone_from(address),
            None => of_user.push(address.clone()),
        }
        Ok(())
    }

    async fn unregister(&self, user: &UserId, address: &SessionAddress) -> Result<(), RegistryError> {
        let mut sessions = self.sessions.write();
        if let Some(of_user) = sessions.get_mut(user) {
            of_user.retain(|known| !is_same(known, address));
            if of_user.is_empty() {
                sessions.remove(user);
            }
        }
        Ok(())
    }

    async fn locate(&self, users: &[UserId]) -> Result<Vec<Vec<SessionAddress>>, RegistryError> {
        let sessions = self.sessions.read();
        let of_user = |user| sessions.get(user).map_or_else(Vec::new, |found| found.to_vec());
        Ok(users.iter().map(of_user).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::registry::contract;

    contract::suite!(Arc::new(MemoryRegistry::new()));

    #[tokio::test]
    async fn a_user_without_sessions_takes_no_memory() {
        let registry = MemoryRegistry::new();
        let user = UserId::new("alice").unwrap();
        let address = contract::address("a", 1, 1, "phone");
        registry.register(&user, &address).await.unwrap();
        registry.unregister(&user, &address).await.unwrap();
        assert!(registry.sessions.read().is_empty());
    }
}
