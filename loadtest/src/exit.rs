//! What the exit codes of every command mean, besides 0: all held.

/// A check failed, or not everything was sent.
pub(crate) const FAILED: u8 = 1;
/// Nothing was sent: the input, the options or the server are not usable.
pub(crate) const NOTHING: u8 = 2;
/// Messages were lost, doubled or out of order in a group.
pub(crate) const LOST: u8 = 3;
