//! The cluster's map of users to sessions. It is leased and a hint: a wrong answer costs a
//! detour, never a message. Every implementation passes the suite in `contract.rs`.

use async_trait::async_trait;
use tern_protocol::{DeviceId, UserId};

use crate::cluster::NodeId;

#[cfg(test)]
mod contract;
pub mod memory;

/// Where a session is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionAddress {
    /// Name of the node.
    pub node: NodeId,
    /// Which start of that node: an address of an earlier start is stale.
    pub boot: u64,
    /// Number of the session on that node.
    pub session: u64,
    /// Its device.
    pub device: DeviceId,
}

/// Why the registry gave no answer. Callers go on without it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the session registry is unavailable: {0}")]
pub struct RegistryError(pub String);

/// Users to sessions.
#[async_trait]
pub trait Registry: Send + Sync {
    /// Adds a session of a user. One entry per session, not per device; again is a refresh.
    async fn register(&self, user: &UserId, address: &SessionAddress) -> Result<(), RegistryError>;

    /// Removes exactly this session; another one of the user, even a newer one of the same device, stays.
    async fn unregister(&self, user: &UserId, address: &SessionAddress) -> Result<(), RegistryError>;

    /// The live sessions of each user, one answer per question, in order.
    async fn locate(&self, users: &[UserId]) -> Result<Vec<Vec<SessionAddress>>, RegistryError>;
}
