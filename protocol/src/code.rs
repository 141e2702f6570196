//! One table of close and error codes. The number alone tells a client what to do.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A close or error code. Unknown numbers are kept: their [`Class`] still says what to do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", derive(postcard_schema::Schema))]
#[serde(transparent)]
pub struct Code(pub u16);

/// What a client does about a code: the hundreds of its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// 0 or 1000: an ordinary end.
    Normal,
    /// 4000–4099: the request is wrong. Fix it; the same request will fail again.
    Fix,
    /// 4100–4199: get a (new) token, then retry.
    Authenticate,
    /// 4200–4299: reconnect now, to the target if one is given.
    Reconnect,
    /// 4300–4399: try again later, after the hint if one is given.
    BackOff,
    /// 4400–4499: the client's cursors do not fit this server. Drop them and sync afresh.
    Resync,
    /// Any other number: treat as [`Class::BackOff`].
    Unknown,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $number:literal $name:ident $text:literal;)*) => {
        impl Code {
            $($(#[$doc])* pub const $name: Code = Code($number);)*

            /// Every code of this version with its name and meaning, in order.
            pub const TABLE: &'static [(Code, &'static str, &'static str)] =
                &[$((Code($number), stringify!($name), $text)),*];
        }
    };
}

codes! {
    /// The session ended because one side wanted it to.
    0 NORMAL "ordinary end";
    /// A frame or its fields could not be read.
    4000 MALFORMED "a frame or one of its fields could not be read";
    /// A frame type this server does not know was marked critical.
    4001 UNKNOWN_CRITICAL "a frame of unknown type was marked critical";
    /// A frame is longer than `frame_bytes`.
    4002 FRAME_TOO_LARGE "a frame is longer than frame_bytes";
    /// The other side speaks another major version.
    4003 UNSUPPORTED_VERSION "the protocol version is not spoken here";
    /// A frame came where it may not: before Hello, a second Hello, one that only servers send.
    4004 UNEXPECTED_FRAME "a frame came where it may not";
    /// No Hello within the time allowed.
    4005 HELLO_TIMEOUT "no hello within the time allowed";
    /// A field has a value that is not allowed; the detail names it.
    4006 INVALID_ARGUMENT "a field has a value that is not allowed";
    /// Text and data together are longer than `text_bytes`.
    4007 TEXT_TOO_LONG "text and data are longer than text_bytes";
    /// There is neither text nor data.
    4008 TEXT_EMPTY "neither text nor data";
    /// No such conversation, or the user is not in it: the two look the same.
    4009 NOT_FOUND "no such conversation for this user";
    /// A member may not do this with their role.
    4010 FORBIDDEN "the member's role does not allow this";
    /// The group would have more than `group_members` members.
    4011 GROUP_FULL "the group would have more than group_members members";
    /// The `temp_id` was used before with another content; the detail names the original seq.
    4012 CONFLICT "the temp_id was used before for something else";
    /// The first attempt of this send is more than `dedupe_window_s` ago.
    4013 TOO_OLD "the first attempt is longer ago than dedupe_window_s";
    /// A named limit of Welcome was exceeded; the detail names it.
    4014 LIMIT_EXCEEDED "a limit told in welcome was exceeded";
    /// Too many malformed or unexpected frames in one session.
    4015 TOO_MANY_ERRORS "too many malformed or unexpected frames in this session";
    /// The sender blocks the other user; the detail names them.
    4016 BLOCKED "you block this user: unblock them first";
    /// The user cannot be written to, or not be put in a group, by this sender. It is not said why.
    4017 UNREACHABLE "the user cannot be reached by this sender";
    /// The token cannot be accepted.
    4100 TOKEN_INVALID "the token cannot be accepted";
    /// The token has expired.
    4101 TOKEN_EXPIRED "the token has expired";
    /// The new token is for another user than the session.
    4102 TOKEN_SUBJECT "the new token is for another user";
    /// The user has more than `sessions_per_user` sessions and this was the oldest.
    4103 SESSION_REPLACED "a newer session of this user took this one's place";
    /// The token was issued before a moment up to which those of its user are revoked.
    4104 TOKEN_REVOKED "the token was revoked: a newer one is needed";
    /// An operator closed this session; with a new token another may be opened.
    4105 SESSION_CLOSED "an operator closed this session";
    /// The node is going away; `target` may name another.
    4200 DRAINING "this node is draining";
    /// The node has stopped.
    4202 SHUTDOWN "this node stops";
    /// Too fast; wait for the hint.
    4300 RATE_LIMITED "too many requests";
    /// The server is full.
    4301 OVER_CAPACITY "the server is at its limit";
    /// The client did not read what it was sent.
    4302 SLOW_CONSUMER "the client does not read what it is sent";
    /// Nothing was heard from the client for `dead_after_s`.
    4303 HEARTBEAT_TIMEOUT "nothing was heard for dead_after_s";
    /// The message store cannot be reached now.
    4304 UNAVAILABLE "the message store cannot be reached now";
    /// An earlier send of this session in this conversation is unresolved: retry that one first.
    4305 OUT_OF_ORDER "an earlier send of this session is unresolved";
    /// A cursor is above the conversation's head.
    4400 CURSOR_AHEAD "a cursor is above the conversation's head";
}

impl Code {
    /// What to do about it.
    pub fn class(self) -> Class {
        match self.0 {
            0 | 1000 => Class::Normal,
            4000..=4099 => Class::Fix,
            4100..=4199 => Class::Authenticate,
            4200..=4299 => Class::Reconnect,
            4300..=4399 => Class::BackOff,
            4400..=4499 => Class::Resync,
            _ => Class::Unknown,
        }
    }

    /// The same request may succeed later without being changed.
    pub fn temporary(self) -> bool {
        matches!(self.class(), Class::Reconnect | Class::BackOff | Class::Unknown)
    }

    /// Its name in the table, `UNKNOWN` for a number of a later version.
    pub fn name(self) -> &'static str {
        Self::TABLE.iter().find(|row| row.0 == self).map_or("UNKNOWN", |row| row.1)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.name())
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_sorted_and_classed() {
        for rows in Code::TABLE.windows(2) {
            assert!(rows[0].0 < rows[1].0, "{:?} before {:?}", rows[0].0, rows[1].0);
        }
        assert!(Code::TABLE.iter().all(|row| row.0.class() != Class::Unknown));
        assert!(Code(4999).temporary(), "an unknown code is retried with back-off");
    }
}
