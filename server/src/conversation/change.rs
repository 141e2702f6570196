//! What can be asked of a conversation, and how it answers.

use std::time::Instant;

use sha2::{Digest, Sha256};
use tern_protocol::{
    Code, ConversationId, DEDUPE_WINDOW_S, EntryId, GROUP_MEMBERS_MAX, NAME_BYTES_MAX, Role, SendAck,
    TEXT_BYTES_MAX, TempId, UserId,
};

/// Age of a change whose client does not say: markers are looked for a day back.
const AGE_UNSAID_MS: u64 = 24 * 3600 * 1000;
/// In place of the number of a session, for a change that no session asked for. Sessions count from 1.
pub const NO_SESSION: u64 = 0;

/// A change of a conversation. Whoever reads one from a client checks it with [`Change::check`].
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

    /// Finds what is wrong with the change whatever the conversation: sizes, and texts that show nothing.
    pub fn check(&self) -> Result<(), Refusal> {
        match self {
            Self::Message { text } if text.is_empty() => Err(Refusal::TextEmpty),
            Self::Message { text } if text.len() > TEXT_BYTES_MAX => Err(Refusal::TextTooLong(text.len())),
            Self::Create { name, members } => {
                check_name(name)?;
                check_group_size(members)
            }
            Self::Rename { name } => check_name(name),
            Self::Add { users } | Self::Remove { users } => check_group_size(users),
            Self::Message { .. } | Self::Leave | Self::SetRole { .. } | Self::Erase { .. } => Ok(()),
        }
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

fn check_name(name: &str) -> Result<(), Refusal> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        let detail = format!("a name has 1 to {NAME_BYTES_MAX} bytes and no control characters");
        return Err(Refusal::Invalid(detail));
    }
    Ok(())
}

fn check_group_size(users: &[UserId]) -> Result<(), Refusal> {
    if users.len() > GROUP_MEMBERS_MAX { Err(Refusal::GroupFull(GROUP_MEMBERS_MAX)) } else { Ok(()) }
}

/// Milliseconds since the first attempt of a change, as its client says; older ones than the markers
/// are kept cannot be recognised.
pub fn age_ms(said: Option<u64>) -> Result<u64, Refusal> {
    match said.unwrap_or(AGE_UNSAID_MS) {
        age_ms if age_ms > u64::from(DEDUPE_WINDOW_S) * 1000 => Err(Refusal::TooOld),
        age_ms => Ok(age_ms),
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
    /// [`NO_SESSION`] if none did: then all sessions get a Deliver.
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

impl Committed {
    /// As clients are told it.
    pub fn ack(self, conversation: ConversationId, temp_id: TempId) -> SendAck {
        let Self { seq, id, time_ms, duplicate, recipient_unknown } = self;
        SendAck { temp_id, conversation, seq, id, time_ms, duplicate, recipient_unknown }
    }
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
    /// The message says nothing.
    #[error("the text is empty")]
    TextEmpty,
    /// The text has this many bytes.
    #[error("the text has {0} bytes, at most {TEXT_BYTES_MAX} are allowed")]
    TextTooLong(usize),
    /// Its marker may be gone: nobody can tell whether it was committed.
    #[error("the first attempt is more than 7 days ago: look for it in the history")]
    TooOld,
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
            Self::TextEmpty => Code::TEXT_EMPTY,
            Self::TextTooLong(_) => Code::TEXT_TOO_LONG,
            Self::TooOld => Code::TOO_OLD,
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
            Self::NotFound
            | Self::Forbidden(_)
            | Self::TextEmpty
            | Self::TextTooLong(_)
            | Self::TooOld
            | Self::GroupFull(_)
            | Self::Invalid(_) => true,
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
