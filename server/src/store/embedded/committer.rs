//! The committer: one thread that turns what is queued into one synced write after another.
//!
//! It never waits for more work: under load the queue fills while a sync runs, so groups form by
//! themselves, and a lone write goes out at once.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use fjall::{OwnedWriteBatch, PersistMode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::batch::{Batch, Op, Reply};
use super::disk::Disk;
use super::intents::IntentShards;
use super::tripwire::Tripwire;
use super::{keys, values};
use crate::ops::metrics::{Metrics, record};
use crate::store::{GROUP_BYTES_MAX, StoreError};

/// Most writes that wait for the committer; more wait for room.
pub(super) const QUEUE_OPS_MAX: usize = 4096;
/// Most KiB of them together, so that large groups cannot fill the memory.
const QUEUE_KIB_MAX: u32 = 64 * 1024;
/// Most operations in one commit.
const BATCH_OPS_MAX: usize = 1024;
/// A commit is closed once its operations reach this many bytes.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

// The largest group must fit in the queue.
const _: () = assert!(GROUP_BYTES_MAX / 1024 < QUEUE_KIB_MAX as usize);
const _: () = assert!(BATCH_OPS_MAX <= QUEUE_OPS_MAX);

/// What a test puts in place of the disk and of the end of the process.
pub(super) struct Hooks {
    pub(super) commit: Box<dyn FnMut(OwnedWriteBatch) -> fjall::Result<()> + Send>,
    /// Called with the reason when durability can no longer be promised. Does not return in production.
    pub(super) fatal: Arc<dyn Fn(&str) + Send + Sync>,
}

/// The way in: bounded, waits for room.
pub(super) struct Queue {
    messages: mpsc::Sender<Message>,
    room: Arc<Semaphore>,
}

enum Message {
    /// The permit is the room it takes, given back once it is answered.
    Op(Op, OwnedSemaphorePermit),
    Close(oneshot::Sender<()>),
}

impl Queue {
    /// Queues a write of so many bytes and waits until it is durable. Once queued it happens, even
    /// if the caller stops waiting.
    pub(super) async fn submit<T>(
        &self,
        bytes: usize,
        op: impl FnOnce(Reply<T>) -> Op,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.send(bytes, op(reply)).await?;
        answer.await.unwrap_or_else(|_| {
            Err(StoreError::Unavailable("the store stopped before the write was confirmed".into()))
        })
    }

    /// Queues a write that brings its answer along.
    pub(super) async fn send(&self, bytes: usize, op: Op) -> Result<(), StoreError> {
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX).min(QUEUE_KIB_MAX);
        let stopped = || StoreError::Unavailable("the store has been closed".into());
        let room = self.room.clone().acquire_many_owned(kib).await.map_err(|_| stopped())?;
        self.messages.send(Message::Op(op, room)).await.map_err(|_| stopped())
    }

    /// Writes in the queue.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.messages.max_capacity() - self.messages.capacity()
    }

    /// Refuses new writes, waits for the queued ones and for the orderly end.
    pub(super) async fn close(&self) {
        let (reply, done) = oneshot::channel();
        // An error means that it is closed already.
        if self.messages.send(Message::Close(reply)).await.is_ok() {
            let _ = done.await;
        }
    }
}

/// The state of the thread.
pub(super) struct Committer {
    pub(super) disk: Disk,
    /// Number of the last commit.
    pub(super) commits: u64,
    pub(super) intents: Arc<IntentShards>,
    pub(super) tripwire: Tripwire,
    pub(super) hooks: Hooks,
    pub(super) metrics: Metrics,
}

/// Durability can no longer be promised; the reason has been reported.
struct Broken;

impl Committer {
    /// Starts the thread. It ends when the queue is closed or dropped.
    pub(super) fn start(self) -> io::Result<(Queue, JoinHandle<()>)> {
        let (messages, queue) = mpsc::channel(QUEUE_OPS_MAX);
        let room = Arc::new(Semaphore::new(QUEUE_KIB_MAX as usize));
        let fatal = self.hooks.fatal.clone();
        let thread = std::thread::Builder::new().name("store-committer".into()).spawn(move || {
            if catch_unwind(AssertUnwindSafe(|| self.run(queue))).is_err() {
                fatal("the committer panicked");
            }
        })?;
        Ok((Queue { messages, room }, thread))
    }

    fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        let mut closers = Vec::new();
        while let Some(first) = queue.blocking_recv() {
            if self.round(first, &mut queue, &mut closers).is_err() {
                self.tripwire.close();
                return;
            }
        }
        self.finish(closers);
    }

    /// Takes what is queued, up to the limits of a batch, and commits it.
    fn round(
        &mut self,
        first: Message,
        queue: &mut mpsc::Receiver<Message>,
        closers: &mut Vec<oneshot::Sender<()>>,
    ) -> Result<(), Broken> {
        let disk = self.disk.clone();
        let mut batch = Batch::new(&disk);
        let mut room: Option<OwnedSemaphorePermit> = None;
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Op(op, permit) => {
                    bytes += permit.num_permits() * 1024;
                    match &mut room {
                        Some(room) => room.merge(permit),
                        None => room = Some(permit),
                    }
                    batch.apply(op);
                }
                Message::Close(reply) => {
                    queue.close(); // what is in it already is still written
                    closers.push(reply);
                }
            }
            let is_full = batch.len() >= BATCH_OPS_MAX || bytes >= BATCH_BYTES_MAX;
            next = if is_full { None } else { queue.try_recv().ok() };
        }
        self.metrics.store.commit_entries.record(batch.len() as f64);
        self.commit(batch)
    }

    fn commit(&mut self, batch: Batch<'_>) -> Result<(), Broken> {
        let decided = batch.decide();
        if !decided.writes.is_empty() {
            let started = Instant::now();
            let number = self.commits + 1;
            let db = self.disk.db.clone();
            let mut write = OwnedWriteBatch::with_capacity(db, decided.writes.len() + 1);
            for (key, value) in decided.writes {
                match value {
                    Some(value) => write.insert(&self.disk.space, key, value),
                    None => write.remove(&self.disk.space, key),
                }
            }
            write.insert(&self.disk.space, keys::commit(number), values::encode(&number));
            let write = write.durability(Some(PersistMode::SyncData));
            if let Err(error) = (self.hooks.commit)(write) {
                return Err(self.broken(&format!("a commit failed: {error}")));
            }
            record(&self.metrics.store.commit_seconds, started.elapsed());
            self.commits = number;
            self.tripwire.note(number);
        }
        for (id, state) in decided.states {
            self.disk.committed(id, state);
        }
        self.intents.note(&decided.intents);
        for answer in decided.answers {
            answer.send(&self.disk, self.commits);
        }
        Ok(())
    }

    fn finish(self, closers: Vec<oneshot::Sender<()>>) {
        if let Err(error) = self.disk.db.persist(PersistMode::SyncAll) {
            self.broken(&format!("the last sync failed: {error}"));
            return;
        }
        self.tripwire.close();
        drop(self.disk);
        for closer in closers {
            let _ = closer.send(());
        }
    }

    /// Nobody of the batch is answered: what a failed write left on disk is not known.
    fn broken(&self, reason: &str) -> Broken {
        (self.hooks.fatal)(reason);
        Broken
    }
}
