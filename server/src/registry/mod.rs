//! The fleet's map of users to the nodes they have sessions on. It is leased and a hint: a wrong answer
//! costs a detour, never a message. Every implementation passes the suite in `contract.rs`.

use std::time::Duration;

use async_trait::async_trait;
use smallvec::SmallVec;
use tern_protocol::UserId;

#[cfg(test)]
mod contract;
mod keeper;
pub mod memory;

pub use keeper::Keeper;

use crate::cluster::NodeId;

/// What a node holds while it keeps saying so: with it everything ends that the node told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Which node.
    pub node: NodeId,
    /// Which start of it, a later one with a higher number: what an earlier one told is void.
    pub boot: u64,
    /// How long it lasts from the last [`Registry::keep`].
    pub lasts: Duration,
}

/// How a node finds its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It stood: so does everything told before.
    Still,
    /// It begins with this call, for the first time or because it had run out: all users of the node are
    /// to be told, except those of this call.
    Anew,
}

/// Nodes on which a user has a session.
pub type Nodes = SmallVec<[NodeId; 2]>;

/// Why the registry gave no answer. Callers go on without it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the session registry is unavailable: {0}")]
pub struct RegistryError(pub String);

/// Users to nodes.
#[async_trait]
pub trait Registry: Send + Sync {
    /// Renews the lease of a node, and tells whose first session began there and whose last one ended; one
    /// round trip. Again is the same. While the lease of a later start stands, an earlier one that is still
    /// heard of is refused, and takes nothing away.
    async fn keep(&self, me: &Lease, came: &[UserId], went: &[UserId]) -> Result<Held, RegistryError>;

    /// The nodes of each user whose lease has not run out, in no order; one answer per question, in order.
    async fn locate(&self, users: &[UserId]) -> Result<Vec<Nodes>, RegistryError>;
}
