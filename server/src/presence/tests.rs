use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use tern_protocol::{
    ConversationId, ConversationKind, Entry, PresenceState, Role, StoreId, TempId, UserPresence,
};
use tokio::sync::mpsc;

use super::*;
use crate::roster::SeatGuard;
use crate::roster::tests::seat;
use crate::store::{
    Aged, Ages, AppendAnswers, AppendGroup, BlockChange, BlockOutcome, Blocked, Conversation, Erasure,
    Glance, Glances, Granularity, Inbox, InboxCursor, InboxRow, Intent, Intents, Kept, Log, Marker, Member,
    Order, PageLimit, People, ReadPosition, Right, Standing, Upkeep, User, UserChange, Users,
};

/// As much of a store as presence asks: conversations, inboxes and users.
#[derive(Default)]
struct Shelf {
    conversations: HashMap<ConversationId, Arc<Conversation>>,
    inboxes: HashMap<UserId, Vec<InboxRow>>,
    users: Mutex<HashMap<UserId, User>>,
    broken: AtomicBool,
    reads: AtomicUsize,
}

impl Shelf {
    fn check(&self) -> Result<(), StoreError> {
        match self.broken.load(Ordering::SeqCst) {
            true => Err(StoreError::Unavailable("broken for the test".into())),
            false => Ok(()),
        }
    }

    fn add(&mut self, id: ConversationId, kind: ConversationKind, names: &[&str]) {
        let member =
            |name: &&str| Member { user: user(name), role: Role::Owner, first_seq: 1, added_by: None };
        let members = names.iter().map(member).collect();
        let state = Conversation {
            kind,
            name: None,
            head: 1,
            messages: 1,
            last_time_ms: 1,
            members,
            blocked_by: Vec::new(),
        };
        self.conversations.insert(id, Arc::new(state));
        for name in names {
            self.inboxes.entry(user(name)).or_default().push(InboxRow {
                conversation: id,
                last_seq: 1,
                last_messages: 0,
                last_time_ms: 1,
                first_seq: 1,
                until_seq: None,
                read: ReadPosition::default(),
            });
        }
    }

    fn pair(&mut self, a: &str, b: &str) {
        self.add(ConversationId::pair(&user(a), &user(b)), ConversationKind::Pair, &[a, b]);
    }

    fn group(&mut self, number: u8, names: &[&str]) {
        self.add(ConversationId::from_bytes([number; 16]), ConversationKind::Group, names);
    }

    fn user(&self, name: &str) -> User {
        self.users.lock().get(&user(name)).cloned().unwrap_or_default()
    }
}

#[async_trait]
impl Store for Shelf {
    fn store_id(&self) -> StoreId {
        StoreId::from_bytes([0; 16])
    }

    async fn health(&self) -> Result<(), StoreError> {
        self.check()
    }

    async fn close(&self) {}
}

#[async_trait]
impl Users for Shelf {
    async fn users(&self, users: &[UserId]) -> Result<Vec<Option<User>>, StoreError> {
        self.check()?;
        let stored = self.users.lock();
        Ok(users.iter().map(|user| stored.get(user).cloned()).collect())
    }

    /// Whoever has a session here was made known by it.
    async fn change_user(
        &self,
        user: &UserId,
        change: UserChange,
        _: Option<Right>,
    ) -> Result<bool, StoreError> {
        self.check()?;
        let mut users = self.users.lock();
        let before = users.entry(user.clone()).or_default();
        *before = change.apply(Some(before)).unwrap_or_else(|| before.clone());
        Ok(true)
    }

    async fn standing(&self, _: &UserId) -> Result<Standing, StoreError> {
        unreachable!("presence judges no tokens")
    }

    async fn refuse_before(&self, _: &UserId, _: u64) -> Result<(), StoreError> {
        unreachable!("presence revokes nothing")
    }
}

#[async_trait]
impl People for Shelf {
    async fn set_block(&self, _: BlockChange) -> Result<BlockOutcome, StoreError> {
        unreachable!("presence blocks nobody")
    }

    async fn blocks(&self, _: &UserId, _: Option<&UserId>, _: usize) -> Result<Vec<Blocked>, StoreError> {
        unreachable!("presence lists no blocks")
    }

    async fn blocked_between(&self, _: &UserId, others: &[UserId]) -> Result<Vec<bool>, StoreError> {
        self.check()?;
        Ok(vec![false; others.len()])
    }

    async fn accept(&self, _: &UserId, _: ConversationId) -> Result<bool, StoreError> {
        unreachable!("presence accepts nothing")
    }

    async fn forget_blocks(&self, _: &UserId, _: usize) -> Result<bool, StoreError> {
        unreachable!("presence erases nobody")
    }
}

#[async_trait]
impl Upkeep for Shelf {
    fn ages_by(&self) -> Granularity {
        unreachable!("presence ages nothing")
    }
    async fn conversations(
        &self,
        _: Option<ConversationId>,
        _: usize,
    ) -> Result<Vec<ConversationId>, StoreError> {
        unreachable!("presence ages nothing")
    }
    async fn age(&self, _: ConversationId, _: Ages, _: usize) -> Result<Aged, StoreError> {
        unreachable!("presence ages nothing")
    }
    async fn rewrite(&self, _: ConversationId, _: Vec<Entry>, _: u64) -> Result<(), StoreError> {
        unreachable!("presence rewrites nothing")
    }
    async fn begin_erasure(&self, _: &UserId, _: UserId, _: u64) -> Result<Erasure, StoreError> {
        unreachable!("presence erases nobody")
    }
    async fn finish_erasure(&self, _: &UserId) -> Result<bool, StoreError> {
        unreachable!("presence erases nobody")
    }
    async fn open_erasures(&self) -> Result<Vec<UserId>, StoreError> {
        unreachable!("presence erases nobody")
    }
}

#[async_trait]
impl Inbox for Shelf {
    async fn inbox(
        &self,
        user: &UserId,
        _: Option<InboxCursor>,
        limit: usize,
    ) -> Result<Vec<InboxRow>, StoreError> {
        self.check()?;
        let mut rows = self.inboxes.get(user).cloned().unwrap_or_default();
        rows.truncate(limit);
        Ok(rows)
    }

    async fn inbox_rows(
        &self,
        _: &UserId,
        _: &[ConversationId],
    ) -> Result<Vec<Option<InboxRow>>, StoreError> {
        unreachable!("presence reads whole inboxes")
    }

    async fn set_read(&self, _: &UserId, _: ConversationId, _: ReadPosition) -> Result<bool, StoreError> {
        unreachable!("presence sets no positions")
    }
}

#[async_trait]
impl Log for Shelf {
    async fn append_all(&self, _: Vec<(u64, Arc<AppendGroup>)>, _: &AppendAnswers) {
        unreachable!("presence appends nothing")
    }

    async fn conversation(&self, _: ConversationId) -> Result<Option<Arc<Conversation>>, StoreError> {
        unreachable!("presence owns no conversation")
    }

    async fn seq_at(&self, _: ConversationId, _: RangeInclusive<u64>, _: u64) -> Result<u64, StoreError> {
        unreachable!("presence reads no entries")
    }

    async fn marker(
        &self,
        _: ConversationId,
        _: &UserId,
        _: TempId,
        _: u64,
    ) -> Result<Option<Marker>, StoreError> {
        unreachable!("presence asks for no marker")
    }

    async fn entries(
        &self,
        _: ConversationId,
        _: RangeInclusive<u64>,
        _: Order,
        _: PageLimit,
    ) -> Result<Vec<Entry>, StoreError> {
        unreachable!("presence reads no entries")
    }

    async fn redo(&self, _: ConversationId, _: &Conversation, _: &[Entry]) -> Result<(), StoreError> {
        unreachable!("presence redoes nothing")
    }
}

#[async_trait]
impl Glances for Shelf {
    async fn glance(&self, ids: &[ConversationId]) -> Result<Vec<Option<Glance>>, StoreError> {
        self.check()?;
        self.reads.fetch_add(1, Ordering::SeqCst);
        let glance = |id| Some(Glance { state: self.conversations.get(id)?.clone(), kept: Kept::default() });
        Ok(ids.iter().map(glance).collect())
    }

    async fn runs(
        &self,
        _: &[(ConversationId, RangeInclusive<u64>)],
        _: PageLimit,
    ) -> Result<Vec<Vec<Entry>>, StoreError> {
        unreachable!("presence reads no entries")
    }

    async fn last_entries(&self, _: &[(ConversationId, u64)]) -> Result<Vec<Option<Entry>>, StoreError> {
        unreachable!("presence reads no entries")
    }
}

#[async_trait]
impl Intents for Shelf {
    async fn intents(
        &self,
        _: &[u8],
        _: std::ops::RangeInclusive<u64>,
        _: usize,
    ) -> Result<Vec<Intent>, StoreError> {
        unreachable!("presence pushes nothing")
    }

    async fn clear_intents(&self, _: &[Intent]) -> Result<(), StoreError> {
        unreachable!("presence pushes nothing")
    }

    async fn intents_waiting(&self, _: &[u8]) -> Result<Vec<u64>, StoreError> {
        unreachable!("presence pushes nothing")
    }
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn users(names: &[&str]) -> Vec<UserId> {
    names.iter().map(|name| user(name)).collect()
}

fn shown(name: &str, state: PresenceState, last_seen_ms: Option<u64>) -> UserPresence {
    UserPresence { user: user(name), state, last_seen_ms }
}

/// Where the notices of a test's watch arrive.
fn outbox() -> (Notify, mpsc::Receiver<Notice>) {
    let (send, receive) = mpsc::channel(16);
    (Arc::new(move |notice| send.try_send(notice).expect("the test reads")), receive)
}

/// The service, and sessions that begin and end.
struct Bench {
    presence: Presence,
    roster: Roster,
    tasks: PresenceTasks,
    sessions: u64,
}

impl Bench {
    fn new(store: Arc<Shelf>) -> Self {
        Self::with(&PresenceConfig::default(), store)
    }

    fn with(config: &PresenceConfig, store: Arc<Shelf>) -> Self {
        let roster = Roster::default();
        let (presence, tasks) = Presence::start(config, roster.clone(), store);
        Self { presence, roster, tasks, sessions: 0 }
    }

    fn begin(&mut self, name: &str) -> SeatGuard {
        self.sessions += 1;
        self.roster.begin(seat(self.sessions, name, "phone"), 20).guard
    }

    async fn watch(&self, session: &SeatGuard, names: &[&str], notify: Notify) {
        self.presence.watch(session.seat(), users(names), notify).await.unwrap();
    }
}

/// Lets the tasks do all they can do now. Time is paused, so it passes only when all of them wait.
async fn let_pass(time: Duration) {
    tokio::time::sleep(time).await;
}

const MS: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn a_watcher_sees_those_it_may_see_come_and_go() {
    let mut shelf = Shelf::default();
    shelf.pair("alice", "bob");
    shelf.users.get_mut().insert(user("carol"), User { name: None, last_seen_ms: 77 });
    shelf.group(1, &["alice", "carol"]);
    let mut bench = Bench::new(Arc::new(shelf));
    let mallory = bench.begin("mallory");
    let (notify, mut notices) = outbox();
    let alice = bench.begin("alice");
    bench.watch(&alice, &["mallory", "bob", "carol", "alice", "bob"], notify).await;
    let expected = vec![
        shown("mallory", PresenceState::Unknown, None),
        shown("bob", PresenceState::Offline, None),
        shown("carol", PresenceState::Offline, Some(77)),
        shown("alice", PresenceState::Online, None),
        shown("bob", PresenceState::Offline, None),
    ];
    assert_eq!(notices.recv().await, Some(Notice::Answer(expected)));
    let bob = bench.begin("bob");
    let online = vec![shown("bob", PresenceState::Online, None)];
    assert_eq!(notices.recv().await, Some(Notice::Change(online)));
    let ended_ms = stamp_ms();
    drop((bob, mallory));
    let_pass(9_999 * MS).await;
    assert_eq!(notices.try_recv().ok(), None, "the grace is not over");
    let Some(Notice::Change(left)) = notices.recv().await else { panic!("no change") };
    let [left] = &left[..] else { panic!("{left:?}") };
    assert_eq!((&left.user, left.state), (&user("bob"), PresenceState::Offline));
    assert!((ended_ms..ended_ms + 5_000).contains(&left.last_seen_ms.unwrap()), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_session_is_the_end_of_its_watch() {
    let mut shelf = Shelf::default();
    shelf.pair("alice", "bob");
    let mut bench = Bench::new(Arc::new(shelf));
    let (notify, mut notices) = outbox();
    let alice = bench.begin("alice");
    bench.watch(&alice, &["bob"], notify).await;
    notices.recv().await.unwrap();
    drop(alice);
    let _bob = bench.begin("bob");
    let_pass(60_000 * MS).await;
    assert_eq!(notices.recv().await, None, "the callback is dropped without another call");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_comes_after_the_end_of_its_session_is_dropped_without_a_word() {
    let mut shelf = Shelf::default();
    shelf.pair("alice", "bob");
    let mut bench = Bench::new(Arc::new(shelf));
    let (notify, mut notices) = outbox();
    let alice = bench.begin("alice");
    let seat = Arc::clone(alice.seat());
    drop(alice);
    // As a worker does that was past its last wait when its session ended.
    bench.presence.watch(&seat, users(&["bob"]), notify).await.unwrap();
    assert_eq!(notices.recv().await, None, "it is not kept");
    let_pass(80_000 * MS).await;
    assert!(bench.presence.shared.state.lock().is_empty());
}

/// On two threads, so that the end of a session meets every step of its watch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_watch_outlives_its_session_however_the_two_meet() {
    // She watches herself too: her own coming and going has the state look again.
    let names: Vec<String> = (0..100).map(|number| format!("user{number}")).collect();
    let all: Vec<&str> = std::iter::once("alice").chain(names.iter().map(String::as_str)).collect();
    let mut shelf = Shelf::default();
    shelf.group(1, &all);
    let mut bench = Bench::new(Arc::new(shelf));
    let ends = Arc::new(std::sync::Barrier::new(2));
    let (send, sessions) = std::sync::mpsc::sync_channel::<SeatGuard>(0);
    let ender = std::thread::spawn({
        let ends = ends.clone();
        move || {
            for (round, session) in sessions.into_iter().enumerate() {
                ends.wait();
                (0..round * 7 % 4096).for_each(|_| std::hint::spin_loop());
                drop(session);
            }
        }
    });
    for _ in 0..30_000 {
        let alice = bench.begin("alice");
        let seat = Arc::clone(alice.seat());
        send.send(alice).unwrap();
        ends.wait();
        bench.presence.watch(&seat, users(&all), Arc::new(|_| ())).await.unwrap();
    }
    drop(send);
    ender.join().unwrap();
    let mut state = bench.presence.shared.state.lock();
    bench.presence.shared.catch_up(&mut state);
    assert!(!state.is_watched(), "a watch is left");
}

#[tokio::test(start_paused = true)]
async fn who_makes_room_for_another_session_watches_no_more() {
    let mut shelf = Shelf::default();
    shelf.pair("alice", "bob");
    let mut bench = Bench::new(Arc::new(shelf));
    let (notify, mut notices) = outbox();
    let old = bench.begin("alice");
    bench.watch(&old, &["bob"], notify).await;
    notices.recv().await.unwrap();
    let _new = bench.roster.begin(seat(99, "alice", "phone"), 1);
    let_pass(MS).await;
    assert_eq!(notices.recv().await, None, "though its task has not ended");
    drop(old);
}

#[tokio::test(start_paused = true)]
async fn last_seen_is_stored_when_a_user_goes_offline_and_the_name_is_kept() {
    let shelf = Shelf::default();
    shelf.users.lock().insert(user("bob"), User { name: Some("Bob".into()), last_seen_ms: 1 });
    let store = Arc::new(shelf);
    let mut bench = Bench::new(store.clone());
    let ended_ms = stamp_ms();
    drop(bench.begin("bob"));
    let_pass(9_999 * MS).await;
    assert_eq!(store.user("bob").last_seen_ms, 1, "he may be back within the grace");
    let_pass(2 * MS).await;
    let bob = store.user("bob");
    assert_eq!(bob.name.as_deref(), Some("Bob"));
    assert!(bob.last_seen_ms >= ended_ms, "{bob:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_delays_last_seen_but_loses_none_and_delays_no_notice() {
    let mut shelf = Shelf::default();
    shelf.pair("alice", "bob");
    let store = Arc::new(shelf);
    let mut bench = Bench::new(store.clone());
    let (notify, mut notices) = outbox();
    let (alice, bob) = (bench.begin("alice"), bench.begin("bob"));
    bench.watch(&alice, &["bob"], notify).await;
    notices.recv().await.unwrap();
    store.broken.store(true, Ordering::SeqCst);
    let ended_ms = stamp_ms();
    drop(bob);
    let_pass(10_001 * MS).await;
    assert!(matches!(notices.try_recv(), Ok(Notice::Change(_))));
    let_pass(60_000 * MS).await;
    assert_eq!(store.user("bob").last_seen_ms, 0);
    store.broken.store(false, Ordering::SeqCst);
    let_pass(60_000 * MS).await;
    assert!(store.user("bob").last_seen_ms >= ended_ms);
}

#[tokio::test(start_paused = true)]
async fn a_stop_stores_everybody_who_is_still_here_or_has_just_gone() {
    let store = Arc::new(Shelf::default());
    let mut bench = Bench::new(store.clone());
    let sessions: Vec<SeatGuard> = (0..500).map(|number| bench.begin(&format!("user{number}"))).collect();
    let before = stamp_ms();
    drop(bench.begin("gone"));
    bench.tasks.stop().await;
    assert!(store.user("gone").last_seen_ms >= before);
    assert!((0..500).all(|number| store.user(&format!("user{number}")).last_seen_ms >= before));
    drop(sessions);
}

#[tokio::test(start_paused = true)]
async fn a_watch_is_refused_by_name_of_the_reason() {
    let mut shelf = Shelf::default();
    let many: Vec<UserId> = (0..=WATCH_USERS_MAX).map(|number| user(&format!("user{number}"))).collect();
    for friend in ["user1", "user2"] {
        shelf.pair("user0", friend);
    }
    let store = Arc::new(shelf);
    let config = PresenceConfig { watches_max: 2, ..PresenceConfig::default() };
    let mut bench = Bench::with(&config, store.clone());
    let session = bench.begin("user0");
    let (notify, mut notices) = outbox();
    let watch = |users: Vec<UserId>| bench.presence.watch(session.seat(), users, notify.clone());
    assert!(matches!(watch(many.clone()).await, Err(WatchError::TooMany(201))));
    assert!(matches!(watch(many[..3].to_vec()).await, Err(WatchError::Full)));
    store.broken.store(true, Ordering::SeqCst);
    assert!(matches!(watch(many[..1].to_vec()).await, Err(WatchError::Store(_))));
    assert!(notices.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_look_is_answered_once_and_leaves_nothing() {
    let mut shelf = Shelf::default();
    shelf.pair("alice", "bob");
    let mut bench = Bench::new(Arc::new(shelf));
    let _bob = bench.begin("bob");
    let seen = bench.presence.look(&user("alice"), users(&["bob", "carol"])).await.unwrap();
    let expected = [shown("bob", PresenceState::Online, None), shown("carol", PresenceState::Unknown, None)];
    assert_eq!(seen, expected);
    assert!(bench.presence.shared.state.lock().is_empty());
}

#[tokio::test]
async fn who_shares_a_conversation_is_visible_and_nobody_else() {
    let mut shelf = Shelf::default();
    shelf.pair("me", "friend");
    shelf.pair("friend", "stranger");
    shelf.group(1, &["me", "colleague"]);
    shelf.group(2, &["colleague", "stranger"]);
    // A group that I left: my row has an end, and I am not among its members.
    shelf.group(3, &["me", "former"]);
    let left = ConversationId::from_bytes([3; 16]);
    Arc::make_mut(shelf.conversations.get_mut(&left).unwrap()).members.remove(0);
    // A group whose inbox row is behind its log: the log decides.
    shelf.group(4, &["me", "behind"]);
    let removed = ConversationId::from_bytes([4; 16]);
    Arc::make_mut(shelf.conversations.get_mut(&removed).unwrap()).members.remove(0);
    for row in shelf.inboxes.get_mut(&user("me")).unwrap() {
        row.until_seq = (row.conversation == left).then_some(1);
    }
    let asked = users(&["me", "friend", "colleague", "stranger", "former", "behind", "nobody", "friend"]);
    let seen = visible(&shelf, &user("me"), &asked).await.unwrap();
    assert_eq!(seen, [true, true, true, false, false, false, false, true]);
    assert_eq!(visible(&shelf, &user("me"), &[]).await.unwrap(), [true; 0]);
}

#[tokio::test]
async fn looking_for_strangers_reads_a_bounded_number_of_conversations() {
    let mut shelf = Shelf::default();
    for number in 0..1_000u16 {
        let mut id = [9; 16];
        id[..2].copy_from_slice(&number.to_be_bytes());
        shelf.add(ConversationId::from_bytes(id), ConversationKind::Group, &["me", "other"]);
    }
    let seen = visible(&shelf, &user("me"), &users(&["stranger"])).await.unwrap();
    assert_eq!(seen, [false]);
    assert_eq!(visible(&shelf, &user("me"), &users(&["other"])).await.unwrap(), [true]);
    assert_eq!(shelf.reads.load(Ordering::SeqCst), 4, "two for each question, however many users and groups");
}
