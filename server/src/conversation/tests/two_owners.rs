//! Two owners of the same logs, over a store that misbehaves, asked by clients that retry at either: whatever
//! happens, the logs are dense, nothing is lost, doubled or wrongly refused, and everybody is told.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tern_protocol::{
    ConversationId, ConversationKind, Entry, EntryBody, EntryId, Frame, Role, TempId, UserId,
};

use super::super::plan::{Snapshot, Verdict};
use super::super::state::{Decision, Facts, decide};
use super::super::{Ask, Change, Committed, ConversationConfig, Outcome};
use super::{Listener, Node, session, text, user};
use crate::roster::Roster;
use crate::store::memory::MemoryStore;
use crate::store::shaky::{Call, Fault, Shaky};
use crate::store::{Conversation, Log, Member, Order, PageLimit};

/// Users, who are all in all groups at first.
const USERS: usize = 6;
/// Groups, and as many pairs.
const GROUPS: usize = 3;
/// What each user does in one run, at least: some of it is several messages at once.
const STEPS: usize = 120;
/// Seconds to go on with new seeds, for a longer run than that of every day.
const SECONDS: &str = "TERN_TWO_OWNERS_SECONDS";

/// What became of a change, and the heads between which that was decided.
struct Record {
    ask: Ask,
    heads: (u64, u64),
    outcome: Outcome,
}

/// What a session has heard.
#[derive(Default)]
struct Heard {
    entries: HashSet<(ConversationId, u64)>,
    lagged: HashMap<ConversationId, u64>,
}

struct World {
    store: Arc<MemoryStore>,
    shaky: Arc<Shaky>,
    roster: Roster,
    nodes: [Mutex<Arc<Node>>; 2],
    records: Mutex<Vec<Record>>,
    heard: Mutex<HashMap<(usize, u64), Heard>>,
}

fn name(n: usize) -> UserId {
    user(&format!("user{n}"))
}

fn group_id(n: usize) -> ConversationId {
    ConversationId::from_bytes([n as u8 + 1; 16])
}

impl World {
    fn new(seed: u64) -> Arc<Self> {
        let (store, roster) = (Arc::new(MemoryStore::new()), Roster::default());
        let shaky = Shaky::new(store.clone());
        let (soon, late) = (Duration::from_millis(3), Duration::from_millis(150));
        let odds = [
            (60, Fault::UnknownApplied),
            (40, Fault::UnknownLost),
            (20, Fault::UnknownLate(soon)),
            (20, Fault::UnknownLate(late)),
            (40, Fault::Conflict),
            (30, Fault::Error),
            (30, Fault::ErrorApplied),
            (100, Fault::Slow(soon)),
        ];
        shaky.dice(seed, &odds);
        let nodes = [0, 1].map(|_| Mutex::new(Arc::new(start(&shaky, &roster))));
        Arc::new(Self { store, shaky, roster, nodes, records: Mutex::default(), heard: Mutex::default() })
    }

    async fn head(&self, id: ConversationId) -> u64 {
        self.store.conversation(id).await.unwrap().map_or(0, |state| state.head)
    }

    fn node(&self, dice: &mut StdRng) -> Arc<Node> {
        self.nodes[dice.random_range(0..2)].lock().clone()
    }

    /// Submits changes at once, each after the one before it, and those that are put off again, in their order
    /// and perhaps at the other owner, until each is made or refused for good.
    async fn ask(&self, asks: Vec<Ask>, dice: &mut StdRng) {
        let mut unresolved = asks;
        while !unresolved.is_empty() {
            let node = self.node(dice);
            let mut before = None;
            let mut answers = Vec::new();
            for mut ask in unresolved.drain(..) {
                ask.after = before.replace(ask.temp_id);
                let head = self.head(ask.conversation).await;
                answers.push((head, ask.clone(), node.submit(ask)));
            }
            for (head, ask, answer) in answers {
                let outcome = answer.await.unwrap();
                if outcome.as_ref().is_err_and(|refusal| refusal.code().temporary()) {
                    unresolved.push(ask);
                    continue;
                }
                let heads = (head, self.head(ask.conversation).await);
                self.records.lock().push(Record { ask, heads, outcome });
            }
            if !unresolved.is_empty() {
                tokio::time::sleep(Duration::from_millis(dice.random_range(0..60))).await;
            }
        }
    }

    /// One step of a user.
    async fn act(&self, n: usize, dice: &mut StdRng) {
        let mut temp_id = || TempId::from_bytes(dice.random());
        let ids = [temp_id(), temp_id(), temp_id()];
        let other = name(dice.random_range(0..USERS));
        let in_pair = dice.random_range(0..4) == 0 && other != name(n);
        let conversation = match in_pair {
            true => ConversationId::pair(&name(n), &other),
            false => group_id(dice.random_range(0..GROUPS)),
        };
        let role = if dice.random() { Role::Admin } else { Role::Member };
        let (change, times) = match dice.random_range(0..100) {
            _ if in_pair => (None, 2),
            0..50 => (None, 1),
            50..65 => (None, 3),
            65..79 => (Some(Change::Add { users: vec![other.clone()] }), 1),
            79..87 => (Some(Change::Remove { users: vec![other.clone()] }), 1),
            87..89 => (Some(Change::Leave), 1),
            89..93 => (Some(Change::Rename { name: format!("name {}", dice.random_range(0..9)) }), 1),
            _ => (Some(Change::SetRole { user: other.clone(), role }), 1),
        };
        let ask = |temp_id: TempId| Ask {
            conversation,
            peer: in_pair.then(|| other.clone()),
            sender: name(n),
            sender_name: None,
            asker: Some(session(n as u64)),
            temp_id,
            after: None,
            age_ms: 0,
            right: None,
            change: change.clone().unwrap_or_else(|| text(&format!("{temp_id}"))),
        };
        self.ask(ids[..times].iter().copied().map(ask).collect(), dice).await;
        tokio::time::sleep(Duration::from_millis(dice.random_range(0..40))).await;
    }

    /// Reads of the store fail now and then, and an owner is stopped and another begins.
    async fn trouble(&self, mut dice: StdRng) {
        loop {
            tokio::time::sleep(Duration::from_millis(dice.random_range(20..400))).await;
            match dice.random_range(0..4) {
                0 => self.shaky.fail(Call::Conversation, 1),
                1 => self.shaky.fail(Call::Marker, 1),
                2 => self.shaky.fail(Call::Entries, 1),
                _ => {
                    let next = Arc::new(start(&self.shaky, &self.roster));
                    let before = std::mem::replace(&mut *self.nodes[dice.random_range(0..2)].lock(), next);
                    before.conversations.close().await;
                }
            }
        }
    }
}

fn start(shaky: &Arc<Shaky>, roster: &Roster) -> Node {
    // States are let go and read anew all the time, and some batches are given up while they may still come.
    let config = ConversationConfig { idle_s: 1, settle_ms: 400, ..ConversationConfig::default() };
    Node::with(&config, shaky.clone(), shaky.clone(), roster)
}

async fn listen(world: Arc<World>, n: usize, number: u64, mut listener: Listener) {
    loop {
        for frame in listener.hear() {
            let mut heard = world.heard.lock();
            let heard = heard.entry((n, number)).or_default();
            match frame {
                Frame::Deliver(deliver) => {
                    heard
                        .entries
                        .extend(deliver.entries.iter().map(|entry| (deliver.conversation, entry.seq)));
                }
                Frame::Lagged(lagged) => {
                    heard.lagged.insert(lagged.conversation, lagged.head);
                }
                other => panic!("{} came", other.name()),
            }
        }
        listener.outbox.work().await;
    }
}

/// The states of a log after each of its entries, as its entries say: the one before the first is `None`.
fn states(id: ConversationId, log: &[Entry]) -> Vec<Option<Conversation>> {
    let mut states: Vec<Option<Conversation>> = vec![None];
    for entry in log {
        let mut state = states.last().unwrap().clone().unwrap_or_else(|| Conversation {
            kind: ConversationKind::Pair,
            name: None,
            head: 0,
            messages: 0,
            last_time_ms: 0,
            members: pair_of(id)
                .into_iter()
                .map(|user| member(user, Role::Owner, 1, &entry.sender))
                .collect(),
            blocked_by: Vec::new(),
        });
        state.head = entry.seq;
        match &entry.body {
            EntryBody::Message { .. } => {
                state.messages += 1;
                let wrote = state.members.iter_mut().find(|member| member.user == entry.sender);
                wrote.unwrap().added_by = None;
            }
            EntryBody::Created { name, members } => {
                (state.kind, state.name) = (ConversationKind::Group, Some(name.clone()));
                let role = |user: &UserId| if *user == entry.sender { Role::Owner } else { Role::Member };
                state.members =
                    members.iter().map(|user| member(user.clone(), role(user), 1, &entry.sender)).collect();
            }
            EntryBody::Added { users } => {
                let joined = |user: &UserId| member(user.clone(), Role::Member, entry.seq, &entry.sender);
                state.members.extend(users.iter().map(joined));
            }
            EntryBody::Removed { users } => state.members.retain(|member| !users.contains(&member.user)),
            EntryBody::Left { user } => state.members.retain(|member| member.user != *user),
            EntryBody::Renamed { name } => state.name = Some(name.clone()),
            EntryBody::RoleChanged { user, role } => {
                state.members.iter_mut().filter(|member| member.user == *user).for_each(|it| it.role = *role);
            }
            other => panic!("{other:?}"),
        }
        states.push(Some(state));
    }
    states
}

fn member(user: UserId, role: Role, first_seq: u64, by: &UserId) -> Member {
    let added_by = Some(by.clone()).filter(|by| *by != user);
    Member { user, role, first_seq, added_by }
}

/// The members of a pair from its first entry; of a group its first entry says them.
fn pair_of(id: ConversationId) -> Vec<UserId> {
    let mut all = (0..USERS).flat_map(|a| (0..a).map(move |b| vec![name(a), name(b)]));
    all.find(|pair| ConversationId::pair(&pair[0], &pair[1]) == id).unwrap_or_default()
}

/// Whether the rules say to this change, on this state, what its client was told.
fn says(state: Option<&Conversation>, ask: &Ask, outcome: &Outcome) -> bool {
    let before = state.map(|state| Snapshot::new(Arc::new(state.clone())));
    let mut batch = [Ask { after: None, ..ask.clone() }];
    let mut facts = Facts::default();
    facts.learn((ask.sender.clone(), ask.temp_id), None);
    let mut fresh_id = || EntryId::from_bytes([0; 16]);
    match decide(before.as_ref(), &mut batch, &facts, 0, &mut fresh_id) {
        Decision::Ready(plan) => match &plan.verdicts[0] {
            Verdict::Refuse(refusal) => outcome.as_ref().err() == Some(refusal),
            _ => false,
        },
        Decision::Lookup(keys) => panic!("{keys:?}"),
    }
}

fn check(world: &World, logs: &HashMap<ConversationId, Vec<Entry>>) -> (usize, usize) {
    let mut committed: HashMap<(ConversationId, TempId), Committed> = HashMap::new();
    let records = world.records.lock();
    let states: HashMap<_, _> = logs.iter().map(|(id, log)| (*id, states(*id, log))).collect();
    let mut refused = 0;
    for Record { ask, heads, outcome } in records.iter() {
        let log = &logs[&ask.conversation];
        let of_it = || log.iter().filter(|entry| entry.temp_id == Some(ask.temp_id));
        match outcome {
            Ok(told) => {
                let [entry] = of_it().collect::<Vec<_>>()[..] else { panic!("{ask:?}: {}", of_it().count()) };
                let found = (entry.seq, entry.id, entry.time_ms, entry.messages, &entry.sender);
                let is = (told.seq, told.id, told.time_ms, told.messages, &ask.sender);
                assert_eq!(found, is, "what was acked is what is in the log");
                committed.insert((ask.conversation, ask.temp_id), *told);
            }
            Err(refusal) => {
                refused += 1;
                assert_eq!(of_it().count(), 0, "refused for good and made: {ask:?} {refusal}");
                let possible = &states[&ask.conversation][heads.0 as usize..=heads.1 as usize];
                let is_true = possible.iter().any(|state| says(state.as_ref(), ask, outcome));
                assert!(is_true, "wrongly refused between heads {heads:?}: {ask:?} {refusal}");
            }
        }
    }
    for (id, log) in logs {
        for (entry, state) in log.iter().zip(&states[id][1..]) {
            let state = state.as_ref().unwrap();
            assert_eq!(entry.messages, state.messages, "messages up to {}", entry.seq);
            let key = entry.temp_id.map(|temp_id| (*id, temp_id));
            assert!(key.is_none_or(|key| committed.contains_key(&key)), "of nobody: {entry:?}");
            let later = &states[id][entry.seq as usize + 1..];
            check_told(world, *id, entry, state, later);
        }
    }
    check_untold(world, logs, &states);
    (committed.len(), refused)
}

/// Who is no longer a member by this entry.
fn gone(entry: &Entry) -> &[UserId] {
    match &entry.body {
        EntryBody::Removed { users } => users,
        EntryBody::Left { user } => std::slice::from_ref(user),
        _ => &[],
    }
}

/// Nobody has heard of an entry who was no member at it.
fn check_untold(
    world: &World,
    logs: &HashMap<ConversationId, Vec<Entry>>,
    states: &HashMap<ConversationId, Vec<Option<Conversation>>>,
) {
    for ((n, number), heard) in world.heard.lock().iter() {
        for (id, seq) in &heard.entries {
            let (entry, state) = (&logs[id][*seq as usize - 1], states[id][*seq as usize].as_ref().unwrap());
            let may = state.member(&name(*n)).is_some() || gone(entry).contains(&name(*n));
            assert!(may, "session {number} of {} was told of {entry:?}", name(*n));
        }
    }
}

/// Every session of those who are members at the entry, or go by it, has heard of it. What had to be told again is
/// told to those who are members then: who has gone meanwhile hears that (it shows that some is missing), and who
/// has come back hears that their log begins anew.
fn check_told(
    world: &World,
    id: ConversationId,
    entry: &Entry,
    state: &Conversation,
    later: &[Option<Conversation>],
) {
    let gone = gone(entry);
    let later = || later.iter().flatten();
    let stays = |user: &&UserId| later().all(|state| state.member(user).is_some());
    let stays_gone = |user: &&UserId| later().all(|state| state.member(user).is_none());
    let members = state.members.iter().map(|member| &member.user);
    let to: Vec<&UserId> = members.filter(stays).chain(gone.iter().filter(stays_gone)).collect();
    let heard = world.heard.lock();
    for ((n, number), heard) in heard.iter().filter(|((n, _), _)| to.contains(&&name(*n))) {
        let asked = name(*n) == entry.sender && *number == *n as u64 && entry.body.is_message();
        let told = asked
            || heard.entries.contains(&(id, entry.seq))
            || heard.lagged.get(&id).is_some_and(|seq| *seq >= entry.seq);
        assert!(told, "session {number} of {} was not told of {entry:?}", name(*n));
    }
}

async fn logs(world: &World) -> HashMap<ConversationId, Vec<Entry>> {
    let pairs = (0..USERS).flat_map(|a| (0..a).map(move |b| ConversationId::pair(&name(a), &name(b))));
    let all = PageLimit { entries: usize::MAX, bytes: usize::MAX };
    let mut logs = HashMap::new();
    for id in (0..GROUPS).map(group_id).chain(pairs) {
        let log = world.store.entries(id, 1..=u64::MAX, Order::Ascending, all).await.unwrap();
        let seqs = log.iter().map(|entry| entry.seq);
        assert!(seqs.eq(1..=world.head(id).await), "dense");
        assert!(log.is_sorted_by_key(|entry| entry.time_ms), "times never decrease");
        logs.insert(id, log);
    }
    logs
}

/// One run; changes that were made and that were refused for good.
async fn run(seed: u64) -> (usize, usize) {
    let world = World::new(seed);
    let mut listeners = tokio::task::JoinSet::new();
    for n in 0..USERS {
        // The first of each asks; the other only listens.
        for number in [n as u64, (n + USERS) as u64] {
            let listener = Listener::new(&world.roster, name(n).as_str(), number);
            listeners.spawn(listen(world.clone(), n, number, listener));
        }
    }
    let mut dice = StdRng::seed_from_u64(seed);
    for n in 0..GROUPS {
        let members = (0..USERS).map(name).collect();
        let create = Change::Create { name: "crew".into(), members };
        let ask = Ask { asker: Some(session(n as u64)), sender: name(n), ..super::ask("x", 1, create) };
        world.ask(vec![Ask { conversation: group_id(n), ..ask }], &mut dice).await;
    }
    listeners.spawn({
        let (world, dice) = (world.clone(), StdRng::seed_from_u64(dice.random()));
        async move { world.trouble(dice).await }
    });
    let mut clients = tokio::task::JoinSet::new();
    for n in 0..USERS {
        let (world, mut dice) = (world.clone(), StdRng::seed_from_u64(dice.random()));
        clients.spawn(async move {
            for _ in 0..STEPS {
                world.act(n, &mut dice).await;
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    let before = logs(&world).await;
    // What is late may still come, and must not count.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let logs = logs(&world).await;
    assert!(logs == before, "something came after everybody had their answer");
    check(&world, &logs)
}

/// One run in which time jumps to the next thing to do, or one on threads in real time.
fn run_on(mut runtime: tokio::runtime::Builder, seed: u64) {
    // Shown if it fails.
    println!("seed {seed}");
    let (made, refused) = runtime.build().unwrap().block_on(run(seed));
    println!("{made} made, {refused} refused for good");
    assert!(made > 400 && refused > 20, "the test does not test: {made} made, {refused} refused");
}

#[test]
fn two_owners_of_a_log_lose_double_and_wrongly_refuse_nothing_and_tell_everybody() {
    let seconds = std::env::var(SECONDS).ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(0);
    let until = std::time::Instant::now() + Duration::from_secs(seconds);
    for (index, seed) in (1..).enumerate() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().start_paused(true);
        run_on(runtime, seed);
        let is_long = std::time::Instant::now() < until;
        if is_long && index % 20 == 0 {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            runtime.enable_all();
            run_on(runtime, seed);
        }
        if index >= 11 && !is_long {
            break;
        }
    }
}
