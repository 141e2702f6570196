//! Tells users who have not confirmed a message on any device: one event each, at least once.
//!
//! The intent was written with the entries. After `push_delay` the publisher looks who has not seen them,
//! lets the events leave, and only then forgets the intent. It reads a log only if somebody waits.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tern_protocol::{ConversationId, Entry, EntryBody};
use tokio_util::sync::CancellationToken;

use crate::budget::Budget;
use crate::clock::{now, stamp_ms};
use crate::delivery::Confirmed;
use crate::events::{Events, EventsError, PushEvent};
use crate::ops::metrics::Metrics;
use crate::store::{
    Apart, Conversation, INTENT_SHARDS, Intent, PageLimit, Store, StoreError, glance_apart, runs_apart,
};

mod rule;
#[cfg(test)]
mod tests;

use rule::Waiting;

/// Intents taken at a time.
const BATCH: usize = 512;
/// Entries that they are for at a time, so that the texts fit in memory.
const BATCH_ENTRIES: u64 = 4096;
/// Events are handed over once they have so many bytes, about.
const EVENTS_BYTES: usize = 1024 * 1024;
/// About how many bytes an event takes besides its data.
const EVENT_BYTES: usize = 1024;
/// What is read of logs at a time.
const READ: PageLimit = PageLimit { entries: 4096, bytes: 1024 * 1024 };
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
    /// The shards of intents that this node works.
    shards: Vec<u8>,
    store: Arc<dyn Store>,
    events: Arc<dyn Events>,
    confirmed: Confirmed,
    metrics: Metrics,
    /// Intents stamped with a time that has not come, by conversation and first seq, and when they were first
    /// seen; at most [`BATCH`].
    ahead: HashMap<(ConversationId, u64), Instant>,
    /// When to look for such again.
    look_ahead: Instant,
    /// What the events take until they have left.
    memory: Budget,
}

#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Events(#[from] EventsError),
}

/// Intents of which somebody waits, with who that is.
struct Due<'a> {
    intent: &'a Intent,
    state: Arc<Conversation>,
    waiting: Vec<Waiting>,
}

impl Publisher {
    /// A publisher of all shards that has not started.
    pub fn new(
        config: &PushConfig,
        store: Arc<dyn Store>,
        events: Arc<dyn Events>,
        confirmed: Confirmed,
        metrics: Metrics,
        memory: &Budget,
    ) -> Self {
        let shards = (0..INTENT_SHARDS).map(|shard| shard as u8).collect();
        let delay = Duration::from_millis(config.delay_ms);
        let (ahead, look_ahead) = (HashMap::new(), now());
        let memory = memory.clone();
        Self { delay, shards, store, events, confirmed, metrics, ahead, look_ahead, memory }
    }

    /// Publishes until `stop`. What is not published then is published after the next start.
    pub async fn run(mut self, stop: CancellationToken) {
        let tick = (self.delay / 4).clamp(Duration::from_millis(10), Duration::from_millis(500));
        let mut failures = 0;
        loop {
            let pause = match self.publish_due().await {
                Ok(more) => {
                    failures = 0;
                    if more { Duration::ZERO } else { tick }
                }
                Err(error) => {
                    tracing::warn!(%error, "push events wait");
                    failures += 1;
                    PAUSE.saturating_mul(1 << failures.min(8)).min(PAUSE_MAX)
                }
            };
            self.confirmed.age(Instant::now());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Publishes the oldest due intents. True if there may be more.
    async fn publish_due(&mut self) -> Result<bool, PublishError> {
        let waiting: u64 = self.store.intents_waiting(&self.shards).await?.iter().sum();
        self.metrics.messages.push_pending.set(waiting as f64);
        if waiting == 0 {
            return Ok(false);
        }
        let now_ms = stamp_ms();
        let due_ms = now_ms.saturating_sub(self.delay.as_millis() as u64);
        let mut intents = self.store.intents(&self.shards, 0..=due_ms, BATCH).await?;
        let is_full = intents.len() == BATCH;
        if !is_full && now() >= self.look_ahead {
            intents.extend(self.due_of_ahead(now_ms).await?);
            self.look_ahead = now() + self.delay / 2;
        }
        let found = intents.len();
        let mut entries = 0;
        let fits = intents.iter().take_while(|intent| {
            entries += intent.to_seq - intent.from_seq + 1;
            entries <= BATCH_ENTRIES
        });
        intents.truncate(fits.count().max(1));
        if intents.is_empty() {
            return Ok(false);
        }
        self.publish(&intents).await?;
        // Not before: a crash in between repeats events, it never loses one.
        self.store.clear_intents(&intents).await?;
        let left = waiting.saturating_sub(intents.len() as u64);
        self.metrics.messages.push_pending.set(left as f64);
        for intent in &intents {
            self.confirmed.decided(intent.conversation, intent.to_seq);
        }
        Ok(is_full || intents.len() < found)
    }

    /// Intents of conversations whose last entry was stamped while the clock was ahead, as far as they were seen
    /// for the delay: the time they bear says nothing about when they arrived, and nobody is to wait for it.
    async fn due_of_ahead(&mut self, now_ms: u64) -> Result<Vec<Intent>, StoreError> {
        let mut found = self.store.intents(&self.shards, now_ms + 1..=u64::MAX, BATCH).await?;
        let (now, key) = (now(), |intent: &Intent| (intent.conversation, intent.from_seq));
        let before = std::mem::take(&mut self.ahead);
        self.ahead = found.iter().map(key).map(|key| (key, *before.get(&key).unwrap_or(&now))).collect();
        found.retain(|intent| now.saturating_duration_since(self.ahead[&key(intent)]) >= self.delay);
        Ok(found)
    }

    /// Lets the events of these intents leave, in their order.
    async fn publish(&self, intents: &[Intent]) -> Result<(), PublishError> {
        let due = self.due(intents).await?;
        if due.is_empty() {
            return Ok(());
        }
        let logs = self.read(&due).await?;
        // What is pushed has to leave: it is only counted.
        let _memory = self.memory.charge(logs.values().flatten().map(bytes_of).sum());
        let (mut events, mut bytes) = (Vec::new(), 0);
        for Due { intent, state, waiting } in &due {
            let log = logs.get(&intent.conversation).into_iter().flatten();
            for event in rule::events(state, intent, waiting, log) {
                bytes += EVENT_BYTES + event.data.as_ref().map_or(0, |data| data.as_str().len());
                events.push(event);
                if bytes >= EVENTS_BYTES {
                    self.leave(&mut events).await?;
                    bytes = 0;
                }
            }
        }
        self.leave(&mut events).await.map_err(PublishError::from)
    }

    async fn leave(&self, events: &mut Vec<PushEvent>) -> Result<(), EventsError> {
        if !events.is_empty() {
            self.events.publish(events).await?;
            self.metrics.messages.push_events.increment(events.len() as u64);
            events.clear();
        }
        Ok(())
    }

    async fn due<'a>(&self, intents: &'a [Intent]) -> Result<Vec<Due<'a>>, StoreError> {
        let mut ids: Vec<ConversationId> = intents.iter().map(|intent| intent.conversation).collect();
        ids.sort_unstable();
        ids.dedup();
        let Apart { found: glances, damaged } = glance_apart(&*self.store, &ids).await?;
        let damaged: HashSet<ConversationId> = damaged.into_iter().map(|place| ids[place]).collect();
        let mut states: HashMap<ConversationId, Arc<Conversation>> =
            ids.into_iter().zip(glances).filter_map(|(id, glance)| Some((id, glance?.state))).collect();
        let mut due = Vec::new();
        for intent in intents {
            let id = intent.conversation;
            // Whom to tell what cannot be known. It keeps nobody else from being told.
            if damaged.contains(&id) {
                self.metrics.messages.push_lost.increment(1);
                continue;
            }
            if states.get(&id).is_none_or(|state| state.head < intent.to_seq)
                && let Some(state) = self.store.conversation(id).await?
            {
                states.insert(id, state); // the glance was behind
            }
            let Some(state) = states.get(&id) else { continue };
            let waiting = rule::waiting(state, intent, |user| self.confirmed.seen(id, user));
            if !waiting.is_empty() {
                due.push(Due { intent, state: state.clone(), waiting });
            }
        }
        Ok(due)
    }

    /// The logs of which somebody waits, one range each.
    async fn read(&self, due: &[Due<'_>]) -> Result<HashMap<ConversationId, Vec<Entry>>, StoreError> {
        let mut left = rule::ranges(due.iter().map(|due| due.intent));
        let mut logs: HashMap<ConversationId, Vec<Entry>> = HashMap::new();
        while !left.is_empty() {
            let Apart { found: runs, damaged } = runs_apart(&*self.store, &left, READ).await?;
            if !damaged.is_empty() {
                // The texts of the first one are lost, and its events with them.
                self.metrics.messages.push_lost.increment(1);
                left.remove(0);
                continue;
            }
            let read = runs.len();
            for ((id, range), run) in left.iter_mut().zip(runs) {
                // What is not there has aged out, unless it is the last: that may be cut.
                let last = run.last().map_or(*range.end(), |last| last.seq);
                *range = last + 1..=*range.end();
                logs.entry(*id).or_default().extend(run);
            }
            let is_cut = read > 0 && !left[read - 1].1.is_empty();
            left.drain(..read.max(1) - usize::from(is_cut));
        }
        Ok(logs)
    }
}

/// About how many bytes an entry takes in memory.
fn bytes_of(entry: &Entry) -> usize {
    let body = match &entry.body {
        EntryBody::Message { text, data, .. } => {
            text.len() + data.as_ref().map_or(0, |data| data.as_str().len())
        }
        _ => 0,
    };
    size_of::<Entry>() + body
}
