//! What is too old goes: dedupe markers after the time in which a retry is recognised, entries after
//! the operator's. In the background, a little at a time.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tern_protocol::ConversationId;
use tokio_util::sync::CancellationToken;

use super::pace::{Look, Pace};
use crate::clock::now;
use crate::ops::metrics::Metrics;
use crate::store::{Ages, MARKERS_KEPT_MS, Store, StoreError};

/// Fewest days that entries can be kept: a retry within 7 days is answered with its entry.
const DAYS_MIN: u32 = 8;
const DAY_MS: u64 = 24 * 3600 * 1000;
/// Conversations looked at between two pauses.
const CONVERSATIONS_AT_ONCE: usize = 256;
/// Most entries and markers of one step: a commit of some milliseconds, between those of senders.
const STEP: usize = 1_000;
/// Pause after a step that removed something, and after so many conversations.
const PAUSE: Duration = Duration::from_millis(20);
/// Conversations that fail one after the other until the store is taken to fail as a whole.
const FAILURES_MAX: usize = 16;
/// Pause after a failure of the store.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// The `[retention]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionConfig {
    /// Entries older than so many days are removed, at least 8; absent: they are kept for ever. Example: `90`.
    pub days: Option<u32>,
    /// Time between two looks for what is too old, in seconds.
    pub sweep_s: u64,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self { days: None, sweep_s: 3_600 }
    }
}

/// Settings that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    /// Entries would go while retries must still find them.
    #[error("retention.days = {0}: at least {DAYS_MIN}, since a retry of a message is recognised for 7 days")]
    Days(u32),
    /// No pause at all.
    #[error("retention.sweep_s must be at least 1")]
    Sweep,
}

impl RetentionConfig {
    /// Whether it can be.
    pub fn check(&self) -> Result<(), RetentionError> {
        match self {
            Self { days: Some(days), .. } if *days < DAYS_MIN => Err(RetentionError::Days(*days)),
            Self { sweep_s: 0, .. } => Err(RetentionError::Sweep),
            _ => Ok(()),
        }
    }

    fn ages(&self, now_ms: u64) -> Ages {
        Ages {
            markers_before_ms: now_ms.saturating_sub(MARKERS_KEPT_MS),
            entries_before_ms: self.days.map(|days| now_ms.saturating_sub(u64::from(days) * DAY_MS)),
        }
    }
}

/// What one pass over all conversations removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swept {
    /// Entries.
    pub entries: usize,
    /// Dedupe markers.
    pub markers: usize,
}

/// Sweeps until `stop`. `wall_ms` is the clock that entries are stamped by.
pub(super) async fn sweep_for_ever(
    config: RetentionConfig,
    store: std::sync::Arc<dyn Store>,
    metrics: Metrics,
    stop: CancellationToken,
    wall_ms: impl Fn() -> u64,
) {
    let mut pace = Pace::default();
    loop {
        let Look { now_ms, ahead_ms } = pace.look(now(), wall_ms());
        if let Some(ahead_ms) = ahead_ms {
            let by_s = ahead_ms / 1000;
            tracing::warn!(
                by_s,
                "the clock has jumped ahead: until it stays there for a day nothing is removed by it"
            );
        }
        let pause = tokio::select! {
            () = stop.cancelled() => return,
            swept = sweep(&config, &*store, &metrics, now_ms) => match swept {
                Ok(Swept { entries: 0, markers: 0 }) => Duration::from_secs(config.sweep_s),
                Ok(swept) => {
                    tracing::info!(swept.entries, swept.markers, "removed what was too old");
                    Duration::from_secs(config.sweep_s)
                }
                // It is still there in half a minute.
                Err(error @ StoreError::Corrupt(_)) => {
                    tracing::warn!(
                        %error,
                        "what is too old was removed where it can be read; tern store verify says what cannot, \
                         tern store salvage makes a store without it"
                    );
                    Duration::from_secs(config.sweep_s)
                }
                Err(error) => {
                    tracing::warn!(%error, "what is too old could not be removed; trying again");
                    RETRY_AFTER
                }
            },
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// One pass over all conversations. One that cannot be aged does not keep the others from it; the error is the
/// first that was met.
pub async fn sweep(
    config: &RetentionConfig,
    store: &dyn Store,
    metrics: &Metrics,
    now_ms: u64,
) -> Result<Swept, StoreError> {
    let ages = config.ages(now_ms);
    let (mut swept, mut after) = (Swept::default(), None);
    let (mut failed, mut in_a_row) = (None, 0);
    loop {
        let ids = store.conversations(after, CONVERSATIONS_AT_ONCE).await?;
        let Some(last) = ids.last() else { return failed.map_or(Ok(swept), Err) };
        after = Some(*last);
        for id in ids {
            match age_all(store, id, ages, metrics, &mut swept).await {
                Ok(()) => in_a_row = 0,
                // Damage is one conversation's own, however many there are.
                Err(error @ StoreError::Corrupt(_)) => drop(failed.get_or_insert(error)),
                Err(error) if in_a_row == FAILURES_MAX => return Err(error),
                Err(error) => {
                    in_a_row += 1;
                    failed.get_or_insert(error);
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn age_all(
    store: &dyn Store,
    id: ConversationId,
    ages: Ages,
    metrics: &Metrics,
    swept: &mut Swept,
) -> Result<(), StoreError> {
    loop {
        let aged = store.age(id, ages, STEP).await?;
        swept.entries += aged.entries;
        swept.markers += aged.markers;
        metrics.store.aged_entries.increment(aged.entries as u64);
        metrics.store.aged_markers.increment(aged.markers as u64);
        if !aged.more {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use tern_protocol::UserId;

    use super::*;
    use crate::store::Granularity;
    use crate::store::contract::{Talk, fresh_temp_id};
    use crate::store::memory::MemoryStore;
    use crate::store::shaky::{Call, Shaky};

    #[test]
    fn entries_are_never_kept_shorter_than_retries_are_recognised() {
        let days = |days| RetentionConfig { days, ..RetentionConfig::default() };
        let error = days(Some(7)).check().unwrap_err().to_string();
        assert!(error.contains("at least 8"), "{error}");
        for good in [None, Some(8), Some(365)] {
            days(good).check().unwrap();
        }
        assert!(u64::from(DAYS_MIN) * DAY_MS > MARKERS_KEPT_MS);
    }

    #[tokio::test(start_paused = true)]
    async fn a_conversation_that_cannot_be_aged_keeps_no_other_from_it() {
        let shaky = Shaky::new(Arc::new(MemoryStore::ageing_by(Granularity::Bucket(4))));
        let store: Arc<dyn Store> = shaky.clone();
        let alice = UserId::new("alice").unwrap();
        let mut talks = Vec::new();
        for _ in 0..10 {
            let mut talk = Talk::new(&[&alice]);
            for _ in 0..9 {
                let group = talk.group(&alice, &[(fresh_temp_id(), "x")]);
                talk.apply(&store, group).await;
            }
            talks.push(talk);
        }
        let config = RetentionConfig { days: Some(8), ..RetentionConfig::default() };
        // Entries 1 to 5 are old.
        let now_ms = 8 * DAY_MS + 6_000;
        shaky.fail(Call::Age, 3);
        let failed = sweep(&config, &*store, &Metrics::none(), now_ms).await;
        assert!(failed.is_err());
        let first_seqs = async || {
            let ids: Vec<ConversationId> = talks.iter().map(|talk| talk.id).collect();
            let kept = store.glance(&ids).await.unwrap();
            kept.into_iter().map(|glance| glance.unwrap().kept.first_seq).collect::<Vec<_>>()
        };
        let after = first_seqs().await;
        assert_eq!(after.iter().filter(|first_seq| **first_seq == 4).count(), 7, "a bucket each: {after:?}");
        let swept = sweep(&config, &*store, &Metrics::none(), now_ms).await.unwrap();
        assert_eq!(swept.entries, 9, "of the three that are left");
        assert_eq!(first_seqs().await, [4; 10], "what is not old, or not whole, stays");
        shaky.fail(Call::Age, usize::MAX);
        let before = shaky.calls(Call::Age);
        assert!(sweep(&config, &*store, &Metrics::none(), now_ms).await.is_err());
        assert_eq!(shaky.calls(Call::Age) - before, 10, "each is tried once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_ahead_for_a_moment_costs_nobody_their_history() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::ageing_by(Granularity::Entry));
        let alice = UserId::new("alice").unwrap();
        let mut talk = Talk::new(&[&alice]);
        for _ in 0..9 {
            let group = talk.group(&alice, &[(fresh_temp_id(), "x")]);
            talk.apply(&store, group).await;
        }
        let (started, jump_ms) = (now(), Arc::new(AtomicU64::new(0)));
        let clock = {
            let jump_ms = jump_ms.clone();
            move || {
                10_000 + now().duration_since(started).as_millis() as u64 + jump_ms.load(Ordering::Relaxed)
            }
        };
        let config = RetentionConfig { days: Some(8), sweep_s: 3_600 };
        let stop = CancellationToken::new();
        let sweeping = sweep_for_ever(config, store.clone(), Metrics::none(), stop.clone(), clock);
        let sweeping = tokio::spawn(sweeping);
        let left = async || {
            let kept = store.glance(&[talk.id]).await.unwrap().pop().flatten().unwrap().kept;
            10 - kept.first_seq
        };
        let hours = |hours: u64| tokio::time::sleep(Duration::from_secs(hours * 3_600 + 60));
        hours(2).await;
        assert_eq!(left().await, 9);
        jump_ms.store(40 * DAY_MS, Ordering::Relaxed);
        hours(2).await;
        assert_eq!(left().await, 9, "the clock is ahead");
        jump_ms.store(0, Ordering::Relaxed);
        hours(2).await;
        assert_eq!(left().await, 9, "and right again");
        jump_ms.store(40 * DAY_MS, Ordering::Relaxed);
        hours(30).await;
        assert_eq!(left().await, 0, "it stayed there for a day: that is the time");
        stop.cancel();
        sweeping.await.unwrap();
    }
}
