//! The oracle holds for a faultless run and goes red on each planted fault.

use tern_protocol::{Entry, EntryBody, EntryId};

use super::*;
use crate::irc::parse;
use crate::plan::plan;

/// A faultless run: what was planned, acked and received by everybody.
struct Run {
    plan: Plan,
    acks: Vec<Option<Acked>>,
    received: Vec<Received>,
}

/// Ann and Bob take turns, Ann says "again" twice, Cid says one thing. The log interleaves them
/// differently from the file, which is allowed.
fn run() -> Run {
    let file = "[00:00] <ann> one\n[00:00] <bob> two\n[00:01] <ann> again\n[00:01] <ann> again\n\
                [00:02] <bob> three\n[00:03] <cid> four\n";
    let plan = plan(parse(file.as_bytes()), 100);
    let order = [1, 0, 4, 2, 3, 5];
    let mut acks = vec![None; plan.messages.len()];
    let mut entries =
        vec![entry(1, "ann", EntryBody::Created { name: "g".into(), members: plan.members.clone() })];
    for (place, index) in order.into_iter().enumerate() {
        let message = &plan.messages[index];
        let body = EntryBody::text(message.text.clone());
        let entry = entry(place as u64 + 2, plan.members[message.author].as_str(), body);
        acks[index] = Some(Acked { seq: entry.seq, id: entry.id });
        entries.push(entry);
    }
    let received = plan
        .members
        .iter()
        .map(|member| Received { member: member.clone(), entries: entries.clone() })
        .collect();
    Run { plan, acks, received }
}

fn entry(seq: u64, sender: &str, body: EntryBody) -> Entry {
    Entry {
        seq,
        id: EntryId::from_bytes((u128::from(seq)).to_be_bytes()),
        time_ms: 1_000 + seq,
        sender: UserId::new(sender).unwrap(),
        sender_name: None,
        temp_id: None,
        messages: seq,
        body,
    }
}

impl Run {
    /// Names of the checks that fail.
    fn red(&self) -> Vec<&'static str> {
        let checks = check(&self.plan, &self.acks, &self.received);
        checks.into_iter().filter(|check| !check.held()).map(|check| check.name).collect()
    }

    fn everywhere(&mut self, change: impl Fn(&mut Vec<Entry>)) {
        self.received.iter_mut().for_each(|log| change(&mut log.entries));
    }
}

const DENSE: &str = "every member received every seq once and in order";
const SAME: &str = "every member received the same log";
const ORDER: &str = "each author's messages are in the order of the file";
const MULTISET: &str = "what was received is what was sent, as often";
const ACKED: &str = "every message was acked with its seq and id";

fn set_text(entry: &mut Entry, new: &str) {
    entry.body = EntryBody::text(new);
}

#[test]
fn a_faultless_run_holds_whatever_the_order_between_authors() {
    let run = run();
    assert_eq!(run.red(), Vec::<&str>::new());
    assert!(check_history(&run.received[2], &run.received[0]).held());
}

#[test]
fn a_temp_id_that_only_the_sender_sees_is_no_difference() {
    let mut run = run();
    run.received[1].entries[1].temp_id = Some(tern_protocol::TempId::from_bytes([1; 16]));
    assert_eq!(run.red(), Vec::<&str>::new());
}

#[test]
fn a_message_lost_for_one_member_is_found() {
    let mut run = run();
    run.received[1].entries.remove(3);
    assert_eq!(run.red(), [DENSE]);
}

#[test]
fn the_last_message_lost_for_one_member_is_found() {
    let mut run = run();
    run.received[2].entries.pop();
    assert_eq!(run.red(), [DENSE]);
}

#[test]
fn a_message_lost_for_everybody_without_a_hole_is_found() {
    let mut run = run();
    run.everywhere(|entries| {
        entries.remove(6);
    });
    assert_eq!(run.red(), [DENSE, MULTISET, ACKED]);
}

#[test]
fn a_message_delivered_twice_is_found() {
    let mut run = run();
    let again = run.received[0].entries[2].clone();
    run.received[0].entries.insert(3, again);
    assert!(run.red().contains(&DENSE));
}

#[test]
fn a_message_committed_twice_is_found() {
    let mut run = run();
    run.everywhere(|entries| {
        let mut again = entries[1].clone();
        again.seq = 8;
        entries.push(again);
    });
    assert_eq!(run.red(), [DENSE, MULTISET]);
}

#[test]
fn two_entries_swapped_for_one_member_are_found() {
    let mut run = run();
    run.received[1].entries.swap(2, 3);
    assert_eq!(run.red(), [DENSE]);
}

#[test]
fn members_that_see_two_messages_in_different_places_are_found() {
    let mut run = run();
    let (a, b) = (run.received[1].entries[2].body.clone(), run.received[1].entries[3].body.clone());
    run.received[1].entries[2].body = b;
    run.received[1].entries[3].body = a;
    assert_eq!(run.red(), [SAME]);
}

#[test]
fn an_author_whose_messages_changed_places_for_everybody_is_found() {
    let mut run = run();
    run.everywhere(|entries| {
        // Bob's "two" and "three".
        set_text(&mut entries[1], "three");
        set_text(&mut entries[3], "two");
    });
    assert_eq!(run.red(), [ORDER, ACKED]);
}

#[test]
fn a_text_altered_for_one_member_is_found() {
    let mut run = run();
    set_text(&mut run.received[2].entries[4], "again ");
    assert_eq!(run.red(), [SAME]);
}

#[test]
fn a_text_altered_for_everybody_is_found() {
    let mut run = run();
    run.everywhere(|entries| set_text(&mut entries[6], "for"));
    assert_eq!(run.red(), [ORDER, MULTISET, ACKED]);
}

#[test]
fn a_message_under_another_author_is_found() {
    let mut run = run();
    run.everywhere(|entries| entries[6].sender = UserId::new("ann").unwrap());
    assert_eq!(run.red(), [MULTISET, ACKED]);
}

#[test]
fn an_entry_that_nobody_asked_for_is_found() {
    let mut run = run();
    run.everywhere(|entries| {
        let user = UserId::new("cid").unwrap();
        entries.push(entry(8, "cid", EntryBody::Left { user }));
    });
    assert_eq!(run.red(), [DENSE, MULTISET]);
}

#[test]
fn a_missing_ack_and_an_ack_for_another_place_are_found() {
    let mut run = run();
    run.acks[3] = None;
    assert_eq!(run.red(), [ACKED]);
    run.acks[3] = run.acks[2];
    // Both are "again" of ann at one seq: the id fits, so only two acks for one entry tell.
    assert_eq!(run.red(), [ACKED]);
}

#[test]
fn a_member_that_received_nothing_is_found() {
    let mut run = run();
    run.received[0].entries.clear();
    assert!(run.red().contains(&DENSE));
    assert!(run.red().contains(&MULTISET));
}

#[test]
fn a_history_with_a_hole_a_change_or_too_little_is_found() {
    let run = run();
    let live = &run.received[0];
    let broken = |change: fn(&mut Vec<Entry>)| {
        let mut history = live.clone();
        change(&mut history.entries);
        !check_history(&history, live).held()
    };
    assert!(broken(|entries| {
        entries.remove(2);
    }));
    assert!(broken(|entries| {
        entries.pop();
    }));
    assert!(broken(|entries| set_text(&mut entries[3], "x")));
    assert!(broken(Vec::clear));
}

#[test]
fn a_resume_is_whole_or_one_gap_and_the_newest() {
    let run = run();
    let live = &run.received[0];
    let resumed = |gaps: &[(u64, u64)], from: usize| Resumed {
        gaps: gaps.to_vec(),
        entries: live.entries[from..].to_vec(),
    };
    assert!(check_resume(&resumed(&[], 0), live).held());
    assert!(check_resume(&resumed(&[(1, 4)], 4), live).held());
    for (gaps, from) in [(&[][..], 1), (&[(1, 4)], 5), (&[(1, 4)], 3), (&[(2, 4)], 4), (&[(1, 2), (3, 4)], 4)]
    {
        assert!(!check_resume(&resumed(gaps, from), live).held(), "{gaps:?} and the rest from {from}");
    }
    let mut altered = resumed(&[(1, 4)], 4);
    set_text(&mut altered.entries[0], "x");
    assert!(!check_resume(&altered, live).held());
    let mut short = resumed(&[(1, 4)], 4);
    short.entries.pop();
    assert!(!check_resume(&short, live).held());
}

#[test]
fn many_faults_are_told_as_a_few_and_a_number() {
    let faults = (0..25).map(|seq| Fault::Foreign { seq }).collect();
    let check = Check::new("x", faults);
    assert_eq!(check.faults.len(), FAULTS_SHOWN_MAX + 1);
    assert_eq!(check.faults.last(), Some(&Fault::More { count: 15 }));
}
