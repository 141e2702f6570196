//! The pure session.
mod change;
pub(crate) use change::Change;
