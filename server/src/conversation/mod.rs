//! Conversations: one actor per active one batches changes into appends. Reading is in `history`.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tern_protocol::ConversationId;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

pub mod answer;
pub mod ask;
pub mod history;
pub mod state;

mod actor;
#[cfg(test)]
mod tests;

pub use answer::{Committed, Outcome, Refusal, Reply};
pub use ask::{Ask, Change, Submission, Wanted, change_of};

use crate::delivery::Delivery;
use crate::ops::metrics::Metrics;
use crate::store::Store;

/// Submissions waiting in one conversation; more are refused as temporary.
const MAILBOX: usize = 512;
/// Maps of actors, to keep their locks apart.
const SHARDS: usize = 16;

/// How conversations work.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConversationConfig {
    /// An actor without work for this long ends, in seconds.
    pub idle_s: u64,
    /// A store that does not settle an append for this long makes the sends in it be refused as
    /// temporary, in milliseconds.
    pub settle_ms: u64,
}

impl Default for ConversationConfig {
    fn default() -> Self {
        Self { idle_s: 60, settle_ms: 8_000 }
    }
}

/// Handle to all conversations this node owns.
#[derive(Clone)]
pub struct Conversations {
    inner: Arc<Inner>,
}

struct Inner {
    shards: Vec<Mutex<HashMap<ConversationId, mpsc::Sender<Submission>>>>,
    hasher: foldhash::fast::RandomState,
    context: Context,
    tasks: TaskTracker,
}

/// What every actor works with.
#[derive(Clone)]
struct Context {
    store: Arc<dyn Store>,
    delivery: Delivery,
    metrics: Metrics,
    idle: Duration,
    settle: Duration,
}

impl Conversations {
    /// No actors yet; they start with the first submission to their conversation.
    pub fn new(
        config: &ConversationConfig,
        store: Arc<dyn Store>,
        delivery: Delivery,
        metrics: Metrics,
    ) -> Self {
        let context = Context {
            store,
            delivery,
            metrics,
            idle: Duration::from_secs(config.idle_s),
            settle: Duration::from_millis(config.settle_ms),
        };
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self {
            inner: Arc::new(Inner {
                shards,
                hasher: foldhash::fast::RandomState::default(),
                context,
                tasks: TaskTracker::new(),
            }),
        }
    }

    /// Queues a submission; answers come in the order of the calls, through its `reply`.
    pub fn submit(&self, submission: Submission) {
        let id = submission.ask.conversation;
        let mut shard = self.inner.shard(id).lock();
        // Under this lock an actor cannot end between the look-up and the send.
        let refused = match shard.entry(id) {
            Slot::Occupied(slot) => match slot.get().try_send(submission) {
                Ok(()) => return,
                Err(mpsc::error::TrySendError::Full(submission)) => Some(submission),
                Err(mpsc::error::TrySendError::Closed(submission)) => {
                    // Its actor panicked. A new one starts from the store.
                    let sender = self.inner.start(id, submission);
                    *slot.into_mut() = sender;
                    None
                }
            },
            Slot::Vacant(slot) => {
                slot.insert(self.inner.start(id, submission));
                None
            }
        };
        drop(shard);
        if let Some(submission) = refused {
            submission.reply.send(Err(Refusal::Busy("too many sends wait in this conversation")));
        }
    }

    /// Waits until every queued submission is answered. Call it when no more are submitted.
    pub async fn close(&self) {
        for shard in &self.inner.shards {
            shard.lock().clear();
        }
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

impl Inner {
    fn shard(&self, id: ConversationId) -> &Mutex<HashMap<ConversationId, mpsc::Sender<Submission>>> {
        &self.shards[self.hasher.hash_one(id) as usize % SHARDS]
    }

    fn start(self: &Arc<Self>, id: ConversationId, first: Submission) -> mpsc::Sender<Submission> {
        let (sender, mailbox) = mpsc::channel(MAILBOX);
        sender.try_send(first).expect("a new mailbox has room");
        let inner = Arc::clone(self);
        self.tasks.spawn(async move {
            actor::run(id, mailbox, inner.context.clone(), |mailbox| inner.retire(id, mailbox)).await;
        });
        sender
    }

    /// Takes an idle actor off the map, unless something just came in.
    fn retire(&self, id: ConversationId, mailbox: &mpsc::Receiver<Submission>) -> bool {
        let mut shard = self.shard(id).lock();
        if mailbox.is_empty() {
            shard.remove(&id);
            return true;
        }
        false
    }
}
