//! Stores when users were last seen, and keeps trying.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;
use tern_protocol::UserId;
use tokio::sync::Notify as Wake;

use crate::store::{Store, StoreError, UserChange, last_seen};

/// Users whose time is not stored yet; the times of more are lost, with a warning.
const UNSTORED_MAX: usize = 100_000;
/// Writes at a time: enough for the store to commit them in groups.
const WRITES_AT_ONCE: usize = 64;
/// After a store error the next attempt waits this long.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Times that are to be stored, in Unix milliseconds.
#[derive(Default)]
pub(super) struct LastSeen {
    unstored: Mutex<HashMap<UserId, u64>>,
    wake: Wake,
    /// Held by the attempt that is under way: a second one would write the same again.
    storing: tokio::sync::Mutex<()>,
}

impl LastSeen {
    /// These users went offline.
    pub(super) fn note(&self, left: Vec<(UserId, u64)>) {
        if left.is_empty() {
            return;
        }
        let mut unstored = self.unstored.lock();
        let mut lost = 0;
        for (user, seen_ms) in left {
            if unstored.len() < UNSTORED_MAX || unstored.contains_key(&user) {
                let time = unstored.entry(user).or_default();
                *time = last_seen(*time, seen_ms);
            } else {
                lost += 1;
            }
        }
        drop(unstored);
        if lost > 0 {
            tracing::warn!(lost, limit = UNSTORED_MAX, "last-seen times are lost: the store takes none");
        }
    }

    /// Has [`LastSeen::run`] store what is noted.
    pub(super) fn try_later(&self) {
        self.wake.notify_one();
    }

    /// Stores what was put off, for ever.
    pub(super) async fn run(&self, store: &dyn Store) {
        loop {
            self.wake.notified().await;
            while !self.store_all(store).await {
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }

    /// One attempt to store everything noted; false if some could not be stored and stay noted.
    pub(super) async fn store_all(&self, store: &dyn Store) -> bool {
        let _storing = self.storing.lock().await;
        let noted: Vec<(UserId, u64)> =
            self.unstored.lock().iter().map(|(user, seen_ms)| (user.clone(), *seen_ms)).collect();
        let outcomes: Vec<Result<(), StoreError>> = stream::iter(noted)
            .map(|(user, seen_ms)| self.store_one(store, user, seen_ms))
            .buffer_unordered(WRITES_AT_ONCE)
            .collect()
            .await;
        let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        if let Some(error) = outcomes.into_iter().find_map(Result::err) {
            tracing::warn!(failed, %error, "last-seen times could not be stored; trying again");
        }
        failed == 0
    }

    async fn store_one(&self, store: &dyn Store, user: UserId, seen_ms: u64) -> Result<(), StoreError> {
        store.change_user(&user, UserChange::LastSeen(seen_ms), None).await?;
        let mut unstored = self.unstored.lock();
        if unstored.get(&user) == Some(&seen_ms) {
            unstored.remove(&user);
        }
        Ok(())
    }
}
