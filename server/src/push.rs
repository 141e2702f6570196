//! Tells users who have not confirmed a message on any device: one event each, at least once.
//!
//! The intent was written with the entry. After `push_delay` the publisher looks who has not acked,
//! lets the events leave, and only then forgets the intent.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tern_protocol::{ConversationId, Entry, EntryBody, PAGE_BYTES_MAX};
use tokio_util::sync::CancellationToken;

use crate::clock::unix_ms;
use crate::delivery::Delivery;
use crate::events::{Events, EventsError, PushEvent};
use crate::ops::metrics::Metrics;
use crate::store::{Conversation, INTENT_SHARDS, Intent, Order, PageLimit, Store, StoreError};

/// One node works all shards.
const ALL_SHARDS: [u8; INTENT_SHARDS] = {
    let mut shards = [0; INTENT_SHARDS];
    let mut shard = 0;
    while shard < INTENT_SHARDS {
        shards[shard] = shard as u8;
        shard += 1;
    }
    shards
};
/// Intents taken at a time.
const BATCH: usize = 1024;
/// Characters of the text in an event.
const PREVIEW_CHARS: usize = 120;
/// Pause after a failure, doubled up to [`PAUSE_MAX`] while it lasts.
const PAUSE: Duration = Duration::from_millis(250);
/// Longest pause after failures.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// When push events leave.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PushConfig {
    /// An entry nobody acked for this many milliseconds becomes a push event.
    pub delay_ms: u64,
}

impl Default for PushConfig {
    fn default() -> Self {
        Self { delay_ms: 2_000 }
    }
}

/// Turns push intents into events.
pub struct Publisher {
    delay: Duration,
    store: Arc<dyn Store>,
    events: Arc<dyn Events>,
    delivery: Delivery,
    metrics: Metrics,
}

#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Events(#[from] EventsError),
}

impl Publisher {
    /// A publisher that has not started.
    pub fn new(
        config: &PushConfig,
        store: Arc<dyn Store>,
        events: Arc<dyn Events>,
        delivery: Delivery,
        metrics: Metrics,
    ) -> Self {
        Self { delay: Duration::from_millis(config.delay_ms), store, events, delivery, metrics }
    }

    /// Publishes until `stop`. What is not published then is published after the next start.
    pub async fn run(self, stop: CancellationToken) {
        let tick = (self.delay / 4).clamp(Duration::from_millis(10), Duration::from_millis(500));
        let mut failures = 0;
        loop {
            let pause = match self.publish_due().await {
                Ok(BATCH) => Duration::ZERO,
                Ok(_) => {
                    failures = 0;
                    tick
                }
                Err(error) => {
                    tracing::warn!(%error, "push events wait");
                    failures += 1;
                    PAUSE.saturating_mul(1 << failures.min(8)).min(PAUSE_MAX)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Publishes the oldest due intents; says how many they were.
    async fn publish_due(&self) -> Result<usize, PublishError> {
        let due = unix_ms().saturating_sub(self.delay.as_millis() as u64);
        let intents = self.store.intents(&ALL_SHARDS, due, BATCH).await?;
        let waiting: u64 = self.store.intents_waiting(&ALL_SHARDS).await?.iter().sum();
        self.metrics.messages.push_pending.set(waiting as f64);
        if intents.is_empty() {
            return Ok(0);
        }
        let mut events = Vec::new();
        let mut states: HashMap<ConversationId, Option<Arc<Conversation>>> = HashMap::new();
        for intent in &intents {
            let state = match states.get(&intent.conversation) {
                Some(state) => state,
                None => {
                    let state = self.store.conversation(intent.conversation).await?;
                    states.entry(intent.conversation).or_insert(state)
                }
            };
            if let Some(state) = state {
                self.events_of(intent, state, &mut events).await?;
            }
        }
        if !events.is_empty() {
            self.events.publish(&events).await?;
            self.metrics.messages.push_events.increment(events.len() as u64);
        }
        self.store.clear_intents(&intents).await?;
        Ok(intents.len())
    }

    async fn events_of(
        &self,
        intent: &Intent,
        state: &Conversation,
        events: &mut Vec<PushEvent>,
    ) -> Result<(), StoreError> {
        for seq in intent.from_seq..=intent.to_seq {
            self.events_of_entry(intent.conversation, seq, state, events).await?;
        }
        Ok(())
    }

    async fn events_of_entry(
        &self,
        conversation: ConversationId,
        seq: u64,
        state: &Conversation,
        events: &mut Vec<PushEvent>,
    ) -> Result<(), StoreError> {
        let waiting: Vec<_> = state
            .members
            .iter()
            .filter(|member| member.first_seq <= seq)
            .filter(|member| self.delivery.confirmed(conversation, &member.user) < seq)
            .collect();
        // The sender never acks an own message from the sending session: one silent member is them.
        if waiting.is_empty() {
            return Ok(());
        }
        let one = PageLimit { entries: 1, bytes: PAGE_BYTES_MAX };
        let range = seq..=seq;
        let found = self.store.entries(conversation, range, Order::Ascending, one).await?;
        let Some(Entry { id, sender, sender_name, body, time_ms, .. }) = found.into_iter().next() else {
            return Ok(());
        };
        let EntryBody::Message { text, data, reply_to } = body else { return Ok(()) };
        for member in waiting.into_iter().filter(|member| member.user != sender) {
            events.push(PushEvent {
                event_id: format!("{id}:{}", member.user),
                recipient_id: member.user.clone(),
                conversation,
                seq,
                entry_id: id,
                sender_id: sender.clone(),
                sender_name: sender_name.clone(),
                group_name: state.name.clone(),
                preview: text.chars().take(PREVIEW_CHARS).collect(),
                data: data.clone(),
                reply_to,
                time_ms,
            });
        }
        Ok(())
    }
}
