//! What can go wrong, one enum per operation.

use std::time::Duration;

use tern_protocol::{Code, UserId};

use crate::config::ConfigError;

/// Why a message or a change of a group did not become durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// `pending_max` changes are unresolved. Wait for one of them.
    #[error("too many unresolved sends")]
    Full,
    /// The same `temp_id` is unresolved already.
    #[error("a send with this temp_id is unresolved")]
    InUse,
    /// The server, or the client by the server's rules, refused it for good.
    #[error("refused with {code}: {detail}")]
    Refused {
        /// Why.
        code: Code,
        /// For people.
        detail: String,
    },
    /// It is older than 24 h and is not in the log: it was given up instead of being sent late.
    #[error("not sent within 24 hours, given up")]
    Expired,
    /// It could not be saved, so it was not accepted.
    #[error("could not be saved: {0}")]
    NotSaved(String),
    /// The client has stopped. Whether the message is durable is not known; with persistence it
    /// is sent, under the same `temp_id`, by the next client on the same state.
    #[error("the client has stopped")]
    Closed,
}

/// Why a question (history, lists, members) has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The server refused it for good.
    #[error("refused with {code}: {detail}")]
    Refused {
        /// Why.
        code: Code,
        /// For people.
        detail: String,
    },
    /// No answer within [`Config::request_timeout`](crate::Config::request_timeout); `last` says
    /// what stood in the way, if anything is known.
    #[error("no answer within {} s{}", timeout.as_secs_f32(), last.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    Timeout {
        /// The time allowed.
        timeout: Duration,
        /// The last temporary refusal.
        last: Option<String>,
    },
    /// Too many questions are open.
    #[error("too many open requests")]
    Full,
    /// The client has stopped.
    #[error("the client has stopped")]
    Closed,
}

/// Why a client has stopped for good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseCause {
    /// The application closed it, or dropped every handle.
    #[error("closed by the application")]
    Requested,
    /// The server refused the session in a way that trying again does not mend.
    #[error("refused with {code}: {detail}")]
    Refused {
        /// Why.
        code: Code,
        /// For people.
        detail: String,
    },
    /// The source has no token.
    #[error("{0}")]
    Token(String),
    /// The token is for another user than this client, or its saved state, belongs to.
    #[error("the token is for {found}, this client belongs to {expected}")]
    WrongUser {
        /// Whose client this is.
        expected: UserId,
        /// Whose token it was.
        found: UserId,
    },
    /// The saved state cannot be read.
    #[error("saved state: {0}")]
    Persistence(String),
}

/// Why [`Client::connect`](crate::Client::connect) failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A refusal that trying again does not mend.
    #[error(transparent)]
    Stopped(CloseCause),
    /// No session within [`Config::connect_timeout`](crate::Config::connect_timeout).
    #[error("no session within {} s: {last}", timeout.as_secs_f32())]
    Timeout {
        /// The time allowed.
        timeout: Duration,
        /// What stood in the way of the last attempt.
        last: String,
    },
}
