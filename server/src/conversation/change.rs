//! What can be asked of a conversation, and how it answers.

use std::time::Instant;

use sha2::{Digest, Sha256};
use tern_protocol::{Code, ConversationId, EntryId, Role, TempId, UserId};

/// A change of a conversation. Sizes and texts were checked when it was read from the wire.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Change {
    /// Write a message.
    Message {
        /// The text.
        text: String,
    },
    /// Make the group.
    Create {
        /// Its name.
        name: String,
        /// Members besides the sender.
        members: Vec<UserId>,
    },
    /// Add members.
    Add {
        /// Who joins.
        users: Vec<UserId>,
    },
    /// Remove members.
    Remove {
        /// Who goes.
        users: Vec<UserId>,
    },
    /// Leave the group.
    Leave,
    /// Rename the group.
    Rename {
        /// The new name.
        name: String,
    },
    /// Change a member's role.
    SetRole {
        /// Whose.
        user: UserId,
        /// The new role.
        role: Role,
    },
    /// Take a user out who is being erased; the sender stands in their place. Asked for by the server only.
    Erase {
        /// Who.
        user: UserId,
    },
}

impl Change {
    /// First 16 bytes of SHA-256 over the encoded change: a retry asks for exactly the same.
    pub fn digest(&self) -> [u8; 16] {
        let bytes = postcard::to_stdvec(self).expect("a change encodes without failing");
        let mut digest = [0; 16];
        digest.copy_from_slice(&Sha256::digest(bytes)[..16]);
        digest
    }

    /// About how many bytes its entry takes in the store.
    pub fn weight(&self) -> usize {
        let content = match self {
            Self::Message { text } => text.len(),
            Self::Rename { name } => name.len(),
            Self::Create { name, members } => {
                name.len() + members.iter().map(|u| u.as_str().len()).sum::<usize>()
            }
            Self::Add { users } | Self::Remove { users } => users.iter().map(|u| u.as_str().len()).sum(),
            Self::Leave | Self::SetRole { .. } | Self::Erase { .. } => 0,
        };
        content + 256
    }
}

/// A change on its way to the log, with all that deciding about it needs.
#[derive(Debug)]
pub struct Submission {
    /// Which log.
    pub conversation: ConversationId,
    /// The other user, where a message named a user: the pair is made on first use.
    pub peer: Option<UserId>,
    /// Who asks.
    pub sender: UserId,
    /// Their display name.
    pub sender_name: Option<String>,
    /// Number of the session that asked: it gets the answer instead of a Deliver for a message.
    pub origin: u64,
    /// The same for every retry.
    pub temp_id: TempId,
    /// The send of the same session in this conversation that must be in the log before this one.
    pub after: Option<TempId>,
    /// Milliseconds since the first attempt.
    pub age_ms: u64,
    /// What is asked.
    pub change: Change,
    /// When the frame arrived, for the delivery time.
    pub arrived: Instant,
    /// Takes the answer.
    pub reply: Reply,
}

/// A durable change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its place in the log.
    pub seq: u64,
    /// Its id.
    pub id: EntryId,
    /// Time of its entry in Unix milliseconds.
    pub time_ms: u64,
    /// It was durable before this attempt.
    pub duplicate: bool,
    /// A recipient has never been seen by this server.
    pub recipient_unknown: bool,
}

/// Why a change was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such conversation, or the sender is not in it.
    #[error("no such conversation for this user")]
    NotFound,
    /// The sender's role does not allow it.
    #[error("{0}")]
    Forbidden(&'static str),
    /// More members than allowed.
    #[error("a group has at most {0} members")]
    GroupFull(usize),
    /// The `temp_id` was used for something else.
    #[error("this temp_id was used before for another content, at seq {seq}")]
    Conflict {
        /// Where that is.
        seq: u64,
    },
    /// The change makes no sense here.
    #[error("{0}")]
    Invalid(String),
    /// The send before it is unresolved.
    #[error("an earlier send of this session in this conversation is unresolved: retry or abandon it first")]
    OutOfOrder,
    /// The store does not answer, or the conversation's queue is full.
    #[error("{0}")]
    Unavailable(&'static str),
}

impl Refusal {
    /// The code for the wire: the only place where refusals become numbers.
    pub fn code(&self) -> Code {
        match self {
            Self::NotFound => Code::NOT_FOUND,
            Self::Forbidden(_) => Code::FORBIDDEN,
            Self::GroupFull(_) => Code::GROUP_FULL,
            Self::Conflict { .. } => Code::CONFLICT,
            Self::Invalid(_) => Code::INVALID_ARGUMENT,
            Self::OutOfOrder => Code::OUT_OF_ORDER,
            Self::Unavailable(_) => Code::UNAVAILABLE,
        }
    }

    /// The change is settled by it: those sent after it need not wait for it. A conflict is not, since
    /// it is told before the order was looked at.
    pub fn resolves(&self) -> bool {
        match self {
            Self::NotFound | Self::Forbidden(_) | Self::GroupFull(_) | Self::Invalid(_) => true,
            Self::Conflict { .. } | Self::OutOfOrder | Self::Unavailable(_) => false,
        }
    }
}

/// The answer to a submission.
pub type Outcome = Result<Committed, Refusal>;

/// Takes the answer to one submission, exactly once: dropped unanswered (its task died) it
/// answers that the outcome is not known, which makes the client retry.
pub struct Reply(Option<Box<dyn FnOnce(Outcome) + Send + Sync>>);

impl Reply {
    /// Calls `answer` with the outcome.
    pub fn new(answer: impl FnOnce(Outcome) + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(answer)))
    }

    /// Gives the answer.
    pub fn send(mut self, outcome: Outcome) {
        if let Some(answer) = self.0.take() {
            answer(outcome);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(answer) = self.0.take() {
            answer(Err(Refusal::Unavailable("the conversation stopped before it answered")));
        }
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reply")
    }
}
