//! Settling as tables: what the store answered, and what must come next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tern_protocol::{EntryBody, EntryId};

use super::super::answer::Refusal;
use super::super::ask::{Ask, Change};
use super::super::plan::{Snapshot, Verdict};
use super::super::settle::{GivenUp, Input, Next, Settling, World};
use super::super::state::Facts;
use super::{GROUP, ask, say, temp, user, users};
use crate::store::{AppendGroup, Appended, Barred, Conversation, Lost, Marker, Member, StoreError};

const SETTLE: Duration = Duration::from_secs(8);

/// A group of alice, who owns it, and others.
fn group(head: u64, others: &[&str]) -> Arc<Conversation> {
    let member = |(index, user)| Member {
        user,
        role: if index == 0 { tern_protocol::Role::Owner } else { tern_protocol::Role::Member },
        first_seq: 1,
        added_by: None,
    };
    let names: Vec<&str> = std::iter::once("alice").chain(others.iter().copied()).collect();
    Arc::new(Conversation {
        kind: tern_protocol::ConversationKind::Group,
        name: Some("crew".into()),
        head,
        messages: 0,
        last_time_ms: 1,
        members: users(&names).into_iter().enumerate().map(member).collect(),
        blocked_by: Vec::new(),
    })
}

/// A settling under test, with its clock.
struct Run {
    settling: Settling,
    began: Instant,
    now: Instant,
    jitter: f64,
    next_id: u8,
}

impl Run {
    fn new(asks: Vec<Ask>, known: Option<Arc<Conversation>>) -> Self {
        let began = Instant::now();
        let known = known.map(|state| Some(Snapshot::new(state)));
        let settling = Settling::new(asks, Facts::default(), known, began + SETTLE);
        Self { settling, began, now: began, jitter: 0.5, next_id: 0 }
    }

    fn step(&mut self, input: Input) -> Next {
        let next_id = &mut self.next_id;
        let mut fresh_id = || {
            *next_id += 1;
            EntryId::from_bytes([*next_id; 16])
        };
        let mut world = World { now: self.now, unix_ms: 1_000, jitter: self.jitter, fresh_id: &mut fresh_id };
        self.settling.step(input, &mut world)
    }

    fn state(&mut self, state: Arc<Conversation>) -> Next {
        self.step(Input::State(Ok(Some(state))))
    }

    fn appended(&mut self, answer: Appended) -> Next {
        self.step(Input::Appended(Ok(answer)))
    }

    /// Nothing has a marker.
    fn no_markers(&mut self, next: Next) -> Next {
        let Next::LookUp(keys) = next else { panic!("{next:?}") };
        self.step(Input::Markers(Ok(keys.into_iter().map(|key| (key, None)).collect())))
    }

    /// An append that got no answer, up to its second try.
    fn unanswered(&mut self) -> Arc<AppendGroup> {
        let Next::Append(first) = self.step(Input::Begin) else { panic!("no append") };
        let Next::Pause(_) = self.appended(Appended::Unknown) else { panic!("no pause") };
        let Next::Append(again) = self.step(Input::PauseOver) else { panic!("no second try") };
        assert!(Arc::ptr_eq(&first, &again), "the same again, as it is");
        again
    }

    fn verdicts(self) -> Vec<Verdict> {
        self.settling.into_settled().plan.verdicts
    }
}

fn own(group: &AppendGroup) -> Vec<(usize, Marker)> {
    let marked = group.entries.iter().enumerate().filter(|(_, new)| new.entry.temp_id.is_some());
    marked.map(|(index, new)| (index, Marker { seq: new.entry.seq, digest: new.digest })).collect()
}

#[test]
fn what_is_known_is_enough_for_an_append_and_the_store_decides() {
    let mut run = Run::new(vec![say("alice", 1, "hi")], Some(group(5, &[])));
    let Next::Append(appended) = run.step(Input::Begin) else { panic!("nothing is to be read") };
    assert_eq!((appended.conversation, appended.expected_head), (GROUP, 5));
    assert_eq!(run.appended(Appended::Applied), Next::Done);
    assert_eq!(run.verdicts(), [Verdict::Append(0)]);
}

#[test]
fn a_final_refusal_counts_only_on_a_state_read_after_it_was_asked_for() {
    // bob was added by another owner since: the state that is known says that he is nobody here.
    let mut run = Run::new(vec![say("bob", 1, "me too")], Some(group(5, &[])));
    let next = run.step(Input::Begin);
    assert_eq!(run.no_markers(next), Next::ReadState);
    let Next::Append(appended) = run.state(group(6, &["bob"])) else { panic!("he is a member") };
    assert_eq!(appended.expected_head, 6);
    // Still nobody when it is read: then it is final, but his marker is looked for after that.
    let mut run = Run::new(vec![say("bob", 1, "me too")], Some(group(5, &[])));
    let next = run.step(Input::Begin);
    assert_eq!(run.no_markers(next), Next::ReadState);
    let next = run.state(group(6, &[]));
    assert_eq!(next, Next::LookUp(vec![(user("bob"), temp(1))]), "it may have been committed meanwhile");
    assert_eq!(run.no_markers(next), Next::Done);
    assert_eq!(run.verdicts(), [Verdict::Refuse(Refusal::NotFound)]);
}

#[test]
fn a_temporary_refusal_needs_no_state_of_now() {
    let follower = Ask { after: Some(temp(1)), ..say("alice", 2, "second") };
    let mut run = Run::new(vec![follower], Some(group(5, &[])));
    let next = run.step(Input::Begin);
    let next = run.no_markers(next);
    assert_eq!(run.no_markers(next), Next::Done);
    assert_eq!(run.verdicts(), [Verdict::Refuse(Refusal::OutOfOrder)]);
}

#[test]
fn an_own_append_that_applied_without_an_answer_keeps_its_plan() {
    let remove = ask("alice", 1, Change::Remove { users: users(&["bob"]) });
    let mut run = Run::new(vec![remove, ask("alice", 2, Change::Leave)], Some(group(5, &["bob", "carol"])));
    let appended = run.unanswered();
    assert_eq!(appended.entries.len(), 3, "a promotion comes along, without a marker");
    assert_eq!(run.appended(Appended::Duplicates(own(&appended))), Next::ReadEntry(6));
    assert_eq!(run.step(Input::Entry(Ok(Some(appended.entries[0].entry.id)))), Next::Done);
    let settled = run.settling.into_settled();
    assert_eq!(settled.plan.verdicts, [Verdict::Append(0), Verdict::Append(1)]);
    assert!(settled.plan.recipients[0].users.contains(&user("bob")), "he hears that he is gone");
}

#[test]
fn duplicates_of_others_are_read_and_decided_again() {
    let asks = || vec![say("alice", 1, "one"), say("alice", 2, "two")];
    type Change = fn(&mut Vec<(usize, Marker)>);
    let foreign: [(&str, Change); 4] = [
        ("only some of them", |found| found.truncate(1)),
        ("elsewhere", |found| found[0].1.seq += 1),
        ("another content", |found| found[0].1.digest = [9; 16]),
        ("none", Vec::clear),
    ];
    for (what, change) in foreign {
        let mut run = Run::new(asks(), Some(group(5, &[])));
        let mut found = own(&run.unanswered());
        change(&mut found);
        assert_eq!(run.appended(Appended::Duplicates(found)), Next::ReadState, "{what}");
    }
    // All of it as ours, but it was answered: another owner has committed the same in the same places.
    let mut run = Run::new(asks(), Some(group(5, &[])));
    let Next::Append(appended) = run.step(Input::Begin) else { panic!("no append") };
    assert_eq!(run.appended(Appended::Duplicates(own(&appended))), Next::ReadState);
    assert_eq!(run.state(group(7, &[])), Next::Done);
    assert!(matches!(run.verdicts()[..], [Verdict::Duplicate(_), Verdict::Duplicate(_)]));
}

#[test]
fn the_same_changes_in_the_same_places_by_another_owner_are_not_ours() {
    let mut run = Run::new(vec![say("alice", 1, "one")], Some(group(5, &[])));
    let appended = run.unanswered();
    assert_eq!(run.appended(Appended::Duplicates(own(&appended))), Next::ReadEntry(6));
    let of_another = EntryId::from_bytes([99; 16]);
    assert_eq!(run.step(Input::Entry(Ok(Some(of_another)))), Next::ReadState);
    assert_eq!(run.state(group(6, &[])), Next::Done);
    assert_eq!(run.verdicts(), [Verdict::Duplicate(own(&appended)[0].1)], "with the id that stands");
}

#[test]
fn a_retry_is_not_told_again_by_a_state_that_is_older_than_its_entry() {
    // Another owner has added eve, removed bob and taken eve's message since.
    let mut run = Run::new(vec![say("eve", 1, "not for bob")], Some(group(5, &["bob"])));
    let next = run.step(Input::Begin);
    assert_eq!(next, Next::LookUp(vec![(user("eve"), temp(1))]));
    let marker = Marker { seq: 8, digest: say("eve", 1, "not for bob").change.digest() };
    let found = vec![((user("eve"), temp(1)), Some(marker))];
    assert_eq!(run.step(Input::Markers(Ok(found))), Next::ReadState);
    assert_eq!(run.state(group(8, &["eve"])), Next::Done);
    let settled = run.settling.into_settled();
    assert_eq!(settled.plan.verdicts, [Verdict::Duplicate(marker)]);
    assert_eq!(settled.plan.after.unwrap().members[..], users(&["alice", "eve"]));
}

#[test]
fn a_head_that_moved_is_read_at_once_then_ever_later_and_not_for_ever() {
    let mut run = Run::new(vec![say("alice", 1, "one")], Some(group(5, &[])));
    let Next::Append(_) = run.step(Input::Begin) else { panic!("no append") };
    assert_eq!(run.appended(Appended::Conflict { head: 6 }), Next::ReadState, "what was known was old");
    let mut pauses = Vec::new();
    for head in 6.. {
        let Next::Append(appended) = run.state(group(head, &[])) else { panic!("no append at {head}") };
        assert_eq!(appended.entries[0].entry.body, EntryBody::text("one"), "the text is not lost on the way");
        // Every other pause at the other end of its range.
        run.jitter = if head % 2 == 0 { 0.0 } else { 0.999 };
        match run.appended(Appended::Conflict { head: head + 1 }) {
            Next::Pause(pause) => pauses.push(pause),
            Next::GiveUp(why) => {
                assert_eq!(why, GivenUp::Contended);
                break;
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(run.step(Input::PauseOver), Next::ReadState);
    }
    let ms: Vec<u128> = pauses.iter().map(Duration::as_millis).collect();
    assert_eq!(ms[..8], [5, 29, 20, 119, 80, 479, 160, 479], "doubling from 5 ms, half to one and a half");
    assert!(ms.len() < 40, "{} pauses", ms.len());
}

#[test]
fn no_attempt_is_begun_after_the_deadline() {
    let timed_out = Next::GiveUp(GivenUp::TimedOut);
    let late = |run: &mut Run| run.now = run.began + SETTLE;
    let mut run = Run::new(vec![say("alice", 1, "x")], None);
    late(&mut run);
    assert_eq!(run.step(Input::Begin), timed_out, "no read");
    let mut run = Run::new(vec![say("alice", 1, "x")], Some(group(5, &[])));
    late(&mut run);
    assert_eq!(run.step(Input::Begin), timed_out, "no append");
    let mut run = Run::new(vec![say("alice", 1, "x")], Some(group(5, &[])));
    let Next::Append(_) = run.step(Input::Begin) else { panic!("no append") };
    let Next::Pause(pause) = run.appended(Appended::Unknown) else { panic!("no pause") };
    late(&mut run);
    assert_eq!(run.step(Input::PauseOver), timed_out, "no second append");
    // A pause that would end too late is not even begun.
    let mut run = Run::new(vec![say("alice", 1, "x")], Some(group(5, &[])));
    let Next::Append(_) = run.step(Input::Begin) else { panic!("no append") };
    run.now = run.began + SETTLE - pause;
    assert_eq!(run.appended(Appended::Unknown), timed_out, "no pause");
}

#[test]
fn what_the_store_bars_is_refused_and_the_rest_goes_on() {
    let add = ask("alice", 2, Change::Add { users: users(&["eve"]) });
    let asks = vec![say("bob", 1, "late"), add, say("alice", 3, "on")];
    let mut run = Run::new(asks, Some(group(5, &["bob"])));
    let Next::Append(_) = run.step(Input::Begin) else { panic!("no append") };
    let next = run.appended(Appended::Barred(vec![(0, Barred::Sender(Lost::Erased)), (1, Barred::Joining)]));
    let next = run.no_markers(next);
    assert_eq!(next, Next::ReadState, "one of them is final");
    let next = run.state(group(5, &["bob"]));
    let Next::Append(appended) = run.no_markers(next) else { panic!("no append") };
    assert_eq!(appended.entries.len(), 1);
    assert_eq!(run.appended(Appended::Applied), Next::Done);
    let verdicts = run.verdicts();
    assert_eq!(verdicts[0], Verdict::Refuse(Refusal::Erased));
    assert!(
        matches!(&verdicts[1], Verdict::Refuse(refusal) if refusal.code().temporary()),
        "once they are erased it may be asked for again: {:?}",
        verdicts[1]
    );
    assert_eq!(verdicts[2], Verdict::Append(0));
}

#[test]
fn an_append_that_failed_is_tried_again_unless_that_cannot_help() {
    let down = || StoreError::Unavailable("down".into());
    for (error, again) in
        [(down(), true), (StoreError::Corrupt("x".into()), false), (StoreError::Malformed("x"), false)]
    {
        let mut run = Run::new(vec![say("alice", 1, "x")], Some(group(5, &[])));
        let Next::Append(_) = run.step(Input::Begin) else { panic!("no append") };
        let next = run.step(Input::Appended(Err(error)));
        assert_eq!(matches!(next, Next::Pause(_)), again, "{next:?}");
        assert_eq!(matches!(next, Next::GiveUp(_)), !again, "{next:?}");
    }
    // Nothing is known without a read: whoever asked asks again.
    for input in [Input::State(Err(down())), Input::Markers(Err(down())), Input::Entry(Err(down()))] {
        let mut run = Run::new(vec![say("alice", 1, "x")], None);
        assert_eq!(run.step(Input::Begin), Next::ReadState);
        assert!(matches!(run.step(input), Next::GiveUp(GivenUp::Store(_))));
    }
}
