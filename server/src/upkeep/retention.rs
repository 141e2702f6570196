//! What is too old goes: dedupe markers after the time in which a retry is recognised, entries after
//! the operator's. In the background, a little at a time.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::clock::unix_ms;
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

/// Sweeps until `stop`.
pub(super) async fn sweep_for_ever(
    config: RetentionConfig,
    store: std::sync::Arc<dyn Store>,
    metrics: Metrics,
    stop: CancellationToken,
) {
    loop {
        let pause = tokio::select! {
            () = stop.cancelled() => return,
            swept = sweep(&config, &*store, &metrics, unix_ms()) => match swept {
                Ok(Swept { entries: 0, markers: 0 }) => Duration::from_secs(config.sweep_s),
                Ok(swept) => {
                    tracing::info!(swept.entries, swept.markers, "removed what was too old");
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

/// One pass over all conversations.
pub async fn sweep(
    config: &RetentionConfig,
    store: &dyn Store,
    metrics: &Metrics,
    now_ms: u64,
) -> Result<Swept, StoreError> {
    let ages = config.ages(now_ms);
    let (mut swept, mut after) = (Swept::default(), None);
    loop {
        let ids = store.conversations(after, CONVERSATIONS_AT_ONCE).await?;
        let Some(last) = ids.last() else { return Ok(swept) };
        after = Some(*last);
        for id in ids {
            loop {
                let aged = store.age(id, ages, STEP).await?;
                swept.entries += aged.entries;
                swept.markers += aged.markers;
                metrics.store.aged_entries.increment(aged.entries as u64);
                metrics.store.aged_markers.increment(aged.markers as u64);
                if !aged.more {
                    break;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
