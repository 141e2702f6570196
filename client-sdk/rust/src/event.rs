//! What the application is told.

use std::time::SystemTime;

use tern_protocol::{
    ConversationId, ConversationSummary, Entry, StoreId, Target, TempId, UserId, UserPresence,
};

use crate::error::{CloseCause, SendError};
use crate::persistence::Transport;

/// Whether there is a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The first attempt since the start, or a reconnect that does not wait.
    Connecting,
    /// A session is open.
    Online {
        /// Over this transport.
        transport: Transport,
    },
    /// A session is open over the fallback.
    Degraded {
        /// The fallback.
        transport: Transport,
        /// Why the preferred transport was not used, for people.
        cause: String,
    },
    /// No session; the next attempt has a time.
    Offline {
        /// Why, for people.
        cause: String,
        /// When the next attempt starts.
        retry_at: SystemTime,
    },
    /// The server is going away; the session is open and a new one is being prepared.
    Draining {
        /// Over this transport.
        transport: Transport,
    },
    /// The client has stopped for good.
    Closed {
        /// Why.
        cause: CloseCause,
    },
}

impl State {
    /// A session is open.
    pub fn is_online(&self) -> bool {
        matches!(self, Self::Online { .. } | Self::Degraded { .. } | Self::Draining { .. })
    }
}

/// What the application is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The next entry of a conversation: every entry once, in the order of its seq, own messages
    /// included (those carry their `temp_id`), and those of a later version of the server too
    /// ([`Opaque`](tern_protocol::EntryBody::Opaque)).
    Entry {
        /// Which log.
        conversation: ConversationId,
        /// The entry.
        entry: Entry,
    },
    /// Entries `from..=to` are not handed out; the next entry is `to + 1`. They were too many to
    /// send (history has them), or the user was not a member then, or they have aged out (history does
    /// not).
    Gap {
        /// Which log.
        conversation: ConversationId,
        /// First entry left out.
        from: u64,
        /// Last entry left out.
        to: u64,
    },
    /// A user was erased: their messages before this entry have become entries of the kind
    /// [`Erased`](tern_protocol::EntryBody::Erased), and their id stands for nobody. Drop what is kept of the earlier entries and read what is shown again with
    /// history. May come more than once.
    Erased {
        /// Which log.
        conversation: ConversationId,
        /// The entry that says so.
        seq: u64,
    },
    /// Presence of watched users: those that changed, or all of them after a watch.
    Presence(Vec<UserPresence>),
    /// A member is typing. Show it for some 5 s unless it is repeated.
    Typing {
        /// Where.
        conversation: ConversationId,
        /// Who.
        user: UserId,
    },
    /// The user has read up to here, in another session or by writing (in this one too). It never goes back.
    Read {
        /// Which log.
        conversation: ConversationId,
        /// Up to and including this entry.
        seq: u64,
        /// Messages in the log up to there: those of a later entry less these are unread.
        messages: u64,
    },
    /// The user has blocked somebody in another session, or does not block them any more.
    BlockChanged {
        /// Whom.
        user: UserId,
        /// They are blocked.
        blocked: bool,
    },
    /// Conversations that changed since the client was last here, most recently changed first.
    Conversations(Vec<ConversationSummary>),
    /// The state of the connection changed. Changes that follow each other quickly may be merged.
    State(State),
    /// A message or group change failed for good.
    SendFailed {
        /// Which.
        temp_id: TempId,
        /// Where it was going.
        to: Target,
        /// Why.
        error: SendError,
    },
    /// The server speaks for another store than before: its data was wiped or restored. Logs start
    /// anew; entries of the old store that were not pulled yet are gone from the queue.
    StoreChanged {
        /// The store before.
        old: StoreId,
        /// The store now.
        new: StoreId,
    },
    /// The server's log of a conversation (absent: of all) ends before the entries handed out. The
    /// cursor was dropped, and what the server has is handed out anew.
    Resync {
        /// Which log.
        conversation: Option<ConversationId>,
    },
    /// State could not be saved, or was found damaged when it was loaded.
    Persistence {
        /// What happened and where the damaged original is, for people.
        problem: String,
    },
}
