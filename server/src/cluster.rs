//! Names that mean the same on every node of a fleet: a node, and a session on it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Longest name of a node in bytes.
const NODE_ID_BYTES_MAX: usize = 64;

/// Name of a node, unique in its fleet: 1 to 64 bytes without control characters. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(Arc<str>);

/// The text cannot name a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name of a node must be 1 to {NODE_ID_BYTES_MAX} bytes without control characters")]
pub struct NodeIdError;

impl NodeId {
    /// Checks the rules of the type and keeps the name.
    pub fn new(name: &str) -> Result<Self, NodeIdError> {
        if name.is_empty() || name.len() > NODE_ID_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(NodeIdError);
        }
        Ok(Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl Serialize for NodeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::new(&name).map_err(de::Error::custom)
    }
}

/// A session, whichever node asks: two starts of a node never share one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionRef {
    /// The node it is on.
    pub node: NodeId,
    /// Which start of that node.
    pub boot: u64,
    /// Its number in that start.
    pub session: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_by_a_short_text_that_can_be_shown() {
        assert_eq!(NodeId::new("tern-1").unwrap().as_str(), "tern-1");
        for bad in ["", "a\nb", &"x".repeat(NODE_ID_BYTES_MAX + 1)] {
            assert_eq!(NodeId::new(bad), Err(NodeIdError), "{bad:?}");
        }
    }

    #[test]
    fn what_a_peer_sends_as_a_session_is_checked() {
        let session = SessionRef { node: NodeId::new("a").unwrap(), boot: 3, session: 9 };
        let bytes = postcard::to_stdvec(&session).unwrap();
        assert_eq!(postcard::from_bytes::<SessionRef>(&bytes).unwrap(), session);
        let nameless = postcard::to_stdvec(&("", 3_u64, 9_u64)).unwrap();
        assert!(postcard::from_bytes::<SessionRef>(&nameless).is_err());
    }
}
