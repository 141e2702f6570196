//! What the committer is asked to do.

use bytes::Bytes;
use fjall::Snapshot;
use tern_protocol::{ConversationId, Entry, UserId};
use tokio::sync::oneshot;

use super::append::Append;
use crate::store::{
    BlockChange, BlockOutcome, Erasure, Kept, Owed, ReadPosition, Right, StoreError, UserChange,
};

/// Where the answer to an operation goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A durable write, its values encoded already where they can be: the committer is one thread, its callers
/// are many.
pub(super) enum Op {
    Appends {
        appends: Vec<Append>,
        owed: Owed,
    },
    SetRead {
        key: Bytes,
        read: ReadPosition,
        reply: Reply<bool>,
    },
    ChangeUser {
        user: UserId,
        change: UserChange,
        right: Option<Right>,
        reply: Reply<bool>,
    },
    RefuseBefore {
        user: UserId,
        before_ms: u64,
        reply: Reply<()>,
    },
    SetBlock {
        change: BlockChange,
        reply: Reply<BlockOutcome>,
    },
    Accept {
        user: UserId,
        conversation: ConversationId,
        reply: Reply<bool>,
    },
    /// Blocks by the first user of the second.
    ForgetBlocks {
        blocks: Vec<(UserId, UserId)>,
        reply: Reply<()>,
    },
    ClearIntents {
        intents: Vec<(u8, Bytes)>,
        reply: Reply<()>,
    },
    Age {
        age: Age,
        reply: Reply<bool>,
    },
    Rewrite {
        rewrite: Rewrite,
        reply: Reply<()>,
    },
    BeginErasure {
        user: UserId,
        became: UserId,
        at_ms: u64,
        reply: Reply<Erasure>,
    },
    FinishErasure {
        user: UserId,
        kept: KeptOf,
        reply: Reply<bool>,
    },
    Snapshot {
        reply: Reply<Frozen>,
    },
    /// Bytes that mean nothing; `None` takes them out again. Always a commit.
    Fill {
        filling: Option<Bytes>,
        reply: Reply<()>,
    },
}

impl Op {
    /// It changes what others rest on without looking, so it has a commit of its own.
    pub(super) fn is_alone(&self) -> bool {
        matches!(
            self,
            Self::RefuseBefore { .. }
                | Self::Age { .. }
                | Self::Rewrite { .. }
                | Self::BeginErasure { .. }
                | Self::FinishErasure { .. }
        )
    }
}

/// The store as of a commit, unmoved by later ones.
pub(super) struct Frozen {
    pub(super) snapshot: Snapshot,
    /// Number of that commit.
    pub(super) commits: u64,
}

/// A piece of ageing, found by a reader; the writer drops it if the log has aged since.
pub(super) struct Age {
    pub(super) conversation: ConversationId,
    pub(super) before: Kept,
    pub(super) after: Kept,
    pub(super) removed: Vec<Bytes>,
}

/// What is kept of a user besides their messages.
#[derive(Default)]
pub(super) struct KeptOf {
    /// Conversations of which they have a row or a read position.
    pub(super) conversations: Vec<ConversationId>,
    /// Push intents of what they wrote: shards and keys.
    pub(super) intents: Vec<(u8, Bytes)>,
}

/// Entries to be put in the place of others.
pub(super) struct Rewrite {
    pub(super) conversation: ConversationId,
    pub(super) entries: Vec<(Bytes, Entry)>,
    pub(super) erased_seq: u64,
}
