//! Who sees whom, while they watch: judged again with every change, over a real store.

use tern_protocol::{EntryBody, PresenceState, Role};
use tokio::sync::mpsc;

use super::*;
use crate::delivery::{Delivery, Relations};
use crate::ops::metrics::Metrics;
use crate::roster::SeatGuard;
use crate::roster::tests::seat;
use crate::store::contract::{Talk, change, fresh_temp_id};
use crate::store::memory::MemoryStore;
use crate::store::shaky::{Call, Shaky};
use crate::store::{BlockChange, Member};

const SECOND: Duration = Duration::from_secs(1);

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

struct Bench {
    shaky: Arc<Shaky>,
    store: Arc<dyn Store>,
    presence: Presence,
    roster: Roster,
    delivery: Delivery,
    sessions: u64,
    _tasks: PresenceTasks,
}

impl Bench {
    fn new() -> Self {
        let shaky = Shaky::new(Arc::new(MemoryStore::new()));
        let store: Arc<dyn Store> = shaky.clone();
        let roster = Roster::default();
        let (presence, tasks) = Presence::start(&PresenceConfig::default(), roster.clone(), store.clone());
        let delivery = Delivery::new(roster.clone(), Metrics::none());
        Self { shaky, store, presence, roster, delivery, sessions: 0, _tasks: tasks }
    }

    fn begin(&mut self, name: &str) -> SeatGuard {
        self.sessions += 1;
        self.roster.begin(seat(self.sessions, name, "phone"), 20).guard
    }

    async fn watch(&self, session: &SeatGuard, names: &[&str]) -> Notices {
        let (send, receive) = mpsc::channel(16);
        let notify: Notify = Arc::new(move |notice| send.try_send(notice).expect("the test reads"));
        let users = names.iter().map(|name| user(name)).collect();
        self.presence.watch(session.seat(), users, notify).await.unwrap();
        Notices(receive)
    }

    /// What an owner tells of a change.
    fn moved(&self, members: &[&str], moved: &[&str]) {
        let users = |names: &[&str]| names.iter().map(|name| user(name)).collect::<Vec<_>>().into();
        self.delivery.judge_again(&Relations { members: users(members), moved: users(moved) });
    }

    async fn block(&self, by: &str, of: &str, blocked: bool) {
        let (by, of) = (user(by), user(of));
        let relations = Relations::between(&by, &of);
        let change = BlockChange { by, user: of, blocked, at_ms: 1, right: None };
        self.store.set_block(change).await.unwrap();
        self.delivery.judge_again(&relations);
    }
}

struct Notices(mpsc::Receiver<Notice>);

impl Notices {
    /// The next notice, such as `"bob=online"`.
    async fn next(&mut self) -> String {
        let notice = tokio::time::timeout(60 * SECOND, self.0.recv()).await.expect("a notice in time");
        let (Notice::Answer(users) | Notice::Change(users)) = notice.expect("the watch lives");
        let word = |shown: &UserPresence| match shown.state {
            PresenceState::Online => format!("{}=online", shown.user),
            PresenceState::Offline => format!("{}=offline", shown.user),
            PresenceState::Unknown => format!("{}=unknown", shown.user),
        };
        users.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    async fn is_quiet(&mut self) -> bool {
        tokio::time::sleep(5 * SECOND).await;
        self.0.try_recv().is_err()
    }
}

/// A pair in which the first has written.
async fn pair(bench: &Bench, from: &str, to: &str) -> Talk {
    let (from, to) = (user(from), user(to));
    let mut talk = Talk::pair(&from, &to);
    Arc::make_mut(&mut talk.state).members[1].added_by = Some(from.clone());
    let group = talk.group(&from, &[(fresh_temp_id(), "hi")]);
    talk.apply(&bench.store, group).await;
    talk
}

async fn answer(bench: &Bench, talk: &mut Talk, from: &str) {
    let from = user(from);
    let mut group = talk.group(&from, &[(fresh_temp_id(), "hi")]);
    let state = Arc::make_mut(&mut group.state);
    state.members.iter_mut().find(|member| member.user == from).unwrap().added_by = None;
    talk.apply(&bench.store, group).await;
}

#[tokio::test(start_paused = true)]
async fn who_has_written_is_seen_and_sees_once_they_are_answered() {
    let mut bench = Bench::new();
    let (dora, ed) = (bench.begin("dora"), bench.begin("ed"));
    let mut of_dora = bench.watch(&dora, &["ed"]).await;
    let mut of_ed = bench.watch(&ed, &["dora"]).await;
    assert_eq!((of_dora.next().await, of_ed.next().await), ("ed=unknown".into(), "dora=unknown".into()));
    let mut talk = pair(&bench, "ed", "dora").await;
    bench.moved(&["ed", "dora"], &["ed", "dora"]);
    assert_eq!(of_dora.next().await, "ed=online", "he has shown himself");
    assert!(of_ed.is_quiet().await, "nobody sees another for having written to them");
    answer(&bench, &mut talk, "dora").await;
    bench.moved(&["ed", "dora"], &["dora"]);
    assert_eq!(of_ed.next().await, "dora=online");
    drop(ed);
    assert_eq!(of_dora.next().await, "ed=offline", "who became visible is watched like any other");
}

#[tokio::test(start_paused = true)]
async fn a_block_hides_the_two_from_each_other_whatever_they_share() {
    let mut bench = Bench::new();
    let (alice, bob) = (bench.begin("alice"), bench.begin("bob"));
    let mut talk = pair(&bench, "alice", "bob").await;
    answer(&bench, &mut talk, "bob").await;
    let mut crew = Talk::new(&[&user("alice"), &user("bob")]);
    let group = crew.group(&user("alice"), &[(fresh_temp_id(), "hi")]);
    crew.apply(&bench.store, group).await;
    let mut of_alice = bench.watch(&alice, &["bob"]).await;
    let mut of_bob = bench.watch(&bob, &["alice"]).await;
    assert_eq!((of_alice.next().await, of_bob.next().await), ("bob=online".into(), "alice=online".into()));
    bench.block("alice", "bob", true).await;
    assert_eq!((of_alice.next().await, of_bob.next().await), ("bob=unknown".into(), "alice=unknown".into()));
    drop(bob);
    assert!(of_alice.is_quiet().await);
    bench.block("alice", "bob", false).await;
    assert_eq!(of_alice.next().await, "bob=online", "within the grace");
}

#[tokio::test(start_paused = true)]
async fn where_it_cannot_be_read_who_sees_whom_nobody_is_seen() {
    let mut bench = Bench::new();
    let (alice, _bob) = (bench.begin("alice"), bench.begin("bob"));
    let mut crew = Talk::new(&[&user("alice"), &user("bob")]);
    let group = crew.group(&user("alice"), &[(fresh_temp_id(), "hi")]);
    crew.apply(&bench.store, group).await;
    let mut of_alice = bench.watch(&alice, &["bob"]).await;
    assert_eq!(of_alice.next().await, "bob=online");
    bench.shaky.damage_list(user("alice"));
    bench.moved(&["alice", "bob"], &["bob"]);
    assert_eq!(of_alice.next().await, "bob=unknown");
}

#[tokio::test(start_paused = true)]
async fn who_is_put_in_a_group_is_not_shown_to_who_put_them_there() {
    let mut bench = Bench::new();
    let sessions = ["mallory", "victim", "carol"].map(|name| bench.begin(name));
    let mut of_mallory = bench.watch(&sessions[0], &["victim"]).await;
    let mut of_carol = bench.watch(&sessions[2], &["victim"]).await;
    of_mallory.next().await;
    of_carol.next().await;
    let (mallory, victim, carol) = (user("mallory"), user("victim"), user("carol"));
    let mut talk = Talk::new(&[&mallory, &carol]);
    let group = talk.group(&mallory, &[(fresh_temp_id(), "hi")]);
    talk.apply(&bench.store, group).await;
    let mut group = talk.group(&mallory, &[(fresh_temp_id(), "")]);
    let (first_seq, messages) = (group.state.head, talk.state.messages);
    change(&mut group.entries[0], |entry| {
        (entry.messages, entry.body) = (messages, EntryBody::Added { users: vec![victim.clone()] });
    });
    let state = Arc::make_mut(&mut group.state);
    state.messages = messages;
    let (role, added_by) = (Role::Member, Some(mallory.clone()));
    state.members.push(Member { user: victim.clone(), role, first_seq, added_by });
    talk.apply(&bench.store, group).await;
    bench.moved(&["mallory", "carol", "victim"], &["victim"]);
    assert_eq!(of_carol.next().await, "victim=online");
    assert!(of_mallory.is_quiet().await);
    assert!(bench.store.accept(&victim, talk.id).await.unwrap());
    bench.moved(&["mallory", "carol", "victim"], &["victim"]);
    assert_eq!(of_mallory.next().await, "victim=online", "they have kept it");
}

#[tokio::test(start_paused = true)]
async fn what_changes_while_a_watch_is_being_read_is_not_missed() {
    let mut bench = Bench::new();
    let (dora, _ed) = (bench.begin("dora"), bench.begin("ed"));
    bench.shaky.slow_reads(SECOND);
    let mut of_dora = {
        let watching = bench.watch(&dora, &["ed"]);
        tokio::pin!(watching);
        // The pair is looked at, and is not there yet.
        assert!(tokio::time::timeout(3 * SECOND / 2, &mut watching).await.is_err());
        bench.shaky.slow_reads(Duration::ZERO);
        pair(&bench, "ed", "dora").await;
        bench.moved(&["ed", "dora"], &["ed", "dora"]);
        watching.await
    };
    let first = of_dora.next().await;
    assert!(first == "ed=online" || of_dora.next().await == "ed=online");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_puts_a_judgement_off() {
    let mut bench = Bench::new();
    let (dora, _ed) = (bench.begin("dora"), bench.begin("ed"));
    let mut of_dora = bench.watch(&dora, &["ed"]).await;
    of_dora.next().await;
    pair(&bench, "ed", "dora").await;
    bench.shaky.fail(Call::People, 3);
    bench.moved(&["ed", "dora"], &["ed"]);
    assert_eq!(of_dora.next().await, "ed=online");
}
