//! The store on local disk: one process, one directory, no other service.
//!
//! Every write is one synced group commit of the one committer thread; what has been answered is on
//! disk. A commit that fails ends the process, since nobody can tell what it left behind.

mod append;
mod archive;
mod backup;
mod batch;
mod block;
mod committer;
mod compact;
mod config;
mod constants;
mod directory;
mod disk;
mod failures;
mod files;
mod identity;
mod intents;
mod journals;
mod keys;
mod load;
mod manifests;
mod numbers;
mod op;
mod open;
mod people;
mod recent;
mod records;
mod recover;
mod salvage;
mod scratch;
mod seen;
mod space;
mod standings;
mod states;
mod table;
#[cfg(test)]
mod tests;
mod tripwire;
mod upkeep;
mod users;
mod values;
mod verify;
mod watch;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use async_trait::async_trait;
use fjall::OwnedWriteBatch;
use tern_protocol::{ConversationId, Entry, StoreId, TempId, UserId};
use tokio::sync::Semaphore;

pub use backup::{Backup, BackupError, Manifest};
pub use compact::Compacted;
pub use config::EmbeddedConfig;
pub use directory::{OpenError, is_store};
pub use recover::{Recovered, recover_accept_loss};
pub use salvage::{Damage, Holes, RowCount, SalvageError, Salvaged, salvage, verify_store};
pub use scratch::Scratch;
pub use verify::Findings;

use self::append::Append;
use self::committer::{Committer, Hooks, Queue};
use self::directory::Directory;
use self::disk::Disk;
use self::manifests::Manifests;
use self::op::{Op, Reply};
use self::tripwire::Tripwire;
use self::watch::{Watch, Watched};
use super::{
    AppendAnswers, AppendGroup, Conversation, GROUP_BYTES_MAX, Glance, Glances, Inbox, InboxCursor, InboxRow,
    Intent, Intents, Log, Marker, Order, PageLimit, ReadPosition, Store, StoreError,
};
use crate::budget::Budget;
use crate::ops::metrics::Metrics;

/// Exit code of a process that can no longer promise durability; a supervisor restarts it.
pub const EXIT_BROKEN: i32 = 70;
/// Most range scans at a time; they run on blocking threads, more wait.
const SCANS_MAX: usize = 8;

/// About how many bytes a user takes in the queue of writes.
const USER_BYTES: usize = 256;

/// The embedded store. Dropping it writes what is queued and blocks until that is on disk;
/// [`close`](Store::close) does the same without blocking a task.
pub struct EmbeddedStore {
    store_id: StoreId,
    disk: Disk,
    /// `None` only while it is dropped.
    queue: Option<Queue>,
    committer: Option<JoinHandle<()>>,
    scans: Arc<Semaphore>,
    /// One scan for intents at a time, or their floors could miss one.
    intent_scan: Arc<Semaphore>,
    /// Long work in the background stops.
    closing: Arc<AtomicBool>,
    /// Once at a time.
    compacting: tokio::sync::Mutex<()>,
    dir: PathBuf,
    /// Bytes that must be free for a message to be taken.
    floor: u64,
    watch: Option<Watch>,
    manifests: Arc<Manifests>,
    /// Last: the directory is given up when the database is closed.
    _directory: Directory,
}

impl EmbeddedStore {
    /// Opens the store in `config.dir`, or makes it. Blocks while it checks and reads the journals:
    /// up to some seconds after a crash. Refuses to open if anything acknowledged is missing.
    pub fn open(config: EmbeddedConfig, metrics: Metrics) -> Result<Self, OpenError> {
        Self::open_within(config, metrics, &Budget::new(usize::MAX))
    }

    /// The same; writes that wait are charged to `memory`.
    pub fn open_within(config: EmbeddedConfig, metrics: Metrics, memory: &Budget) -> Result<Self, OpenError> {
        let fatal = |reason: &str| {
            tracing::error!(
                reason,
                "the store is broken; ending the process, so that nothing is acknowledged wrongly"
            );
            std::process::exit(EXIT_BROKEN);
        };
        Self::open_with(
            config,
            Hooks { commit: Box::new(OwnedWriteBatch::commit), fatal: Arc::new(fatal), free: None },
            metrics,
            memory,
        )
    }

    fn open_with(
        config: EmbeddedConfig,
        mut hooks: Hooks,
        metrics: Metrics,
        memory: &Budget,
    ) -> Result<Self, OpenError> {
        let opened = open::open(&config.dir, u64::from(config.cache_mib) * 1024 * 1024)?;
        let open::Opened { directory, identity, mut disk, commits, count_file, manifests } = opened;
        disk.people = Arc::new(config.people);
        let io = |source| directory.io(source);
        disk.seen.tell(config.dir.clone(), metrics.store.unreadable.clone());
        let floor = u64::from(config.free_mib_min) * 1024 * 1024;
        let watch = Watch::start(Watched {
            disk: disk.clone(),
            manifests: manifests.clone(),
            free: hooks.free.take().unwrap_or_else(|| {
                let dir = config.dir.clone();
                Box::new(move || space::free(&dir).ok())
            }),
            floor,
            fatal: hooks.fatal.clone(),
        });
        let watch = watch.map_err(io)?;
        let fatal = hooks.fatal.clone();
        let tripwire = Tripwire::start(count_file, commits, move |reason| fatal(reason)).map_err(io)?;
        let salt = identity.salt;
        let committer = Committer { disk: disk.clone(), commits, salt, tripwire, hooks, metrics };
        let (queue, thread) = committer.start(memory).map_err(io)?;
        Ok(Self {
            store_id: identity.store_id,
            disk,
            queue: Some(queue),
            committer: Some(thread),
            scans: Arc::new(Semaphore::new(SCANS_MAX)),
            intent_scan: Arc::new(Semaphore::new(1)),
            closing: Arc::default(),
            compacting: tokio::sync::Mutex::default(),
            dir: config.dir,
            floor,
            watch: Some(watch),
            manifests,
            _directory: directory,
        })
    }

    /// Queues groups whose conversations are in memory.
    async fn queue_appends(&self, appends: Appends, answers: &AppendAnswers) {
        let owed = answers.owe(appends.tickets);
        if let Some(queue) = self.queue.as_ref().filter(|_| !appends.appends.is_empty()) {
            let op = Op::Appends { appends: appends.appends, owed };
            // What cannot be queued any more is answered by being dropped.
            let _ = queue.send(appends.bytes, op).await;
        }
    }

    /// Has conversations read where it may block, so that the committer need not, then queues their groups.
    fn warm_up(&self, groups: Vec<(u64, Arc<AppendGroup>)>, answers: &AppendAnswers) {
        let Some(queue) = self.queue.as_ref().map(Queue::downgrade) else { return };
        let owe = |(ticket, group)| (answers.owe(vec![ticket]), group);
        let (disk, owed): (_, Vec<_>) = (self.disk.clone(), groups.into_iter().map(owe).collect());
        tokio::task::spawn_blocking(move || {
            for (owed, group) in owed {
                // If it fails, the committer meets the same error and answers with it.
                let _ = disk.conversation(group.conversation);
                queue.try_send(group.bytes(), Op::Appends { appends: vec![Append::new(group)], owed });
            }
        });
    }

    async fn submit<T>(&self, bytes: usize, op: impl FnOnce(Reply<T>) -> Op) -> Result<T, StoreError> {
        match &self.queue {
            Some(queue) => queue.submit(bytes, op).await,
            None => Err(StoreError::Unavailable("the store is being dropped".into())),
        }
    }

    /// Runs a range scan where it may block.
    async fn scan<T: Send + 'static>(
        &self,
        permits: &Arc<Semaphore>,
        scan: impl FnOnce(&Disk) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = permits.clone().acquire_owned().await.expect("these semaphores are never closed");
        let disk = self.disk.clone();
        let scan = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            scan(&disk).inspect_err(|error| disk.seen.note(error))
        });
        scan.await.unwrap_or_else(|error| Err(StoreError::Unavailable(format!("a read failed: {error}"))))
    }
}

/// Groups that are queued together.
#[derive(Default)]
struct Appends {
    tickets: Vec<u64>,
    appends: Vec<Append>,
    bytes: usize,
}

impl Appends {
    /// Adds a group; those before it come back if they fill a commit.
    fn add(&mut self, ticket: u64, group: Arc<AppendGroup>) -> Option<Self> {
        let full = (self.bytes + group.bytes() > GROUP_BYTES_MAX).then(|| std::mem::take(self));
        self.bytes += group.bytes();
        self.tickets.push(ticket);
        self.appends.push(Append::new(group));
        full
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.watch = None;
        self.queue = None;
        if let Some(thread) = self.committer.take() {
            let _ = thread.join(); // its panics are reported by itself
        }
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    fn store_id(&self) -> StoreId {
        self.store_id
    }

    async fn health(&self) -> Result<(), StoreError> {
        // A write is a commit and proves nothing that the next message would not: a store that cannot commit
        // ends the process.
        let look = |disk: &Disk| {
            disk.alive()?;
            disk.room.check()?;
            // A damaged block is told by itself: the rest goes on.
            disk.unless_damaged(disk.get(&keys::commit(0))).map(drop)
        };
        self.scan(&self.scans, look).await
    }

    fn damage(&self) -> Option<String> {
        self.disk.seen.words()
    }

    /// Commits what is queued, and syncs. Reads still work; a backup stops.
    async fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        if let Some(queue) = &self.queue {
            queue.close().await;
        }
    }
}

#[async_trait]
impl Log for EmbeddedStore {
    async fn append_all(&self, groups: Vec<(u64, Arc<AppendGroup>)>, answers: &AppendAnswers) {
        let (mut warm, mut cold, mut refused) = (Appends::default(), Vec::new(), Vec::new());
        for (ticket, group) in groups {
            if let Err(error) = group.check() {
                refused.push((ticket, Err(error)));
            } else if self.disk.states.get(group.conversation).is_none() {
                cold.push((ticket, group));
            } else if let Some(full) = warm.add(ticket, group) {
                self.queue_appends(full, answers).await;
            }
        }
        answers.send(refused);
        self.queue_appends(warm, answers).await;
        if !cold.is_empty() {
            self.warm_up(cold, answers);
        }
    }

    async fn conversation(&self, id: ConversationId) -> Result<Option<Arc<Conversation>>, StoreError> {
        match self.disk.states.get(id) {
            Some(known) => Ok(known.state),
            None => self.scan(&self.scans, move |disk| disk.conversation(id)).await,
        }
    }

    async fn marker(
        &self,
        conversation: ConversationId,
        sender: &UserId,
        temp_id: TempId,
        age_ms: u64,
    ) -> Result<Option<Marker>, StoreError> {
        let key = keys::marker(conversation, sender, temp_id);
        if self.disk.recent.surely_absent(&key, age_ms, Instant::now()) {
            return Ok(None);
        }
        self.scan(&self.scans, move |disk| disk.marker(&key, u64::MAX, Instant::now())).await
    }

    async fn entries(
        &self,
        conversation: ConversationId,
        range: RangeInclusive<u64>,
        order: Order,
        limit: PageLimit,
    ) -> Result<Vec<Entry>, StoreError> {
        self.scan(&self.scans, move |disk| disk.entries(conversation, range, order, limit)).await
    }

    async fn seq_at(
        &self,
        conversation: ConversationId,
        range: RangeInclusive<u64>,
        time_ms: u64,
    ) -> Result<u64, StoreError> {
        self.scan(&self.scans, move |disk| disk.seq_at(conversation, range, time_ms)).await
    }

    async fn redo(&self, _: ConversationId, _: &Conversation, _: &[Entry]) -> Result<(), StoreError> {
        Ok(()) // inbox rows and intents are in the commit of their entry
    }
}

#[async_trait]
impl Glances for EmbeddedStore {
    async fn glance(&self, ids: &[ConversationId]) -> Result<Vec<Option<Glance>>, StoreError> {
        if let Some(warm) = ids.iter().map(|id| self.disk.glance_warm(*id)).collect() {
            return Ok(warm);
        }
        let ids = ids.to_vec();
        self.scan(&self.scans, move |disk| ids.iter().map(|id| disk.glance(*id)).collect()).await
    }

    async fn runs(
        &self,
        of: &[(ConversationId, RangeInclusive<u64>)],
        limit: PageLimit,
    ) -> Result<Vec<Vec<Entry>>, StoreError> {
        let of = of.to_vec();
        self.scan(&self.scans, move |disk| disk.runs(&of, limit)).await
    }

    async fn last_entries(&self, at: &[(ConversationId, u64)]) -> Result<Vec<Option<Entry>>, StoreError> {
        let at = at.to_vec();
        let read = move |disk: &Disk| at.iter().map(|(id, seq)| disk.last_entry(*id, *seq)).collect();
        self.scan(&self.scans, read).await
    }
}

#[async_trait]
impl Inbox for EmbeddedStore {
    async fn inbox(
        &self,
        user: &UserId,
        after: Option<InboxCursor>,
        limit: usize,
    ) -> Result<Vec<InboxRow>, StoreError> {
        let user = user.clone();
        self.scan(&self.scans, move |disk| disk.inbox(&user, after, limit)).await
    }

    async fn inbox_rows(
        &self,
        user: &UserId,
        ids: &[ConversationId],
    ) -> Result<Vec<Option<InboxRow>>, StoreError> {
        let (user, ids) = (user.clone(), ids.to_vec());
        self.scan(&self.scans, move |disk| disk.inbox_rows(&user, &ids)).await
    }

    async fn set_read(
        &self,
        user: &UserId,
        id: ConversationId,
        read: ReadPosition,
    ) -> Result<bool, StoreError> {
        let key = keys::read(user, id);
        self.submit(key.len(), |reply| Op::SetRead { key, read, reply }).await
    }
}

#[async_trait]
impl Intents for EmbeddedStore {
    async fn intents(
        &self,
        shards: &[u8],
        times_ms: RangeInclusive<u64>,
        limit: usize,
    ) -> Result<Vec<Intent>, StoreError> {
        let (shards, floors) = (shards.to_vec(), self.disk.intents.clone());
        let scan = move |disk: &Disk| {
            let mut found = Vec::new();
            for shard in shards {
                if limit == 0 {
                    break;
                }
                let Some(floor_ms) = floors.begin_scan(shard) else { continue };
                let (from_ms, until_ms) = (floor_ms.max(*times_ms.start()), *times_ms.end());
                let here = disk.intents(shard, from_ms..=until_ms, limit)?;
                // Only a look from the floor on tells where the next may begin.
                let next_ms = match here.first() {
                    _ if from_ms > floor_ms => floor_ms,
                    Some(first) => first.time_ms,
                    None => until_ms.saturating_add(1).max(from_ms),
                };
                floors.end_scan(shard, next_ms);
                found.extend(here);
            }
            found.sort_unstable_by_key(|intent| (intent.time_ms, intent.conversation, intent.from_seq));
            found.truncate(limit);
            Ok(found)
        };
        self.scan(&self.intent_scan, scan).await
    }

    async fn clear_intents(&self, intents: &[Intent]) -> Result<(), StoreError> {
        let intents: Vec<_> = intents.iter().map(|intent| (intent.shard(), keys::intent(intent))).collect();
        let bytes = intents.iter().map(|(_, key)| key.len()).sum();
        self.submit(bytes, |reply| Op::ClearIntents { intents, reply }).await
    }

    async fn intents_waiting(&self, shards: &[u8]) -> Result<Vec<u64>, StoreError> {
        Ok(self.disk.intents.waiting(shards))
    }
}
