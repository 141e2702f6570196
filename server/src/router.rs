//! Finds who owns a conversation and hands changes over: on one node, always here.

use crate::conversation::{Conversations, Submission};

/// Handle to the router. Cheap to clone.
#[derive(Clone)]
pub struct Router {
    local: Conversations,
}

impl Router {
    /// Routes to the conversations of this node.
    pub fn new(local: Conversations) -> Self {
        Self { local }
    }

    /// Hands a change to the owner of its conversation. The answer comes through its `reply`, in
    /// the order of the calls of one session.
    pub fn submit(&self, submission: Submission) {
        self.local.submit(submission);
    }
}
