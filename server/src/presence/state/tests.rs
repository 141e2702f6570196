use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const TIMING: Timing = Timing { grace: Duration::from_secs(10), batch: SECOND };

/// A state whose watches are notified under their session's number.
struct Bench {
    state: State<u64>,
    start: Instant,
    /// Who is here, with their sessions: what the roster knows.
    here: HashMap<UserId, HashSet<u64>>,
}

fn bench() -> Bench {
    Bench { state: State::new(TIMING, 1_000), start: Instant::now(), here: HashMap::new() }
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

impl Bench {
    fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    fn begin(&mut self, name: &str, session: u64) {
        let sessions = self.here.entry(user(name)).or_default();
        if sessions.insert(session) && sessions.len() == 1 {
            self.state.came(&user(name));
        }
    }

    fn end(&mut self, name: &str, session: u64, millis: u64) {
        let sessions = self.here.entry(user(name)).or_default();
        if sessions.remove(&session) && sessions.is_empty() {
            self.state.went(&user(name), self.at(millis), millis);
        }
    }

    fn watch(&mut self, session: u64, names: &[&str]) {
        let watched = names.iter().map(|name| self.seen(name, None)).collect();
        self.state.watch(session, &user("me"), watched, session).unwrap();
    }

    fn seen(&self, name: &str, last_seen_ms: Option<u64>) -> Watched {
        let here = self.here.get(&user(name)).is_some_and(|sessions| !sessions.is_empty());
        Watched { user: user(name), visible: true, here, last_seen_ms }
    }

    /// What is told by this time, such as `"7 answer alice=online"`.
    fn told(&mut self, millis: u64) -> Vec<String> {
        self.advance(millis).0
    }

    /// What is told by this time, and who left.
    fn advance(&mut self, millis: u64) -> (Vec<String>, Vec<(UserId, u64)>) {
        let due = self.state.advance(self.at(millis));
        let line = |(session, notice): (u64, Notice)| {
            let (what, users) = match notice {
                Notice::Answer(users) => ("answer", users),
                Notice::Change(users) => ("change", users),
            };
            let users = users.iter().map(|presence| match (presence.state, presence.last_seen_ms) {
                (PresenceState::Online, None) => format!(" {}=online", presence.user),
                (PresenceState::Offline, None) => format!(" {}=offline", presence.user),
                (PresenceState::Offline, Some(time)) => format!(" {}=offline@{time}", presence.user),
                (PresenceState::Unknown, None) => format!(" {}=unknown", presence.user),
                other => panic!("{other:?}"),
            });
            format!("{session} {what}{}", users.collect::<String>())
        };
        (due.notices.into_iter().map(line).collect(), due.left)
    }

    fn due_ms(&self, millis: u64) -> Option<u64> {
        let due = self.state.due(self.at(millis))?;
        Some(due.duration_since(self.start).as_millis() as u64)
    }

    fn is_empty(&self) -> bool {
        self.state.is_empty()
    }
}

#[test]
fn a_watch_is_answered_in_its_order_and_changes_follow() {
    let mut bench = bench();
    bench.begin("bob", 1);
    bench.watch(7, &["carol", "bob"]);
    assert_eq!(bench.due_ms(0), Some(0));
    assert_eq!(bench.told(0), ["7 answer carol=offline bob=online"]);
    assert_eq!(bench.due_ms(0), None);
    bench.begin("carol", 2);
    assert_eq!(bench.told(1), ["7 change carol=online"], "the first change does not wait");
}

#[test]
fn online_is_told_at_once_and_offline_after_the_grace() {
    let mut bench = bench();
    bench.watch(7, &["bob"]);
    assert_eq!(bench.told(0), ["7 answer bob=offline"]);
    bench.begin("bob", 1);
    assert_eq!(bench.told(5), ["7 change bob=online"]);
    bench.end("bob", 1, 2_000);
    assert_eq!(bench.told(2_000), [""; 0]);
    assert_eq!(bench.due_ms(2_000), Some(12_000));
    assert_eq!(bench.advance(11_999), (vec![], vec![]));
    let (told, left) = bench.advance(12_000);
    assert_eq!(told, ["7 change bob=offline@2000"]);
    assert_eq!(left, [(user("bob"), 2_000)], "the time of the end, not of the end of the grace");
}

#[test]
fn a_flap_within_the_grace_is_not_seen() {
    let mut bench = bench();
    bench.begin("bob", 1);
    bench.watch(7, &["bob"]);
    assert_eq!(bench.told(0).len(), 1);
    for flap in 0..5 {
        let millis = 1_000 + flap * 9_000;
        bench.end("bob", 1 + flap, millis);
        assert_eq!(bench.advance(millis + 8_000), (vec![], vec![]));
        bench.begin("bob", 2 + flap);
    }
    assert_eq!(bench.advance(1_000_000), (vec![], vec![]));
}

#[test]
fn a_user_is_online_while_any_session_lasts() {
    let mut bench = bench();
    bench.begin("bob", 1);
    bench.begin("bob", 2);
    bench.end("bob", 1, 0);
    bench.end("bob", 1, 0);
    bench.end("bob", 99, 0);
    assert_eq!(bench.due_ms(0), None, "no grace begins");
    bench.watch(7, &["bob"]);
    assert_eq!(bench.told(100_000), ["7 answer bob=online"]);
}

#[test]
fn changes_are_batched_and_only_what_is_still_a_change_is_told() {
    let mut bench = bench();
    bench.watch(7, &["a", "b", "c"]);
    bench.watch(8, &["c"]);
    assert_eq!(bench.told(0).len(), 2);
    bench.begin("a", 1);
    assert_eq!(bench.told(100), ["7 change a=online"]);
    bench.begin("b", 2);
    bench.begin("c", 3);
    assert_eq!(bench.told(500), [""; 0]);
    assert_eq!(bench.due_ms(500), Some(1_100));
    assert_eq!(bench.told(1_100), ["7 change b=online c=online", "8 change c=online"]);
    // Offline and back between two batches.
    bench.end("b", 2, 1_200);
    bench.end("c", 3, 10_500);
    bench.state.timing.batch = 20 * SECOND;
    assert_eq!(bench.told(11_200), ["7 change b=offline@1200"]);
    assert_eq!(bench.told(20_500), [""; 0], "c is offline, but the batch is not due");
    bench.begin("c", 4);
    assert_eq!(bench.told(31_200), [""; 0], "and nothing is left to tell when it is");
}

#[test]
fn every_watcher_is_told_what_differs_from_what_it_was_told() {
    let mut bench = bench();
    bench.begin("bob", 1);
    bench.watch(7, &["bob"]);
    assert_eq!(bench.told(0), ["7 answer bob=online"]);
    bench.state.timing.batch = 60 * SECOND;
    bench.begin("x", 9);
    bench.watch(6, &["x"]);
    bench.end("x", 9, 0);
    bench.end("bob", 1, 0);
    bench.told(10_000);
    // The batch of bob's leaving went; the next is due a minute later. Back, gone and a new watcher.
    bench.begin("bob", 2);
    bench.watch(8, &["bob"]);
    assert_eq!(bench.told(10_001), ["8 answer bob=online"]);
    bench.end("bob", 2, 10_002);
    assert_eq!(bench.told(20_002), [""; 0]);
    bench.begin("bob", 3);
    bench.watch(9, &["bob"]);
    bench.end("bob", 3, 20_003);
    assert_eq!(bench.told(30_003), ["9 answer bob=online"]);
    // 7 was last told offline, 8 and 9 online: only they need to hear that he is offline.
    assert_eq!(bench.told(70_000), ["8 change bob=offline@20003", "9 change bob=offline@20003"]);
}

#[test]
fn a_new_watch_replaces_the_one_before_and_both_are_answered() {
    let mut bench = bench();
    bench.watch(7, &["a", "b"]);
    bench.watch(7, &["b", "c"]);
    assert_eq!(bench.told(0), ["7 answer a=offline b=offline", "7 answer b=offline c=offline"]);
    for (session, name) in [(1, "a"), (2, "b"), (3, "c")] {
        bench.begin(name, session);
    }
    assert_eq!(bench.told(1), ["7 change b=online c=online"]);
    assert_eq!(bench.state.watched, 2);
    bench.watch(7, &[]);
    assert_eq!(bench.told(1), ["7 answer"], "an empty watch ends watching, and is answered too");
    assert_eq!(bench.state.watched, 0);
}

#[test]
fn the_invisible_read_as_unknown_until_it_is_judged_otherwise() {
    let mut bench = bench();
    bench.begin("bob", 1);
    let hidden = Watched { visible: false, ..bench.seen("bob", Some(5)) };
    bench.state.watch(7, &user("me"), vec![hidden.clone()], 7).unwrap();
    assert_eq!(bench.told(0), ["7 answer bob=unknown"]);
    bench.end("bob", 1, 1);
    assert_eq!(bench.told(20_000), [""; 0]);
    bench.begin("bob", 1);
    bench.state.relations(&user("me"), &|other| *other == user("bob"));
    let judgement = bench.state.take_judgements(bench.at(20_000)).pop().unwrap();
    assert_eq!(
        (judgement.session, &judgement.by, &judgement.users[..]),
        (7, &user("me"), &[user("bob")][..])
    );
    let seen = bench.seen("bob", Some(5));
    bench.state.judged(7, judgement.watch, vec![seen.clone()]);
    assert_eq!(bench.told(20_000), ["7 change bob=online"]);
    bench.state.judged(7, judgement.watch, vec![seen.clone()]);
    assert_eq!(bench.told(22_000), [""; 0], "as it was");
    bench.state.judged(7, judgement.watch, vec![hidden]);
    assert_eq!(bench.told(24_000), ["7 change bob=unknown"]);
    bench.end("bob", 1, 24_000);
    assert_eq!(bench.told(60_000), [""; 0], "he is watched no more");
    // A judgement about a watch that another has replaced says nothing of that one.
    bench.watch(7, &["carol"]);
    bench.state.judged(7, judgement.watch, vec![seen]);
    assert_eq!(bench.told(70_000), ["7 answer carol=offline"]);
    bench.state.unwatch(7);
    bench.told(200_000);
    assert!(bench.is_empty(), "{:?}", bench.state);
}

#[test]
fn judgements_come_at_most_once_in_the_time_of_a_batch_and_only_of_who_is_watched() {
    let mut bench = bench();
    bench.watch(7, &["a", "b"]);
    bench.state.relations(&user("me"), &|other| *other == user("c"));
    bench.state.relations(&user("you"), &|_| true);
    assert_eq!(bench.state.judgements_due(bench.at(0)), None);
    bench.state.relations(&user("me"), &|other| *other == user("b"));
    assert_eq!(bench.state.take_judgements(bench.at(0)).pop().unwrap().users, [user("b")]);
    bench.state.relations(&user("me"), &|_| true);
    assert!(bench.state.take_judgements(bench.at(999)).is_empty());
    assert_eq!(bench.state.judgements_due(bench.at(999)), Some(bench.at(1_000)));
    let judgement = bench.state.take_judgements(bench.at(1_000)).pop().unwrap();
    assert_eq!(judgement.users, [user("a"), user("b")]);
    bench.state.judge_later(judgement.clone());
    assert_eq!(bench.state.take_judgements(bench.at(2_000)), [judgement]);
}

#[test]
fn what_changes_while_a_watch_is_on_its_way_is_judged_once_it_is_there() {
    let mut bench = bench();
    bench.state.coming(7, &user("me"), &[user("a"), user("b")]);
    bench.state.relations(&user("me"), &|other| *other != user("b"));
    bench.watch(7, &["a", "b"]);
    assert_eq!(bench.state.take_judgements(bench.at(0)).pop().unwrap().users, [user("a")]);
    bench.state.coming(7, &user("me"), &[user("c")]);
    bench.state.relations(&user("me"), &|_| true);
    bench.state.not_coming(7);
    assert_eq!(bench.state.take_judgements(bench.at(1_000)).pop().unwrap().users, [user("a"), user("b")]);
    bench.state.unwatch(7);
    assert!(bench.state.judging.is_empty());
}

#[test]
fn the_newer_of_two_last_seen_times_is_told() {
    let mut bench = bench();
    let stored = bench.seen("bob", Some(3));
    bench.state.watch(7, &user("me"), vec![stored.clone()], 7).unwrap();
    assert_eq!(bench.told(0), ["7 answer bob=offline@3"]);
    bench.state.unwatch(7);
    bench.begin("bob", 1);
    bench.end("bob", 1, 500);
    bench.told(10_500);
    // The reader of the store was overtaken by the user's leaving.
    bench.state.watch(7, &user("me"), vec![stored], 7).unwrap();
    assert_eq!(bench.told(10_500), ["7 answer bob=offline@500"]);
}

#[test]
fn watches_are_bounded_and_a_refused_one_changes_nothing() {
    let mut bench = bench();
    bench.state.watches_max = 3;
    bench.watch(7, &["a", "b"]);
    bench.told(0);
    let two = ["c", "d"].map(|name| bench.seen(name, None));
    assert_eq!(bench.state.watch(8, &user("me"), two.to_vec(), 8), Err(Full));
    assert_eq!(bench.told(0), [""; 0]);
    assert_eq!(bench.state.users.len(), 2);
    bench.watch(7, &["a", "b", "c"]);
    let four = ["c", "d", "e", "f"].map(|name| bench.seen(name, None));
    assert_eq!(bench.state.watch(7, &user("me"), four.to_vec(), 7), Err(Full));
    bench.begin("a", 1);
    assert_eq!(bench.told(0), ["7 answer a=offline b=offline c=offline", "7 change a=online"]);
}

#[test]
fn everybody_who_is_named_counts_once_as_watched() {
    let mut bench = bench();
    bench.state.watches_max = 52;
    let mut named: Vec<Watched> =
        (0..50).map(|number| Watched { visible: false, ..bench.seen(&number.to_string(), None) }).collect();
    named.extend(["a", "b", "a", "b"].map(|name| bench.seen(name, None)));
    assert_eq!(bench.state.watch(7, &user("me"), named, 7), Ok(()));
    assert_eq!(bench.state.watched, 52);
}

#[test]
fn who_is_here_and_watched_by_nobody_takes_no_memory() {
    let mut bench = bench();
    bench.begin("bob", 1);
    assert!(bench.is_empty());
    bench.end("bob", 1, 0);
    bench.begin("bob", 2);
    assert!(bench.is_empty());
}

#[test]
fn who_came_and_went_before_anybody_looked_was_online() {
    let mut bench = bench();
    bench.watch(7, &["bob"]);
    assert_eq!(bench.told(0), ["7 answer bob=offline"]);
    bench.state.went(&user("bob"), bench.at(100), 100);
    assert_eq!(bench.told(200), ["7 change bob=online"]);
    assert_eq!(bench.told(10_100), ["7 change bob=offline@100"]);
}

#[test]
fn what_is_over_is_forgotten() {
    let mut bench = bench();
    bench.begin("bob", 1);
    bench.watch(1, &["bob", "carol"]);
    bench.watch(1, &["carol", "carol"]);
    bench.begin("carol", 2);
    bench.state.unwatch(1);
    bench.state.unwatch(1);
    assert_eq!(bench.told(0), [""; 0], "who left is owed no answer");
    bench.end("bob", 1, 0);
    bench.end("carol", 2, 5_000);
    assert_eq!(bench.advance(15_000).1.len(), 2);
    assert!(!bench.is_empty());
    assert_eq!(bench.due_ms(15_000), Some(75_000));
    bench.told(75_000);
    assert!(bench.is_empty(), "{:?}", bench.state);
}

#[test]
fn when_the_node_stops_everybody_here_leaves() {
    let mut bench = bench();
    bench.begin("a", 1);
    bench.begin("b", 2);
    bench.begin("c", 3);
    bench.end("b", 2, 50);
    bench.end("c", 3, 60);
    bench.told(10_060);
    bench.begin("b", 4);
    bench.end("b", 4, 10_100);
    bench.watch(7, &["d"]);
    let mut left = bench.state.leave_all(vec![user("a")], 11_000);
    left.sort();
    assert_eq!(left, [(user("a"), 11_000), (user("b"), 10_100)]);
    assert!(bench.is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Begin(u8, u64),
    End(u8, u64),
    Watch(u64, Vec<u8>),
    Unwatch(u64),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let (name, session) = (0u8..4, 0u64..6);
    prop_oneof![
        (name.clone(), session.clone()).prop_map(|(name, session)| Step::Begin(name, session)),
        (name.clone(), session.clone()).prop_map(|(name, session)| Step::End(name, session)),
        (session.clone(), prop::collection::vec(name, 0..5)).prop_map(|(to, names)| Step::Watch(to, names)),
        session.prop_map(Step::Unwatch),
        (0u64..15_000).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whatever happens: once all is quiet, each watcher believes what is true, was never told the
    /// same twice, and nothing is kept that is not needed.
    #[test]
    fn in_the_end_every_watcher_knows_the_truth(steps in prop::collection::vec(step(), 1..120)) {
        let mut bench = bench();
        let mut now = 0;
        let mut sessions: HashMap<u8, HashSet<u64>> = HashMap::new();
        let mut watches: HashMap<u64, Vec<u8>> = HashMap::new();
        let mut beliefs: HashMap<(u64, String), bool> = HashMap::new();
        for step in steps.into_iter().chain([Step::Wait(20_000), Step::Wait(20_000)]) {
            match step {
                Step::Begin(name, session) => {
                    sessions.entry(name).or_default().insert(session);
                    bench.begin(&name.to_string(), session);
                }
                Step::End(name, session) => {
                    sessions.entry(name).or_default().remove(&session);
                    bench.end(&name.to_string(), session, now);
                }
                Step::Watch(session, names) => {
                    let texts: Vec<String> = names.iter().map(u8::to_string).collect();
                    bench.watch(session, &texts.iter().map(String::as_str).collect::<Vec<_>>());
                    beliefs.retain(|(watcher, _), _| *watcher != session);
                    watches.insert(session, names);
                }
                Step::Unwatch(session) => {
                    bench.state.unwatch(session);
                    beliefs.retain(|(watcher, _), _| *watcher != session);
                    watches.remove(&session);
                }
                Step::Wait(millis) => now += millis,
            }
            for line in bench.told(now) {
                let mut words = line.split(' ');
                let session: u64 = words.next().unwrap().parse().unwrap();
                let answer = words.next() == Some("answer");
                for word in words {
                    let (name, state) = word.split_once('=').unwrap();
                    let before = beliefs.insert((session, name.to_owned()), state == "online");
                    prop_assert!(answer || before == Some(state != "online"), "{line} after {before:?}");
                }
            }
        }
        for (session, names) in &watches {
            for name in names {
                let online = sessions.get(name).is_some_and(|sessions| !sessions.is_empty());
                prop_assert_eq!(beliefs.get(&(*session, name.to_string())), Some(&online));
            }
        }
        for (session, _) in watches {
            bench.state.unwatch(session);
        }
        for (name, open) in sessions {
            for session in open {
                bench.end(&name.to_string(), session, now);
            }
        }
        bench.told(now + 10_000);
        bench.told(now + 100_000);
        prop_assert!(bench.is_empty(), "{:?}", bench.state);
    }
}
