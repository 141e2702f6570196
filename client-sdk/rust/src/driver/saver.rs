//! Brings changes to the persistence, one batch at a time, everything that gathered meanwhile.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use tern_protocol::{ConversationId, Position, TempId};

use crate::persistence::{Persistence, PersistenceError, SavedChange};

/// Wait before changes that could not be saved are tried again, in ms.
const RETRY_MS: u64 = 1_000;

type Saving = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// A batch and what came of it.
pub(super) struct Outcome {
    batch: Vec<SavedChange>,
    result: Result<(), PersistenceError>,
}

/// What the driver is told about a batch.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Report {
    /// Messages that are saved.
    pub(super) saved: Vec<TempId>,
    /// Messages that could not be saved.
    pub(super) not_saved: Vec<TempId>,
    /// Why, the first time in a row.
    pub(super) problem: Option<String>,
}

/// Waiting changes are bounded by the driver's own limits: unresolved sends, and one cursor per
/// conversation.
pub(super) struct Saver {
    persistence: Option<Arc<dyn Persistence>>,
    changes: Vec<SavedChange>,
    cursors: BTreeMap<ConversationId, u64>,
    running: Option<Saving>,
    retry_at: Option<u64>,
    failing: bool,
}

impl Saver {
    pub(super) fn new(persistence: Option<Arc<dyn Persistence>>) -> Self {
        Self {
            persistence,
            changes: Vec::new(),
            cursors: BTreeMap::new(),
            running: None,
            retry_at: None,
            failing: false,
        }
    }

    /// Something is kept at all.
    pub(super) fn keeps(&self) -> bool {
        self.persistence.is_some()
    }

    pub(super) fn push(&mut self, change: SavedChange) {
        if self.persistence.is_none() {
            return;
        }
        match change {
            SavedChange::Cursor(Position { conversation, seq }) => {
                self.cursors.insert(conversation, seq);
                return;
            }
            SavedChange::CursorDropped { conversation } => {
                self.cursors.remove(&conversation);
            }
            SavedChange::Store { .. } => self.cursors.clear(),
            _ => {}
        }
        self.changes.push(change);
    }

    /// Starts on the next batch if it is time.
    pub(super) fn start(&mut self, now: u64) {
        if self.running.is_some() || self.idle() || self.retry_at.is_some_and(|at| at > now) {
            return;
        }
        let Some(persistence) = self.persistence.clone() else { return };
        self.retry_at = None;
        let mut batch = std::mem::take(&mut self.changes);
        let cursors = std::mem::take(&mut self.cursors).into_iter();
        batch.extend(cursors.map(|(conversation, seq)| SavedChange::Cursor(Position { conversation, seq })));
        self.running = Some(Box::pin(async move {
            let result = persistence.save(&batch).await;
            Outcome { batch, result }
        }));
    }

    fn idle(&self) -> bool {
        self.changes.is_empty() && self.cursors.is_empty()
    }

    /// Everything pushed is saved, or nothing can be done about it now.
    pub(super) fn done(&self) -> bool {
        self.running.is_none() && (self.idle() || self.failing)
    }

    pub(super) fn wake_at(&self) -> Option<u64> {
        self.retry_at
    }

    /// Waits for the running batch; for ever if there is none. Cancel-safe.
    pub(super) async fn finished(&mut self) -> Outcome {
        match &mut self.running {
            Some(saving) => {
                let outcome = saving.await;
                self.running = None;
                outcome
            }
            None => std::future::pending().await,
        }
    }

    /// Takes note of a batch. What was not saved is tried again, except messages: those are not
    /// accepted, and forgotten in case they did reach the disk.
    pub(super) fn settle(&mut self, outcome: Outcome, now: u64) -> Report {
        let Outcome { batch, result } = outcome;
        let sends = |batch: &[SavedChange]| {
            let ids = batch.iter().filter_map(|change| match change {
                SavedChange::Send(send) => Some(send.temp_id),
                _ => None,
            });
            ids.collect::<Vec<_>>()
        };
        let Err(error) = result else {
            self.failing = false;
            return Report { saved: sends(&batch), ..Report::default() };
        };
        let not_saved = sends(&batch);
        let newer = std::mem::take(&mut self.changes);
        let newer_cursors = std::mem::take(&mut self.cursors);
        for change in batch.into_iter().filter(|change| !matches!(change, SavedChange::Send(_))).chain(newer)
        {
            self.push(change);
        }
        self.cursors.extend(newer_cursors);
        self.retry_at = Some(now + RETRY_MS);
        let first = !std::mem::replace(&mut self.failing, true);
        Report { saved: Vec::new(), not_saved, problem: first.then(|| error.to_string()) }
    }
}
