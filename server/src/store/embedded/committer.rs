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

use super::batch::Batch;
use super::disk::Disk;
use super::identity::Salt;
use super::keys;
use super::op::{Op, Reply};
use super::tripwire::Tripwire;
use super::values::{self, Commit};
use crate::budget::{Budget, Charge};
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
    /// Free bytes of the disk; `None`: the system is asked.
    pub(super) free: Option<Box<dyn Fn() -> Option<u64> + Send>>,
}

/// The way in: bounded, waits for room.
pub(super) struct Queue {
    messages: mpsc::Sender<Message>,
    room: Arc<Semaphore>,
    memory: Budget,
}

/// A way in that does not keep the committer going.
pub(super) struct WeakQueue {
    messages: mpsc::WeakSender<Message>,
    room: Arc<Semaphore>,
    memory: Budget,
}

/// The room that a write takes, given back once it is answered.
struct Room {
    permit: OwnedSemaphorePermit,
    _memory: Charge,
}

impl WeakQueue {
    /// Queues a write if there is room at once. Otherwise it is dropped, and so answers that nothing is known.
    pub(super) fn try_send(&self, bytes: usize, op: Op) {
        let Some(messages) = self.messages.upgrade() else { return };
        if let Ok(permit) = self.room.clone().try_acquire_many_owned(kib(bytes)) {
            let room = Room { permit, _memory: self.memory.charge(bytes) };
            let _ = messages.try_send(Message::Op(op, room));
        }
    }
}

/// The room that so many bytes take.
fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX).min(QUEUE_KIB_MAX)
}

enum Message {
    Op(Op, Room),
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
        let stopped = || StoreError::Unavailable("the store has been closed".into());
        let permit = self.room.clone().acquire_many_owned(kib(bytes)).await.map_err(|_| stopped())?;
        // Its size is bounded here, and it was let in where it came from: it is only counted.
        let room = Room { permit, _memory: self.memory.charge(bytes) };
        self.messages.send(Message::Op(op, room)).await.map_err(|_| stopped())
    }

    /// For whoever must not hold it.
    pub(super) fn downgrade(&self) -> WeakQueue {
        WeakQueue {
            messages: self.messages.downgrade(),
            room: self.room.clone(),
            memory: self.memory.clone(),
        }
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
    /// What tells the commits of this store from those of another.
    pub(super) salt: Salt,
    pub(super) tripwire: Tripwire,
    pub(super) hooks: Hooks,
    pub(super) metrics: Metrics,
}

/// Durability can no longer be promised; the reason has been reported.
struct Broken;

impl Committer {
    /// Starts the thread. It ends when the queue is closed or dropped. What is queued is charged to `memory`.
    pub(super) fn start(self, memory: &Budget) -> io::Result<(Queue, JoinHandle<()>)> {
        let (messages, queue) = mpsc::channel(QUEUE_OPS_MAX);
        let room = Arc::new(Semaphore::new(QUEUE_KIB_MAX as usize));
        let fatal = self.hooks.fatal.clone();
        let thread = std::thread::Builder::new().name("store-committer".into()).spawn(move || {
            if catch_unwind(AssertUnwindSafe(|| self.run(queue))).is_err() {
                fatal("the committer panicked");
            }
        })?;
        Ok((Queue { messages, room, memory: memory.clone() }, thread))
    }

    fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        let mut closers = Vec::new();
        let mut held = None;
        while let Some(first) = held.take().or_else(|| queue.blocking_recv()) {
            match self.round(first, &mut queue, &mut closers) {
                Ok(next) => held = next,
                Err(Broken) => {
                    self.tripwire.close();
                    return;
                }
            }
        }
        self.finish(closers);
    }

    /// Takes what is queued, up to the limits of a batch, and commits it. What it took and could not commit
    /// with the rest comes back.
    fn round(
        &mut self,
        first: Message,
        queue: &mut mpsc::Receiver<Message>,
        closers: &mut Vec<oneshot::Sender<()>>,
    ) -> Result<Option<Message>, Broken> {
        let disk = self.disk.clone();
        let mut batch = Batch::new(&disk);
        let mut rooms: Vec<Room> = Vec::new();
        let mut bytes = 0;
        let (mut next, mut held) = (Some(first), None);
        while let Some(message) = next {
            let mut is_full = false;
            match message {
                Message::Op(op, room) if op.is_alone() && batch.len() > 0 => {
                    held = Some(Message::Op(op, room));
                    break;
                }
                Message::Op(op, room) => {
                    is_full = op.is_alone();
                    bytes += room.permit.num_permits() * 1024;
                    rooms.push(room);
                    batch.apply(op);
                }
                Message::Close(reply) => {
                    queue.close(); // what is in it already is still written
                    closers.push(reply);
                }
            }
            is_full |= batch.len() >= BATCH_OPS_MAX || bytes >= BATCH_BYTES_MAX;
            next = if is_full { None } else { queue.try_recv().ok() };
        }
        if batch.entries() > 0 {
            self.metrics.store.commit_entries.record(batch.entries() as f64);
        }
        self.commit(batch)?;
        Ok(held)
    }

    fn commit(&mut self, batch: Batch<'_>) -> Result<(), Broken> {
        let (rows, decided) = batch.decide();
        let count = rows.fresh.len() + rows.writes.len();
        if count > 0 {
            let started = Instant::now();
            let number = self.commits + 1;
            let commit = Commit { number, salt: self.salt };
            let mut write = OwnedWriteBatch::with_capacity(self.disk.db.clone(), count + 1);
            for (key, value) in rows.fresh {
                write.insert(&self.disk.space, key, value);
            }
            for (key, value) in rows.writes {
                match value {
                    Some(value) => write.insert(&self.disk.space, key, value),
                    None => write.remove(&self.disk.space, key),
                }
            }
            write.insert(&self.disk.space, keys::commit(number), values::encode(&commit));
            let write = write.durability(Some(PersistMode::SyncData));
            if let Err(error) = (self.hooks.commit)(write) {
                return Err(self.broken(&format!("a commit failed: {error}")));
            }
            record(&self.metrics.store.commit_seconds, started.elapsed());
            self.commits = number;
            self.tripwire.note(number);
        }
        decided.publish(&self.disk, self.commits);
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
