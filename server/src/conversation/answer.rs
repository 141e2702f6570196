//! How a conversation answers: what became of a change, and who is told.

use std::time::Duration;

use tern_protocol::{Code, ConversationId, EntryId, SendAck, TEXT_BYTES_MAX, TempId, UserId};

/// What a client waits before it asks again where too much waits or the store does not answer.
const STORE_RETRY: Duration = Duration::from_millis(500);

/// A durable change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its place in the log.
    pub seq: u64,
    /// Its id.
    pub id: EntryId,
    /// Time of its entry in Unix milliseconds.
    pub time_ms: u64,
    /// Messages in the log up to it.
    pub messages: u64,
    /// It was durable before this attempt.
    pub duplicate: bool,
    /// A recipient has never been seen by this server.
    pub recipient_unknown: bool,
}

impl Committed {
    /// As clients are told it.
    pub fn ack(self, conversation: ConversationId, temp_id: TempId) -> SendAck {
        let Self { seq, id, time_ms, messages, duplicate, recipient_unknown } = self;
        SendAck { temp_id, conversation, seq, id, time_ms, messages, duplicate, recipient_unknown }
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
    /// The text has this many bytes, the data beside it included.
    #[error("the text has {0} bytes with its data, at most {TEXT_BYTES_MAX} are allowed")]
    TextTooLong(usize),
    /// Its marker may be gone: nobody can tell whether it was committed.
    #[error("the first attempt is more than 7 days ago: look for it in the history")]
    TooOld,
    /// The sender blocks this user.
    #[error("you block {0}: unblock them first")]
    Blocking(UserId),
    /// The other user takes no message of the sender, or is gone. Which of it is not said.
    #[error("this user cannot be reached: they take no messages from you, or are gone")]
    Unreachable,
    /// This user is not put in a group by the sender: they are in as many as others can put them in, or do not want
    /// it. Which of it is not said.
    #[error("{0} cannot be put in a group by you: they must first accept or leave others, or do not want it")]
    NotAddable(UserId),
    /// This user was put in many groups just now.
    #[error("{user} was put in many groups just now: try again later")]
    AddedTooFast {
        /// Who.
        user: UserId,
        /// When they can be, in milliseconds from now.
        retry_after_ms: u64,
    },
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
    /// The sender was erased after the token was issued by which it was asked for.
    #[error("the user was erased after this token was issued")]
    Erased,
    /// The token by which it was asked for was revoked.
    #[error("this token was revoked: get a new one")]
    Revoked,
    /// The send before it is unresolved.
    #[error("an earlier send of this session in this conversation is unresolved: retry or abandon it first")]
    OutOfOrder,
    /// Too much waits here already: nothing was looked at.
    #[error("{0}")]
    Busy(&'static str),
    /// The store does not answer.
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
            Self::Blocking(_) => Code::BLOCKED,
            Self::Unreachable | Self::NotAddable(_) => Code::UNREACHABLE,
            Self::AddedTooFast { .. } => Code::RATE_LIMITED,
            Self::Conflict { .. } => Code::CONFLICT,
            Self::Invalid(_) => Code::INVALID_ARGUMENT,
            Self::Erased => Code::TOKEN_INVALID,
            Self::Revoked => Code::TOKEN_REVOKED,
            Self::OutOfOrder => Code::OUT_OF_ORDER,
            Self::Busy(_) => Code::OVER_CAPACITY,
            Self::Unavailable(_) => Code::UNAVAILABLE,
        }
    }

    /// How long to wait before it is asked for again, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::AddedTooFast { retry_after_ms, .. } => Some(Duration::from_millis(*retry_after_ms)),
            Self::Unavailable(_) | Self::Busy(_) => Some(STORE_RETRY),
            _ => None,
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
            | Self::Blocking(_)
            | Self::Unreachable
            | Self::NotAddable(_)
            | Self::Invalid(_)
            | Self::Erased => true,
            Self::Conflict { .. }
            | Self::Revoked
            | Self::AddedTooFast { .. }
            | Self::OutOfOrder
            | Self::Busy(_)
            | Self::Unavailable(_) => false,
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
