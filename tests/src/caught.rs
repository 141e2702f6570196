//! The end of a connection, as the transport tells it.

/// How the transport itself was closed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caught {
    /// Its code, if it had one.
    pub code: Option<u64>,
    /// Its reason.
    pub reason: String,
}
