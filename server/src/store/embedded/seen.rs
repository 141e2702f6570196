//! Damage that was met while the store is running: told once in the log, counted, and kept for `/readyz`.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use metrics::Counter;
use parking_lot::Mutex;

use crate::store::StoreError;

/// The same words are logged again after so long.
const AGAIN: Duration = Duration::from_secs(600);

/// What was seen. Its directory and its counter are set once the store is open.
#[derive(Default)]
pub(super) struct Seen {
    last: Mutex<Option<(String, Instant)>>,
    told: OnceLock<(PathBuf, Counter)>,
}

impl Seen {
    /// Where the store is, and what counts.
    pub(super) fn tell(&self, dir: PathBuf, counter: Counter) {
        let _ = self.told.set((dir, counter));
    }

    /// A read failed. Only damage is noted.
    pub(super) fn note(&self, error: &StoreError) {
        let StoreError::Corrupt(what) = error else { return };
        if let Some((_, counter)) = self.told.get() {
            counter.increment(1);
        }
        let mut last = self.last.lock();
        if last.as_ref().is_none_or(|(words, at)| words != what || at.elapsed() > AGAIN) {
            tracing::error!(what, "stored data is damaged; it is left out, and the rest goes on");
            *last = Some((what.clone(), Instant::now()));
        }
    }

    /// What was seen last, and the way out.
    pub(super) fn words(&self) -> Option<String> {
        let what = self.last.lock().as_ref().map(|(what, _)| what.clone())?;
        let dir = self.told.get().map_or_else(|| "DIR".into(), |(dir, _)| dir.display().to_string());
        Some(format!(
            "stored data is damaged ({what}); it is left out. Stop the node, then: tern store verify {dir} names it, tern store salvage {dir} --to NEW copies every row that can be read into a new store"
        ))
    }
}
