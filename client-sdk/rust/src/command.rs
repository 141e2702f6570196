//! What the handles ask of the driver, and who waits for the answer.

use tern_protocol::{ConversationId, Error, Frame, SendAck, Target, TempId, UserId};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::error::SendError;
use crate::session::Change;

/// A change is durable: its conversation, seq, id and server time.
pub type Ack = SendAck;

/// What the driver is asked to do.
pub(crate) enum Command {
    Submit(Submission),
    Ask(Question),
    Read { conversation: ConversationId, seq: u64 },
    Watch(Vec<UserId>),
    Typing(Target),
    Close,
}

/// A change on its way to the driver, with those who wait for it.
pub(crate) struct Submission {
    pub(crate) temp_id: TempId,
    pub(crate) change: Change,
    pub(crate) waiter: Waiter,
}

/// Who is told about a change. The permit is its place among the `pending_max`.
pub(crate) struct Waiter {
    pub(crate) accepted: Option<oneshot::Sender<()>>,
    pub(crate) resolved: Option<oneshot::Sender<Result<Ack, SendError>>>,
    pub(crate) _permit: Option<OwnedSemaphorePermit>,
}

/// One question on its way to the driver.
pub(crate) struct Question {
    pub(crate) frame: Frame,
    pub(crate) answer: oneshot::Sender<Attempt>,
}

/// What came of one attempt.
pub(crate) enum Attempt {
    Frame(Box<Frame>),
    Refused(Error),
    /// No session, or it ended before the answer.
    Offline,
    /// Too many questions are open.
    Full,
}
