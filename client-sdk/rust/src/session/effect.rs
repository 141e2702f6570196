//! What the session wants done; the driver does it in this order.

use tern_protocol::{Code, ConversationId, Envelope, Error, Frame, SendAck, TempId};

use crate::error::SendError;
use crate::event::Event;
use crate::persistence::SavedChange;

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    /// Send this on the current link.
    Send(Envelope),
    /// Tell the application.
    Emit(Event),
    /// Drop queued entries and confirmations of this conversation (absent: of all).
    Forget(Option<ConversationId>),
    /// Tell whoever waits for this change.
    Resolved { temp_id: TempId, result: Result<SendAck, SendError> },
    /// Save this.
    Save(SavedChange),
    /// A question asked under this number has an answer; `None`: its session has ended.
    Answer { question: u64, answer: Option<Result<Box<Frame>, Error>> },
    /// The token of the live session was refused with this code.
    Reauth(Code),
    /// The sync was refused for good: the link is of no use.
    SyncRefused(Error),
    /// The sync of the current link is complete.
    Synced,
}
