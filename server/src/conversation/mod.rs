//! Conversations: a few owners, each with a share of them, batch changes into appends. Reading is in `history`.

use std::hash::BuildHasher;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use tern_protocol::ConversationId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub mod answer;
pub mod ask;
pub mod history;

mod owned;
mod plan;
mod reads;
mod recent;
mod rules;
mod settle;
mod shard;
mod state;
mod tell;
#[cfg(test)]
mod tests;

pub use answer::{Committed, Outcome, Refusal, Reply};
pub use ask::{AGE_UNSAID_MS, Ask, Change, Submission, Wanted, change_of};

use crate::budget::{Budget, Memory, MemoryPart};
use crate::delivery::Delivery;
use crate::ops::metrics::Metrics;
use crate::store::{Log, Users};
use owned::Accepted;

/// Submissions on their way to one owner that it has not looked at yet; more are refused as temporary.
const INBOX_MAX: usize = 4096;
/// Most memory of what one owner has accepted and not answered, in bytes; more is refused as temporary.
const ACCEPTED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most owners, however many cores there are.
const OWNERS_MAX: usize = 64;

/// How conversations work.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConversationConfig {
    /// The state of a conversation without work is kept ready for this long, in seconds.
    pub idle_s: u64,
    /// A store that does not settle an append for this long makes the sends in it be refused as
    /// temporary, in milliseconds.
    pub settle_ms: u64,
    /// Most memory for conversations that are kept ready and for what waits in them, in MiB; a part of
    /// `memory.limit_mib`. From three quarters of it on those that are idle longest are let go; beyond it,
    /// sends are refused as temporary.
    pub memory_mib: NonZero<u32>,
}

impl Default for ConversationConfig {
    fn default() -> Self {
        let memory_mib = const { NonZero::new(512).unwrap() };
        Self { idle_s: 60, settle_ms: 8_000, memory_mib }
    }
}

/// Handle to all conversations this node owns. Cheap to clone.
#[derive(Clone)]
pub struct Conversations {
    inner: Arc<Inner>,
}

struct Inner {
    owners: Vec<Owner>,
    hasher: foldhash::fast::RandomState,
    metrics: Metrics,
    closing: CancellationToken,
    tasks: TaskTracker,
}

/// The way to one owner.
struct Owner {
    inbox: mpsc::Sender<Accepted>,
    /// For what it has accepted and not answered; a part of the budget of all.
    budget: Budget,
}

/// What every owner works with.
#[derive(Clone)]
struct Context {
    log: Arc<dyn Log>,
    users: Arc<dyn Users>,
    delivery: Delivery,
    metrics: Metrics,
    budget: Budget,
    memory: Memory,
    /// Above this many bytes in use, idle conversations are let go.
    keep: usize,
    idle: Duration,
    settle: Duration,
}

impl Conversations {
    /// Starts the owners, one per core, with nothing in their hands. They end with [`close`](Self::close).
    pub fn new(
        config: &ConversationConfig,
        memory: &Memory,
        log: Arc<dyn Log>,
        users: Arc<dyn Users>,
        delivery: Delivery,
        metrics: Metrics,
    ) -> Self {
        let part = memory.part(MemoryPart::Conversations);
        let budget = part.part(config.memory_mib.get() as usize * 1024 * 1024);
        let context = Context {
            log,
            users,
            delivery,
            metrics: metrics.clone(),
            keep: budget.limit() / 4 * 3,
            budget: budget.clone(),
            memory: memory.clone(),
            idle: Duration::from_secs(config.idle_s),
            settle: Duration::from_millis(config.settle_ms),
        };
        let (closing, tasks) = (CancellationToken::new(), TaskTracker::new());
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let owner = |_| {
            let (inbox, taken) = mpsc::channel(INBOX_MAX);
            tasks.spawn(shard::run(context.clone(), taken, closing.clone()));
            Owner { inbox, budget: budget.part(ACCEPTED_BYTES_MAX) }
        };
        let owners = (0..cores.min(OWNERS_MAX)).map(owner).collect();
        let hasher = foldhash::fast::RandomState::default();
        Self { inner: Arc::new(Inner { owners, hasher, metrics, closing, tasks }) }
    }

    /// Hands a submission to the owner of its conversation. Answers come in the order of the calls, through
    /// its `reply`.
    pub fn submit(&self, submission: Submission) {
        let owner = self.inner.owner(submission.ask.conversation);
        let Some(charge) = owner.budget.try_charge(submission.ask.bytes()) else {
            return self.refuse(submission, Refusal::Busy("too many changes wait on this node"));
        };
        match owner.inbox.try_send(Accepted { submission, charge }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(Accepted { submission, .. })) => {
                self.refuse(submission, Refusal::Busy("too many changes come in at once"));
            }
            Err(mpsc::error::TrySendError::Closed(Accepted { submission, .. })) => {
                self.refuse(submission, Refusal::Unavailable("this node stops"));
            }
        }
    }

    fn refuse(&self, submission: Submission, refusal: Refusal) {
        self.inner.metrics.messages.sends_temporary.increment(1);
        submission.reply.send(Err(refusal));
    }

    /// Waits until everything that was accepted is answered. What is submitted from now on is refused.
    pub async fn close(&self) {
        self.inner.closing.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

impl Inner {
    fn owner(&self, id: ConversationId) -> &Owner {
        &self.owners[self.hasher.hash_one(id) as usize % self.owners.len()]
    }
}
