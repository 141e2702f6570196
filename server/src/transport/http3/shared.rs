//! What the driver of a connection shares with the requests and sessions on it.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::sessions::{Mailbox, Sessions, stream_code};
use tern_protocol::Code;

/// The state of one connection.
#[derive(Debug)]
pub(in crate::transport) struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) sessions: Sessions,
    /// Requests that are being answered, sessions that are being opened.
    exchanges: u32,
    /// Exchanges that came to nothing since the driver looked last.
    pub(super) wasted: u32,
    had_request: bool,
    had_session: bool,
    /// Since when there is neither exchange nor session.
    idle_since: Instant,
    /// No new sessions.
    pub(super) draining: bool,
}

/// How long a connection has been of no use.
pub(super) enum Use {
    /// It is in use.
    Busy,
    /// Nothing was asked yet.
    Unused(Instant),
    /// Its requests are answered.
    Answered(Instant),
    /// Its sessions have ended.
    Over(Instant),
}

impl Shared {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                sessions: Sessions::default(),
                exchanges: 0,
                wasted: 0,
                had_request: false,
                had_session: false,
                idle_since: Instant::now(),
                draining: false,
            }),
            changed: Notify::new(),
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Waits until an exchange or a session has ended.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// An exchange begins.
    pub(super) fn begin(self: &Arc<Self>) -> Exchanging {
        self.state.lock().exchanges += 1;
        Exchanging { shared: self.clone(), done: false }
    }
}

impl State {
    pub(super) fn usage(&self) -> Use {
        match self {
            _ if self.exchanges > 0 || self.sessions.len() > 0 => Use::Busy,
            Self { had_session: true, .. } => Use::Over(self.idle_since),
            Self { had_request: true, .. } => Use::Answered(self.idle_since),
            _ => Use::Unused(self.idle_since),
        }
    }
}

/// Counts as one exchange until it is dropped.
#[derive(Debug)]
pub(in crate::transport) struct Exchanging {
    shared: Arc<Shared>,
    done: bool,
}

impl Exchanging {
    /// It came to its end: an answer was sent, a session opened.
    pub(in crate::transport) fn done(&mut self) {
        self.done = true;
    }

    /// Opens a session, unless there are `sessions_max` of them or the node goes away.
    pub(in crate::transport) fn open_session(
        &self,
        id: u64,
        sessions_max: usize,
    ) -> Result<SessionPlace, NoPlace> {
        let mut state = self.shared.state.lock();
        if state.draining {
            return Err(NoPlace::Draining);
        }
        if state.sessions.len() >= sessions_max {
            return Err(NoPlace::TooMany);
        }
        state.had_session = true;
        let refusal = stream_code(Code::UNEXPECTED_FRAME.0.into());
        let mailbox = state.sessions.open(id, refusal);
        Ok(SessionPlace { shared: self.shared.clone(), id, mailbox })
    }
}

impl Drop for Exchanging {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.exchanges -= 1;
        state.had_request |= self.done;
        state.wasted += u32::from(!self.done);
        state.idle_since = Instant::now();
        drop(state);
        self.shared.changed.notify_one();
    }
}

/// Why there is no place for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport) enum NoPlace {
    /// The node goes away.
    Draining,
    /// The connection has as many as it may have.
    TooMany,
}

/// The place of a session on its connection, free again when it is dropped.
#[derive(Debug)]
pub(in crate::transport) struct SessionPlace {
    shared: Arc<Shared>,
    id: u64,
    mailbox: Arc<Mailbox>,
}

impl SessionPlace {
    /// Id of the session: the id of its CONNECT stream.
    pub(in crate::transport) fn id(&self) -> u64 {
        self.id
    }

    /// What arrives for it.
    pub(in crate::transport) fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }
}

impl Drop for SessionPlace {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.sessions.close(self.id);
        state.idle_since = Instant::now();
        drop(state);
        self.shared.changed.notify_one();
    }
}
