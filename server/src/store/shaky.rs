//! A store that misbehaves by script or by dice, around one that does not, for tests. It also counts the
//! round trips that are asked of it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tern_protocol::{ConversationId, Entry, StoreId, TempId, UserId};
use tokio_util::task::TaskTracker;

mod users;

use super::{
    Aged, Ages, AppendAnswers, AppendGroup, Appended, Conversation, Erasure, Glance, Glances, Granularity,
    Inbox, InboxCursor, InboxRow, Intent, Intents, Log, Marker, Order, PageLimit, ReadPosition, Store,
    StoreError, Upkeep,
};

/// What goes wrong with one append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing: in a script, to let one pass.
    Nothing,
    /// It is written; the answer is `Unknown`.
    UnknownApplied,
    /// It is never written; the answer is `Unknown`.
    UnknownLost,
    /// It is tried after so long; the answer is `Unknown`, at once.
    UnknownLate(Duration),
    /// It is not written; the answer is `Conflict`, though the head is the expected one.
    Conflict,
    /// It is not written; the answer is an error.
    Error,
    /// It is written; the answer is an error.
    ErrorApplied,
    /// It is written, and answered so much later.
    Slow(Duration),
}

/// What is asked of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Call {
    Health,
    Append,
    Conversation,
    Marker,
    Entries,
    SeqAt,
    Redo,
    Glance,
    Runs,
    LastEntries,
    Inbox,
    InboxRows,
    SetRead,
    Users,
    ChangeUser,
    People,
    Intents,
    ClearIntents,
    IntentsWaiting,
    Age,
    Upkeep,
}

/// Faults by their odds in a thousand.
struct Dice {
    random: StdRng,
    odds: Vec<(u32, Fault)>,
}

/// A store that misbehaves when it is told to. Without a word it does what the one inside does.
pub(crate) struct Shaky {
    store: Arc<dyn Store>,
    /// For the next appends, the first first.
    script: Mutex<VecDeque<Fault>>,
    /// For appends that have no script.
    dice: Mutex<Option<Dice>>,
    /// So many of the next calls of this kind fail.
    failing: Mutex<HashMap<Call, usize>>,
    /// Appends that come late.
    late: TaskTracker,
    calls: Mutex<HashMap<Call, usize>>,
    /// Every read waits so long, in milliseconds.
    read_ms: AtomicU64,
    /// A glance shows what the one so many before it did.
    stale_by: AtomicUsize,
    seen: Mutex<HashMap<ConversationId, VecDeque<Option<Glance>>>>,
    /// Conversations that cannot be read: all of them, or only their entries.
    damaged: Mutex<HashSet<ConversationId>>,
    damaged_entries: Mutex<HashSet<ConversationId>>,
    damaged_lists: Mutex<HashSet<UserId>>,
}

impl Shaky {
    /// Around a store; nothing goes wrong yet.
    pub(crate) fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            store,
            script: Mutex::default(),
            dice: Mutex::default(),
            failing: Mutex::default(),
            late: TaskTracker::new(),
            calls: Mutex::default(),
            read_ms: AtomicU64::new(0),
            stale_by: AtomicUsize::new(0),
            seen: Mutex::default(),
            damaged: Mutex::default(),
            damaged_entries: Mutex::default(),
            damaged_lists: Mutex::default(),
        })
    }

    /// The next appends go like this, one after the other.
    pub(crate) fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.script.lock().extend(faults);
    }

    /// Appends without a script go wrong at random, by these odds in a thousand. The same seed and order of
    /// calls give the same faults.
    pub(crate) fn dice(&self, seed: u64, odds: &[(u32, Fault)]) {
        *self.dice.lock() = Some(Dice { random: StdRng::seed_from_u64(seed), odds: odds.to_vec() });
    }

    /// No append goes wrong any more.
    pub(crate) fn calm(&self) {
        self.script.lock().clear();
        *self.dice.lock() = None;
    }

    /// The next calls of a kind fail, so many; `usize::MAX` is for ever, 0 ends it.
    pub(crate) fn fail(&self, call: Call, times: usize) {
        self.failing.lock().insert(call, times);
    }

    /// Every read takes so long.
    pub(crate) fn slow_reads(&self, by: Duration) {
        self.read_ms.store(by.as_millis() as u64, Ordering::Relaxed);
    }

    /// From now on nothing of a conversation can be read.
    pub(crate) fn damage(&self, id: ConversationId) {
        self.damaged.lock().insert(id);
        self.damage_entries(id);
    }

    /// From now on no entry of a conversation can be read.
    pub(crate) fn damage_entries(&self, id: ConversationId) {
        self.damaged_entries.lock().insert(id);
    }

    /// From now on the list of a user's conversations cannot be read.
    pub(crate) fn damage_list(&self, user: UserId) {
        self.damaged_lists.lock().insert(user);
    }

    /// From now on a glance shows what was there so many glances before.
    pub(crate) fn stale_glances(&self, by: usize) {
        self.stale_by.store(by, Ordering::Relaxed);
        self.seen.lock().clear();
    }

    /// Waits until no append of before is still on its way.
    pub(crate) async fn landed(&self) {
        self.late.close();
        self.late.wait().await;
    }

    /// Calls of a kind so far. An append counts once for each group.
    pub(crate) fn calls(&self, call: Call) -> usize {
        self.calls.lock().get(&call).copied().unwrap_or(0)
    }

    /// Round trips of all kinds so far.
    pub(crate) fn round_trips(&self) -> usize {
        self.calls.lock().values().sum()
    }

    fn whole(set: &Mutex<HashSet<ConversationId>>, id: ConversationId) -> Result<(), StoreError> {
        match set.lock().contains(&id) {
            true => Err(StoreError::Corrupt(format!("{id} is damaged for the test"))),
            false => Ok(()),
        }
    }

    async fn read(&self, call: Call) -> Result<(), StoreError> {
        let wait = self.read_ms.load(Ordering::Relaxed);
        if wait > 0 {
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        self.count(call)
    }

    fn count(&self, call: Call) -> Result<(), StoreError> {
        *self.calls.lock().entry(call).or_default() += 1;
        match self.failing.lock().get_mut(&call) {
            None | Some(0) => Ok(()),
            Some(times) => {
                *times = times.saturating_sub(usize::from(*times < usize::MAX));
                Err(broken())
            }
        }
    }

    fn fault(&self) -> Fault {
        if self.count(Call::Append).is_err() {
            return Fault::Error;
        }
        if let Some(fault) = self.script.lock().pop_front() {
            return fault;
        }
        let mut dice = self.dice.lock();
        let Some(Dice { random, odds }) = &mut *dice else { return Fault::Nothing };
        let mut left = random.random_range(0..1000);
        for (odds, fault) in odds {
            if left < *odds {
                return *fault;
            }
            left -= *odds;
        }
        Fault::Nothing
    }
}

fn broken() -> StoreError {
    StoreError::Unavailable("broken for the test".into())
}

/// One append with its fault.
async fn append(
    store: Arc<dyn Store>,
    group: Arc<AppendGroup>,
    fault: Fault,
    late: &TaskTracker,
) -> Result<Appended, StoreError> {
    match fault {
        Fault::Nothing => store.append(&group).await,
        Fault::UnknownApplied => store.append(&group).await.map(|_| Appended::Unknown),
        Fault::UnknownLost => Ok(Appended::Unknown),
        Fault::UnknownLate(after) => {
            late.spawn(async move {
                tokio::time::sleep(after).await;
                let _ = store.append(&group).await;
            });
            Ok(Appended::Unknown)
        }
        Fault::Conflict => {
            let head = store.conversation(group.conversation).await?.map_or(0, |state| state.head);
            // Of another head the one inside tells; markers win over it.
            if head == group.expected_head {
                Ok(Appended::Conflict { head })
            } else {
                store.append(&group).await
            }
        }
        Fault::Error => Err(broken()),
        Fault::ErrorApplied => store.append(&group).await.and_then(|_| Err(broken())),
        Fault::Slow(by) => {
            let appended = store.append(&group).await;
            tokio::time::sleep(by).await;
            appended
        }
    }
}

#[async_trait]
impl Store for Shaky {
    fn store_id(&self) -> StoreId {
        self.store.store_id()
    }

    async fn health(&self) -> Result<(), StoreError> {
        self.read(Call::Health).await?;
        self.store.health().await
    }

    async fn close(&self) {
        self.store.close().await;
    }
}

#[async_trait]
impl Log for Shaky {
    async fn append_all(&self, groups: Vec<(u64, Arc<AppendGroup>)>, answers: &AppendAnswers) {
        for (ticket, group) in groups {
            let (store, owed) = (self.store.clone(), answers.owe(vec![ticket]));
            let (fault, late) = (self.fault(), self.late.clone());
            tokio::spawn(async move { owed.settle([append(store, group, fault, &late).await]) });
        }
    }

    async fn conversation(&self, id: ConversationId) -> Result<Option<Arc<Conversation>>, StoreError> {
        self.read(Call::Conversation).await?;
        Self::whole(&self.damaged, id)?;
        self.store.conversation(id).await
    }

    async fn marker(
        &self,
        conversation: ConversationId,
        sender: &UserId,
        temp_id: TempId,
        age_ms: u64,
    ) -> Result<Option<Marker>, StoreError> {
        self.read(Call::Marker).await?;
        self.store.marker(conversation, sender, temp_id, age_ms).await
    }

    async fn entries(
        &self,
        conversation: ConversationId,
        range: RangeInclusive<u64>,
        order: Order,
        limit: PageLimit,
    ) -> Result<Vec<Entry>, StoreError> {
        self.read(Call::Entries).await?;
        Self::whole(&self.damaged_entries, conversation)?;
        self.store.entries(conversation, range, order, limit).await
    }

    async fn seq_at(
        &self,
        conversation: ConversationId,
        range: RangeInclusive<u64>,
        time_ms: u64,
    ) -> Result<u64, StoreError> {
        self.read(Call::SeqAt).await?;
        self.store.seq_at(conversation, range, time_ms).await
    }

    async fn redo(
        &self,
        conversation: ConversationId,
        state: &Conversation,
        entries: &[Entry],
    ) -> Result<(), StoreError> {
        self.count(Call::Redo)?;
        self.store.redo(conversation, state, entries).await
    }
}

#[async_trait]
impl Glances for Shaky {
    async fn glance(&self, ids: &[ConversationId]) -> Result<Vec<Option<Glance>>, StoreError> {
        self.read(Call::Glance).await?;
        ids.iter().try_for_each(|id| Self::whole(&self.damaged, *id))?;
        let fresh = self.store.glance(ids).await?;
        let stale_by = self.stale_by.load(Ordering::Relaxed);
        let mut seen = self.seen.lock();
        let stale = ids.iter().zip(fresh).map(|(id, fresh)| {
            let seen = seen.entry(*id).or_default();
            seen.push_back(fresh);
            while seen.len() > stale_by + 1 {
                seen.pop_front();
            }
            seen[0].clone()
        });
        Ok(stale.collect())
    }

    async fn runs(
        &self,
        of: &[(ConversationId, RangeInclusive<u64>)],
        limit: PageLimit,
    ) -> Result<Vec<Vec<Entry>>, StoreError> {
        self.read(Call::Runs).await?;
        of.iter().try_for_each(|(id, _)| Self::whole(&self.damaged_entries, *id))?;
        self.store.runs(of, limit).await
    }

    async fn last_entries(&self, at: &[(ConversationId, u64)]) -> Result<Vec<Option<Entry>>, StoreError> {
        self.read(Call::LastEntries).await?;
        at.iter().try_for_each(|(id, _)| Self::whole(&self.damaged_entries, *id))?;
        self.store.last_entries(at).await
    }
}

#[async_trait]
impl Inbox for Shaky {
    async fn inbox(
        &self,
        user: &UserId,
        after: Option<InboxCursor>,
        limit: usize,
    ) -> Result<Vec<InboxRow>, StoreError> {
        self.read(Call::Inbox).await?;
        if self.damaged_lists.lock().contains(user) {
            return Err(StoreError::Corrupt(format!("the list of {user} is damaged for the test")));
        }
        self.store.inbox(user, after, limit).await
    }

    async fn inbox_rows(
        &self,
        user: &UserId,
        ids: &[ConversationId],
    ) -> Result<Vec<Option<InboxRow>>, StoreError> {
        self.read(Call::InboxRows).await?;
        self.store.inbox_rows(user, ids).await
    }

    async fn set_read(
        &self,
        user: &UserId,
        id: ConversationId,
        read: ReadPosition,
    ) -> Result<bool, StoreError> {
        self.count(Call::SetRead)?;
        self.store.set_read(user, id, read).await
    }
}

#[async_trait]
impl Intents for Shaky {
    async fn intents(
        &self,
        shards: &[u8],
        times_ms: RangeInclusive<u64>,
        limit: usize,
    ) -> Result<Vec<Intent>, StoreError> {
        self.read(Call::Intents).await?;
        self.store.intents(shards, times_ms, limit).await
    }

    async fn clear_intents(&self, intents: &[Intent]) -> Result<(), StoreError> {
        self.count(Call::ClearIntents)?;
        self.store.clear_intents(intents).await
    }

    async fn intents_waiting(&self, shards: &[u8]) -> Result<Vec<u64>, StoreError> {
        self.read(Call::IntentsWaiting).await?;
        self.store.intents_waiting(shards).await
    }
}

#[async_trait]
impl Upkeep for Shaky {
    fn ages_by(&self) -> Granularity {
        self.store.ages_by()
    }

    async fn conversations(
        &self,
        after: Option<ConversationId>,
        limit: usize,
    ) -> Result<Vec<ConversationId>, StoreError> {
        self.read(Call::Upkeep).await?;
        self.store.conversations(after, limit).await
    }

    async fn age(&self, conversation: ConversationId, ages: Ages, limit: usize) -> Result<Aged, StoreError> {
        self.count(Call::Age)?;
        self.store.age(conversation, ages, limit).await
    }

    async fn rewrite(
        &self,
        conversation: ConversationId,
        entries: Vec<Entry>,
        erased_seq: u64,
    ) -> Result<(), StoreError> {
        self.count(Call::Upkeep)?;
        self.store.rewrite(conversation, entries, erased_seq).await
    }

    async fn begin_erasure(&self, user: &UserId, became: UserId, at_ms: u64) -> Result<Erasure, StoreError> {
        self.count(Call::Upkeep)?;
        self.store.begin_erasure(user, became, at_ms).await
    }

    async fn finish_erasure(&self, user: &UserId) -> Result<bool, StoreError> {
        self.count(Call::Upkeep)?;
        self.store.finish_erasure(user).await
    }

    async fn open_erasures(&self) -> Result<Vec<UserId>, StoreError> {
        self.read(Call::Upkeep).await?;
        self.store.open_erasures().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::{self, Fixture};
    use crate::store::memory::MemoryStore;

    /// Appends go wrong more often than not.
    struct Rolled(Arc<Shaky>);

    impl Rolled {
        fn new() -> Self {
            let shaky = Shaky::new(Arc::new(MemoryStore::new().with_people(contract::few())));
            let late = Duration::from_millis(3);
            let odds = [
                (150, Fault::UnknownApplied),
                (100, Fault::UnknownLost),
                (100, Fault::UnknownLate(late)),
                (100, Fault::Conflict),
                (100, Fault::Error),
                (100, Fault::ErrorApplied),
                (50, Fault::Slow(late)),
            ];
            shaky.dice(7, &odds);
            Self(shaky)
        }
    }

    #[async_trait]
    impl Fixture for Rolled {
        fn store(&self) -> Arc<dyn Store> {
            self.0.clone()
        }

        async fn reopen(&mut self) {}

        async fn landed(&mut self) {
            self.0.landed().await;
        }
    }

    contract::suite!(Rolled::new());

    #[tokio::test(start_paused = true)]
    async fn it_misbehaves_as_told() {
        let shaky = Shaky::new(Arc::new(MemoryStore::new()));
        let alice = UserId::new("alice").unwrap();
        let talk = contract::Talk::new(&[&alice]);
        let group = || Arc::new(talk.group(&alice, &[(TempId::from_bytes([1; 16]), "x")]));
        let late = Duration::from_secs(1);
        shaky.script([Fault::UnknownLost, Fault::Conflict, Fault::Error, Fault::UnknownLate(late)]);
        assert_eq!(shaky.append(&group()).await.unwrap(), Appended::Unknown);
        assert_eq!(shaky.append(&group()).await.unwrap(), Appended::Conflict { head: 0 });
        assert!(shaky.append(&group()).await.is_err());
        assert_eq!(shaky.append(&group()).await.unwrap(), Appended::Unknown);
        assert_eq!(shaky.conversation(talk.id).await.unwrap(), None, "not yet");
        tokio::time::sleep(2 * late).await;
        assert_eq!(shaky.conversation(talk.id).await.unwrap().unwrap().head, 1);
        assert!(matches!(shaky.append(&group()).await.unwrap(), Appended::Duplicates(_)));
        shaky.fail(Call::Conversation, 1);
        assert!(shaky.conversation(talk.id).await.is_err());
        assert!(shaky.conversation(talk.id).await.is_ok());
        assert_eq!((shaky.calls(Call::Append), shaky.calls(Call::Conversation)), (5, 4));

        shaky.stale_glances(1);
        let head =
            async || shaky.glance(&[talk.id]).await.unwrap()[0].as_ref().map(|glance| glance.state.head);
        assert_eq!(head().await, Some(1));
        let next = contract::Talk { id: talk.id, state: group().state.clone() };
        let next = next.group(&alice, &[(TempId::from_bytes([2; 16]), "y")]);
        assert_eq!(shaky.append(&Arc::new(next)).await.unwrap(), Appended::Applied);
        assert_eq!((head().await, head().await), (Some(1), Some(2)));
    }
}
