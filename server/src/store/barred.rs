//! Why the writer of a store does not write an entry although the head is right.

use tern_protocol::UserId;

use super::Lost;

/// Why an entry is not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Barred {
    /// The token by which it was asked for gives no right to it any more. This is final.
    Sender(Lost),
    /// It makes somebody a member who is being erased. Once they are, it may be asked for again.
    Joining,
    /// Its sender blocks this user, to whom it is or whom it puts in a group.
    Blocking(UserId),
    /// The other user of the pair blocks its sender.
    Blocked,
    /// It puts somebody in a group who blocks its sender.
    BlockedJoin(UserId),
    /// It puts somebody in a group who is in as many as others can put them in.
    Crowded(UserId),
    /// It puts somebody in a group who was put in so many just now. Later it may be asked for again.
    TooFast {
        /// Who.
        user: UserId,
        /// When, in milliseconds from now.
        retry_after_ms: u64,
    },
}
