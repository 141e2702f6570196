//! The registry of nodes that run in one process, be it one node alone.

use std::collections::HashMap;

use async_trait::async_trait;
use foldhash::fast::RandomState;
use parking_lot::RwLock;
use smallvec::SmallVec;
use tern_protocol::UserId;
use tokio::time::Instant;

use super::{Held, Lease, Nodes, Registry, RegistryError};
use crate::cluster::NodeId;

/// Everything under one lock that is held for single steps only.
#[derive(Default)]
pub struct MemoryRegistry {
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Start of each node and the end of its lease.
    leases: HashMap<NodeId, (u64, Instant), RandomState>,
    /// A user without a node has no row. Most have one.
    users: HashMap<UserId, SmallVec<[(NodeId, u64); 1]>, RandomState>,
}

impl MemoryRegistry {
    /// Nobody is anywhere.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Inner {
    fn renew(&mut self, me: &Lease, now: Instant) -> Held {
        let before = self.leases.insert(me.node.clone(), (me.boot, now + me.lasts));
        if before.is_some_and(|(boot, ends)| boot == me.boot && now < ends) {
            return Held::Still;
        }
        // What was told under a lease that has ended is void, also if it is told again now.
        self.users.retain(|_, nodes| {
            nodes.retain(|(node, _)| *node != me.node);
            !nodes.is_empty()
        });
        Held::Anew
    }
}

#[async_trait]
impl Registry for MemoryRegistry {
    async fn keep(&self, me: &Lease, came: &[UserId], went: &[UserId]) -> Result<Held, RegistryError> {
        let mut inner = self.inner.write();
        let now = Instant::now();
        if inner.leases.get(&me.node).is_some_and(|(boot, ends)| *boot > me.boot && now < *ends) {
            return Err(RegistryError("a later start of this node holds the lease".into()));
        }
        let held = inner.renew(me, now);
        for user in came {
            let nodes = inner.users.entry(user.clone()).or_default();
            if !nodes.iter().any(|(node, _)| *node == me.node) {
                nodes.push((me.node.clone(), me.boot));
            }
        }
        for user in went {
            if let Some(nodes) = inner.users.get_mut(user) {
                nodes.retain(|(node, boot)| *node != me.node || *boot != me.boot);
                if nodes.is_empty() {
                    inner.users.remove(user);
                }
            }
        }
        Ok(held)
    }

    async fn locate(&self, users: &[UserId]) -> Result<Vec<Nodes>, RegistryError> {
        let inner = self.inner.read();
        let now = Instant::now();
        let stands = |node: &NodeId, boot: u64| {
            inner.leases.get(node).is_some_and(|(of, ends)| *of == boot && now < *ends)
        };
        let of_user = |user| {
            let nodes = inner.users.get(user).into_iter().flatten();
            nodes.filter(|(node, boot)| stands(node, *boot)).map(|(node, _)| node.clone()).collect()
        };
        Ok(users.iter().map(of_user).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::registry::contract;

    contract::suite!(Arc::new(MemoryRegistry::new()));

    #[tokio::test]
    async fn a_user_without_sessions_takes_no_memory() {
        let registry = MemoryRegistry::new();
        let user = [UserId::new("alice").unwrap()];
        let lease = contract::lease("a", 1, Duration::from_secs(30));
        registry.keep(&lease, &user, &[]).await.unwrap();
        registry.keep(&lease, &[], &user).await.unwrap();
        assert!(registry.inner.read().users.is_empty());
    }
}
